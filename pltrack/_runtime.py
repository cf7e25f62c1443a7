"""One per process: the settings, the journal and its courier, who waits for ids, fork and exit."""

from __future__ import annotations

import asyncio
import atexit
import functools
import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from . import _loading
from ._callbacks import Callbacks, IdCallback
from ._checks import checked_seconds
from ._children import at_end_of_child
from ._home import default_journal
from ._lane import FlushResult, Lane
from ._records import Barrier, Call, Handle, Written, open_of, process_token
from ._settings import Destination, Settings, disabled_by, from_environment
from ._status import Health, Said, Status, paused
from .errors import NoKeyError

log = logging.getLogger("pltrack")
P = ParamSpec("P")
R = TypeVar("R")


class Runtime:
    """What one process holds; a forked child gets its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self.closed = _ended  # then nobody empties its queues any more: who puts something in writes it down
        self.owner = process_token()
        self.destinations: dict[str, Destination] = {}
        self.recorded = self.lost = self.internal_errors = 0
        self.health, self._said = Health(), Said()
        self._handles = weakref.WeakValueDictionary[str, Handle]()
        self._callbacks = Callbacks(self.fault)
        self._listeners: set[Callable[[], None]] = set()
        self._lock = threading.RLock()
        self._lanes: dict[tuple[Path, str], Lane] = {}
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Let new settings hold from now on; what was recorded keeps its journal and destination."""
        self.settings = settings
        self.fingerprint = settings.destination.fingerprint
        self.sends = settings.delivery == "background" and not self.closed
        path = settings.journal or default_journal()
        with self._lock:
            way = path, settings.hub
            self.lane = self._lanes.get(way) or self._lanes.setdefault(way, Lane(self, *way))
            if self.closed:
                self.lane.writer.close(0.0)  # before a thread can start that would not get to run
            # One that is configured replaces what a session said: a key that was given up is not used again.
            self._serve({each.fingerprint: each for each in settings.destinations if each.api_key})

    def serve(self, destination: Destination) -> None:
        """Deliver to this destination too."""
        with self._lock:
            if destination.fingerprint not in self.destinations:
                self._serve({destination.fingerprint: destination})

    def _serve(self, new: Mapping[str, Destination]) -> None:
        if any(self.destinations.get(name) != each for name, each in new.items()):
            self.destinations = {**self.destinations, **new}
            for lane in list(self._lanes.values()):
                for courier in lane.couriers:
                    courier.serve(new.values())

    # -- the hot path -------------------------------------------------------------------------------------

    def put(self, item: Written) -> None:
        """Queue a record for the journal; after our end, write it down at once."""
        lane = self.lane
        if not lane.writer.put(item, self.settings):
            self.lost_some(1, MemoryError("the queue to the journal is full"))
        if self.closed:
            with self._lock:
                lane.writer.close(5.0)

    def record(self, call: Call, callbacks: Sequence[IdCallback] = ()) -> None:
        """Take over a finished call; its handle and `callbacks` hear of its id."""
        self.recorded += 1
        if not call.destination and not self._said.before("key", "none"):
            log.warning(
                "pltrack: no PromptLayer key: calls are kept in the local journal only. Set PROMPTLAYER_API_KEY "
                "or pltrack.configure(api_key=...); send what was kept with `pltrack sync --adopt`"
            )
        if callbacks:
            if self.why_not_deliverable(call.destination):
                self._callbacks.call(callbacks, call.handle.id)
            else:
                self._callbacks.wait_for(call.handle.id, callbacks)
        self.put(call)

    def leave_out(self, our_id: str, callbacks: Sequence[IdCallback]) -> None:
        """Count a call of a session that is not sampled; who waits for its id gets ours."""
        self.health.leave_out(our_id)
        self._callbacks.call(callbacks, our_id)

    def fault(self, where: str, error: BaseException) -> None:
        """Count an error of our own, and log it once per cause; the program never sees it."""
        self.internal_errors += 1
        self.health.heard(where, error)
        if not self._said.before(where, f"{type(error).__name__}: {error}"[:200]):
            log.error("pltrack: an error in %s was caught; the program is not affected", where, exc_info=error)

    def lost_some(self, count: int, error: BaseException) -> None:
        """Count records that had to be given up, and say so."""
        self.lost += count
        if not self._said.before("lost", f"{type(error).__name__}: {error}"[:200]):
            log.error("pltrack: %d record(s) were lost: %s", count, error)

    # -- ids ----------------------------------------------------------------------------------------------

    def why_not_deliverable(self, destination: str) -> str:
        """Say why an id for this destination will not come soon; the empty string when it will."""
        if not destination:
            return "no key"
        if not self.sends:
            return f"delivery is {self.settings.delivery}"
        courier = self.lane.running_courier
        if destination not in self.destinations and not self.settings.hub:
            return "no key for this destination"
        return courier.waits_for(destination) if courier is not None else ""

    def told(self, answers: Sequence[tuple[str, int | None, bool]]) -> None:
        """Take what became of requests; called by the courier."""
        for our_id, pl_id, final in answers:
            handle = self._handles.get(our_id)
            if handle is not None and final:
                handle.resolved(pl_id)
            self._callbacks.tell(our_id, our_id if pl_id is None else pl_id)
        for listener in list(self._listeners):
            listener()

    def look_again(self) -> None:
        """See whether another process delivered what callbacks here wait for."""
        waiting = self._callbacks.waiting()
        if waiting:
            self.refresh(waiting)

    def watch(self, our_id: str, handle: Handle) -> None:
        """Let `handle` hear of a request that may have been recorded by another process."""
        self._handles[our_id] = handle

    def known_handle(self, our_id: str) -> Handle | None:
        """Return the live handle of a request of this process."""
        handle = self._handles.get(our_id)
        return self.lane.writer.queued(our_id) if handle is None else handle

    def taken(self, call: Call) -> None:
        """Remember who is to hear of a call's id, before it is written; called by the writer."""
        self._handles[call.handle.id] = call.handle

    def refresh(self, ids: Sequence[str]) -> None:
        """Look in the journal what became of requests: another process may have delivered them."""

        def look() -> None:
            known = [each for each in self.lane.outcomes(ids) if each.state in ("delivered", "failed")]
            self.told([(each.id, each.pl_id, True) for each in known])
            if self.sends and len(known) < len(ids):
                self.lane.courier().ask(set(ids).difference(each.id for each in known))

        self.put(Barrier(lambda: self._guarded("refresh", look)))
        self.lane.writer.hurry()

    def hurry(self, ids: Sequence[str]) -> None:
        """Let requests go out now instead of waiting for notes to fold."""

        self.put(Barrier(lambda: self._guarded("hurry", lambda: self.lane.hurry(ids))))
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

    # -- flush and exit -----------------------------------------------------------------------------------

    def flush(self, timeout: float) -> FlushResult:
        """Wait for what this process has recorded until now; see `pltrack.flush`."""
        return self.lane.flush(timeout) if self.lane.in_use else FlushResult(0, 0, 0)

    def settle(self, deadline: float) -> None:
        """Deliver what there is time for and call everyone back, while what they say is still taken down."""
        for lane in self._lanes.values():
            if self.sends and lane.in_use:
                lane.settle(deadline)
        self._callbacks.close(max(deadline - time.monotonic(), 0.5))

    def close(self, deadline: float) -> None:
        """Write everything, deliver while there is time, end the threads."""
        sends = self.sends
        self.closed, self.sends = True, False
        with self._lock:
            for lane in self._lanes.values():
                lane.close(deadline, hurry=sends)

    def status(self) -> Status:
        """Return how it stands."""
        courier = self.lane.running_courier
        lines = list(courier.lines.values()) if courier is not None else []
        totals = self.lane.totals()
        by_state, hub = Counter(totals.states if totals else {}), self.settings.hub_shown or None
        return Status(
            enabled=self.settings.enabled,
            recorded=self.recorded,
            delivered=by_state["delivered"],
            pending=open_of(by_state) + len(self.lane.writer),
            failed=by_state["failed"],
            lost=self.lost + (totals.lost if totals else 0),
            orphans=totals.orphans if totals else 0,
            without_key=totals.keyless if totals else 0,
            oldest_pending_seconds=totals.oldest if totals else None,
            **paused(None if totals is None or hub else totals.paused, (line.paused for line in lines)),
            last_error=self.lane.stuck_by or next((line.last_error for line in lines if line.last_error), None),
            journal=str(self.lane.file),
            hub=hub,
            forwarded=by_state.get("forwarded", 0),
            delivery=self.settings.delivery,
            in_memory=self.lane.in_memory,
            **self.health.shown(),
            internal_errors=self.internal_errors,
        )


