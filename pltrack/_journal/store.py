"""The journal's file: opened, read and changed here and nowhere else, one transaction per method."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    Connection,
    create_engine,
    event,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from .. import _loading
from ..errors import JournalError
from . import clearing, counting, files
from . import statements as sql
from .inserting import Inserting
from .reading import BUSY_MS, words
from .schema import notes, requests

_GONE = "its content is not in the journal any more"


class Claimed(NamedTuple):
    """A request that this courier holds under a lease, with the notes that were waiting for it."""

    seq: int
    id: str
    destination: str
    payload: bytes
    attempts: int
    uncertain: int  # 0: it has not been sent; else it may have arrived, and how often it was looked for, plus one
    notes: tuple[ClaimedNote, ...]


class ClaimedNote(NamedTuple):
    """A note to deliver: inside its request's call, or on its own when `pl_id` is known."""

    seq: int
    request_id: str | None
    pl_id: int | None
    kind: str
    payload: str
    destination: str
    attempts: int


class Delivered(NamedTuple):
    """A request was answered: its id, and which notes went inside its call."""

    claimed: Claimed
    pl_id: int
    folded: Sequence[int] = ()
    failed_notes: Sequence[tuple[int, str]] = ()
    lost_link: tuple[str, str] | None = None  # a prompt link of the request's own that was refused, and why


