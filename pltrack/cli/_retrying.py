"""`pltrack retry`: what was refused waits to be delivered again."""

from __future__ import annotations

from collections.abc import Sequence

from .. import _entries
from . import _place
from ._screen import complain


def run(wanted: Sequence[str], reason: str) -> int:
    """Let it wait again; return the exit code: 1 when nothing was found."""
    from .._journal.retrying import Retried, retry

    journal, hub = _place.journal(), _place.hub()
    done = Retried()
    for about in wanted or (None,):
        found = [retry(store, _whole(about), reason) for store in (hub, journal) if store is not None]
        # What the hub has refused is refused in the journal, too: handed over again, it is there once.
        done += max(found, default=Retried())
        if about is not None and not any(map(any, found)):
            complain(f"nothing about {about} was refused")
    if done.gone:
        complain(f"{done.gone} request(s) cannot be sent again: their content is not in the journal any more")
    if not done.requests and not done.notes:
        complain(f"nothing of that was refused in {_place.name()}")
        return 1
    print(
        f"{done.requests} request(s) and {done.notes} note(s) wait to be delivered again, by running programs or "
        "`pltrack sync`."
    )
    return 0


def _whole(about: str | None) -> str | None:
    """Return the whole id where only its end was given."""
    if about is None or _entries.is_whole_id(about):
        return about
    entry = _place.found(about)
    return about if entry is None else entry.id
