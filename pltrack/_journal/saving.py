"""Saving what a journal still owed when its file is lost, and keeping one in memory within bounds."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Table, delete, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from .._records import State
from ..errors import JournalError
from . import counting
from .schema import bodies, notes, requests, sessions
from .store import Store

log = logging.getLogger("pltrack")

_UNSETTLED = (State.PENDING.value, State.SENDING.value, "waiting")
_SETTLED = (State.DELIVERED.value, State.FAILED.value)
_GRACE = 10.0  # seconds in which the process that wrote a row may save it, too
_AT_ONCE = 1_000

Row = dict[str, Any]


class Saved(NamedTuple):
    """What was still owed, as far as it could be read; bodies by the number of their request."""

    sessions: list[Row]
    requests: list[Row]
    bodies: dict[int, bytes]
    notes: list[Row]


def owed(store: Store, owner: str, most: int) -> Saved:
    """Read what is not settled yet, past what cannot be read; of others only what they had time to save."""
    found = Saved([], [], {}, [])
    try:
        with store._lock, store._engine.connect() as db:
            found.requests.extend(_readable(db, requests, most))
            found.notes.extend(_readable(db, notes, most))
            for row in found.requests:
                _set_free(row, owner)
                body = _body(db, row["seq"])
                if body is not None:
                    found.bodies[row["seq"]] = body
            for row in found.notes:
                _set_free(row, owner)
            wanted = {row["session_id"] for row in found.requests}
            found.sessions.extend(dict(row) for row in db.execute(select(sessions)).mappings() if row["id"] in wanted)
    except (SQLAlchemyError, sqlite3.Error, JournalError):
        pass  # nothing more can be read
    return found


def put(store: Store, saved: Saved) -> int:
    """Write what was saved into another journal, under numbers of its own; return how much that was."""
    kept = 0
    with store._writing() as db:
        since = counting.marks(db)
        for row in saved.sessions:
            db.execute(insert(sessions).values(row).on_conflict_do_nothing())
        for row in saved.requests:
            if row["seq"] not in saved.bodies:
                continue
            if (seq := _inserted(db, requests, row)) is not None:
                db.execute(insert(bodies).values(seq=seq, payload=saved.bodies[row["seq"]]))
                kept += 1
        for row in saved.notes:
            kept += _inserted(db, notes, row) is not None
        counting.inserted(db, since)
    return kept


def put_all(store: Store, saved: list[Saved]) -> None:
    """Put what lost files still owed into one that took their place."""
    while saved:
        count = put(store, saved[0])
        del saved[0]
        if count:
            log.warning("pltrack: %d undelivered record(s) of the lost journal were saved", count)


def shrink(store: Store, most: int) -> int:
    """Keep at most that many rows in memory: settled ones go first; return how many records were lost."""
    lost = 0
    with store._writing() as db:
        if _rows(db) <= most:
            return 0
        done = select(requests.c.seq).where(requests.c.state.in_(_SETTLED))
        db.execute(delete(bodies).where(bodies.c.seq.in_(done)))
        db.execute(delete(requests).where(requests.c.state.in_(_SETTLED)))
        db.execute(delete(notes).where(notes.c.state.in_(_SETTLED)))
        while (over := _rows(db) - most) > 0:
            lost += _drop_oldest(db, min(over, _AT_ONCE))
    return lost


def _rows(db: Connection) -> int:
    return sum(int(db.scalar(select(func.count()).select_from(table)) or 0) for table in (requests, notes))


def _drop_oldest(db: Connection, count: int) -> int:
    for table in (requests, notes):
        oldest = list(db.scalars(select(table.c.seq).order_by(table.c.seq).limit(count)))
        if oldest:
            db.execute(delete(table).where(table.c.seq <= oldest[-1]))
            if table is requests:
                db.execute(delete(bodies).where(bodies.c.seq <= oldest[-1]))
            return len(oldest)
    return 0


def _readable(db: Connection, table: Table, most: int) -> list[Row]:
    """Return the unsettled rows: from the front up to the damage, from the back down to it, by number in between."""
    found: dict[int, Row] = {}
    ends: list[int] = []
    for order in (table.c.seq, table.c.seq.desc()):
        end = _read(db, select(table).order_by(order), found, most)
        if end is None:
            break
        ends.append(end)
    if len(ends) == 2:
        for seq in range(ends[0] + 1, min(ends[1] or ends[0] + most, ends[0] + most)):
            _read(db, select(table).where(table.c.seq == seq), found, most)
    return [found[seq] for seq in sorted(found)]


def _read(db: Connection, statement: Select[Any], found: dict[int, Row], most: int) -> int | None:
    """Take over unsettled rows; return None at the end, or the number of the last row before the damage."""
    last = 0
    try:
        for row in db.execute(statement).mappings():
            last = row["seq"]
            if row["state"] in _UNSETTLED and len(found) < most:
                found[last] = dict(row)
    except (SQLAlchemyError, sqlite3.Error):
        return last
    return None


def _body(db: Connection, seq: int) -> bytes | None:
    try:
        return db.scalar(select(bodies.c.payload).where(bodies.c.seq == seq))
    except (SQLAlchemyError, sqlite3.Error):
        return None


def _set_free(row: Row, owner: str) -> None:
    """What was out, or may be saved by the process that wrote it, comes later, and is looked for before it is sent."""
    if row["owner"] == owner and row["state"] != State.SENDING:
        return
    row["due_at"] += _GRACE
    if row["state"] == State.SENDING:
        row |= {"state": State.PENDING.value, "lease_until": None}
    if "uncertain" in row:
        row["uncertain"] = row["uncertain"] or 1


def _inserted(db: Connection, table: Table, row: Row) -> int | None:
    """Insert a row unless its id is there; return its number."""
    if db.scalar(select(table.c.seq).where(table.c.id == row["id"])) is not None:
        return None
    values = {name: value for name, value in row.items() if name != "seq"}
    db.execute(insert(table).values(values))
    return int(db.exec_driver_sql("select last_insert_rowid()").scalar_one())