class Store(Inserting):
    """The journal as the writer and the courier use it: one transaction per method."""

    knows_all = True  # what is not here is nowhere in this journal
    keeps_content: Callable[[], bool] = staticmethod(lambda: True)  # whether what was delivered stays for a while

    @classmethod
    def open(cls, path: Path, *, wait_ms: int = BUSY_MS) -> Self:
        """Open or create the journal at `path`, or beside it where another schema's is there."""
        try:
            return cls._at(path, wait_ms=wait_ms)
        except files.OtherSchemaError:
            return cls._at(files.beside(path), wait_ms=wait_ms)

    @classmethod
    def open_older(cls, path: Path) -> Self:
        """Open a journal that an earlier schema wrote, to deliver what is left in it."""
        return cls._at(path, as_older=True)

    @classmethod
    def _at(cls, path: Path, *, as_older: bool = False, wait_ms: int = BUSY_MS) -> Self:
        """Open or create the file, readable by its owner only."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Created here, before SQLite does: -wal and -shm take their mode from it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            return cls._prepared(str(path), path, as_older, wait_ms)
        except (OSError, SQLAlchemyError, sqlite3.Error) as error:
            raise JournalError(f"the journal {path} cannot be opened: {words(error)}") from error

    @classmethod
    def in_memory(cls) -> Self:
        """Open a journal that lives as long as this process."""
        return cls._prepared(":memory:", None)

    @classmethod
    def _prepared(cls, database: str, path: Path | None, as_older: bool = False, wait_ms: int = BUSY_MS) -> Self:
        def connect() -> sqlite3.Connection:
            return sqlite3.connect(database, timeout=wait_ms / 1000, check_same_thread=False, isolation_level=None)

        engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
        event.listen(engine, "connect", _pragmas)
        event.listen(engine, "begin", _begin)
        store = cls(engine, f"the journal {path or 'in memory'}", path)
        try:
            with store._writing() as db:
                files.prepare(db, path, as_older=as_older)
            store._wait_at_most(BUSY_MS)
        except JournalError:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the file; the store is not used afterwards."""
        with _loading.LOCK, self._lock, suppress(SQLAlchemyError):
            self._engine.dispose()

    @contextmanager
    def impatient(self, milliseconds: int) -> Iterator[None]:
        """Wait only so long for other programs meanwhile."""
        try:
            self._wait_at_most(milliseconds)
            yield
        finally:
            with suppress(JournalError):
                self._wait_at_most(BUSY_MS)

    def _wait_at_most(self, milliseconds: int) -> None:
        with self._reading() as db:
            db.exec_driver_sql(f"pragma busy_timeout = {milliseconds}")

    def number_from(self, seq: int) -> None:
        """Let sequence numbers start there: what is still said about rows of a lost file must not hit new ones."""
        with self._writing() as db:
            for name in (requests.name, notes.name):
                db.exec_driver_sql(sql.NUMBER_FROM, (name, seq, name))

    # -- delivery -----------------------------------------------------------------------------------------

    def claim(self, destinations: Sequence[str], owner: str, limit: int, patience: float) -> list[Claimed]:
        """Take up to `limit` due requests under a lease, with the notes that wait for them.

        Another process's rows only when they are `patience` seconds overdue.
        """
        with self._writing() as db:
            rows = db.execute(
                sql.CLAIM_REQUESTS,
                {"destinations": list(destinations), "me": owner, "most": limit, "patience": patience},
            ).all()
            if not rows:
                return []
            payloads = dict(db.execute(sql.BODIES, {"seqs": [row.seq for row in rows]}).all())
            if len(payloads) < len(rows):
                gone = [row for row in rows if row.seq not in payloads]
                db.execute(sql.FAILED_ANYHOW, [{"a_seq": row.seq, "why": _GONE} for row in gone])
                _fail_notes(db, [(row.id, _GONE) for row in gone])
                rows = [row for row in rows if row.seq in payloads]
            waiting: dict[str, list[ClaimedNote]] = {}
            if db.scalar(sql.ANY_WAITING):  # of an index with nearly nothing in it; asking for ids costs more
                for note in db.execute(sql.NOTES_WAITING, {"ids": [row.id for row in rows]}):
                    waiting.setdefault(note.request_id, []).append(ClaimedNote(*note))
        return sorted(
            Claimed(
                row.seq,
                row.id,
                row.destination,
                payloads[row.seq],
                row.attempts,
                row.uncertain,
                tuple(waiting.get(row.id, ())),
            )
            for row in rows
        )

    def claim_notes(self, destinations: Sequence[str], owner: str, limit: int, patience: float) -> list[ClaimedNote]:
        """Take up to `limit` due notes whose request has its id, never past an earlier note of the same one."""
        with self._reading() as db:
            if not db.scalar(sql.ANY_PENDING_NOTE):
                return []
        with self._writing() as db:
            rows = db.execute(
                sql.CLAIM_NOTES, {"destinations": list(destinations), "me": owner, "most": limit, "patience": patience}
            ).all()
        return sorted(ClaimedNote(*row) for row in rows)

    def delivered(self, answers: Sequence[Delivered]) -> None:
        """Write down that requests were accepted, and set their remaining notes on their way."""
        if not answers:
            return
        folded = [{"a_seq": seq} for answer in answers for seq in answer.folded]
        failed = [{"a_seq": seq, "why": why} for answer in answers for seq, why in answer.failed_notes]
        lost = [
            {"a_seq": a.claimed.seq, "new_id": a.pl_id, "link": a.lost_link[0], "why": a.lost_link[1]}
            for a in answers
            if a.lost_link
        ]
        with self._writing() as db:
            db.execute(sql.DELIVERED, [{"a_seq": a.claimed.seq, "new_id": a.pl_id} for a in answers])
            if folded:
                db.execute(sql.NOTE_DELIVERED, folded)
            if failed:
                db.execute(sql.NOTE_FAILED, failed)
            if lost:
                kept = self._insert(notes).from_select(sql.LOST_LINK_COLUMNS, sql.LOST_LINK).on_conflict_do_nothing()
                db.execute(kept, lost)
            if not self.keeps_content():
                clearing.clear(db, [answer.claimed.seq for answer in answers])
                clearing.clear_notes(db, [each["a_seq"] for each in folded])
            if db.scalar(sql.ANY_WAITING):
                db.execute(
                    sql.NOTES_READY,
                    [{"a_request": a.claimed.id, "new_id": a.pl_id, "to": a.claimed.destination} for a in answers],
                )

    def failed(self, rows: Sequence[tuple[Claimed, str]]) -> None:
        """Write down that requests were refused for good; their notes fail with them."""
        if rows:
            with self._writing() as db:
                db.execute(sql.FAILED, [{"a_seq": row.seq, "held": row.attempts, "why": why} for row, why in rows])
                _fail_notes(db, [(row.id, why) for row, why in rows])

    def notes_delivered(self, seqs: Iterable[int]) -> None:
        """Write down that notes were accepted."""
        accepted = list(seqs)
        with self._writing() as db:
            db.execute(sql.NOTE_DELIVERED, [{"a_seq": seq} for seq in accepted])
            if not self.keeps_content():
                clearing.clear_notes(db, accepted)

    def notes_failed(self, rows: Iterable[tuple[int, str]]) -> None:
        """Write down that notes were refused for good."""
        self._each(sql.NOTE_FAILED, [{"a_seq": seq, "why": why} for seq, why in rows])

    def retry(self, rows: Iterable[tuple[Claimed, float, int, str, bool]]) -> None:
        """Put requests back unless the lease was lost: (row, seconds to wait, uncertain, why, counts as an attempt)."""
        self._each(
            sql.RETRY_REQUEST,
            [
                {
                    "a_seq": row.seq,
                    "held": row.attempts,
                    "wait": wait,
                    "unsure": unsure,
                    "why": why,
                    "back": 0 if counts else 1,
                }
                for row, wait, unsure, why, counts in rows
            ],
        )

    def retry_notes(self, rows: Iterable[tuple[ClaimedNote, float, str]]) -> None:
        """Put notes back unless the lease was lost: (note, seconds to wait, why)."""
        self._each(
            sql.RETRY_NOTE,
            [{"a_seq": note.seq, "held": note.attempts, "wait": wait, "why": why} for note, wait, why in rows],
        )

    def expire(self) -> int:
        """Free rows whose lease has ended, and give up notes that nobody's request came for; return how many."""
        with self._writing() as db:
            freed = sum(db.execute(statement).rowcount for statement in sql.EXPIRE)
            return freed + (db.execute(sql.GIVE_UP_ORPHANS).rowcount if counting.any_orphans(db) else 0)

    def hurry(
        self, *, ids: Sequence[str] | None = None, owner: str | None = None, destination: str | None = None
    ) -> None:
        """Make pending rows due now: by request ids, by the process that wrote them, or by destination."""
        with self._writing() as db:
            for table in (requests, notes):
                of_request = table.c.id if table is requests else table.c.request_id
                statement = update(table).where(table.c.state == sql.PENDING, table.c.due_at > sql.NOW)
                if ids is not None:
                    statement = statement.where(of_request.in_(ids))
                if owner is not None:
                    statement = statement.where(table.c.owner == owner)
                if destination is not None:
                    statement = statement.where(table.c.destination == destination)
                db.execute(statement.values(due_at=sql.NOW))

    def adopt(self, destination: str, source: str = "") -> int:
        """Give what was recorded for `source` (nobody: without a key) to `destination`; return how many requests."""
        with self._writing() as db:
            for table in (requests, notes):
                count = db.execute(
                    update(table).where(table.c.destination == source).values(destination=destination, due_at=sql.NOW)
                ).rowcount
                if table is requests:
                    adopted = count
        return adopted

    def _each(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._writing() as db:
                db.execute(statement, rows)


def _pragmas(connection: sqlite3.Connection, _: object) -> None:
    if not connection.execute("pragma page_count").fetchone()[0]:  # a file that exists would be written to
        connection.execute("pragma auto_vacuum = incremental")
    for pragma in (
        "journal_mode = wal",
        "synchronous = normal",
        "secure_delete = on",
        "cache_size = -4000",
        "journal_size_limit = 67108864",  # what the WAL keeps on disk after a burst
    ):
        connection.execute(f"pragma {pragma}")


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads first and writes later would otherwise fail under another writer.
    reading = connection.get_execution_options().get("pltrack_reading")
    connection.exec_driver_sql("begin" if reading else "begin immediate")


def _fail_notes(db: Connection, rows: Sequence[tuple[str, str]]) -> None:
    db.execute(sql.NOTES_FAILED_WITH, [{"a_request": id, "why": f"its request failed: {why}"} for id, why in rows])
