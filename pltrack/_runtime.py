"""One per process: the settings, the journal and its courier, who waits for ids, fork and exit."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import inspect
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from ._journal.writer import Writer
from ._records import Barrier, Call, Note, Written, process_token
from ._settings import Destination, Settings, disabled_by, from_environment, program_name
from .errors import JournalError, NoKeyError

if TYPE_CHECKING:
    from ._courier.loop import Courier
    from ._journal.rows import Encoder
    from ._journal.store import Store

log = logging.getLogger("pltrack")
P = ParamSpec("P")
R = TypeVar("R")


class Resolvable(Protocol):
    """Something that wants to know what became of a request."""

    def resolved(self, pl_id: int | None) -> None:
        """Take PromptLayer's id, or None for a request that was refused for good."""


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What a flush achieved for the rows that this process had written before it."""

    delivered: int
    pending: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How it stands; `pending` counts requests and notes that PromptLayer has not taken yet."""

    enabled: bool
    recorded: int
    delivered: int
    pending: int
    failed: int
    lost: int
    orphans: int
    without_key: int
    oldest_pending_seconds: float | None
    paused_reason: str | None
    last_error: str | None
    journal: str
    delivery: str
    in_memory: bool
    hook_ok: bool | None
    internal_errors: int


@dataclass(slots=True)
class IdCallback:
    """A `pl_id_callback` with the surroundings of its call."""

    function: Callable[[Any], Any]
    context: contextvars.Context
    loop: asyncio.AbstractEventLoop | None

    def run(self, value: int | str) -> None:
        """Call it; a coroutine function runs on the call's loop where that still runs."""
        answer = self.context.run(self.function, value)
        if not inspect.iscoroutine(answer):
            return
        if self.loop is not None and self.loop.is_running():
            self.context.run(asyncio.run_coroutine_threadsafe, answer, self.loop)
        else:
            self.context.run(asyncio.run, answer)


class Lane:
    """One journal with its writer and its courier."""

    def __init__(self, runtime: Runtime, path: Path) -> None:
        self.path = path
        self._runtime = runtime
        self._store: Store | None = None
        self._courier: Courier | None = None
        self._lock = threading.Lock()
        self._encoders: dict[int, tuple[Settings, Encoder]] = {}
        settings = runtime.settings
        self.in_memory = False
        self.writer = Writer(self.store, self._encoder, self._written, runtime.lost_some, settings.max_pending)

    def store(self) -> Store:
        """Return the open journal; where the file cannot be used, one in memory, and say so."""
        if self._store is None:
            from ._journal.store import Store  # noqa: PLC0415 -- SQLAlchemy, on the writer's thread

            with self._lock:
                if self._store is None:
                    try:
                        self._store = Store.open(self.path)
                    except JournalError as error:
                        log.error(  # noqa: TRY400 -- the cause is in the words
                            "pltrack: %s; records are kept in memory until this process ends", error
                        )
                        self.in_memory = True
                        self._store = Store.in_memory()
        return self._store

    def courier(self) -> Courier:
        """Return this journal's courier, not necessarily started."""
        if self._courier is None:
            from ._courier.loop import Courier  # noqa: PLC0415 -- aiohttp, on the writer's thread

            with self._lock:
                if self._courier is None:
                    runtime = self._runtime
                    courier = Courier(self.store, runtime.owner, runtime.told, runtime.settings)
                    courier.serve(runtime.destinations.values())
                    self._courier = courier
        return self._courier

    @property
    def running_courier(self) -> Courier | None:
        """Return the courier if there is one already."""
        return self._courier

    def _encoder(self, settings: Settings) -> Encoder:
        known = self._encoders.get(id(settings))
        if known is None or known[0] is not settings:
            from ._journal.rows import Encoder  # noqa: PLC0415 -- the converters, on the writer's thread
            from ._redact import Redactor  # noqa: PLC0415

            encoder = Encoder(
                owner=self._runtime.owner,
                app=settings.app or program_name(),
                linger=settings.linger,
                redactor=Redactor(settings.redact, lambda error: self._runtime.fault("redact", error)),
                send_price=settings.send_price,
            )
            known = self._encoders[id(settings)] = (settings, encoder)
        return known[1]

    def _written(self, urgent: bool) -> None:
        if self._runtime.sends:
            courier = self.courier()
            courier.start()
            courier.wake(0.05 if urgent else self._runtime.settings.linger)

    def close(self, deadline: float, *, hurry: bool) -> None:
        """Write what is queued, send what there is time for, end the threads."""
        self.writer.close(max(deadline - time.monotonic(), 5.0))
        if self._courier is not None:
            if hurry:
                self._runtime.await_delivery(self, deadline)
            self._courier.close(max(deadline - time.monotonic(), 0.3))
        if self._store is not None:
            self._store.close()


