"""What is taken out of the journal, oldest first: the statements of upkeep. A step does so many rows at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Float, case, cast, delete, func, not_, select, update

from .._records import State
from . import counting
from . import statements as sql
from .reading import BUSY_MS, translated
from .schema import bodies, meta, notes, requests, sessions

if TYPE_CHECKING:
    from .store import Store

Step = Callable[[Connection, int], int]

_LEASE = 30.0
_WAIT_MS = 1_000
_ROW_BYTES = 800  # of a request without its content: its row and its places in the indexes
_VARIABLES = "$.prompt_input_variables"
GIVEN_UP = "given up undelivered: the journal was larger than max_size"


class Size(NamedTuple):
    """How large a journal is, in bytes; what is free in it can be used again."""

    whole: int
    free: int

    @property
    def used(self) -> int:
        """What its rows take."""
        return self.whole - self.free

    @classmethod
    def of(cls, db: Connection) -> Size:
        page, pages, free = (
            int(db.exec_driver_sql(f"pragma {name}").scalar_one())
            for name in ("page_size", "page_count", "freelist_count")
        )
        return cls(page * pages, page * free)


# -- one process at a time ------------------------------------------------------------------------------------


def takes_over(db: Connection) -> bool:
    """Take the upkeep over unless another process has it; by the database's clock."""
    db.exec_driver_sql("insert into meta (key, value) values ('upkeep', '0'), ('swept', '0') on conflict do nothing")
    mine = update(meta).where(meta.c.key == "upkeep", _moment() < sql.NOW)
    return db.execute(mine.values(value=sql.NOW + _LEASE)).rowcount == 1


def goes_on(db: Connection) -> None:
    """Keep the others away for another while."""
    db.execute(update(meta).where(meta.c.key == "upkeep").values(value=sql.NOW + _LEASE))


def hands_over(db: Connection, swept: bool) -> None:
    """Let others have it."""
    db.execute(update(meta).where(meta.c.key == "upkeep").values(value="0"))
    if swept:
        db.execute(update(meta).where(meta.c.key == "swept").values(value=sql.NOW))


def sweeps(db: Connection, every: float) -> bool:
    """Tell whether nobody has looked for old rows lately."""
    fresh = select(meta.c.key).where(meta.c.key == "swept", _moment() > sql.NOW - every)
    return not db.scalar(select(fresh.exists()))


def _moment() -> ColumnElement[float]:
    return cast(meta.c.value, Float)


# -- content --------------------------------------------------------------------------------------------------


def clear(db: Connection, seqs: Sequence[int]) -> int:
    """Take out what was said in these requests; what is known of them stays."""
    link = case((requests.c.local_link.is_not(None), func.json_remove(requests.c.local_link, _VARIABLES)))
    db.execute(delete(bodies).where(bodies.c.seq.in_(seqs)))
    return db.execute(update(requests).where(requests.c.seq.in_(seqs)).values(content=0, local_link=link)).rowcount


def clear_notes(db: Connection, seqs: Sequence[int]) -> int:
    """Take the variables out of prompt links."""
    mine = update(notes).where(notes.c.seq.in_(seqs), notes.c.content == 1)
    return db.execute(mine.values(content=0, payload=func.json_remove(notes.c.payload, _VARIABLES))).rowcount


def old_content(delivered: float, refused: float) -> Step:
    """Clear what was delivered, or refused, longer ago than so many seconds."""

    def step(db: Connection, some: int) -> int:
        done = 0
        for state, age in ((sql.DELIVERED_STATE, delivered), (sql.FORWARDED, delivered), (sql.FAILED_STATE, refused)):
            mine = requests.c.state == state, requests.c.content == 1, requests.c.ended_at < sql.NOW - age
            done += clear(db, _seqs(db, requests, some, *mine))
            said = notes.c.state == state, notes.c.content == 1, notes.c.created_at < sql.NOW - age
            done += clear_notes(db, _seqs(db, notes, some, *said))
        return done

    return step


def delivered_content(db: Connection, some: int) -> int:
    """Clear the oldest that PromptLayer has."""
    mine = requests.c.state == sql.DELIVERED_STATE, requests.c.content == 1
    return clear(db, _seqs(db, requests, some, *mine, order=requests.c.ended_at))


def refused_content(db: Connection, some: int) -> int:
    """Clear the oldest that PromptLayer did not want."""
    mine = requests.c.state == sql.FAILED_STATE, requests.c.content == 1
    return clear(db, _seqs(db, requests, some, *mine, order=requests.c.ended_at))


def keyless(db: Connection, some: int) -> int:
    """Give up the oldest that was recorded without a key."""
    mine = requests.c.state == sql.PENDING, requests.c.destination == ""
    return _give_up(db, _seqs(db, requests, some, *mine, order=requests.c.due_at))


def undelivered(db: Connection, some: int) -> int:
    """Give up the oldest that waits; not what is on its way."""
    open_ = (requests.c.state == sql.PENDING) | (requests.c.state == sql.SENDING)
    mine = open_, requests.c.lease_until.is_(None)
    return _give_up(db, _seqs(db, requests, some, *mine, order=requests.c.ended_at))


