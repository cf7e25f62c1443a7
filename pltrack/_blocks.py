"""Blocks of code that run in a session: the only module with a context variable."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _loading, _runtime

if TYPE_CHECKING:
    from ._handler import Handler

S = TypeVar("S")

# Not the session: LangChain takes what is in here for a handler.
_current: ContextVar[Handler | None] = ContextVar("pltrack_session", default=None)
_hook_registered = False


class Attachment(Generic[S]):
    """One stretch of code that runs in a session: sets the context variable, and puts back what was there.

    Whichever task, thread or context leaves it, nothing raises, and blocks that are left out of order do not
    bring a closed one back.
    """

    __slots__ = ("_blocks", "_session")

    def __init__(self, session: S) -> None:
        self._session = session
        self._blocks: list[Handler | None] = []

    def __enter__(self) -> S:
        self._blocks.append(enter(self._session))
        return self._session

    def __exit__(self, *_: object) -> None:
        leave(self._blocks)

    async def __aenter__(self) -> S:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


class Steps:
    """The steps of one stream: what it opens inside stays open between them, unseen by who reads it."""

    __slots__ = ("_entry", "_inside", "_session", "_token")

    def __init__(self, session: Any) -> None:
        self._session = session
        self._entry: Handler | None = None
        self._inside: Handler | None = None
        self._token: Token[Handler | None] | None = None

    def __enter__(self) -> None:
        self._token = self._resume()

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            self._pause(self._token)

    def close(self) -> None:
        if self._entry is not None:
            self._entry.open = False

    @_runtime.guarded
    def _resume(self) -> Token[Handler | None] | None:
        entry = self._entry = self._entry or _entry_of(self._session)
        if entry is None:
            return None
        around = _current.get()
        if around is None or not around.is_in(entry):  # else its reader was started by its own body
            entry.outer = around
        return _current.set(_open_from(self._inside) or entry)

    @_runtime.guarded
    def _pause(self, token: Token[Handler | None]) -> None:
        inside = _current.get()
        with suppress(ValueError):  # closed from another context than the step was begun in: nothing to put back
            _current.reset(token)
            self._inside = inside


class Attached:
    """The life of a bound function or followed stream: attached while it runs, nothing to do at the end."""

    __slots__ = ("_session",)

    def __init__(self, session: Any) -> None:
        self._session = session

    def step(self) -> Attachment[Any]:
        return Attachment(self._session)

    def steps(self) -> Steps:
        return Steps(self._session)

    def end(self, error: BaseException | None) -> None:
        """The session goes on."""


def innermost_open() -> Any | None:
    entry: Any = _open_from(_current.get())
    return None if entry is None else entry.owner


def _open_from(entry: Handler | None) -> Handler | None:
    while entry is not None and not entry.open:
        entry = entry.outer
    return entry


@_runtime.guarded
def enter(session: Any) -> Handler | None:
    entry = _entry_of(session)
    if entry is not None:
        entry.outer = _current.get()
        entry.token = _current.set(entry)
    return entry


def _entry_of(session: Any) -> Handler | None:
    runtime = _runtime.get()
    if not runtime.settings.enabled:
        return None
    if session._scope is None:
        session._settle_scope()
    if runtime.health.hook_ok is None:
        _register_hook(runtime)
    from ._handler import Handler

    entry = Handler(session)
    entry.open = True
    return entry


@_runtime.guarded
def leave(blocks: list[Handler | None]) -> None:
    """Leave the innermost of the blocks here; of several, one that is open in this context."""
    if not blocks:
        return
    here: Any = _current.get()
    mine = here
    if len(blocks) > 1:
        while mine is not None and mine not in blocks:
            mine = mine.outer
    entry = blocks.pop() if mine is None or mine not in blocks else blocks.pop(blocks.index(mine))
    if entry is None:  # entered while disabled
        return
    entry.open = False
    token, entry.token = entry.token, None
    try:
        _current.reset(token)
    except ValueError:
        # Left in another context: where it was entered it stays set, and is passed over from now on.
        entry.stray = True
        if here is not entry:
            return
    # What is open inside it stays: blocks may be left out of order.
    _current.set(_open_from(here))


@_runtime.guarded
def check_hook(*, at_once: bool = False) -> bool | None:
    """Tell whether LangChain still calls a session's handler; for sessions that gathered nothing, and for doctors."""
    if not _hook_registered:
        return None
    from ._selfcheck import look

    return look(_current, at_once=at_once)


def _register_hook(runtime: _runtime.Runtime) -> None:
    global _hook_registered
    if not _hook_registered:
        with _loading.FIRST:
            from langchain_core.tracers.context import register_configure_hook

            from . import _handler  # noqa: F401

        # Not handle_class: any handler of ours in a user's list would then hide the session's.
        # Two threads at once may both register it, which does no harm.
        register_configure_hook(_current, inheritable=True)
        _hook_registered = True
    runtime.health.hook_ok = True
    runtime.lane.writer.warm()
