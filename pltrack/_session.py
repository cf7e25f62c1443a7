"""Sessions: what is called inside one is gathered by it, and can be spoken about."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from . import _blocks, _headers, _runtime, _shapes, _waiting
from ._blocks import Attached, Attachment, Steps
from ._checks import (
    checked_metadata,
    checked_name,
    checked_tags,
    checked_text,
    link_payload,
    metadata_payload,
    score_payload,
)
from ._records import Noted, Scope, SessionEnded, new_id
from ._request import NO_REQUEST, Request, UsageTotals, chosen, totals
from ._settings import Destination, checked_key

if TYPE_CHECKING:
    from ._handler import Handler

F = TypeVar("F", bound=Callable[..., Any])
On = Literal["all", "last"] | Callable[[Request], object]


class Session:
    """A scope that gathers every LangChain call made in it; a handle to all of them afterwards.

    Use it with `with` or `async with`. Tags of nested sessions add up, their metadata merge, and the outer
    session gathers what the inner one gathers.
    """

    def __init__(
        self,
        name: str = "",
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        user: str | None = None,
        conversation: str | None = None,
        id: str | None = None,
        api_key: str | None = None,
        capture: str | None = None,
    ) -> None:
        self.id = new_id() if id is None else _checked_id(id)
        self._name = checked_text("name", name)
        self._tags = checked_tags("tags", tags)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise TypeError(f"metadata: expected a mapping, got {type(metadata).__name__}")
        self._metadata = checked_metadata("metadata", metadata or {})
        self._user = None if user is None else checked_text("user", user)
        self._conversation = None if conversation is None else checked_text("conversation", conversation)
        self._api_key = None if api_key is None else _checked_key(api_key)
        if capture not in (None, "full", "metadata"):
            raise ValueError(f"capture: expected 'full' or 'metadata', got {capture!r}")
        self._capture = capture
        self._joined: _headers.Joined | None = None
        self._parent: Session | None = None
        self._scope: Scope | None = None
        self._requests: dict[Request, None] = {}  # in call order; a request is taken once
        self._blocks: list[Handler | None] = []
        self._ended = False
        self._written = False
        self.sampled = True

    def __repr__(self) -> str:
        return f"<pltrack.Session {self.id} with {len(self._requests)} requests>"

    # -- the scope ----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._blocks.append(_blocks.enter(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _blocks.leave(self._blocks)
        if not self._blocks:
            self.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def attach(self) -> Attachment[Self]:
        """Return a `with` block in which calls belong to this session again: in another thread or task, or later."""
        return Attachment(self)

    def steps(self) -> Steps:
        """Return what to enter around each step of a stream that belongs to this session; for `_shapes`."""
        return Steps(self)

    def bind(self, function: F) -> F:
        """Return `function` (sync, async or a generator) so that it runs attached to this session."""
        if not callable(function):
            raise TypeError(f"function: expected something callable, got {type(function).__name__}")
        from ._bound import bound

        wrapped: F = bound(function, lambda *_: (function, Attached(self)))
        return wrapped

    def follow(self, stream: Any) -> Any:
        """Return an iterator (sync or async) over `stream` whose calls belong to this session wherever it is read."""
        if not hasattr(stream, "__iter__") and not hasattr(stream, "__aiter__"):
            raise TypeError(f"stream: expected something to iterate over, got {type(stream).__name__}")
        return _shapes.follow(stream, Attached(self))

    @property
    def scope(self) -> Scope:
        """What this session says about its calls; fixed when it is first entered."""
        if self._scope is None:
            self._settle_scope()
            assert self._scope is not None
        return self._scope

    def is_within(self, other: object) -> bool:
        """Tell whether this session is `other` or nested in it."""
        session: Session | None = self
        while session is not None:
            if session is other:
                return True
            session = session._parent
        return False

    def gather(self, request: Request) -> None:
        """Take a request into this session and those around it; for the handler."""
        self._write()
        session: Session | None = self
        while session is not None and request not in session._requests:
            session._requests[request] = None
            session = session._parent

    def _settle_scope(self) -> None:
        runtime = _runtime.get()
        settings = runtime.settings
        parent = self._parent = _blocks.innermost_open()
        outer = parent.scope if parent is not None else None
        joined = self._joined
        if self._api_key:
            destination = Destination(settings.base_url, self._api_key)
            runtime.serve(destination)
            fingerprint = destination.fingerprint
        else:
            fingerprint = outer.destination if outer else runtime.fingerprint
        root = outer.root if outer else joined.root if joined else self.id
        captures = {settings.capture, self._capture, outer and outer.capture}
        self._scope = Scope(
            id=self.id,
            root=root,
            name=self._name,
            parent=outer.id if outer else None,
            tags=tuple(dict.fromkeys((*(outer.tags if outer else ()), *self._tags))),
            metadata={**(outer.metadata if outer else {}), **self._metadata},
            user=self._user or (outer.user if outer else None),
            conversation=self._conversation or (outer.conversation if outer else None),
            destination=fingerprint,
            capture="metadata" if "metadata" in captures else "full",
            started_at=time.time(),
        )
        if parent is not None:
            self.sampled = parent.sampled
        elif joined is not None:
            self.sampled = joined.sampled
        else:
            self.sampled = _headers.is_sampled(root, settings.sample_rate)

    def _write(self) -> None:
        if not self._written and self.sampled:
            self._written = True
            if self._parent is not None:
                self._parent._write()
            _runtime.get().put(self.scope)

    def end(self) -> None:
        """Let the requests go out without waiting for more notes; leaving the block does it."""
        self._ended = True
        if self._requests:
            _end_session(self)
        if not (self._requests and _runtime.nearby().health.hook_ok):
            _blocks.check_hook()

    # -- what was gathered --------------------------------------------------------------------------------

    @property
    def requests(self) -> tuple[Request, ...]:
        """Handles of the calls gathered so far, nested sessions' included, in call order."""
        return tuple(self._requests)

    @property
    def ids(self) -> tuple[str, ...]:
        """Our own ids, known at once: the ones to store for later."""
        return tuple(each.id for each in self.requests)

    @property
    def last(self) -> Request:
        """The newest request; with nothing gathered, one that counts and does nothing."""
        return (self.requests or (NO_REQUEST,))[-1]

    @property
    def usage(self) -> UsageTotals:
        """What the calls took together."""
        return totals(list(self._requests))

    @property
    def request_ids(self) -> tuple[int, ...]:
        """PromptLayer's ids; waits at most `id_timeout` for those on their way, never where waiting is in vain."""
        return _waiting.request_ids(self.requests)

    async def arequest_ids(self) -> tuple[int, ...]:
        """Return what `request_ids` returns, without blocking the event loop."""
        return await _waiting.arequest_ids(self.requests)

    def wait(self, timeout: float = 5.0) -> dict[str, int | None]:
        """Wait for PromptLayer's ids; return our id -> PromptLayer's, None for those not known in time."""
        return _waiting.wait(self.requests, timeout)

    async def await_ids(self, timeout: float = 5.0) -> dict[str, int | None]:
        """Do what `wait` does without blocking the event loop."""
        return await _waiting.await_ids(self.requests, timeout)

    # -- verbs --------------------------------------------------------------------------------------------

    def score(self, score: int, *, name: str | None = None, on: On = "all") -> int:
        """Score the answered requests gathered so far; return how many."""
        return self._say(Noted.SCORE, score_payload(score, name), on, lambda each: each.answered)

    def metadata(self, metadata: Mapping[str, Any] | None = None, /, *, on: On = "all", **more: Any) -> int:
        """Add metadata to the requests gathered so far; return how many."""
        return self._say(Noted.METADATA, metadata_payload(metadata, more), on, lambda _: True)

    def link_prompt(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        on: On = "all",
    ) -> int:
        """Link the answered requests that did not link themselves to a prompt's version; return how many."""
        payload = link_payload(name, variables, version, label)
        return self._say(Noted.PROMPT, payload, on, lambda each: each.answered and not each.linked)

    def _say(self, kind: Noted, payload: Mapping[str, Any] | None, on: On, fits: Callable[[Request], bool]) -> int:
        return sum(each.say(kind, payload) for each in chosen(self.requests, on) if fits(each))

    # -- across processes ---------------------------------------------------------------------------------

    def headers(self, include: Collection[str] = ()) -> dict[str, str]:
        """Return HTTP headers that carry this session: its id and the sampling decision, more only where asked.

        Args: include -- any of "tags", "metadata", "user", "conversation", "name".
        """
        if isinstance(include, str):
            raise TypeError("include: expected a set of names such as {'tags'}, got text")
        return _headers.written(self.scope, self.sampled, frozenset(include), _runtime.get().settings.secret)

    @classmethod
    def from_headers(cls, headers: Mapping[str, str] | Iterable[tuple[Any, Any]], **options: Any) -> Self:
        """Return the session that `headers` carry, to be entered here; a new one where they carry none."""
        joined = _headers.read(headers, _runtime.get().settings.secret)
        if joined is None:
            return cls(**options)
        cls(**options)  # what cannot be used is refused whether or not there is something to join
        session = cls(**_headers.merged(joined, options))
        session._joined = joined
        return session


pl_session = Session


def current_session() -> Session | None:
    """Return the innermost session that is open here, or None."""
    return _blocks.innermost_open()


def _checked_key(api_key: object) -> str:
    try:
        return checked_key(api_key)
    except (TypeError, ValueError) as error:
        raise type(error)(f"api_key: {error}") from None


def _checked_id(id: object) -> str:
    own = checked_name("id", id)
    # The journal finds a session by its id: it is stored as it is, or refused.
    if "\0" in own or (not own.isascii() and own != own.encode(errors="replace").decode()):
        raise ValueError("id: expected text without zero bytes and lone surrogates")
    return own


@_runtime.guarded
def _end_session(session: Session) -> None:
    from ._handler import close_left

    close_left(session)
    if session._parent is None and session.sampled:
        _runtime.get().put(SessionEnded(session.scope.root))
