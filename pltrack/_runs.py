"""A run that has started and not ended, and the session it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

if TYPE_CHECKING:
    import asyncio
    import weakref

    from ._blueprint.arrived import Arrived
    from ._callbacks import IdCallback
    from ._records import Call, Scope
    from ._request import Request

Key = int | UUID  # of a run id: its number, as a UUID's own hash is a call of Python


class Owner(Protocol):
    """The session that a handler gathers for."""

    sampled: bool

    @property
    def scope(self) -> Scope:
        """What the session says about its calls."""

    def gather(self, request: Request) -> None:
        """Take a request into this session and those around it."""

    def is_within(self, other: Owner) -> bool:
        """Tell whether this session is `other` or nested in it."""


class Run:
    """A run that has started and not ended."""

    __slots__ = (
        "arrived", "batch", "call", "callbacks", "entry", "given", "handle", "key", "owner", "seen", "streams", "task",
        "thread", "watch",
    )  # fmt: skip

    def __init__(self, key: Key, handle: Request, call: Call, given: Any) -> None:
        self.key = key
        self.given = given  # what all events of one start have in common
        self.call = call
        self.owner: Owner | None = None
        self.entry: Any = None  # the owner's handler
        self.handle = handle
        self.callbacks: list[IdCallback] = []
        self.seen: list[Any] = []  # the handlers that heard of it
        self.task: asyncio.Task[Any] | None = None
        self.thread = 0
        self.batch = 1
        self.streams = False
        self.arrived: Arrived | None = None  # of a stream of protocol events
        self.watch: weakref.ref[UUID] | None = None
