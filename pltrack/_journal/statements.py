"""The journal's statements that are used again and again, as constants with a line on why they are so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from .._records import State
from .schema import bodies, notes, requests

# Literals, not bound values: only so does SQLite see that a partial index answers the question.
PENDING: ColumnElement[str] = literal_column("'pending'")
SENDING: ColumnElement[str] = literal_column("'sending'")
WAITING: ColumnElement[str] = literal_column("'waiting'")
FORWARDED: ColumnElement[str] = literal_column("'forwarded'")
DELIVERED_STATE: ColumnElement[str] = literal_column("'delivered'")
FAILED_STATE: ColumnElement[str] = literal_column("'failed'")
LEASE = 60.0
BORROW_AFTER = 5.0  # seconds past due after which any process may deliver another one's row
ORPHAN_AFTER = 24 * 3600.0
LONGEST_WAIT = 3600.0  # seconds that any answer may put a row off


class _Now(FunctionElement[float]):
    """The database's clock, not this process's: leases of several processes must agree. Fraction included."""

    name = "now_in_seconds"
    type = Float()
    inherit_cache = True


@compiles(_Now, "sqlite")
def _now_of_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Now, "postgresql")
def _now_of_postgresql(*_: Any, **__: Any) -> str:
    return "cast(extract(epoch from clock_timestamp()) as double precision)"


NOW = _Now()


REQUEST_COLUMNS = (
    "seq", "id", "session_id", "root", "owner", "app", "destination", "state", "due_at", "attempts", "uncertain",
    "kind", "provider", "model", "status", "linked", "started_at", "ended_at", "first_token_at", "input_tokens",
    "output_tokens", "cached_tokens", "reasoning_tokens", "cost", "cache_hit", "tags", "prompt_name",
    "prompt_version", "local_link",
)  # fmt: skip


def _claimable(table: Any, due_at: Any) -> Any:
    mine = or_(table.c.owner == bindparam("me"), table.c.due_at <= NOW - bindparam("patience"))
    return (due_at <= NOW) & mine


def _claim(table: Any, columns: Sequence[Any], extra: Sequence[Any], order: Any) -> Any:
    due = (
        select(table.c.seq)
        .where(
            table.c.state == PENDING,
            # + 0 where the order is not the one they are due in: or SQLite sorts all that are
            _claimable(table, table.c.due_at if order is table.c.due_at else table.c.due_at + 0),
            table.c.destination.in_(bindparam("destinations", expanding=True)),
            *extra,
        )
        .order_by(order)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True)  # several workers on one hub: each takes other rows
        .cte("due")
    )
    return (
        update(table)
        .where(table.c.seq.in_(select(due.c.seq)))
        .values(state=SENDING, lease_until=NOW + LEASE, attempts=table.c.attempts + 1)
        .returning(*columns)
    )


CLAIM_REQUESTS = _claim(
    requests,
    [requests.c[n] for n in ("seq", "id", "destination", "attempts", "uncertain")],
    (),
    requests.c.due_at,
)
BODIES = select(bodies.c.seq, bodies.c.payload).where(bodies.c.seq.in_(bindparam("seqs", expanding=True)))
_earlier = notes.alias("earlier")
NOTE_FIELDS = (
    "id", "request_id", "session_id", "pl_id", "kind", "payload", "owner", "destination", "due_at", "created_at",
)  # fmt: skip
_FREED: ColumnElement[str] = case((notes.c.pl_id.is_(null()), WAITING), else_=PENDING)  # a note's state without a lease
NOTE_COLUMNS = [notes.c[n] for n in ("seq", "request_id", "pl_id", "kind", "payload", "destination", "attempts")]
CLAIM_NOTES = _claim(
    notes,
    NOTE_COLUMNS,
    [
        # In order: not while an earlier note about the same request is out, waits for its next try, or is another
        # process's to send.
        ~select(_earlier.c.seq)
        .where(
            _earlier.c.pl_id == notes.c.pl_id,
            _earlier.c.destination == notes.c.destination,
            _earlier.c.seq < notes.c.seq,
            or_(
                _earlier.c.state == SENDING,
                (_earlier.c.state == PENDING) & ~_claimable(_earlier, _earlier.c.due_at),
            ),
        )
        .exists()
    ],
    notes.c.seq,
)


def _outgoing(table: Any, columns: Sequence[Any], states: Sequence[Any]) -> Any:
    """Claim for the hub: whatever its destination, and without waiting until it is due."""
    chosen = (
        select(table.c.seq)
        .where(
            or_(*(table.c.state == state for state in states)),
            or_(table.c.owner == bindparam("me"), table.c.due_at <= NOW - bindparam("patience")),
        )
        .order_by(table.c.seq)
        .limit(bindparam("most"))
        .cte("chosen")
    )
    return (
        update(table)
        .where(table.c.seq.in_(select(chosen.c.seq)))
        .values(state=SENDING, lease_until=NOW + LEASE)
        .returning(*columns, (table.c.due_at - NOW).label("due_in"))
    )


OUTGOING_REQUESTS = _outgoing(requests, [requests.c[name] for name in REQUEST_COLUMNS], (PENDING,))
OUTGOING_NOTES = _outgoing(notes, [notes.c[name] for name in ("seq", *NOTE_FIELDS)], (PENDING, WAITING))
HANDED_OVER = [
    update(table)
    .where(table.c.seq == bindparam("a_seq"), table.c.state == SENDING)
    .values(state=FORWARDED, lease_until=None)
    for table in (requests, notes)
]
PUT_BACK = [
    update(requests)
    .where(requests.c.seq == bindparam("a_seq"), requests.c.state == SENDING)
    .values(state=PENDING, lease_until=None),
    update(notes)
    .where(notes.c.seq == bindparam("a_seq"), notes.c.state == SENDING)
    .values(state=_FREED, lease_until=None),
]
BROUGHT_BACK = (
    update(requests)
    .where(requests.c.id == bindparam("an_id"), requests.c.state == FORWARDED)
    .values(state=bindparam("new_state"), pl_id=bindparam("new_id"), reason=bindparam("why"))
)
UNFORWARDED = select(
    or_(
        *(
            select(table.c.seq)
            .where(table.c.state == state, table.c.owner == bindparam("me"), table.c.seq + 0 <= bindparam(newest))
            .exists()
            for table, newest, states in (
                (requests, "newest", (PENDING, SENDING)),
                (notes, "newest_note", (PENDING, SENDING, WAITING)),
            )
            for state in states
        )
    )
)
ANY_PENDING_NOTE = select(select(notes.c.seq).where(notes.c.state == PENDING).exists())
ANY_WAITING = select(select(notes.c.seq).where(notes.c.state == WAITING).exists())
NOTES_WAITING = (
    select(*NOTE_COLUMNS)
    .where(notes.c.request_id.in_(bindparam("ids", expanding=True)), notes.c.state == WAITING)
    .order_by(notes.c.seq)
)


def _driver_text(statement: Any) -> str:
    # The statements that every call pays for: building them anew costs as much as running them.
    return str(statement.compile(dialect=sqlite_dialect(paramstyle="named")))


DRIVER_INSERTS = {
    "requests": _driver_text(
        insert(requests).values({name: bindparam(name) for name in REQUEST_COLUMNS}).on_conflict_do_nothing()
    ),
    "bodies": _driver_text(insert(bodies).values(seq=bindparam("seq"), payload=bindparam("payload"))),
}
LINKED_BY_HAND = (
    update(requests)
    .where(requests.c.id == bindparam("an_id"))
    .values(prompt_name=bindparam("prompt"), prompt_version=bindparam("version"))
)
NUMBER_FROM = """insert into sqlite_sequence (name, seq)
    select ?, ? where not exists (select 1 from sqlite_sequence where name = ?)"""
LAST_SEQ = "select coalesce((select seq from sqlite_sequence where name = 'requests'), 0)"


def _of_target(column: str) -> Any:
    return select(requests.c[column]).where(requests.c.id == bindparam("request_id")).scalar_subquery()


# One that is known by PromptLayer's id goes to the workspace that gave the id.
_of_numbered = select(requests.c.destination).where(requests.c.pl_id == bindparam("pl_id")).limit(1).scalar_subquery()
# A note learns from its request, in the same transaction, whether it can go, where to, and if all is lost.
NOTE_VALUES = dict(
    id=bindparam("id"),
    request_id=bindparam("request_id"),
    session_id=bindparam("session_id"),
    pl_id=func.coalesce(bindparam("pl_id"), _of_target("pl_id")),
    kind=bindparam("kind"),
    payload=bindparam("payload"),
    owner=bindparam("owner"),
    destination=func.coalesce(_of_target("destination"), _of_numbered, bindparam("destination")),
    state=case(
        (bindparam("pl_id", type_=notes.c.pl_id.type).is_not(null()), PENDING),
        (_of_target("state") == literal_column("'delivered'"), PENDING),
        (_of_target("state") == literal_column("'failed'"), literal_column("'failed'")),
        else_=WAITING,
    ),
    reason=case(
        (_of_target("state") == literal_column("'failed'"), literal_column("'its request was refused'")), else_=None
    ),
    due_at=bindparam("due_at"),
    attempts=0,
    created_at=bindparam("created_at"),
    content=case((bindparam("kind") == "prompt", 1), else_=0),
)

# One look into an index each: a million rows may be pending.
NEXT_DUE = [
    select(func.min(table.c.due_at) - NOW).where(
        table.c.state == PENDING, table.c.destination == bindparam("destination"), *mine
    )
    for table in (requests, notes)
    for mine in ((), (table.c.owner == bindparam("me"), table.c.state != DELIVERED_STATE))
]


def _unsettled_of(table: Any, newest: str) -> tuple[ColumnElement[bool], ...]:
    # + 0: or SQLite walks the whole table by its key instead of the few rows in the partial index
    return (
        table.c.owner == bindparam("me"),
        table.c.state != DELIVERED_STATE,
        table.c.seq + 0 <= bindparam(newest),
    )


UNSETTLED = select(
    or_(
        *(
            select(table.c.seq)
            .where(
                table.c.state == state,
                *_unsettled_of(table, newest),
                table.c.destination.in_(bindparam("destinations", expanding=True)),
            )
            .exists()
            for table, newest in ((requests, "newest"), (notes, "newest_note"))
            for state in (PENDING, SENDING)
        )
    )
)
PROGRESS = [
    # By destination, too: the order of the index, so that nothing is sorted.
    select(table.c.state, func.count())
    .where(*_unsettled_of(table, "newest"))
    .group_by(table.c.destination, table.c.state)
    for table in (requests, notes)
]
WRITTEN = [
    select(func.count()).where(
        table.c.owner == bindparam("me"), table.c.seq > bindparam("oldest"), table.c.seq <= bindparam("newest")
    )
    for table in (requests, notes)
]

_by_seq = requests.c.seq == bindparam("a_seq")
_note_by_seq = notes.c.seq == bindparam("a_seq")
_note_waiting = (notes.c.request_id == bindparam("a_request")) & (notes.c.state == WAITING)

DELIVERED = (
    update(requests)
    .where(_by_seq)
    .values(state=State.DELIVERED.value, pl_id=bindparam("new_id"), lease_until=None, reason=None)
)
# Attempts tell leases apart: who lost a lease to another process changes nothing of what that one does.
_held = (requests.c.state == SENDING) & (requests.c.attempts == bindparam("held"))
FAILED = (
    update(requests).where(_by_seq, _held).values(state=State.FAILED.value, reason=bindparam("why"), lease_until=None)
)
FAILED_ANYHOW = (
    update(requests).where(_by_seq).values(state=State.FAILED.value, reason=bindparam("why"), lease_until=None)
)
NOTE_DELIVERED = update(notes).where(_note_by_seq).values(state=State.DELIVERED.value, lease_until=None, reason=None)
NOTE_FAILED = (
    update(notes).where(_note_by_seq).values(state=State.FAILED.value, reason=bindparam("why"), lease_until=None)
)
# A prompt's own link is part of its request; refused, it is kept as a note, so that it can be seen.
LOST_LINK_COLUMNS = [
    "id", "request_id", "pl_id", "kind", "payload", "owner", "destination", "state", "due_at", "attempts", "reason",
    "created_at",
]  # fmt: skip
LOST_LINK = select(
    requests.c.id + "/link", requests.c.id, bindparam("new_id", type_=notes.c.pl_id.type), literal("prompt"),
    bindparam("link", type_=notes.c.payload.type), requests.c.owner, requests.c.destination, literal("failed"), NOW,
    literal(1), bindparam("why", type_=notes.c.reason.type), NOW,
).where(_by_seq)  # fmt: skip
NOTES_READY = (
    update(notes)
    .where(_note_waiting)
    .values(state=State.PENDING.value, pl_id=bindparam("new_id"), destination=bindparam("to"), due_at=NOW)
)
NOTES_FAILED_WITH = update(notes).where(_note_waiting).values(state=State.FAILED.value, reason=bindparam("why"))
RETRY_REQUEST = (
    update(requests)
    .where(_by_seq, _held)
    .values(
        state=State.PENDING.value,
        due_at=NOW + bindparam("wait"),
        uncertain=bindparam("unsure"),
        reason=bindparam("why"),
        attempts=requests.c.attempts - bindparam("back"),
        lease_until=None,
    )
)
RETRY_NOTE = (
    update(notes)
    .where(_note_by_seq, notes.c.state == SENDING, notes.c.attempts == bindparam("held"))
    .values(state=State.PENDING.value, due_at=NOW + bindparam("wait"), reason=bindparam("why"), lease_until=None)
)
# A lease or a wait that ends later than it could was given before the clock was set back.
EXPIRE = [
    update(requests)
    .where(requests.c.state == SENDING, ~requests.c.lease_until.between(NOW, NOW + LEASE + 1))
    .values(state=State.PENDING.value, uncertain=1, lease_until=None),
    update(notes)
    .where(notes.c.state == SENDING, ~notes.c.lease_until.between(NOW, NOW + LEASE + 1))
    .values(state=_FREED, lease_until=None),
    *(
        update(table).where(table.c.state == PENDING, table.c.due_at > NOW + LONGEST_WAIT + 1).values(due_at=NOW)
        for table in (requests, notes)
    ),
]
GIVE_UP_ORPHANS = (
    update(notes)
    .where(
        notes.c.state == WAITING,
        notes.c.created_at < NOW - ORPHAN_AFTER,
        ~select(requests.c.seq).where(requests.c.id == notes.c.request_id).exists(),
    )
    .values(state=State.FAILED.value, reason="no request with this id was recorded here within 24 hours")
)
HURRY_ROOTS = (
    update(requests)
    .where(
        requests.c.root == bindparam("a_root"),
        requests.c.state == PENDING,
        requests.c.due_at > NOW + 0.05,
    )
    .values(due_at=NOW + 0.05)
)
