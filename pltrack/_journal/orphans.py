"""Notes about requests that this journal does not know: another machine's, perhaps, so PromptLayer is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, select, update

from . import statements as sql
from .schema import notes, requests
from .store import Store

_FIRST_WAIT = 30.0  # seconds, and longer each time: some twenty searches until a note is given up

_due = (
    notes.c.state == sql.WAITING,
    notes.c.destination.in_(bindparam("destinations", expanding=True)),
    notes.c.due_at <= sql.NOW - bindparam("patience"),
    ~select(requests.c.seq).where(requests.c.id == notes.c.request_id).exists(),
)
_ANY_DUE = select(select(notes.c.seq).where(*_due).exists())
_IDS_DUE = select(notes.c.request_id).where(*_due).order_by(notes.c.due_at).limit(bindparam("most"))
_LOOKED = (
    update(notes)
    .where(notes.c.state == sql.WAITING, notes.c.request_id.in_(bindparam("ids", expanding=True)))
    .values(
        due_at=sql.NOW + _FIRST_WAIT * (notes.c.attempts + 1) * (notes.c.attempts + 1), attempts=notes.c.attempts + 1
    )
)


def due(store: Store, destinations: Sequence[str], patience: float) -> bool:
    """Tell whether PromptLayer should be asked for requests that notes wait for."""
    with store._reading() as db:
        return bool(db.scalar(_ANY_DUE, {"destinations": list(destinations), "patience": patience}))


def take(store: Store, destination: str, most: int, patience: float) -> list[str]:
    """Return ids to ask for now; the next time they are due is later, for every process."""
    with store._writing() as db:
        asked = {"destinations": [destination], "patience": patience, "most": most}
        ids = sorted(set(db.scalars(_IDS_DUE, asked)))
        if ids:
            db.execute(_LOOKED, {"ids": ids})
    return ids


def resolve(store: Store, destination: str, found: Mapping[str, int]) -> None:
    """Set the notes about these requests on their way."""
    if found:
        with store._writing() as db:
            db.execute(
                sql.NOTES_READY,
                [{"a_request": ours, "new_id": theirs, "to": destination} for ours, theirs in found.items()],
            )
