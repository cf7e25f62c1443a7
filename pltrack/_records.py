"""What flows from a LangChain event to the journal: scopes, calls, notes, and their states."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from uuid import UUID

    from ._plain import Frozen

Kind = Literal["chat", "llm"]


class State(StrEnum):
    """Where a row of the journal stands."""

    PENDING = "pending"  # on disk, to be sent when due
    SENDING = "sending"  # claimed by a courier until its lease ends
    DELIVERED = "delivered"  # PromptLayer has answered 2xx
    FAILED = "failed"  # PromptLayer refused it for good; `reason` has its words
    FORWARDED = "forwarded"  # the hub has it; what became of it there is asked for when somebody wants to know


OPEN_STATES = ("pending", "sending", "waiting")  # of requests and notes that are still to be delivered


def open_of(counts: Mapping[str, int]) -> int:
    """Return how many are still to be delivered, of numbers by state."""
    return sum(counts.get(state, 0) for state in OPEN_STATES)


class Noted(StrEnum):
    """What can be said about a request after the call."""

    SCORE = "score"
    METADATA = "metadata"
    PROMPT = "prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a session says about each call made in it; fixed when the session is entered."""

    id: str
    root: str
    name: str = ""
    parent: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    conversation: str | None = None
    destination: str = ""
    capture: str = "full"
    started_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A request's link to a version (or label) of a prompt in the registry."""

    name: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    version: int | None = None
    label: str | None = None
    local: bool = False  # the version exists in this journal's own registry only: nothing to tell PromptLayer

    def payload(self) -> dict[str, Any]:
        """Return the link as a note carries it."""
        body: dict[str, Any] = {"prompt_name": self.name, "prompt_input_variables": dict(self.variables)}
        if self.version is not None:
            body["version"] = self.version
        if self.label is not None:
            body["label"] = self.label
        return body


class Handle(Protocol):
    """What the program holds of a call."""

    @property
    def id(self) -> str:
        """The id of our own."""

    def resolved(self, pl_id: int | None) -> None:
        """Take PromptLayer's id, or None for a request that was refused for good."""

    def renamed(self, id: str) -> None:
        """Take another id of our own: another request has the first one."""

    def slim(self) -> None:
        """Keep no content any more: the call is in the journal, or nowhere."""


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One LLM run as the handler saw it: snapshots only, nothing that anybody else can still change.

    Made on the app's thread, so as it comes: what it means is worked out on the writer's.
    """

    handle: Handle
    run_id: UUID
    kind: Kind
    parent_run_id: UUID | None = None
    scope: Scope | None = None
    destination: str = ""
    tags: tuple[str, ...] = ()
    langchain_tags: tuple[str, ...] = ()
    langchain_metadata: dict[Any, Any] = field(default_factory=dict)
    serialized_name: str = ""
    inputs: tuple[Any, ...] = ()
    parameters: Frozen = b"{}"
    named: tuple[str, str] | None = None  # provider and model, once that is worked out
    link: Link | None = None
    started_at: float = 0.0
    first_token_at: float | None = None
    ended_at: float = 0.0
    result: Any = None
    status: str = "SUCCESS"
    error_type: str | None = None
    error_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A score, metadata or prompt link said about one request (ours or PromptLayer's id) or one session."""

    kind: Noted
    payload: Mapping[str, Any]
    request_id: str | None = None
    pl_id: int | None = None
    session_id: str | None = None
    destination: str = ""
    created_at: float = field(default_factory=time.time)
    capture: str = "full"
    id: str = field(default_factory=lambda: new_id())


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """An outermost session was left: its requests need not wait for more notes."""

    root: str


@dataclass(frozen=True, slots=True)
class Barrier:
    """A question to the writer: `reached` is called when all that was put before it is on disk."""

    reached: Callable[[], None]


Written = Call | Note | Scope | SessionEnded | Barrier


def new_id() -> str:
    """Return a new id that sorts by time, never repeats after a fork or `random.seed`, and looks like a UUIDv7."""
    value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def process_token() -> str:
    """Return a name for this process that no other process on any machine has."""
    return f"{os.getpid()}-{secrets.token_hex(6)}"
