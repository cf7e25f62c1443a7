"""The hub: a journal on PostgreSQL that many machines forward to and any number of workers deliver from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Self

from sqlalchemy import Connection, Engine, Table, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from .._records import State
from ..errors import JournalError
from . import statements as sql
from .exchange import Batch
from .reading import words
from .schema import VERSION, meta, requests, tables
from .store import Store

_CONNECT_SECONDS = 5
_STATEMENT_MS = 15_000
_SCHEMA = "schema"

for _index in (index for table in tables.tables.values() for index in table.indexes):
    _index.dialect_options["postgresql"]["where"] = _index.dialect_options["sqlite"]["where"]


class Hub(Store):
    """The store on PostgreSQL. One connection, as on SQLite: each thread that needs the hub has its own `Hub`."""

    _insert = staticmethod(insert)

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine, name)
        self._gate = nullcontext()  # a fork has nothing to wait for: no lock of libpq's is shared

    @classmethod
    def open(cls, url: str) -> Self:  # type: ignore[override]
        """Connect to a hub whose tables are there and of a version that this package knows."""
        hub = cls(_engine(url), f"the hub {shown(url)}")
        try:
            hub._check_schema()
        except JournalError:
            hub.close()
            raise
        return hub

    def _check_schema(self) -> None:
        with self._reading() as db:
            there = db.scalar(select(func.to_regclass("meta")))
            found = db.scalar(select(meta.c.value).where(meta.c.key == _SCHEMA)) if there else None
        if found is None:
            raise JournalError(f"{self.name} has no tables yet: run `pltrack hub upgrade`")
        if int(found) != VERSION:
            remedy = "run `pltrack hub upgrade`" if int(found) < VERSION else "update pltrack here"
            raise JournalError(f"{self.name} has schema {found}, this pltrack knows {VERSION}: {remedy}")

    @classmethod
    def upgrade(cls, url: str) -> int:
        """Create what the hub lacks; return the version that it had before, 0 for none."""
        hub = cls(_engine(url), f"the hub {shown(url)}")
        try:
            with hub._writing() as db:
                db.execute(text("select pg_advisory_xact_lock(7021864523)"))  # of two upgrades at once the second waits
                tables.create_all(db)
                before = int(db.scalar(select(meta.c.value).where(meta.c.key == _SCHEMA)) or 0)
                if before > VERSION:
                    raise JournalError(f"{hub.name} has schema {before}, newer than this pltrack knows")
                versioned = insert(meta).values(key=_SCHEMA, value=str(VERSION))
                db.execute(versioned.on_conflict_do_update(index_elements=[meta.c.key], set_={"value": str(VERSION)}))
        finally:
            hub.close()
        return before

    def receive(self, batch: Batch) -> None:
        """Take a batch over from a journal; what was taken before is left out."""
        with self._reading() as db:
            now = float(db.scalar(select(sql.NOW)) or 0)
        for row in (*batch.requests, *batch.notes):
            row["due_at"] = now + max(0.0, row["due_in"])  # the journal's clock may be another one
        rows = [{**row, "state": State.PENDING.value} for row in batch.requests]
        # Numbered here: each journal counts for itself, and a number that is taken would cost the note.
        self.write(batch.sessions, rows, [{key: row[key] for key in sql.NOTE_FIELDS} for row in batch.notes])

    def _put(self, db: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
        names = table.c.keys()
        given = [{name: row[name] for name in names if name in row} for row in rows]
        return db.execute(insert(table).on_conflict_do_nothing(), given).rowcount

    def _next_seqs(self, db: Connection, count: int) -> Iterable[int]:
        sequence = func.pg_get_serial_sequence(requests.name, requests.c.seq.name)
        numbers = select(func.nextval(sequence)).select_from(func.generate_series(1, count))
        return list(db.scalars(numbers))

    def _hold(self, db: Connection, ids: Sequence[str]) -> None:
        # Or a request could be marked delivered between the look at it and the note: the note would wait for ever.
        held = select(requests.c.seq).where(requests.c.id.in_(sorted(set(ids)))).order_by(requests.c.seq)
        db.execute(held.with_for_update(read=True)).all()


def shown(url: str) -> str:
    """Return a hub's address without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "hub"


def _engine(url: str) -> Engine:
    try:
        address = make_url(url).set(drivername="postgresql+psycopg")
        return create_engine(
            address,
            pool_size=1,
            max_overflow=0,
            pool_use_lifo=True,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "options": f"-c statement_timeout={_STATEMENT_MS} -c idle_in_transaction_session_timeout=60000",
                "application_name": "pltrack",
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 20_000,
            },
        )
    except ImportError as error:
        raise JournalError("a hub needs psycopg: pip install pltrack[postgres]") from error
    except SQLAlchemyError as error:
        raise JournalError(f"the hub's address cannot be used: {words(error)}") from error
