"""Which prompt of the registry a call was made with: messages carry a stamp, texts are known by identity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ._records import Kind, Link

LINK_ATTRIBUTE = "_pltrack_link"
_MOST = 1_000
# By identity, and kept alive: two prompts, or a person, may well come to the same words.
_rendered: OrderedDict[int, tuple[str, Link]] = OrderedDict()


def own_text(words: str) -> str:
    """Return the words as an object of their own: a template that is one variable renders to that variable."""
    return (words + " ")[:-1]


def remember_rendered(words: str, link: Link) -> None:
    """Remember a text that a registry prompt made: completion models get it as a plain string."""
    if len(words) > 1:  # shorter ones are the interpreter's, shared by all
        _rendered[id(words)] = (words, link)
        while len(_rendered) > _MOST:
            _rendered.popitem(last=False)


def link_of(given: Sequence[Any], kind: Kind) -> Link | None:
    """Return the link of what a model was given, None where no prompt of the registry made any of it."""
    if kind == "llm":
        return _link_of_text(given[0]) if given else None
    # The last one: what went before may be an earlier turn, made by the same prompt with other variables.
    for message in reversed(given):
        own = getattr(message, "__dict__", {})
        link = own.get(LINK_ATTRIBUTE) or (_rendered and _link_of_text(own.get("content")))
        if isinstance(link, Link):
            return link
    return None


def _link_of_text(words: Any) -> Link | None:
    known = _rendered.get(id(words))
    return None if known is None else known[1]
