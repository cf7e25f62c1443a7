"""The journal's statements that are used again and again, as constants with a line on why they are so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, case, func, literal_column, null, or_, select, update
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert

from .._records import State
from .schema import bodies, notes, requests

# Literals, not bound values: only so does SQLite see that a partial index answers the question.
PENDING: ColumnElement[str] = literal_column("'pending'")
SENDING: ColumnElement[str] = literal_column("'sending'")
WAITING: ColumnElement[str] = literal_column("'waiting'")
DELIVERED_STATE: ColumnElement[str] = literal_column("'delivered'")
LEASE = 60.0
BORROW_AFTER = 5.0  # seconds past due after which any process may deliver another one's row
ORPHAN_AFTER = 24 * 3600.0

# The database's clock, not this process's: leases of several processes must agree. Fraction included.
NOW: ColumnElement[float] = literal_column("((julianday('now') - 2440587.5) * 86400.0)")


REQUEST_COLUMNS = (
    "seq", "id", "session_id", "root", "owner", "app", "destination", "state", "due_at", "attempts", "uncertain",
    "kind", "provider", "model", "status", "linked", "started_at", "ended_at", "first_token_at", "input_tokens",
    "output_tokens", "cached_tokens", "reasoning_tokens", "cost", "cache_hit", "local_link",
)  # fmt: skip


def _claim(table: Any, columns: Sequence[Any], extra: Sequence[Any], order: Any) -> Any:
    due = (
        select(table.c.seq)
        .where(
            table.c.state == PENDING,
            # + 0 where the order is not the one they are due in: or SQLite sorts all that are
            (table.c.due_at if order is table.c.due_at else table.c.due_at + 0) <= NOW,
            table.c.destination.in_(bindparam("destinations", expanding=True)),
            or_(table.c.owner == bindparam("me"), table.c.due_at <= NOW - bindparam("patience")),
            *extra,
        )
        .order_by(order)
        .limit(bindparam("most"))
    )
    return (
        update(table)
        .where(table.c.seq.in_(due))
        .values(state=State.SENDING, lease_until=NOW + LEASE, attempts=table.c.attempts + 1)
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
NOTE_COLUMNS = [notes.c[n] for n in ("seq", "request_id", "pl_id", "kind", "payload", "destination", "attempts")]
CLAIM_NOTES = _claim(
    notes,
    NOTE_COLUMNS,
    [
        # In order: not while an earlier note about the same request is out, or waits for its next try.
        ~select(_earlier.c.seq)
        .where(
            _earlier.c.pl_id == notes.c.pl_id,
            _earlier.c.seq < notes.c.seq,
            or_(
                _earlier.c.state == SENDING,
                (_earlier.c.state == PENDING) & (_earlier.c.due_at > NOW),
            ),
        )
        .exists()
    ],
    notes.c.seq,
)
ANY_WAITING = select(select(notes.c.seq).where(notes.c.state == WAITING).exists())
NOTES_WAITING = (
    select(*NOTE_COLUMNS)
    .where(notes.c.request_id.in_(bindparam("ids", expanding=True)), notes.c.state == WAITING)
    .order_by(notes.c.seq)
)


def _driver_text(statement: Any) -> str:
    # The statements that every call pays for: building them anew costs as much as running them.
    return str(statement.compile(dialect=sqlite_dialect(paramstyle="named")))


INSERT_REQUEST = _driver_text(
    insert(requests).values({name: bindparam(name) for name in REQUEST_COLUMNS}).on_conflict_do_nothing()
)
INSERT_BODY = _driver_text(insert(bodies).values(seq=bindparam("seq"), payload=bindparam("payload")))
LAST_SEQ = "select coalesce((select seq from sqlite_sequence where name = 'requests'), 0)"

_target = (
    select(requests.c.pl_id, requests.c.destination, requests.c.state)
    .where(requests.c.id == bindparam("request_id"))
    .subquery("target")
)


def _of_target(column: str) -> Any:
    return select(requests.c[column]).where(requests.c.id == bindparam("request_id")).scalar_subquery()


# A note learns from its request, in the same transaction, whether it can go, where to, and if all is lost.
INSERT_NOTE = insert(notes).values(
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
        else_="waiting",
    ),
    reason=case((_of_target("state") == State.FAILED, "its request was refused"), else_=None),
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
    .values(state=State.DELIVERED, pl_id=bindparam("new_id"), lease_until=None, reason=None)
)
FAILED = update(requests).where(_by_seq).values(state=State.FAILED, reason=bindparam("why"), lease_until=None)
NOTE_DELIVERED = update(notes).where(_note_by_seq).values(state=State.DELIVERED, lease_until=None, reason=None)
NOTE_FAILED = update(notes).where(_note_by_seq).values(state=State.FAILED, reason=bindparam("why"), lease_until=None)
NOTES_READY = (
    update(notes)
    .where(_note_waiting)
    .values(state=State.PENDING, pl_id=bindparam("new_id"), destination=bindparam("to"), due_at=NOW)
)
NOTES_FAILED_WITH = update(notes).where(_note_waiting).values(state=State.FAILED, reason=bindparam("why"))
RETRY_REQUEST = (
    update(requests)
    .where(_by_seq, requests.c.state == SENDING)
    .values(
        state=State.PENDING,
        due_at=NOW + bindparam("wait"),
        uncertain=bindparam("unsure"),
        reason=bindparam("why"),
        attempts=requests.c.attempts - bindparam("back"),
        lease_until=None,
    )
)
RETRY_NOTE = (
    update(notes)
    .where(_note_by_seq, notes.c.state == SENDING)
    .values(state=State.PENDING, due_at=NOW + bindparam("wait"), reason=bindparam("why"), lease_until=None)
)
EXPIRE = [
    update(requests)
    .where(requests.c.state == SENDING, requests.c.lease_until < NOW)
    .values(state=State.PENDING, uncertain=1, lease_until=None),
    update(notes)
    .where(notes.c.state == SENDING, notes.c.lease_until < NOW)
    .values(state=State.PENDING, lease_until=None),
]
GIVE_UP_ORPHANS = (
    update(notes)
    .where(
        notes.c.state == WAITING,
        notes.c.created_at < NOW - ORPHAN_AFTER,
        ~select(requests.c.seq).where(requests.c.id == notes.c.request_id).exists(),
    )
    .values(state=State.FAILED, reason="no request with this id was recorded here within 24 hours")
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