class Runtime:
    """What one process holds; a forked child gets its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self.owner = process_token()
        self.destinations: dict[str, Destination] = {}
        self.recorded = 0
        self.lost = 0
        self.internal_errors = 0
        self.hook_ok: bool | None = None
        self._said: set[tuple[str, str]] = set()
        self._handles: weakref.WeakValueDictionary[str, Resolvable] = weakref.WeakValueDictionary()
        self._callbacks: dict[str, list[IdCallback]] = {}
        self._callback_queue: queue.SimpleQueue[tuple[IdCallback, int | str] | None] | None = None
        self._listeners: set[Callable[[], None]] = set()
        self._lock = threading.RLock()
        self._lanes: dict[Path, Lane] = {}
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Let new settings hold from now on; what was recorded keeps its journal and destination."""
        self.settings = settings
        self.fingerprint = settings.destination.fingerprint
        self.sends = settings.delivery == "background"
        path = settings.journal or default_journal()
        with self._lock:
            self.lane = self._lanes.get(path) or self._lanes.setdefault(path, Lane(self, path))
        self.serve(settings.destinations)

    def serve(self, destinations: Iterable[Destination]) -> None:
        """Deliver to these destinations too."""
        new = {each.fingerprint: each for each in destinations if each.api_key}
        if new.keys() - self.destinations.keys():
            self.destinations = self.destinations | new
            for lane in self._lanes.values():
                if lane.running_courier is not None:
                    lane.running_courier.serve(new.values())

    # -- the hot path -------------------------------------------------------------------------------------

    def put(self, item: Written) -> None:
        """Queue a record for the journal."""
        if not self.lane.writer.put(item, self.settings):
            self.lost_some(1, MemoryError("the queue to the journal is full"))

    def record(self, call: Call, handle: Resolvable, callbacks: Sequence[IdCallback] = ()) -> None:
        """Take over a finished call; `handle` and `callbacks` hear of its id."""
        self.recorded += 1
        self._handles[call.id] = handle
        if not call.destination and not self._said_once("key", "none"):
            log.warning(
                "pltrack: no PromptLayer key: calls are kept in the local journal only. Set PROMPTLAYER_API_KEY "
                "or pltrack.configure(api_key=...); send what was kept with `pltrack sync --adopt`"
            )
        if callbacks:
            if self.why_not_deliverable(call.destination):
                self._call_back(callbacks, call.id)
            else:
                self._callbacks[call.id] = list(callbacks)
        self.put(call)

    def fault(self, where: str, error: BaseException) -> None:
        """Count an error of our own, and log it once per cause; the program never sees it."""
        self.internal_errors += 1
        if not self._said_once(where, f"{type(error).__name__}: {error}"[:200]):
            log.error("pltrack: an error in %s was caught; the program is not affected", where, exc_info=error)

    def lost_some(self, count: int, error: BaseException) -> None:
        """Count records that had to be given up, and say so."""
        self.lost += count
        if not self._said_once("lost", f"{type(error).__name__}: {error}"[:200]):
            log.error("pltrack: %d record(s) were lost: %s", count, error)

    def _said_once(self, where: str, words: str) -> bool:
        said = (where, words) in self._said
        if len(self._said) < 1_000:
            self._said.add((where, words))
        return said

    # -- ids ----------------------------------------------------------------------------------------------

    def why_not_deliverable(self, destination: str) -> str:
        """Say why an id for this destination will not come soon; the empty string when it will."""
        if not destination:
            return "no key"
        if not self.sends:
            return f"delivery is {self.settings.delivery}"
        courier = self.lane.running_courier
        if destination not in self.destinations:
            return "no key for this destination"
        return courier.waits_for(destination) if courier is not None else ""

    def told(self, answers: Sequence[tuple[str, int | None, bool]]) -> None:
        """Take what became of requests; called by the courier."""
        for our_id, pl_id, final in answers:
            handle = self._handles.get(our_id)
            if handle is not None and final:
                handle.resolved(pl_id)
            callbacks = self._callbacks.pop(our_id, None)
            if callbacks:
                self._call_back(callbacks, our_id if pl_id is None else pl_id)
        for listener in list(self._listeners):
            listener()

    def watch(self, our_id: str, handle: Resolvable) -> None:
        """Let `handle` hear of a request that may have been recorded by another process."""
        self._handles[our_id] = handle

    def known_handle(self, our_id: str) -> Resolvable | None:
        """Return the live handle of a request of this process."""
        return self._handles.get(our_id)

    def refresh(self, ids: Sequence[str]) -> None:
        """Look in the journal what became of requests: another process may have delivered them."""

        def look() -> None:
            known = self.lane.store().ids_of(ids)
            self.told([(our_id, pl_id, True) for our_id, (state, pl_id) in known.items() if _is_final(state)])

        self.put(Barrier(lambda: self._guarded("refresh", look)))
        self.lane.writer.hurry()

    def hurry(self, ids: Sequence[str]) -> None:
        """Let requests go out now instead of waiting for notes to fold."""

        def now() -> None:
            self.lane.store().hurry(ids=ids)
            if self.sends:
                self.lane.courier().wake()

        self.put(Barrier(lambda: self._guarded("hurry", now)))
        self.lane.writer.hurry()

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` each time something was answered; on the courier's thread, so it must be quick."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def _guarded(self, where: str, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 -- one of the two guards, see `guarded`
            self.fault(where, error)

    def _call_back(self, callbacks: Sequence[IdCallback], value: int | str) -> None:
        with self._lock:
            if self._callback_queue is None:
                self._callback_queue = queue.SimpleQueue()
                threading.Thread(
                    target=self._serve_callbacks, name="pltrack-callbacks", daemon=True
                ).start()
        for callback in callbacks:
            self._callback_queue.put((callback, value))

    def _serve_callbacks(self) -> None:
        assert self._callback_queue is not None
        while (job := self._callback_queue.get()) is not None:
            callback, value = job
            self._guarded("pl_id_callback", functools.partial(callback.run, value))

    # -- flush and exit -----------------------------------------------------------------------------------

    def flush(self, timeout: float) -> FlushResult:
        """Wait for what this process has recorded until now; see `pltrack.flush`."""
        deadline = time.monotonic() + timeout
        lane = self.lane
        if not self._written(lane, timeout):
            return FlushResult(0, len(lane.writer), 0)
        store = lane.store()
        since, marks = store.settled_up_to(self.owner), store.marks()
        before = store.progress(self.owner, marks, since)
        if self.sends:
            self.await_delivery(lane, deadline)
        after = store.progress(self.owner, marks, since)
        gained = {state: after.get(state, 0) - before.get(state, 0) for state in ("delivered", "failed")}
        pending = sum(after.get(state, 0) for state in ("pending", "sending", "waiting"))
        return FlushResult(gained["delivered"], pending, gained["failed"])

    def _written(self, lane: Lane, timeout: float) -> bool:
        reached = threading.Event()
        lane.writer.put(Barrier(reached.set), self.settings)
        lane.writer.hurry()
        return reached.wait(timeout)

    def await_delivery(self, lane: Lane, deadline: float) -> None:
        """Send this process's rows now and wait until they are settled, cannot go, or time is up."""
        store, courier = lane.store(), lane.courier()
        marks = store.marks()
        store.hurry(owner=self.owner)
        answered = threading.Event()
        courier.start()
        with self.listening(answered.set):
            courier.wake()
            while (left := deadline - time.monotonic()) > 0:
                answered.clear()
                going = [name for name in courier.lines if not courier.waits_for(name)]
                if not going or not store.unsettled(self.owner, marks, going):
                    return
                answered.wait(min(left, 0.1))

    def close(self, timeout: float, *, hurry: bool = True) -> None:
        """Write everything, deliver for at most `timeout` seconds, end the threads."""
        deadline = time.monotonic() + timeout
        for lane in self._lanes.values():
            lane.close(deadline, hurry=hurry and self.sends)
        waiting, self._callbacks = self._callbacks, {}
        for our_id, callbacks in waiting.items():
            self._call_back(callbacks, our_id)
        if self._callback_queue is not None:
            done = threading.Event()
            self._callback_queue.put((IdCallback(lambda _: done.set(), contextvars.Context(), None), 0))
            self._callback_queue.put(None)
            done.wait(max(deadline - time.monotonic(), 0.5))

    def status(self) -> Status:
        """Return how it stands."""
        courier = self.lane.running_courier
        lines = list(courier.lines.values()) if courier is not None else []
        totals: Mapping[str, Any] = {"requests": {}, "notes": {}, "oldest": None, "orphans": 0, "keyless": 0}
        with suppress(JournalError):
            totals = self.lane.store().totals()
        by_state: dict[str, int] = {}
        for table in ("requests", "notes"):
            for state, count in totals[table].items():
                by_state[state] = by_state.get(state, 0) + count
        return Status(
            enabled=self.settings.enabled,
            recorded=self.recorded,
            delivered=by_state.get("delivered", 0),
            pending=sum(by_state.get(s, 0) for s in ("pending", "sending", "waiting")) + len(self.lane.writer),
            failed=by_state.get("failed", 0),
            lost=self.lost,
            orphans=totals["orphans"],
            without_key=totals["keyless"],
            oldest_pending_seconds=totals["oldest"],
            paused_reason=next((line.paused for line in lines if line.paused), None),
            last_error=next((line.last_error for line in lines if line.last_error), None),
            journal=str(self.lane.path),
            delivery=self.settings.delivery,
            in_memory=self.lane.in_memory,
            hook_ok=self.hook_ok,
            internal_errors=self.internal_errors,
        )


def _is_final(state: str) -> bool:
    return state in ("delivered", "failed")


# -- the one runtime of this process --------------------------------------------------------------------------

_lock = threading.RLock()
_current: Runtime | None = None
_configured: dict[str, Any] = {}
_defaults: dict[str, Any] = {}
_abandoned: list[Runtime] = []  # of parent processes: closing their files or threads is not ours to do
after_fork: list[Callable[[], None]] = []
before_close: list[Callable[[], None]] = []


def get() -> Runtime:
    """Return this process's runtime, made on first use, and anew in a forked child."""
    runtime = _current
    if runtime is not None and runtime.pid == os.getpid():
        return runtime
    return _make()


def is_enabled() -> bool:
    """Tell whether anything is tracked at all."""
    return get().settings.enabled


def _make() -> Runtime:
    global _current  # noqa: PLW0603 -- the process-wide state lives here and nowhere else
    with _lock:
        if _current is not None and _current.pid != os.getpid():
            _forget_parent()
        if _current is None:
            found, errors = from_environment(os.environ)
            for error in errors:
                log.error("pltrack: %s; the default is used", error)
            _current = Runtime(_settings({**found, **_defaults, **_configured}))
        return _current


def _settings(values: Mapping[str, Any]) -> Settings:
    settings = Settings().changed(values)
    return settings.changed({"enabled": False}) if disabled_by(os.environ) else settings


def configure(**changes: Any) -> None:
    """Set how pltrack works from now on; may be called again at any time.

    Args: any field of the settings (docs/settings.md). Raises SettingError (a ValueError) naming the argument
    or environment variable that cannot be used, and NoKeyError with `require_key=True` and no key.
    """
    found, errors = from_environment(os.environ)
    if errors:
        raise errors[0]
    with _lock:
        values = {**found, **_defaults, **_configured, **changes}
        settings = _settings(values)
        if settings.require_key and settings.enabled and not settings.api_key:
            raise NoKeyError("no PromptLayer key: set PROMPTLAYER_API_KEY or pltrack.configure(api_key=...)")
        _configured.update(changes)
        get().apply(settings)


def set_defaults(**values: Any) -> None:
    """Set what holds unless `configure()` says otherwise, environment or not; for test runs."""
    with _lock:
        _defaults.update(values)
        if _current is not None:
            _current.apply(_settings({**from_environment(os.environ)[0], **_defaults, **_configured}))


def reset() -> None:
    """Shut down at once and forget what was configured (defaults of a test run stay)."""
    shutdown(0.0)
    with _lock:
        _configured.clear()


def flush(timeout: float = 5.0) -> FlushResult:
    """Wait at most `timeout` seconds until what was recorded before this call is delivered."""
    return get().flush(_seconds(timeout))


async def aflush(timeout: float = 5.0) -> FlushResult:
    """Do what `flush` does without blocking the event loop."""
    return await asyncio.to_thread(flush, timeout)


def shutdown(timeout: float | None = None) -> None:
    """Write everything down, deliver for at most `timeout` seconds (default `exit_timeout`), stop the threads.

    May be called at any time and again; the next use starts anew.
    """
    global _current  # noqa: PLW0603 -- see above
    for hook in before_close:
        hook()
    with _lock:
        runtime, _current = _current, None
    if runtime is not None and runtime.pid == os.getpid():
        runtime.close(runtime.settings.exit_timeout if timeout is None else _seconds(timeout))


def status() -> Status:
    """Return how many records there are, what became of them, and what stands in the way."""
    return get().status()


def _seconds(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"timeout: expected seconds >= 0, got {value!r}")
    return float(value)


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """Keep an error inside `function` from the program: count it, log it once, return None."""

    @functools.wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 -- the guard: everywhere else errors fly
            get().fault(function.__qualname__, error)
            return None

    return safe


def default_journal() -> Path:
    """Return the journal's default place: the user's state folder, or the temporary one without a home."""
    import platformdirs  # noqa: PLC0415 -- only needed where nothing was configured

    try:
        folder = platformdirs.user_state_path("pltrack", appauthor=False)
        if folder.is_absolute() and not str(folder).startswith("/nonexistent"):
            return folder / "journal.db"
    except (RuntimeError, OSError):
        pass
    import tempfile  # noqa: PLC0415

    place = Path(tempfile.gettempdir()) / f"pltrack-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    log.warning("pltrack: there is no home folder, the journal is kept in %s", place)
    return place / "journal.db"


def _forget_parent() -> None:
    global _current, _lock  # noqa: PLW0603 -- in the child, before anything else runs
    _lock = threading.RLock()
    if _current is not None:
        _abandoned.append(_current)
        _current = None
    for hook in after_fork:
        hook()


def _at_exit() -> None:
    if _current is not None and _current.pid == os.getpid():
        shutdown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
atexit.register(_at_exit)

__all__ = ["FlushResult", "Note", "Runtime", "Status", "aflush", "configure", "flush", "get", "guarded", "shutdown", "status"]
