"""How many rows there are in each state, kept as they change: counting a million of them takes a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Integer, String, Table, event, func, select

from . import pausing
from . import statements as sql
from .schema import notes, requests, tables

counts = Table(
    "counts",
    tables,
    Column("kind", String, primary_key=True),  # requests, notes, orphans (waiting notes without a request), lost
    Column("destination", String, primary_key=True),
    Column("state", String, primary_key=True),
    Column("n", Integer, nullable=False),
    sqlite_with_rowid=False,
)


class Totals(NamedTuple):
    """What a journal holds; the states of requests and notes by their names."""

    requests: dict[str, int]
    notes: dict[str, int]
    oldest: float | None = None  # seconds
    orphans: int = 0
    keyless: int = 0
    lost: int = 0
    paused: float | None = None  # since when, in seconds

    @property
    def states(self) -> dict[str, int]:
        """Requests and notes together."""
        return {state: self.requests.get(state, 0) + self.notes.get(state, 0) for state in self.requests | self.notes}


NOTHING = Totals({}, {})


def totals(db: Connection) -> Totals:
    """Return what the journal holds, at the same cost however much that is; a hub is counted."""
    if not _is_counted(db):
        return _counted(db)
    found: dict[str, dict[str, int]] = {"requests": {}, "notes": {}, "orphans": {}, "lost": {}}
    keyless = 0
    for kind, destination, state, n in db.execute(select(counts).where(counts.c.n != 0)):
        found[kind][state] = found[kind].get(state, 0) + n
        if (kind, destination, state) == ("requests", "", "pending"):
            keyless = n
    oldest = db.scalar(_OLDEST) if found["requests"].get("pending") or found["requests"].get("sending") else None
    orphans, lost = (sum(found[kind].values()) for kind in ("orphans", "lost"))
    return Totals(found["requests"], found["notes"], oldest, orphans, keyless, lost, pausing.since(db))


def by_destination(db: Connection, kinds: Sequence[Table] = (requests, notes)) -> dict[str, dict[str, int]]:
    """Return for each destination how many requests and notes (or one of these kinds) there are in each state."""
    found: dict[str, dict[str, int]] = {}
    if _is_counted(db):
        wanted = counts.c.kind.in_([table.name for table in kinds])
        rows = [row[1:] for row in db.execute(select(counts).where(wanted, counts.c.n > 0))]
    else:
        rows = []
        for table in kinds:
            columns = table.c.destination, table.c.state
            rows += db.execute(select(*columns, func.count()).group_by(*columns)).all()
    for destination, state, n in rows:
        states = found.setdefault(destination, {})
        states[state] = states.get(state, 0) + n
    return found


def count(db: Connection, kind: str, n: int) -> None:
    """Add to a number that no row stands for."""
    db.exec_driver_sql(_add("?", "''", "''", "?"), (kind, n))


def marks(db: Connection) -> tuple[int, int]:
    """Return the newest sequence numbers ever given to requests and notes."""
    if not _is_counted(db):
        return 0, 0
    found = {name: int(seq) for name, seq in db.exec_driver_sql("select name, seq from sqlite_sequence")}
    return found.get("requests", 0), found.get("notes", 0)


def inserted(db: Connection, since: tuple[int, int]) -> None:
    """Count the rows that this transaction has inserted: in one go, as a trigger for each row doubles its cost."""
    if not _is_counted(db):
        return
    for statement, mark in zip(_INSERTED, since, strict=True):
        db.exec_driver_sql(statement, (mark,))
    if any_orphans(db):
        db.exec_driver_sql(_ORPHANS_FOUND, since)
    db.exec_driver_sql(_ORPHANS_INSERTED, (since[1],))


def inserted_requests(db: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Count requests that this transaction has inserted, and no notes."""
    if not _is_counted(db):
        return
    for (destination, state), n in Counter((row["destination"], row["state"]) for row in rows).items():
        db.exec_driver_sql(_add("'requests'", "?", "?", "?"), (destination, state, n))


