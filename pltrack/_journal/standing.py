"""How a journal or hub stands as a whole: counts, sizes, and what was last heard from each destination."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from .._records import open_of
from . import counting
from . import statements as sql
from .counting import Totals
from .reading import Reader
from .schema import notes, requests

_NEWEST = 1_000  # rows of a destination in which its last error is looked for


class Line(NamedTuple):
    """How it stands with one destination; its rows are requests and notes."""

    destination: str
    waiting: int
    failed: int
    last_error: str | None


class Standing(NamedTuple):
    """How a journal or hub stands."""

    totals: Totals
    lines: list[Line]
    bytes: int | None
    oldest: float | None  # seconds that the oldest undelivered row has waited
    newest: float | None  # seconds since the newest request ended


def look(store: Reader) -> Standing:
    """Find out how it stands, at about the same cost however much there is."""
    with store._reading() as db:
        totals = counting.totals(db)
        by_destination = counting.by_destination(db)
        lines = [_line(db, name, states) for name, states in sorted(by_destination.items())]
        waits = [totals.oldest, *(_oldest_note(db, name) for name in by_destination)]
        ended = db.scalar(select(sql.NOW - requests.c.ended_at).order_by(requests.c.seq.desc()).limit(1))
        size = _bytes(db)
    return Standing(totals, lines, size, max((each for each in waits if each is not None), default=None), ended)


def _line(db: Connection, name: str, states: dict[str, int]) -> Line:
    return Line(name, open_of(states), states.get("failed", 0), _last_error(db, name) if states else None)


def _last_error(db: Connection, destination: str) -> str | None:
    for table, state in ((t, s) for s in (sql.PENDING, sql.FAILED_STATE) for t in (requests, notes)):
        lately = table.c.due_at if state is sql.PENDING else table.c.seq
        some = select(table.c.reason, lately.label("at")).where(table.c.state == state)
        some = some.where(table.c.destination == destination).order_by(lately.desc()).limit(_NEWEST)
        newest = some.subquery()
        found = select(newest.c.reason).where(newest.c.reason.is_not(None)).order_by(newest.c.at.desc()).limit(1)
        if reason := db.scalar(found):
            return str(reason)
    return None


def _oldest_note(db: Connection, destination: str) -> float | None:
    mine = notes.c.state == sql.PENDING, notes.c.destination == destination
    return db.scalar(select(sql.NOW - notes.c.created_at).where(*mine).order_by(notes.c.seq).limit(1))


def _bytes(db: Connection) -> int | None:
    if db.dialect.name == "sqlite":
        pages = [int(db.exec_driver_sql(f"pragma {name}").scalar_one()) for name in ("page_size", "page_count")]
        return pages[0] * pages[1]
    return db.scalar(select(func.pg_database_size(func.current_database())))
