"""The tables of a journal and of a hub. Within a major version they change by additions only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

# Raised by a breaking change only. A column that is added within a version may be null or has a server default.
VERSION = 1
READS_SINCE = 1  # files of earlier schemas from this one on are delivered, too

tables = MetaData()
_Number = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's row number is of exactly this type


def _index(name: str, *columns: Column[Any], where: str) -> None:
    Index(name, *columns, sqlite_where=text(where))  # the hub's is the same: naming its dialect loads it, which costs


meta = Table("meta", tables, Column("key", String, primary_key=True), Column("value", String, nullable=False))

sessions = Table(
    "sessions",
    tables,
    Column("id", String, primary_key=True),
    Column("root", String, nullable=False),
    Column("parent", String, index=True),
    Column("name", String, nullable=False, default=""),
    Column("user", String, index=True),
    Column("conversation", String),
    Column("tags", String, nullable=False, default="[]"),
    Column("metadata", String, nullable=False, default="{}"),
    Column("app", String, nullable=False, default=""),
    Column("started_at", Float, nullable=False, index=True),
)

requests = Table(
    "requests",
    tables,
    # AUTOINCREMENT: a sequence number is never given twice, so that "rows up to here" keeps its meaning.
    Column("seq", _Number, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("session_id", String, index=True),
    Column("root", String, index=True),
    Column("owner", String, nullable=False),  # the process that wrote it
    Column("app", String, nullable=False, default=""),
    Column("destination", String, nullable=False),  # fingerprint; empty: recorded without a key
    Column("state", String, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("lease_until", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("uncertain", Integer, nullable=False, default=0),  # it may have arrived: look before sending again
    Column("pl_id", _Number),
    Column("reason", String),
    Column("kind", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("model", String, nullable=False),
    Column("status", String, nullable=False),
    Column("linked", Integer, nullable=False, default=0),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("first_token_at", Float),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("cost", Float),
    Column("cache_hit", Integer, nullable=False, default=0),
    Column("tags", String, nullable=False, default="[]"),  # as JSON
    Column("prompt_name", String),  # the prompt it is linked to, by itself or by hand
    Column("prompt_version", _Number),
    Column("local_link", String),  # a link to a version that only this journal's registry has, as JSON
    Column("content", Integer, nullable=False, server_default=text("1")),  # 0: its body is gone
    sqlite_autoincrement=True,
)
# Apart from the request: claiming and marking would otherwise write a page of the file for each row, and so content
# can go while the request's facts stay.
bodies = Table(
    "bodies",
    tables,
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("payload", LargeBinary, nullable=False),  # the body of /log-request as JSON
)
# By destination first: what waits for another one, or for none, may be a million rows.
_index("requests_due", requests.c.destination, requests.c.due_at, where="state = 'pending'")
_index("requests_leased", requests.c.lease_until, where="state = 'sending'")
_index(
    "requests_unsettled",
    *(requests.c[name] for name in ("owner", "destination", "state", "due_at")),
    where="state <> 'delivered'",
)
_index("ix_requests_pl_id", requests.c.pl_id, where="pl_id is not null")
_index("requests_open", requests.c.ended_at, where="state = 'pending' or state = 'sending'")
_index("requests_settled", requests.c.content, requests.c.ended_at, where="state = 'delivered'")
_index("requests_forwarded", requests.c.content, requests.c.ended_at, where="state = 'forwarded'")
_index("requests_failed", requests.c.content, requests.c.ended_at, where="state = 'failed'")

notes = Table(
    "notes",
    tables,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),  # a note that is forwarded twice is one note
    Column("request_id", String, index=True),
    Column("session_id", String),  # of a note about a whole session, on its way to the hub
    Column("pl_id", _Number),
    Column("kind", String, nullable=False),
    Column("payload", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("destination", String, nullable=False),
    Column("state", String, nullable=False),  # as requests, and "waiting" until the request has its id
    Column("due_at", Float, nullable=False),
    Column("lease_until", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("reason", String),
    Column("created_at", Float, nullable=False),
    Column("content", Integer, nullable=False, server_default=text("0")),  # 1: `payload` holds a prompt's variables
    sqlite_autoincrement=True,
)
_index("notes_due", notes.c.destination, notes.c.due_at, where="state = 'pending'")
_index("notes_in_order", notes.c.destination, notes.c.seq, where="state = 'pending'")
_index("notes_leased", notes.c.lease_until, where="state = 'sending'")
_index("notes_waiting", notes.c.created_at, where="state = 'waiting'")
_index("notes_target", notes.c.pl_id, notes.c.seq, where="state = 'pending' or state = 'sending'")
_index(
    "notes_unsettled",
    *(notes.c[name] for name in ("owner", "destination", "state", "due_at")),
    where="state <> 'delivered'",
)
_index("notes_settled", notes.c.content, notes.c.created_at, where="state = 'delivered'")
_index("notes_forwarded", notes.c.content, notes.c.created_at, where="state = 'forwarded'")
_index("notes_failed", notes.c.content, notes.c.created_at, where="state = 'failed'")

prompts = Table(
    "prompts",
    tables,
    Column("destination", String, primary_key=True),  # empty: the local registry
    Column("name", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
)
prompt_labels = Table(
    "prompt_labels",
    tables,
    Column("destination", String, nullable=False),
    Column("name", String, nullable=False),
    Column("label", String, nullable=False),  # empty: the newest version
    Column("version", Integer, nullable=False),
    Column("fetched_at", Float, nullable=False),
    UniqueConstraint("destination", "name", "label"),
)