def _give_up(db: Connection, seqs: Sequence[int]) -> int:
    if not seqs:
        return 0
    clear(db, seqs)
    ids = db.scalars(select(requests.c.id).where(requests.c.seq.in_(seqs))).all()
    db.execute(sql.FAILED_ANYHOW, [{"a_seq": seq, "why": GIVEN_UP} for seq in seqs])
    db.execute(sql.NOTES_FAILED_WITH, [{"a_request": each, "why": f"its request was {GIVEN_UP}"} for each in ids])
    counting.count(db, "lost", len(seqs))
    return len(seqs)


# -- rows -----------------------------------------------------------------------------------------------------


def old_rows(age: float) -> Step:
    """Remove settled requests and notes of so many seconds ago, and the sessions that are empty then."""

    def step(db: Connection, some: int) -> int:
        done = 0
        for state in (sql.DELIVERED_STATE, sql.FORWARDED, sql.FAILED_STATE):
            for content in (0, 1):
                mine = requests.c.state == state, requests.c.content == content, requests.c.ended_at < sql.NOW - age
                done += remove(db, _seqs(db, requests, some, *mine), settled_notes_only=True)
                said = notes.c.state == state, notes.c.content == content, notes.c.created_at < sql.NOW - age
                done += db.execute(delete(notes).where(notes.c.seq.in_(_seqs(db, notes, some, *said)))).rowcount
        return done + empty_sessions(db, sessions.c.started_at < sql.NOW - age, some)

    return step


def rows_beyond(most: int) -> Step:
    """Remove the oldest delivered requests while what is known of them takes more than so many bytes."""

    def step(db: Connection, some: int) -> int:
        if counting.totals(db).requests.get(State.DELIVERED, 0) * _ROW_BYTES <= most:
            return 0
        mine = requests.c.state == sql.DELIVERED_STATE, requests.c.content == 0
        return remove(db, _seqs(db, requests, some, *mine, order=requests.c.ended_at), settled_notes_only=True)

    return step


def remove(db: Connection, seqs: Sequence[int], *, settled_notes_only: bool = False) -> int:
    """Remove requests with their content and what was said about them."""
    if not seqs:
        return 0
    ids = select(requests.c.id).where(requests.c.seq.in_(seqs))
    said = delete(notes).where(notes.c.request_id.in_(ids))
    if settled_notes_only:  # what is on its way knows PromptLayer's id by itself
        said = said.where(notes.c.state.in_([State.DELIVERED, State.FAILED]))
    db.execute(said)
    db.execute(delete(bodies).where(bodies.c.seq.in_(seqs)))
    return db.execute(delete(requests).where(requests.c.seq.in_(seqs))).rowcount


def empty_sessions(db: Connection, which: ColumnElement[bool], some: int) -> int:
    """Remove sessions that have neither requests nor sessions in them."""
    inner = sessions.alias("inner")
    used = select(requests.c.seq).where(requests.c.session_id == sessions.c.id).exists()
    around = select(inner.c.id).where(inner.c.parent == sessions.c.id).exists()
    empty = db.scalars(select(sessions.c.id).where(which, not_(used), not_(around)).limit(some)).all()
    db.execute(delete(sessions).where(sessions.c.id.in_(empty)))
    return len(empty)


# -- size -----------------------------------------------------------------------------------------------------


def until(target: int, step: Step) -> Step:
    """Do `step` only while the rows take more than so many bytes."""
    return lambda db, some: step(db, some) if Size.of(db).used > target else 0


def vacuum(spare: int, most: int, at_once: bool) -> Step:
    """Give free pages back to the file system, where there are many or the file is too large."""

    def step(db: Connection, some: int) -> int:
        size = Size.of(db)
        wanted = at_once or size.free > size.whole // 4 or size.whole > most * 0.95
        if size.free <= min(spare, most // 16) or not wanted:
            return 0
        driver: Any = db.connection.driver_connection
        driver.execute(f"pragma incremental_vacuum({some})").fetchall()  # a row for each page
        return size.whole - Size.of(db).whole

    return step


def _seqs(db: Connection, table: Any, some: int, *which: Any, order: Any = None) -> list[int]:
    statement = select(table.c.seq).where(*which).limit(some)
    return list(db.scalars(statement if order is None else statement.order_by(order)))


# -- the file -------------------------------------------------------------------------------------------------


def rewrite(store: Store) -> None:
    """Write the whole file anew, without any trace of what was deleted."""
    with _impatient(store) as driver:
        driver.execute("vacuum")


def checkpoint(store: Store, *, truncate: bool = False) -> bool:
    """Write what is in the WAL into the file itself; return whether all of it is there, and the WAL empty."""
    if store.path is None:
        return True
    with _impatient(store) as driver:
        how = "truncate" if truncate else "passive"
        busy, pages, moved = driver.execute(f"pragma wal_checkpoint({how})").fetchone()
    return not busy and pages == moved


@contextmanager
def _impatient(store: Store) -> Iterator[Any]:
    """Lend the driver's connection, with a short wait for other processes."""
    with store._gate, store._lock, translated(store.name), closing(store._engine.raw_connection()) as connection:
        driver: Any = connection.driver_connection
        driver.execute(f"pragma busy_timeout = {_WAIT_MS}")
        try:
            yield driver
        finally:
            driver.execute(f"pragma busy_timeout = {BUSY_MS}")
