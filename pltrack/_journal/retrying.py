"""Sending again what was refused: somebody has mended what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, null, select, true, update

from . import counting
from . import statements as sql
from .schema import bodies, notes, requests
from .store import Store

_AT_ONCE = 500


class Retried(NamedTuple):
    """How many wait again, and how many cannot: their content is not there any more."""

    requests: int = 0
    notes: int = 0
    gone: int = 0

    def __add__(self, other: tuple[Any, ...]) -> Retried:
        return Retried(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def retry(store: Store, about: str | None = None, reason: str = "") -> Retried:
    """Let refused requests and notes wait for delivery again: all, or those about one request; in small steps.

    `about` is our id of a request or PromptLayer's; `reason` must be in the words of the refusal.
    """
    done, after = Retried(), 0
    which = _refused(requests, about, reason, requests.c.id, requests.c.pl_id)
    while True:
        with store._writing() as db:
            some = select(requests.c.seq, requests.c.id, exists().where(bodies.c.seq == requests.c.seq).label("whole"))
            found = db.execute(some.where(which, requests.c.seq > after).order_by(requests.c.seq).limit(_AT_ONCE)).all()
            whole = [row for row in found if row.whole]
            done += Retried(len(whole), _again(db, whole), len(found) - len(whole))
        if len(found) < _AT_ONCE:
            break
        after = found[-1].seq
    return done + Retried(notes=_notes(store, about, reason))


def _again(db: Connection, rows: Sequence[Any]) -> int:
    """Let requests wait again, with the notes that were refused with them; return how many notes."""
    fresh = {
        "state": sql.PENDING,
        "due_at": sql.NOW,
        "attempts": 0,
        "uncertain": 0,
        "reason": None,
        "lease_until": None,
    }
    db.execute(update(requests).where(requests.c.seq.in_([row.seq for row in rows])).values(**fresh))
    mine = notes.c.state == sql.FAILED_STATE, notes.c.request_id.in_([row.id for row in rows])
    return db.execute(update(notes).where(*mine).values(**_WAITING_AGAIN)).rowcount


def _notes(store: Store, about: str | None, reason: str) -> int:
    """Let notes wait again whose request was not refused; return how many."""
    done, after = 0, 0
    refused = exists().where(requests.c.id == notes.c.request_id, requests.c.state == sql.FAILED_STATE)
    which = and_(_refused(notes, about, reason, notes.c.request_id, notes.c.pl_id), ~refused)
    while True:
        with store._writing() as db:
            some = select(notes.c.seq).where(which, notes.c.seq > after).order_by(notes.c.seq).limit(_AT_ONCE)
            seqs = list(db.scalars(some))
            mine = notes.c.seq.in_(seqs)
            orphans = db.scalar(select(func.count()).where(mine, _is_orphan)) or 0
            # Given up by its age: it is as old as this wish now.
            db.execute(update(notes).where(mine, _is_orphan).values(created_at=sql.NOW))
            done += db.execute(update(notes).where(mine).values(**_WAITING_AGAIN)).rowcount
            counting.found_orphans(db, orphans)
        if len(seqs) < _AT_ONCE:
            return done
        after = seqs[-1]


def _refused(table: Any, about: str | None, reason: str, ours: Any, theirs: Any) -> ColumnElement[bool]:
    number = int(about) if about is not None and about.isdigit() and len(about) < 19 else None
    mine = true() if about is None else theirs == number if number is not None else ours == about
    words = table.c.reason.icontains(reason, autoescape=True) if reason else true()
    return and_(table.c.state == sql.FAILED_STATE, mine, words)


_pl_id = func.coalesce(
    notes.c.pl_id, select(requests.c.pl_id).where(requests.c.id == notes.c.request_id).scalar_subquery()
)
_is_orphan = and_(_pl_id.is_(null()), ~exists().where(requests.c.id == notes.c.request_id))
_WAITING_AGAIN: dict[str, Any] = {
    "state": case((_pl_id.is_(null()), sql.WAITING), else_=sql.PENDING),
    "pl_id": _pl_id,
    "due_at": sql.NOW,
    "attempts": 0,
    "reason": None,
    "lease_until": None,
}
