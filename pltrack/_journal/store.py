"""The journal's file: opened, read and changed here and nowhere else, one transaction per method."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from sqlalchemy import (
    Connection,
    bindparam,
    create_engine,
    event,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from .._records import new_id
from ..errors import JournalError
from . import clearing, counting
from . import statements as sql
from .reading import Reader, translated, words
from .schema import VERSION, bodies, meta, notes, requests, sessions, tables

_BUSY_MS = 30_000
_GONE = "its content is not in the journal any more"


class Claimed(NamedTuple):
    """A request that this courier holds under a lease, with the notes that were waiting for it."""

    seq: int
    id: str
    destination: str
    payload: bytes
    attempts: int
    uncertain: bool
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


class Store(Reader):
    """The journal as the writer and the courier use it: one transaction per method."""

    keeps_content: Callable[[], bool] = staticmethod(lambda: True)  # whether what was delivered stays for a while

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the journal at `path`, readable by its owner only."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Created here, before SQLite does: -wal and -shm take their mode from it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            return cls._prepared(str(path), path)
        except (OSError, SQLAlchemyError, sqlite3.Error) as error:
            raise JournalError(f"the journal {path} cannot be opened: {words(error)}") from error

    @classmethod
    def in_memory(cls) -> Self:
        """Open a journal that lives as long as this process."""
        return cls._prepared(":memory:", None)

    @classmethod
    def _prepared(cls, database: str, path: Path | None) -> Self:
        def connect() -> sqlite3.Connection:
            return sqlite3.connect(database, timeout=_BUSY_MS / 1000, check_same_thread=False, isolation_level=None)

        engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
        event.listen(engine, "connect", _pragmas)
        event.listen(engine, "begin", _begin)
        store = cls(engine, path)
        with store._writing() as db:
            tables.create_all(db)
            db.execute(insert(meta).values(key="schema", value=str(VERSION)).on_conflict_do_nothing())
            found = int(db.scalar(select(meta.c.value).where(meta.c.key == "schema")) or VERSION)
        if found > VERSION:
            raise JournalError(
                f"the journal {path} was written by a newer pltrack (schema {found}, this one knows {VERSION})"
            )
        return store

    def close(self) -> None:
        """Close the file; the store is not used afterwards."""
        with self._lock, suppress(SQLAlchemyError):
            self._engine.dispose()

    # -- writing what was recorded ------------------------------------------------------------------------

    def write(
        self,
        session_rows: Sequence[Mapping[str, Any]],
        request_rows: Sequence[dict[str, Any]],
        note_rows: Sequence[Mapping[str, Any]],
        ended_roots: Sequence[str] = (),
    ) -> dict[str, str]:
        """Put a group of records on disk in one commit; return the new ids of those whose id was taken."""
        renamed: dict[str, str] = {}
        with self._writing() as db:
            since = counting.marks(db)
            if session_rows:
                db.execute(insert(sessions).on_conflict_do_nothing(), list(session_rows))
            if request_rows:
                renamed = _insert_requests(db, request_rows)
            if note_rows:
                self._insert_notes(db, note_rows)
            if ended_roots:
                db.execute(sql.HURRY_ROOTS, [{"a_root": root} for root in ended_roots])
            counting.inserted(db, since)
        return renamed

    def _insert_notes(self, db: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        expanded: list[Mapping[str, Any]] = []
        for row in rows:
            session_id = row["session_id"]
            single = {key: value for key, value in row.items() if key != "session_id"}
            if session_id is None:
                expanded.append(single)
            else:
                ids = _requests_of(db, session_id, row["kind"])
                expanded.extend({**single, "request_id": each} for each in ids)
        if expanded:
            db.execute(sql.INSERT_NOTE, expanded)

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
                self._fail(db, [(row.seq, row.id, _GONE) for row in rows if row.seq not in payloads])
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
                bool(row.uncertain),
                tuple(waiting.get(row.id, ())),
            )
            for row in rows
        )

    def claim_notes(self, destinations: Sequence[str], owner: str, limit: int, patience: float) -> list[ClaimedNote]:
        """Take up to `limit` due notes whose request has its id, never past an earlier note of the same one."""
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
        with self._writing() as db:
            db.execute(sql.DELIVERED, [{"a_seq": a.claimed.seq, "new_id": a.pl_id} for a in answers])
            if folded:
                db.execute(sql.NOTE_DELIVERED, folded)
            if failed:
                db.execute(sql.NOTE_FAILED, failed)
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
                self._fail(db, [(row.seq, row.id, why) for row, why in rows])

    def _fail(self, db: Connection, rows: Sequence[tuple[int, str, str]]) -> None:
        db.execute(sql.FAILED, [{"a_seq": seq, "why": why} for seq, _, why in rows])
        db.execute(
            sql.NOTES_FAILED_WITH,
            [{"a_request": own_id, "why": f"its request was refused: {why}"} for _, own_id, why in rows],
        )

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

    def retry(self, rows: Iterable[tuple[int, float, bool, str, bool]]) -> None:
        """Put requests back: (seq, seconds to wait, may have arrived, why, counts as an attempt)."""
        self._each(
            sql.RETRY_REQUEST,
            [
                {"a_seq": seq, "wait": wait, "unsure": int(unsure), "why": why, "back": 0 if counts else 1}
                for seq, wait, unsure, why, counts in rows
            ],
        )

    def retry_notes(self, rows: Iterable[tuple[int, float, str]]) -> None:
        """Put notes back: (seq, seconds to wait, why)."""
        self._each(sql.RETRY_NOTE, [{"a_seq": seq, "wait": wait, "why": why} for seq, wait, why in rows])

    def replace_payload(self, seq: int, payload: bytes) -> None:
        """Store the smaller body that a request is sent with from now on."""
        self._each(update(bodies).where(bodies.c.seq == bindparam("a_seq")).values(payload=payload), [{"a_seq": seq}])

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

    def adopt(self, destination: str) -> int:
        """Give everything recorded without a key to `destination`; return how many requests that were."""
        with self._writing() as db:
            for table in (requests, notes):
                count = db.execute(
                    update(table).where(table.c.destination == "").values(destination=destination, due_at=sql.NOW)
                ).rowcount
                if table is requests:
                    adopted = count
        return adopted

    def rewrite(self) -> bool:
        """Write the whole file anew, without any trace of what was deleted; return whether that could be done."""
        with self._lock, translated(self.path):
            connection = self._engine.raw_connection()
            with closing(connection):
                driver: Any = connection.driver_connection
                driver.execute("pragma busy_timeout = 1000")
                try:
                    driver.execute("vacuum")
                finally:
                    driver.execute(f"pragma busy_timeout = {_BUSY_MS}")
        return True

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """Write what is in the WAL into the file itself; return whether all of it is there, and the WAL empty."""
        if self.path is None:
            return True
        with self._lock, translated(self.path):
            connection = self._engine.raw_connection()
            how = "truncate" if truncate else "passive"
            with closing(connection):
                driver: Any = connection.driver_connection
                driver.execute("pragma busy_timeout = 1000")
                try:
                    busy, pages, moved = driver.execute(f"pragma wal_checkpoint({how})").fetchone()
                finally:
                    driver.execute(f"pragma busy_timeout = {_BUSY_MS}")
        return not busy and pages == moved

    # -- transactions -------------------------------------------------------------------------------------

    def _each(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._writing() as db:
                db.execute(statement, rows)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._lock, translated(self.path), self._engine.begin() as db:
            yield db


def _pragmas(connection: sqlite3.Connection, _: object) -> None:
    for pragma in (
        "auto_vacuum = incremental",  # before anything else is written; of no effect on a file that exists
        "journal_mode = wal",
        "synchronous = normal",
        f"busy_timeout = {_BUSY_MS}",
        "secure_delete = on",
        "cache_size = -4000",
        "journal_size_limit = 67108864",  # what the WAL keeps on disk after a burst
    ):
        connection.execute(f"pragma {pragma}")


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads first and writes later would otherwise fail under another writer.
    reading = connection.get_execution_options().get("pltrack_reading")
    connection.exec_driver_sql("begin" if reading else "begin immediate")


def _insert_requests(db: Connection, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Insert requests with their bodies; one whose id is taken by another gets a new one, which is returned."""
    last = int(db.exec_driver_sql(sql.LAST_SEQ).scalar_one())  # nobody else writes in this transaction
    for seq, row in enumerate(rows, last + 1):
        row["seq"] = seq
    renamed: dict[str, str] = {}
    if db.exec_driver_sql(sql.INSERT_REQUEST, list(rows)).rowcount < len(rows):
        inside = set(db.scalars(select(requests.c.seq).where(requests.c.seq > last)))
        refused = [row for row in rows if row["seq"] not in inside]
        for row in refused:
            body = orjson.loads(row["payload"])
            renamed[row["id"]] = row["id"] = body["metadata"]["pltrack_id"] = new_id()
            row["payload"] = orjson.dumps(body)
        db.exec_driver_sql(sql.INSERT_REQUEST, refused)
    db.exec_driver_sql(sql.INSERT_BODY, list(rows))
    return renamed


def _requests_of(db: Connection, session_id: str, kind: str) -> list[str]:
    """Return the ids of the requests of a session and the sessions nested in it that `kind` may speak about."""
    tree = select(literal(session_id).label("id")).cte("tree", recursive=True)
    tree = tree.union(select(sessions.c.id).where(sessions.c.parent == tree.c.id))
    statement = select(requests.c.id).where(requests.c.session_id.in_(select(tree.c.id)))
    if kind != "metadata":
        statement = statement.where(requests.c.status != "ERROR")
    if kind == "prompt":
        statement = statement.where(requests.c.linked == 0)
    return list(db.scalars(statement.order_by(requests.c.seq)))
