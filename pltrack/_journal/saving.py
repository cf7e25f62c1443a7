"""Carrying rows from one journal to another: out of a file that is lost, and from memory into one that serves again."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Select, Table, delete, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from .._records import OPEN_STATES, State, new_id, open_of
from ..errors import JournalError
from . import clearing, counting
from . import statements as sql
from .schema import bodies, notes, requests, sessions
from .store import Store

log = logging.getLogger("pltrack")

_SETTLED = (State.DELIVERED.value, State.FAILED.value)
_GRACE = 10.0  # seconds in which the process that wrote a row may save it, too
_AT_ONCE = 1_000
_BATCH = 200  # rows: forks and the memory's courier wait while they are carried over
_MOST_BYTES = 256 * 2**20
_STALE = 3600.0  # seconds
_LONGEST = 1.0  # seconds for what is in the midst of damage: calls are recorded meanwhile, but not written

Row = dict[str, Any]


class Saved(NamedTuple):
    """What was still owed, as far as it could be read; bodies by the number of their request."""

    sessions: list[Row]
    requests: list[Row]
    bodies: dict[int, bytes]
    notes: list[Row]

    def of(self, owner: str) -> int:
        """Count what one process wrote."""
        whole = [row for row in self.requests if row["seq"] in self.bodies]
        return sum(row["owner"] == owner for row in [*whole, *self.notes])


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
            kept += _put_request(db, row, saved.bodies.get(row["seq"]))
        for row in saved.notes:
            kept += _put_note(db, row)
        counting.inserted(db, since)
        for row in saved.requests:  # what was said about them may have been waiting there
            if row["state"] == State.DELIVERED:
                ready = {"a_request": row["id"], "new_id": row["pl_id"], "to": row["destination"]}
                db.execute(sql.NOTES_READY, ready)
            elif row["state"] == State.FAILED:
                db.execute(sql.NOTES_FAILED_WITH, {"a_request": row["id"], "why": "its request was refused"})
    return kept


def put_all(store: Store, saved: list[Saved]) -> None:
    """Put what lost files still owed into one that took their place."""
    while saved:
        count = put(store, saved[0])
        del saved[0]
        if count:
            log.warning("pltrack: %d undelivered record(s) of the lost journal were saved", count)


def move(memory: Store, file: Store) -> Iterator[Saved]:
    """Carry over what is not on its way, some rows at a time; raise JournalError where the file does not take it."""
    while True:
        # One step for everybody else: nobody claims a row while it is in both, or counts it twice.
        with memory._gate, memory._lock:
            with memory._reading() as db:
                some = _movable(db)
            if not some.requests and not some.notes:
                return
            put(file, some)
            with memory._writing() as db:
                for table, rows in ((requests, some.requests), (bodies, some.requests), (notes, some.notes)):
                    db.execute(delete(table).where(table.c.seq.in_([row["seq"] for row in rows])))
        yield some


def shrink(store: Store, most: int) -> int:
    """Keep at most that many rows in memory, and so many bytes: settled ones go first; return how many were lost."""
    lost = 0
    with store._writing() as db:
        if not _is_over(db, most):
            return 0
        done = select(requests.c.seq).where(requests.c.state.in_(_SETTLED))
        db.execute(delete(bodies).where(bodies.c.seq.in_(done)))
        db.execute(delete(requests).where(requests.c.state.in_(_SETTLED)))
        db.execute(delete(notes).where(notes.c.state.in_(_SETTLED)))
        clearing.empty_sessions(db, sessions.c.started_at < sql.NOW - _STALE, most)
        while _is_over(db, most) and (gone := _drop_oldest(db, max(1, min(_rows(db) - most, _AT_ONCE)))):
            lost += gone
    return lost


def left(store: Store) -> int:
    """Count what is still to be delivered."""
    return open_of(store.totals().states)


def _is_over(db: Connection, most: int) -> bool:
    return _rows(db) > most or clearing.Size.of(db).used > _MOST_BYTES


def _rows(db: Connection) -> int:
    return sum(int(db.scalar(select(func.count()).select_from(table)) or 0) for table in (requests, notes))


def _movable(db: Connection) -> Saved:
    """Return rows that no courier holds; what is said inside of a call that is out stays with it."""
    out = select(requests.c.id).where(requests.c.state == State.SENDING)
    free = requests.c.state != State.SENDING
    found = Saved([dict(row) for row in db.execute(select(sessions)).mappings()], [], {}, [])
    found.requests.extend(map(dict, db.execute(select(requests).where(free).limit(_BATCH)).mappings()))
    of_these = bodies.c.seq.in_([row["seq"] for row in found.requests])
    found.bodies.update(db.execute(select(bodies.c.seq, bodies.c.payload).where(of_these)).all())
    said = notes.c.state != State.SENDING, notes.c.request_id.is_(None) | notes.c.request_id.not_in(out)
    found.notes.extend(map(dict, db.execute(select(notes).where(*said).limit(_BATCH)).mappings()))
    return found


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
        until = time.monotonic() + _LONGEST
        for seq in range(ends[0] + 1, ends[1] or _newest(db, table) + 1):
            _read(db, select(table).where(table.c.seq == seq), found, most)
            if time.monotonic() > until:
                break
    return [found[seq] for seq in sorted(found)]


def _newest(db: Connection, table: Table) -> int:
    try:
        return int(db.exec_driver_sql("select seq from sqlite_sequence where name = ?", (table.name,)).scalar() or 0)
    except (SQLAlchemyError, sqlite3.Error):
        return 0


def _read(db: Connection, statement: Select[Any], found: dict[int, Row], most: int) -> int | None:
    """Take over unsettled rows; return None at the end, or the number of the last row before the damage."""
    last = 0
    try:
        for row in db.execute(statement).mappings():
            last = row["seq"]
            if row["state"] in OPEN_STATES and len(found) < most:
                found[last] = dict(row)
    except (SQLAlchemyError, sqlite3.Error):
        return last
    return None


def _body(db: Connection, seq: int) -> bytes | None:
    """Return a body that is whole: damage may show in what was read, and not in the reading."""
    try:
        body = db.scalar(select(bodies.c.payload).where(bodies.c.seq == seq))
        orjson.loads(body or b"")
    except (SQLAlchemyError, sqlite3.Error, orjson.JSONDecodeError):
        return None
    return body


def _set_free(row: Row, owner: str) -> None:
    """What was out, or may be saved by the process that wrote it, comes later, and is looked for before it is sent."""
    if row["owner"] == owner and row["state"] != State.SENDING:
        return
    row["due_at"] += _GRACE
    if row["state"] == State.SENDING:
        row |= {"state": State.PENDING.value, "lease_until": None}
    if "uncertain" in row:
        row["uncertain"] = row["uncertain"] or 1


def _put_request(db: Connection, row: Row, body: bytes | None) -> bool:
    """Insert a request unless it is there; under another id where another request has its own."""
    if body is None and row["state"] in OPEN_STATES:
        return False
    there = db.execute(select(requests.c.owner, requests.c.started_at).where(requests.c.id == row["id"])).first()
    if there is not None and tuple(there) == (row["owner"], row["started_at"]):
        return False
    values = {name: value for name, value in row.items() if name != "seq"}
    if there is not None:
        values["id"] = new_id()
        if body is not None:
            said = orjson.loads(body)
            said["metadata"]["pltrack_id"] = values["id"]
            body = orjson.dumps(said)
    db.execute(insert(requests).values(values))
    if body is not None:
        db.execute(insert(bodies).values(seq=_last(db), payload=body))
    return True


def _put_note(db: Connection, row: Row) -> bool:
    """Insert a note unless it is there; one that waits learns what became of its request."""
    if row["state"] == "waiting":
        new = insert(notes).values(**sql.NOTE_VALUES).on_conflict_do_nothing()
        return bool(db.execute(new, [{name: row[name] for name in sql.NOTE_FIELDS}]).rowcount)
    values = {name: value for name, value in row.items() if name != "seq"}
    return bool(db.execute(insert(notes).values(values).on_conflict_do_nothing()).rowcount)


def _last(db: Connection) -> int:
    return int(db.exec_driver_sql("select last_insert_rowid()").scalar_one())
