"""Looking into the journal: everything that is read and not changed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from .. import _loading
from .._records import State
from ..errors import JournalError
from . import counting
from . import statements as sql
from .counting import Totals
from .places import is_ruined
from .schema import bodies, notes, requests, sessions

BUSY_MS = 1_000  # who waits for other processes holds up our readers and forks: rather often than long


class Outcome(NamedTuple):
    """What became of a request."""

    id: str
    state: str
    pl_id: int | None
    reason: str | None


class Reader:
    """One journal behind one connection; a lock lets the writer, the courier and readers take turns."""

    def __init__(self, engine: Engine, name: str, path: Path | None = None) -> None:
        self.name = name  # for people
        self.path = path  # None: no file
        self.ruined: JournalError | None = None  # what showed that the file is damaged
        self.beside: Callable[[], Reader | None] = lambda: None  # the journal's own file, where this is not it
        self._engine = engine
        self._engine_to_read = engine.execution_options(pltrack_reading=True)
        # A fork waits for it: the child could never take a lock that SQLite held in this thread.
        self._gate: AbstractContextManager[Any] = _loading.LOCK
        self._lock = threading.RLock()

    def next_due(self, destinations: Sequence[str], owner: str, patience: float) -> float | None:
        """Return in how many seconds the next row is due for this courier, None when nothing is pending."""
        with self._reading() as db:
            found = [
                (db.scalar(statement, {"me": owner, "destination": each}), wait)
                for each in destinations
                for statement, wait in zip(sql.NEXT_DUE, (patience, 0.0) * 2, strict=True)
            ]
        return min((due + wait for due, wait in found if due is not None), default=None)

    def outcomes(self, ids: Sequence[str]) -> list[Outcome]:
        """Return what became of those of our ids that are known here."""
        columns = (requests.c.id, requests.c.state, requests.c.pl_id, requests.c.reason)
        known: list[Outcome] = []
        with self._reading() as db:
            for start in range(0, len(ids), 500):
                rows = db.execute(select(*columns).where(requests.c.id.in_(ids[start : start + 500])))
                known += [Outcome(*row) for row in rows]
        return known

    def marks(self) -> tuple[int, int]:
        """Return the newest sequence numbers of requests and notes: the rows that exist now."""
        with self._reading() as db:
            return tuple(db.scalar(select(func.coalesce(func.max(t.c.seq), 0))) or 0 for t in (requests, notes))  # type: ignore[return-value]

    def progress(self, owner: str, marks: tuple[int, int], since: tuple[int, int]) -> dict[str, int]:
        """Count the rows of one process up to `marks` that are not delivered, by state; `written`: all after `since`.

        What is delivered is not counted but follows: that may be a million rows.
        """
        totals = {"written": 0}
        with self._reading() as db:
            for index, (newest, oldest) in enumerate(zip(marks, since, strict=True)):
                asked = {"me": owner, "newest": newest, "oldest": oldest}
                totals["written"] += db.scalar(sql.WRITTEN[index], asked) or 0
                for state, count in db.execute(sql.PROGRESS[index], asked):
                    totals[state] = totals.get(state, 0) + count
        return totals

    def unsettled(self, owner: str, marks: tuple[int, int], destinations: Sequence[str]) -> bool:
        """Tell whether a courier can still deliver any row of one process up to `marks`."""
        asked = {"me": owner, "newest": marks[0], "newest_note": marks[1], "destinations": list(destinations)}
        with self._reading() as db:
            return bool(db.scalar(sql.UNSETTLED, asked))

    def unforwarded(self, owner: str, marks: tuple[int, int]) -> bool:
        """Tell whether the hub lacks any row of one process up to `marks`."""
        with self._reading() as db:
            return bool(db.scalar(sql.UNFORWARDED, {"me": owner, "newest": marks[0], "newest_note": marks[1]}))

    def totals(self) -> Totals:
        """Return what `status()` shows of the journal as a whole."""
        with self._reading() as db:
            return counting.totals(db)

    def left_for(self) -> dict[str, int]:
        """Return for each destination how many requests and notes wait to be delivered there."""
        found: dict[str, int] = {}
        with self._reading() as db:
            for table in (requests, notes):
                left = table.c.state.in_([State.PENDING, State.SENDING])
                for name, count in db.execute(
                    select(table.c.destination, func.count()).where(left).group_by(table.c.destination)
                ):
                    found[name] = found.get(name, 0) + count
        return found

    def rows(self, limit: int = 20, request_id: str | None = None) -> list[dict[str, Any]]:
        """Return the newest requests first, with their notes; or the one with `request_id`."""
        whole = select(requests, bodies.c.payload).outerjoin(bodies, bodies.c.seq == requests.c.seq)
        statement = whole.order_by(requests.c.seq.desc()).limit(limit)
        if request_id is not None:
            statement = statement.where(or_(requests.c.id == request_id, requests.c.pl_id == _number(request_id)))
        with self._reading() as db:
            found = [dict(row) for row in db.execute(statement).mappings()]
            for row in found:
                said = select(notes).where(notes.c.request_id == row["id"]).order_by(notes.c.seq)
                row["notes"] = [dict(note) for note in db.execute(said).mappings()]
                session = db.execute(select(sessions).where(sessions.c.id == row["session_id"])).mappings()
                row["session"] = next((dict(each) for each in session), None)
        return found

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._gate, self._lock, self._translated(), self._engine_to_read.begin() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._gate, self._lock, self._translated(), self._engine.begin() as db:
            yield db

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self.name):
                yield
        except JournalError as error:
            if is_ruined(error):
                self.ruined = error
            raise


@contextmanager
def translated(name: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise JournalError(f"{name} failed: {words(error)}") from error


def words(error: BaseException) -> str:
    # SQLAlchemy's own text carries the bound values, that is, what was recorded: only the driver's words leave.
    return str(getattr(error, "orig", None) or (error if isinstance(error, OSError) else type(error).__name__))


def _number(value: str) -> int:
    return int(value) if value.isdigit() and len(value) < 19 else -1
