"""The journal's file: opened, read and changed here and nowhere else, one transaction per method."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    Connection,
    ColumnElement,
    Engine,
    bindparam,
    case,
    create_engine,
    event,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from .._records import State
from ..errors import JournalError
from .schema import VERSION, meta, notes, requests, sessions, tables

WAITING = "waiting"
LEASE = 60.0
BORROW_AFTER = 5.0  # seconds past due after which any process may deliver another one's row
ORPHAN_AFTER = 24 * 3600.0
_BUSY_MS = 30_000

# The database's clock, not this process's: leases of several processes must agree. Fraction included.
_NOW: ColumnElement[float] = literal_column("((julianday('now') - 2440587.5) * 86400.0)")


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


class Store:
    """One journal file behind one connection; a lock lets the writer, the courier and readers take turns."""

    def __init__(self, engine: Engine, path: Path | None) -> None:
        self.path = path
        self._engine = engine
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the journal at `path`, readable by its owner only."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Created here, before SQLite does: -wal and -shm take their mode from it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            return cls._prepared(str(path), path)
        except (OSError, SQLAlchemyError, sqlite3.Error) as error:
            raise JournalError(f"the journal {path} cannot be opened: {_words(error)}") from error

    @classmethod
    def in_memory(cls) -> Self:
        """Open a journal that lives as long as this process."""
        return cls._prepared(":memory:", None)

    @classmethod
    def _prepared(cls, database: str, path: Path | None) -> Self:
        def connect() -> sqlite3.Connection:
            return sqlite3.connect(
                database, timeout=_BUSY_MS / 1000, check_same_thread=False, isolation_level=None
            )

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
        request_rows: Sequence[Mapping[str, Any]],
        note_rows: Sequence[Mapping[str, Any]],
        ended_roots: Sequence[str] = (),
    ) -> None:
        """Put a group of records on disk in one commit."""
        with self._writing() as db:
            if session_rows:
                db.execute(insert(sessions).on_conflict_do_nothing(), list(session_rows))
            if request_rows:
                db.execute(insert(requests).on_conflict_do_nothing(), list(request_rows))
            if note_rows:
                self._insert_notes(db, note_rows)
            if ended_roots:
                db.execute(_HURRY_ROOTS, [{"a_root": root} for root in ended_roots])

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
            db.execute(_INSERT_NOTE, expanded)

    # -- delivery -----------------------------------------------------------------------------------------

    def claim(self, destinations: Sequence[str], owner: str, limit: int) -> list[Claimed]:
        """Take up to `limit` due requests under a lease, with the notes that wait for them."""
        with self._writing() as db:
            rows = db.execute(
                _CLAIM_REQUESTS, {"destinations": list(destinations), "me": owner, "most": limit}
            ).all()
            if not rows:
                return []
            waiting: dict[str, list[ClaimedNote]] = {}
            for note in db.execute(_NOTES_WAITING, {"ids": [row.id for row in rows]}):
                waiting.setdefault(note.request_id, []).append(ClaimedNote(*note))
        claimed = [Claimed(*row[:5], bool(row.uncertain), tuple(waiting.get(row.id, ()))) for row in rows]
        return sorted(claimed)

    def claim_notes(self, destinations: Sequence[str], owner: str, limit: int) -> list[ClaimedNote]:
        """Take up to `limit` due notes whose request has its id, never past an earlier note of the same one."""
        with self._writing() as db:
            rows = db.execute(
                _CLAIM_NOTES, {"destinations": list(destinations), "me": owner, "most": limit}
            ).all()
        return sorted(ClaimedNote(*row) for row in rows)

    def delivered(self, answers: Sequence[Delivered]) -> None:
        """Write down that requests were accepted, and set their remaining notes on their way."""
        if not answers:
            return
        folded = [{"a_seq": seq} for answer in answers for seq in answer.folded]
        failed = [{"a_seq": seq, "why": why} for answer in answers for seq, why in answer.failed_notes]
        with self._writing() as db:
            db.execute(_DELIVERED, [{"a_seq": a.claimed.seq, "new_id": a.pl_id} for a in answers])
            if folded:
                db.execute(_NOTE_DELIVERED, folded)
            if failed:
                db.execute(_NOTE_FAILED, failed)
            db.execute(
                _NOTES_READY,
                [
                    {"a_request": a.claimed.id, "new_id": a.pl_id, "to": a.claimed.destination}
                    for a in answers
                ],
            )

    def failed(self, rows: Sequence[tuple[Claimed, str]]) -> None:
        """Write down that requests were refused for good; their notes fail with them."""
        if rows:
            with self._writing() as db:
                db.execute(_FAILED, [{"a_seq": row.seq, "why": why} for row, why in rows])
                db.execute(
                    _NOTES_FAILED_WITH,
                    [{"a_request": row.id, "why": f"its request was refused: {why}"} for row, why in rows],
                )

    def notes_delivered(self, seqs: Iterable[int]) -> None:
        """Write down that notes were accepted."""
        self._each(_NOTE_DELIVERED, [{"a_seq": seq} for seq in seqs])

    def notes_failed(self, rows: Iterable[tuple[int, str]]) -> None:
        """Write down that notes were refused for good."""
        self._each(_NOTE_FAILED, [{"a_seq": seq, "why": why} for seq, why in rows])

    def retry(self, rows: Iterable[tuple[int, float, bool, str, bool]]) -> None:
        """Put requests back: (seq, seconds to wait, may have arrived, why, counts as an attempt)."""
        self._each(
            _RETRY_REQUEST,
            [
                {"a_seq": seq, "wait": wait, "unsure": int(unsure), "why": why, "back": 0 if counts else 1}
                for seq, wait, unsure, why, counts in rows
            ],
        )

    def retry_notes(self, rows: Iterable[tuple[int, float, str]]) -> None:
        """Put notes back: (seq, seconds to wait, why)."""
        self._each(_RETRY_NOTE, [{"a_seq": seq, "wait": wait, "why": why} for seq, wait, why in rows])

    def replace_payload(self, seq: int, payload: bytes) -> None:
        """Store the smaller body that a request is sent with from now on."""
        self._each(update(requests).where(requests.c.seq == bindparam("a_seq")).values(payload=payload), [{"a_seq": seq}])

    def expire(self) -> int:
        """Free rows whose lease has ended, and give up notes that nobody's request came for; return how many."""
        with self._writing() as db:
            freed = sum(db.execute(statement).rowcount for statement in _EXPIRE)
            return freed + db.execute(_GIVE_UP_ORPHANS).rowcount

    def hurry(self, *, ids: Sequence[str] | None = None, owner: str | None = None, destination: str | None = None) -> None:
        """Make pending rows due now: by request ids, by the process that wrote them, or by destination."""
        with self._writing() as db:
            for table in (requests, notes):
                of_request = table.c.id if table is requests else table.c.request_id
                statement = update(table).where(table.c.state == State.PENDING, table.c.due_at > _NOW)
                if ids is not None:
                    statement = statement.where(of_request.in_(ids))
                if owner is not None:
                    statement = statement.where(table.c.owner == owner)
                if destination is not None:
                    statement = statement.where(table.c.destination == destination)
                db.execute(statement.values(due_at=_NOW))

    def adopt(self, destination: str) -> int:
        """Give everything recorded without a key to `destination`; return how many requests that were."""
        with self._writing() as db:
            for table in (requests, notes):
                count = db.execute(
                    update(table).where(table.c.destination == "").values(destination=destination, due_at=_NOW)
                ).rowcount
                if table is requests:
                    adopted = count
        return adopted

    # -- reading ------------------------------------------------------------------------------------------

    def next_due(self, destinations: Sequence[str], owner: str) -> float | None:
        """Return in how many seconds the next row is due for this courier, None when nothing is pending."""
        with self._reading() as db:
            found = [
                db.scalar(
                    select(
                        func.min(
                            case(
                                (table.c.owner == owner, table.c.due_at),
                                else_=table.c.due_at + BORROW_AFTER,
                            )
                        )
                        - _NOW
                    ).where(table.c.state == State.PENDING, table.c.destination.in_(destinations))
                )
                for table in (requests, notes)
            ]
        due = [float(each) for each in found if each is not None]
        return min(due, default=None)

    def ids_of(self, ids: Sequence[str]) -> dict[str, tuple[str, int | None]]:
        """Return state and PromptLayer id of those of our ids that the journal knows."""
        known: dict[str, tuple[str, int | None]] = {}
        with self._reading() as db:
            for start in range(0, len(ids), 500):
                rows = db.execute(
                    select(requests.c.id, requests.c.state, requests.c.pl_id).where(
                        requests.c.id.in_(ids[start : start + 500])
                    )
                )
                known.update({row.id: (row.state, row.pl_id) for row in rows})
        return known

    def marks(self) -> tuple[int, int]:
        """Return the newest sequence numbers of requests and notes: the rows that exist now."""
        with self._reading() as db:
            return tuple(db.scalar(select(func.coalesce(func.max(t.c.seq), 0))) or 0 for t in (requests, notes))  # type: ignore[return-value]

    def progress(self, owner: str, marks: tuple[int, int], since: tuple[int, int] = (0, 0)) -> dict[str, int]:
        """Count the rows of one process up to `marks` by state."""
        totals: dict[str, int] = {}
        with self._reading() as db:
            for table, newest, oldest in zip((requests, notes), marks, since, strict=True):
                rows = db.execute(
                    select(table.c.state, func.count())
                    .where(table.c.owner == owner, table.c.seq <= newest, table.c.seq > oldest)
                    .group_by(table.c.state)
                )
                for state, count in rows:
                    totals[state] = totals.get(state, 0) + count
        return totals

    def settled_up_to(self, owner: str) -> tuple[int, int]:
        """Return the sequence numbers below which nothing of one process is unsettled."""
        with self._reading() as db:
            return tuple(  # type: ignore[return-value]
                db.scalar(
                    select(func.coalesce(func.min(t.c.seq) - 1, 0)).where(
                        t.c.owner == owner, t.c.state.in_([State.PENDING, State.SENDING, WAITING])
                    )
                )
                or 0
                for t in (requests, notes)
            )

    def unsettled(self, owner: str, marks: tuple[int, int], destinations: Sequence[str]) -> int:
        """Count the rows of one process up to `marks` that a courier can still deliver."""
        with self._reading() as db:
            return sum(
                db.scalar(
                    select(func.count()).where(
                        table.c.owner == owner,
                        table.c.seq <= newest,
                        table.c.destination.in_(destinations),
                        table.c.state.in_([State.PENDING, State.SENDING]),
                    )
                )
                or 0
                for table, newest in zip((requests, notes), marks, strict=True)
            )

    def totals(self) -> dict[str, Any]:
        """Return what `status()` shows of the journal as a whole."""
        with self._reading() as db:
            states = {
                name: dict(db.execute(select(table.c.state, func.count()).group_by(table.c.state)).all())  # type: ignore[arg-type]
                for name, table in (("requests", requests), ("notes", notes))
            }
            oldest = db.scalar(
                select(_NOW - func.min(requests.c.ended_at)).where(
                    requests.c.state.in_([State.PENDING, State.SENDING])
                )
            )
            orphans = db.scalar(
                select(func.count()).where(
                    notes.c.state == WAITING,
                    ~select(requests.c.seq).where(requests.c.id == notes.c.request_id).exists(),
                )
            )
            keyless = db.scalar(
                select(func.count()).where(requests.c.destination == "", requests.c.state == State.PENDING)
            )
        return {**states, "oldest": oldest, "orphans": orphans or 0, "keyless": keyless or 0}

    def rows(self, limit: int = 20, request_id: str | None = None) -> list[dict[str, Any]]:
        """Return the newest requests first, with their notes; or the one with `request_id`."""
        statement = select(requests).order_by(requests.c.seq.desc()).limit(limit)
        if request_id is not None:
            statement = statement.where(
                or_(requests.c.id == request_id, requests.c.pl_id == _number(request_id))
            )
        with self._reading() as db:
            found = [dict(row) for row in db.execute(statement).mappings()]
            for row in found:
                said = select(notes).where(notes.c.request_id == row["id"]).order_by(notes.c.seq)
                row["notes"] = [dict(note) for note in db.execute(said).mappings()]
                session = db.execute(select(sessions).where(sessions.c.id == row["session_id"])).mappings()
                row["session"] = next((dict(each) for each in session), None)
        return found

    # -- transactions -------------------------------------------------------------------------------------

    def _each(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._writing() as db:
                db.execute(statement, rows)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._lock, _translated(self.path), self._engine.begin() as db:
            yield db

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        options = self._engine.execution_options(pltrack_reading=True)
        with self._lock, _translated(self.path), options.begin() as db:
            yield db


@contextmanager
def _translated(path: Path | None) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise JournalError(f"the journal {path or 'in memory'} failed: {_words(error)}") from error


def _words(error: BaseException) -> str:
    # SQLAlchemy's own text carries the bound values, that is, what was recorded: only the driver's words leave.
    return str(getattr(error, "orig", None) or (error if isinstance(error, OSError) else type(error).__name__))


def _number(value: str) -> int:
    return int(value) if value.isdigit() and len(value) < 19 else -1


def _pragmas(connection: sqlite3.Connection, _: object) -> None:
    for pragma in (
        "journal_mode = wal",
        "synchronous = normal",
        f"busy_timeout = {_BUSY_MS}",
        "secure_delete = on",
        "cache_size = -4000",
    ):
        connection.execute(f"pragma {pragma}")


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads first and writes later would otherwise fail under another writer.
    reading = connection.get_execution_options().get("pltrack_reading")
    connection.exec_driver_sql("begin" if reading else "begin immediate")


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


def _claim(table: Any, columns: Sequence[Any], extra: Sequence[Any], order: Any) -> Any:
    due = (
        select(table.c.seq)
        .where(
            table.c.state == State.PENDING,
            table.c.due_at <= _NOW,
            table.c.destination.in_(bindparam("destinations", expanding=True)),
            or_(table.c.owner == bindparam("me"), table.c.due_at <= _NOW - BORROW_AFTER),
            *extra,
        )
        .order_by(order)
        .limit(bindparam("most"))
    )
    return (
        update(table)
        .where(table.c.seq.in_(due))
        .values(state=State.SENDING, lease_until=_NOW + LEASE, attempts=table.c.attempts + 1)
        .returning(*columns)
    )


_CLAIM_REQUESTS = _claim(
    requests,
    [requests.c[n] for n in ("seq", "id", "destination", "payload", "attempts", "uncertain")],
    (),
    requests.c.due_at,
)
_earlier = notes.alias("earlier")
_NOTE_COLUMNS = [
    notes.c[n] for n in ("seq", "request_id", "pl_id", "kind", "payload", "destination", "attempts")
]
_CLAIM_NOTES = _claim(
    notes,
    _NOTE_COLUMNS,
    [
        # In order: not while an earlier note about the same request is out, or waits for its next try.
        ~select(_earlier.c.seq)
        .where(
            _earlier.c.pl_id == notes.c.pl_id,
            _earlier.c.seq < notes.c.seq,
            or_(
                _earlier.c.state == State.SENDING,
                (_earlier.c.state == State.PENDING) & (_earlier.c.due_at > _NOW),
            ),
        )
        .exists()
    ],
    notes.c.seq,
)
_NOTES_WAITING = (
    select(*_NOTE_COLUMNS)
    .where(notes.c.request_id.in_(bindparam("ids", expanding=True)), notes.c.state == WAITING)
    .order_by(notes.c.seq)
)

_target = (
    select(requests.c.pl_id, requests.c.destination, requests.c.state)
    .where(requests.c.id == bindparam("request_id"))
    .subquery("target")
)


def _of_target(column: str) -> Any:
    return select(requests.c[column]).where(requests.c.id == bindparam("request_id")).scalar_subquery()


# A note learns from its request, in the same transaction, whether it can go, where to, and if all is lost.
_INSERT_NOTE = insert(notes).values(
    request_id=bindparam("request_id"),
    pl_id=func.coalesce(bindparam("pl_id"), _of_target("pl_id")),
    kind=bindparam("kind"),
    payload=bindparam("payload"),
    owner=bindparam("owner"),
    destination=func.coalesce(_of_target("destination"), bindparam("destination")),
    state=case(
        (bindparam("pl_id", type_=notes.c.pl_id.type).is_not(null()), State.PENDING.value),
        (_of_target("state") == State.DELIVERED, State.PENDING.value),
        (_of_target("state") == State.FAILED, State.FAILED.value),
        else_=WAITING,
    ),
    reason=case((_of_target("state") == State.FAILED, "its request was refused"), else_=None),
    due_at=bindparam("due_at"),
    attempts=0,
    created_at=bindparam("created_at"),
)

_by_seq = requests.c.seq == bindparam("a_seq")
_note_by_seq = notes.c.seq == bindparam("a_seq")
_note_waiting = (notes.c.request_id == bindparam("a_request")) & (notes.c.state == WAITING)

_DELIVERED = (
    update(requests)
    .where(_by_seq)
    .values(state=State.DELIVERED, pl_id=bindparam("new_id"), lease_until=None, reason=None)
)
_FAILED = (
    update(requests).where(_by_seq).values(state=State.FAILED, reason=bindparam("why"), lease_until=None)
)
_NOTE_DELIVERED = update(notes).where(_note_by_seq).values(state=State.DELIVERED, lease_until=None, reason=None)
_NOTE_FAILED = (
    update(notes).where(_note_by_seq).values(state=State.FAILED, reason=bindparam("why"), lease_until=None)
)
_NOTES_READY = (
    update(notes)
    .where(_note_waiting)
    .values(state=State.PENDING, pl_id=bindparam("new_id"), destination=bindparam("to"), due_at=_NOW)
)
_NOTES_FAILED_WITH = update(notes).where(_note_waiting).values(state=State.FAILED, reason=bindparam("why"))
_RETRY_REQUEST = (
    update(requests)
    .where(_by_seq, requests.c.state == State.SENDING)
    .values(
        state=State.PENDING,
        due_at=_NOW + bindparam("wait"),
        uncertain=bindparam("unsure"),
        reason=bindparam("why"),
        attempts=requests.c.attempts - bindparam("back"),
        lease_until=None,
    )
)
_RETRY_NOTE = (
    update(notes)
    .where(_note_by_seq, notes.c.state == State.SENDING)
    .values(state=State.PENDING, due_at=_NOW + bindparam("wait"), reason=bindparam("why"), lease_until=None)
)
_EXPIRE = [
    update(requests)
    .where(requests.c.state == State.SENDING, requests.c.lease_until < _NOW)
    .values(state=State.PENDING, uncertain=1, lease_until=None),
    update(notes)
    .where(notes.c.state == State.SENDING, notes.c.lease_until < _NOW)
    .values(state=State.PENDING, lease_until=None),
]
_GIVE_UP_ORPHANS = (
    update(notes)
    .where(
        notes.c.state == WAITING,
        notes.c.created_at < _NOW - ORPHAN_AFTER,
        ~select(requests.c.seq).where(requests.c.id == notes.c.request_id).exists(),
    )
    .values(state=State.FAILED, reason="no request with this id was recorded here within 24 hours")
)
_HURRY_ROOTS = (
    update(requests)
    .where(
        requests.c.root == bindparam("a_root"),
        requests.c.state == State.PENDING,
        requests.c.due_at > _NOW + 0.05,
    )
    .values(due_at=_NOW + 0.05)
)
__all__ = ["BORROW_AFTER", "WAITING", "Claimed", "ClaimedNote", "Delivered", "Store", "text"]
