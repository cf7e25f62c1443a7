"""The commands that say something about a request: kept in the journal, delivered now where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from . import _place
from ._options import Wanted
from ._screen import complain

if TYPE_CHECKING:
    from .._request import Request

_TIMEOUT = 5.0


def score(
    wanted: Wanted,
    value: Annotated[int, typer.Argument(metavar="VALUE", help="A whole number from 0 to 100.")],
    name: Annotated[str | None, typer.Option("--name", help="What is scored, such as 'tone'.")] = None,
) -> None:
    """Score a request.

    Delivered now where that is possible, and later where it is not. Exit code 1 when there is no such request or
    PromptLayer refuses the score.

    Example: pltrack score last 90 --name tone
    """
    _say(wanted, "score", lambda request: request.score(value, name=name))


def metadata(
    wanted: Wanted,
    pairs: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="What to add; a known key is replaced.")],
) -> None:
    """Add metadata to a request.

    Delivered as a score is, with the same exit codes.

    Example: pltrack metadata last plan=pro outcome=bought
    """
    given: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"expected KEY=VALUE, got {pair!r}")
        given[key] = value
    _say(wanted, "metadata", lambda request: request.metadata(given))


def link(
    wanted: Wanted,
    prompt: Annotated[str, typer.Argument(metavar="NAME", help="A prompt of the registry.")],
    version: Annotated[int | None, typer.Option("--version", min=1, help="Which version of it.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Or the version that a release label points at.")] = None,
) -> None:
    """Link a request to a version of a prompt.

    Delivered as a score is, with the same exit codes.

    Example: pltrack link last checkout-answer --version 3
    """
    _say(wanted, "prompt", lambda request: request.link_prompt(prompt, version=version, label=label))


def _say(wanted: str, kind: str, verb: Callable[[Request], int]) -> None:
    from .. import _entries, _runtime
    from .._request import NO_REQUEST, request

    _place.check_settings()
    try:
        verb(NO_REQUEST)  # what cannot be said is refused before anything is looked for
    except (TypeError, ValueError) as error:
        complain(error)
        raise typer.Exit(2) from None
    entry = _place.found(wanted)
    if entry is None and not _entries.is_whole_id(wanted):
        complain(f"there is no request {wanted} in {_place.name()}")
        raise typer.Exit(1)
    target = wanted if entry is None else entry.id
    if verb(request(target)) == 0:
        complain("pltrack is disabled; see PLTRACK_DISABLED and PLTRACK_ENABLED")
        raise typer.Exit(1)
    _runtime.flush(_TIMEOUT)
    _tell(kind, target)


def _tell(kind: str, target: str) -> None:
    """Say what became of it, as the journal knows it now."""
    from .. import _runtime
    from .._journal.browsing import Browser

    note = Browser(_runtime.get().lane.store()).last_note(kind, target) or {"state": "pending"}
    if note["state"] == "failed":
        complain(f"the {'link' if kind == 'prompt' else kind} was refused: {note['reason']}")
        raise typer.Exit(1)
    said = {"delivered": "Delivered.", "forwarded": "Handed over to the hub, to be delivered from there."}
    print(said.get(note["state"], "Kept in the journal, to be delivered later."))