def found_orphans(db: Connection, n: int) -> None:
    """Count notes that wait, from now on again, for a request that is not here."""
    if n and _is_counted(db):
        count(db, "orphans", n)


def any_orphans(db: Connection) -> bool:
    """Tell whether any note waits for a request that is not here."""
    if not _is_counted(db):
        return bool(db.scalar(select(_orphan_notes(notes.c.seq).exists())))
    return db.exec_driver_sql("select 1 from counts where kind = 'orphans' and n > 0").first() is not None


def _is_counted(db: Connection) -> bool:
    return db.dialect.name == "sqlite"


def _counted(db: Connection) -> Totals:
    by_state = [
        {state: int(n) for state, n in db.execute(select(table.c.state, func.count()).group_by(table.c.state))}
        for table in (requests, notes)
    ]
    orphans = db.scalar(_orphan_notes(func.count()))
    keyless = db.scalar(select(func.count()).where(requests.c.destination == "", requests.c.state == sql.PENDING))
    oldest, paused = db.scalar(_OLDEST), pausing.since(db)
    return Totals(by_state[0], by_state[1], oldest, int(orphans or 0), int(keyless or 0), paused=paused)


def _orphan_notes(column: Any) -> Any:
    there = select(requests.c.seq).where(requests.c.id == notes.c.request_id).exists()
    return select(column).select_from(notes).where(notes.c.state == sql.WAITING, ~there)


_OPEN = (requests.c.state == sql.PENDING) | (requests.c.state == sql.SENDING)
_OLDEST = select(sql.NOW - func.min(requests.c.ended_at)).where(_OPEN)
_ADD = "on conflict (kind, destination, state) do update set n = n + excluded.n"
_THERE = "exists (select 1 from requests where id = request_id)"
_INSERTED = [
    f"""
    insert into counts (kind, destination, state, n)
      select '{table}', destination, state, count(*) from {table} where seq > ? group by destination, state {_ADD}"""
    for table in ("requests", "notes")
]
_ORPHANS_INSERTED = f"""
    insert into counts (kind, destination, state, n)
      select 'orphans', '', '', count(*) from notes where seq > ? and state = 'waiting' and not {_THERE}
      having count(*) > 0 {_ADD}"""
_ORPHANS_FOUND = f"""
    insert into counts (kind, destination, state, n)
      select 'orphans', '', '', -count(*) from requests join notes on request_id = requests.id
      where requests.seq > ? and notes.seq <= ? and notes.state = 'waiting' having count(*) > 0 {_ADD}"""


def _add(kind: str, destination: str, state: str, n: str) -> str:
    return f"insert into counts (kind, destination, state, n) values ({kind}, {destination}, {state}, {n}) {_ADD}"


def _triggers() -> list[str]:
    made: list[str] = []

    def trigger(name: str, moment: str, table: str, *statements: str, when: str = "1") -> None:
        body = "".join(f"{statement};" for statement in statements)
        made.append(f"create trigger {name} after {moment} on {table} when {when} begin {body} end")

    for table in ("requests", "notes"):
        plus = _add(f"'{table}'", "new.destination", "new.state", "1")
        minus = _add(f"'{table}'", "old.destination", "old.state", "-1")
        trigger(f"{table}_uncounted", "delete", table, minus)
        moved = "old.state <> new.state or old.destination <> new.destination"
        trigger(f"{table}_moved", "update of state, destination", table, minus, plus, when=moved)
    fewer = _add("'orphans'", "''", "''", "-1")
    orphan = f"old.state = 'waiting' and not {_THERE.replace('request_id', 'old.request_id')}"
    trigger("orphans_uncounted", "delete", "notes", fewer, when=orphan)
    trigger("orphans_left", "update of state", "notes", fewer, when=f"new.state <> 'waiting' and {orphan}")
    return made


@event.listens_for(tables, "after_create")
def _start_counting(_: Any, db: Connection, **about: Any) -> None:
    if counts in (about.get("tables") or ()) and db.dialect.name == "sqlite":
        for statement in _triggers():
            db.exec_driver_sql(statement)