# -- the one runtime of this process --------------------------------------------------------------------------

_lock = threading.RLock()
_current: Runtime | None = None
_configured, _defaults = dict[str, Any](), dict[str, Any]()
_ended = False
_abandoned: list[Runtime] = []  # of parent processes: closing their files or threads is not ours to do
after_fork, before_close = list[Callable[[], None]](), list[Callable[[], None]]()


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


def get() -> Runtime:
    """Return this process's runtime, made on first use, and anew in a forked child."""
    runtime = _current
    return runtime if runtime is not None and runtime.pid == os.getpid() else _make()


def nearby() -> Runtime:
    """Return the runtime without asking for the process id, a system call: for what only reads settings."""
    return _current or _make()


def is_enabled() -> bool:
    """Tell whether anything is tracked at all."""
    return nearby().settings.enabled


def _make() -> Runtime:
    global _current
    if _current is not None and _current.pid != os.getpid():
        _loading.renew()  # a fork without Python's hooks: whoever held our locks stayed with the parent
        _forget_parent()
    with _lock:
        if _current is None:
            found, errors = from_environment(os.environ)
            for error in errors:
                log.error("pltrack: %s; the default is used", error)
            _current = Runtime(_settings({**found, **_defaults, **_configured}))
            at_end_of_child(_at_exit)
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
    return get().flush(checked_seconds(timeout))


async def aflush(timeout: float = 5.0) -> FlushResult:
    """Do what `flush` does without blocking the event loop."""
    return await asyncio.to_thread(flush, timeout)


def shutdown(timeout: float | None = None) -> None:
    """Write everything down, deliver for at most `timeout` seconds (default `exit_timeout`), stop the threads.

    May be called at any time and again; the next use starts anew.
    """
    global _current
    for hook in before_close:
        hook()
    runtime = _current
    if runtime is None or runtime.pid != os.getpid():
        return
    deadline = time.monotonic() + (runtime.settings.exit_timeout if timeout is None else checked_seconds(timeout))
    runtime.settle(deadline)
    with _lock:
        if _current is runtime:
            _current = None
    runtime.close(deadline)


def status() -> Status:
    """Return how many records there are, what became of them, and what stands in the way."""
    return get().status()


def _forget_parent() -> None:
    global _current, _lock
    _lock = threading.RLock()
    if _current is not None:
        _abandoned.append(_current)
        _current = None
    for hook in after_fork:
        hook()


def _at_exit() -> None:
    global _ended
    _ended = True
    if _current is not None and _current.pid == os.getpid():
        shutdown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
atexit.register(_at_exit)
