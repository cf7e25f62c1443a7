"""Prompts that link themselves to the requests they produce."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ._records import Kind, Link

LINK_ATTRIBUTE = "_pltrack_link"
_RENDERED_MOST = 1_000
_rendered: OrderedDict[str, Link] = OrderedDict()  # texts that registry prompts have lately rendered


def remember_rendered(text: str, link: Link) -> None:
    """Remember a text that a registry prompt made: completion models get it as a plain string."""
    _rendered[text] = link
    _rendered.move_to_end(text)
    if len(_rendered) > _RENDERED_MOST:
        _rendered.popitem(last=False)


def link_of(given: Sequence[Any], kind: Kind) -> Link | None:
    """Return the link that a model's input carries; for the app's thread."""
    if kind == "llm":
        return _rendered.get(given[0]) if given and _rendered else None
    # The last one: what went before may be an earlier turn, made by the same prompt with other variables.
    for message in reversed(given):
        if LINK_ATTRIBUTE in getattr(message, "__dict__", ()) and isinstance(message.__dict__[LINK_ATTRIBUTE], Link):
            link: Link = message.__dict__[LINK_ATTRIBUTE]
            return link
    if _rendered and len(given) == 1 and isinstance(text := getattr(given[0], "content", None), str):
        return _rendered.get(text)
    return None
