"""One journal with its writer and its courier: made on first use, heavy parts on the writer's thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import _loading
from ._journal.patience import within
from ._journal.upkeep import Upkeep
from ._journal.writer import Writer
from ._records import Barrier, Call
from ._settings import Destination, Settings, program_name
from .errors import JournalError

if TYPE_CHECKING:
    from ._courier.forward import Forwarder
    from ._courier.loop import Courier
    from ._journal import places
    from ._journal.counting import Totals
    from ._journal.rows import Encoder
    from ._journal.saving import Saved
    from ._journal.store import Store

log = logging.getLogger("pltrack")

OPEN_STATES = ("pending", "sending", "waiting")
_GRACE = 0.3  # seconds beyond a limit, for what is nearly done
_LOOK_AGAIN = 0.02  # while answers come in: looking costs the courier the lock


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What a flush achieved for the rows that this process had written before it."""

    delivered: int  # or handed over to the hub, where there is one
    pending: int
    failed: int


class Host(Protocol):
    """What a lane needs of the runtime that it belongs to."""

    owner: str
    settings: Settings
    sends: bool
    destinations: dict[str, Destination]

    def taken(self, call: Call) -> None:
        """Hear of a call that is about to be written."""

    def told(self, answers: Sequence[tuple[str, int | None, bool]]) -> None:
        """Hear what became of requests."""

    def look_again(self) -> None:
        """Hear that the courier found nothing to do for a while."""

    def listening(self, listener: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `listener` each time something was answered."""

    def lost_some(self, count: int, error: BaseException) -> None:
        """Hear of records that had to be given up."""

    def fault(self, where: str, error: BaseException) -> None:
        """Hear of an error of our own."""


class Lane:
    """One journal with its writer and its courier."""

    def __init__(self, host: Host, path: Path, hub: str = "") -> None:
        self.path = path
        self._hub = hub
        self._host = host
        self._store: Store | None = None
        self._courier: Courier | Forwarder | None = None
        self.older: list[tuple[Store, Courier]] = []  # of the files that earlier schemas wrote: only delivered
        self._lock = threading.Lock()
        self._encoders: dict[int, tuple[Settings, Encoder]] = {}
        self._no_file = ""  # why records are in memory
        self.upkeep = Upkeep(self.store, lambda: host.settings)
        self._identity: places.Identity = None  # which file is open
        self._said_stuck = False
        self._saved: list[Saved] = []  # of files that were lost, until there is another
        self.writer = Writer(self, self._in_place, self._encoder, host.settings.max_pending)

    def store(self) -> Store:
        """Return the open journal; where no file can be used, one in memory, and say so.

        Raises JournalError while it cannot be opened for a reason that passes.
        """
        if self._store is None:
            with _loading.LOCK:
                from ._journal import saving

            with _loading.LOCK, self._lock:  # opening makes SQLAlchemy load its dialect
                if self._store is None:
                    store = self._fitted(self._opened())
                    saving.put_all(store, self._saved)
                    self._store = store
        return self._store

    def _fitted(self, store: Store) -> Store:
        store.forwards = bool(self._hub)
        store.keeps_content = lambda: self._host.settings.keep_content > 0
        return store

    def _in_place(self) -> Store:
        """Return the open journal, a fresh one where its file was deleted or replaced."""
        from ._journal import places

        store = self.store()
        if not self.in_memory and places.identity(store.path or self.path) != self._identity:
            self._replace(JournalError(f"the journal {self.file} was deleted or replaced by another program"))
        return self.store()

    def _opened(self) -> Store:
        from ._journal import places
        from ._journal.store import Store

        if kind := places.network_of(self.path):
            return self._in_memory(f"{self.path} is on a network file system ({kind}), which SQLite cannot use")
        seen = places.identity(self.path)
        try:
            store = Store.open(self.path)
        except JournalError as error:
            if places.is_passing(error):
                raise
            if not places.is_ruined(error):
                return self._in_memory(str(error))
            try:
                store = self._afresh(seen, error)
            except (JournalError, OSError) as again:
                if places.is_passing(again):
                    raise
                return self._in_memory(str(again))
        self._identity = places.identity(store.path or self.path)
        return store

    def _in_memory(self, why: str) -> Store:
        from ._journal.store import Store

        log.error("pltrack: %s; records are kept in memory until this process ends", why)
        self._no_file = why
        return Store.in_memory()

    def _afresh(self, broken: places.Identity, error: BaseException) -> Store:
        """Set the broken file aside and open a fresh one in its place, unless another process did."""
        from ._journal import places
        from ._journal.store import Store

        path = self.file
        with places.one_at_a_time(path.parent):
            aside = places.set_aside(path, broken)
            store = Store.open(self.path)
            store.number_from(int(time.time() * 1000))
        log.error(
            "pltrack: %s; it was set aside as %s and a fresh journal is written in its place",
            error, aside or "another name by another process",
        )  # fmt: skip
        return store

    def stuck(self, error: BaseException) -> bool:
        """Hear that nothing can be written: a ruined or missing file is replaced, anything else is waited for."""
        from ._journal import places

        if places.is_ruined(error) and self._store is not None and not self.in_memory:
            self._replace(error)
            return True
        if not self._said_stuck:
            self._said_stuck = True
            log.error(
                "pltrack: %s; up to %d records wait in memory and are written when it can be done: look for a full "
                "disk, or for another program that holds the file",
                error, self._host.settings.max_pending,
            )  # fmt: skip
        return False

    def is_of_the_place(self, error: BaseException) -> bool:
        """Tell whether the journal is at fault, and not what was to be written."""
        from ._journal import places

        return places.is_of_the_place(error)

    def _mended(self) -> Store:
        """Return the journal for the courier, a fresh one where its file is damaged."""
        if (ruined := self.store().ruined) is not None:
            self.stuck(ruined)
        return self.store()

    def _replace(self, error: BaseException) -> None:
        with _loading.LOCK, self._lock:
            from ._journal import places, saving

            old = self._store
            if places.is_ruined(error) and (old is None or old.ruined is None):
                return  # another thread has done so
            if old is not None:
                self._saved.append(saving.owed(old, self._host.owner, self._host.settings.max_pending))
                old.close()
                self._store = None
            with suppress(JournalError, OSError):  # or else it is opened the next time
                store = self._fitted(self._afresh(self._identity, error))
                self._store, self._identity = store, places.identity(store.path or self.path)
                saving.put_all(store, self._saved)

    def courier(self) -> Courier | Forwarder:
        """Return what takes this journal's rows further, not necessarily started."""
        if self._courier is None:
            with _loading.LOCK:
                from ._journal import older

                if self._hub:
                    from ._courier.forward import Forwarder as Kind
                else:
                    from ._courier.loop import Courier as Kind  # type: ignore[assignment]

            with self._lock:
                if self._courier is None:
                    host = self._host
                    made = Kind(self._mended, host.owner, host.told, self._idle, lambda: host.settings)
                    made.serve(host.destinations.values())
                    self.older = [(store, self._courier_of(store)) for store in older.stores(self.path)]
                    self._courier = made
        return self._courier

    def _courier_of(self, store: Store) -> Courier:
        from ._courier.loop import Courier

        host = self._host
        courier = Courier(lambda: store, host.owner, host.told, host.look_again, lambda: host.settings)
        courier.serve(host.destinations.values())
        return courier

    @property
    def couriers(self) -> list[Courier | Forwarder]:
        """Return the couriers there are: this journal's, and those of older files around it."""
        return [] if self._courier is None else [self._courier, *(courier for _, courier in self.older)]

    @property
    def running_courier(self) -> Courier | Forwarder | None:
        """Return the courier if there is one already."""
        return self._courier

    @property
    def file(self) -> Path:
        """Return the file that is written: another schema's may have the name that was configured."""
        return (self._store and self._store.path) or self.path

    @property
    def stuck_by(self) -> str:
        """Say why nothing is written to a file; empty when it is."""
        return self.writer.stuck or self._no_file

    @property
    def in_memory(self) -> bool:
        """Tell whether records are kept in memory only."""
        return bool(self._no_file)

    @property
    def in_use(self) -> bool:
        """Tell whether anything was put here, or looked up."""
        return self.writer.started or self._store is not None

    def totals(self) -> Totals | None:
        """Return what the journal holds; None where there is none yet, or it cannot be read."""
        if self.in_use or self.path.exists():
            with suppress(JournalError):
                return self.store().totals()
        return None

    def _encoder(self, settings: Settings) -> Encoder:
        known = self._encoders.get(id(settings))
        if known is None or known[0] is not settings:
            with _loading.LOCK:
                from ._journal.rows import Encoder
                from ._redact import Redactor

            encoder = Encoder(
                owner=self._host.owner,
                app=settings.app or program_name(),
                linger=settings.linger,
                redactor=Redactor(settings.redact, lambda error: self._host.fault("redact", error)),
                capture=settings.capture,
                send_price=settings.send_price,
                max_body=settings.max_body,
            )
            known = self._encoders[id(settings)] = (settings, encoder)
        return known[1]

    def taken(self, call: Call) -> None:
        """Hear of a call that is about to be written."""
        self._host.taken(call)

    def lost_some(self, count: int, error: BaseException) -> None:
        """Hear of records that had to be given up."""
        self._host.lost_some(count, error)

    def _idle(self) -> None:
        self._host.look_again()
        self.upkeep.look()

    def written(self, urgent: bool) -> None:
        """Hear that a group is on disk: the courier may look."""
        if self.in_memory:
            from ._journal import saving

            if lost := saving.shrink(self.store(), self._host.settings.max_pending):
                self._host.lost_some(lost, MemoryError("the journal in memory is full"))
        self.upkeep.look()
        if self._host.sends:
            courier = self.courier()
            for each in self.couriers:
                each.start()
            courier.wake(0.05 if urgent else self._host.settings.linger)

    def flush(self, timeout: float) -> FlushResult:
        """Wait at most `timeout` seconds for what this process has put here until now."""
        results: list[FlushResult] = []
        within(timeout + _GRACE, lambda: results.append(self._flush(timeout)))
        return results[0] if results else FlushResult(0, max(len(self.writer), 1), 0)

    def _flush(self, timeout: float) -> FlushResult:
        deadline = time.monotonic() + timeout
        store, owner = self.store(), self._host.owner
        since = store.marks()
        before = store.progress(owner, since, since)
        if not self.is_written(timeout):
            return FlushResult(0, len(self.writer), 0)
        marks = store.marks()
        if self._host.sends:
            self.await_delivery(deadline)
        after = store.progress(owner, marks, since)
        failed = after.get("failed", 0) - before.get("failed", 0)
        pending = sum(after.get(state, 0) for state in ("pending", "sending", "waiting"))
        there = sum(before.values()) - before.get("forwarded", 0) + after["written"]
        return FlushResult(max(there - pending - after.get("failed", 0), 0), pending, max(failed, 0))

    def is_written(self, timeout: float) -> bool:
        """Wait until what was put here is on disk; return whether it is."""
        reached = threading.Event()
        self.writer.put(Barrier(reached.set), self._host.settings)
        self.writer.hurry()
        return reached.wait(timeout)

    def await_delivery(self, deadline: float) -> None:
        """Send this process's rows now and wait until they are settled, cannot go, or time is up."""
        store, courier = self.store(), self.courier()
        marks = store.marks()
        for each in courier.lines:
            store.hurry(owner=self._host.owner, destination=each)
        answered, pause = threading.Event(), threading.Event()
        courier.start()
        with self._host.listening(answered.set):
            courier.wake()
            while (left := deadline - time.monotonic()) > 0:
                answered.clear()
                if not courier.unsettled(store, marks):
                    return
                answered.wait(min(left, 0.1))
                pause.wait(min(left, _LOOK_AGAIN))

    def settle(self, deadline: float) -> None:
        """Write and send what there is time for; more may come afterwards."""
        if self.is_written(max(deadline - time.monotonic(), 1.0)):
            left = max(deadline - time.monotonic(), 0.0)
            within(left + _GRACE, lambda: self.await_delivery(deadline))

    def close(self, deadline: float, *, hurry: bool) -> None:
        """Write what is queued, send what there is time for, end the threads."""
        patience = _GRACE if self.writer.stuck else 5.0  # a disk that works gets the time it needs
        written = self.writer.close(max(deadline - time.monotonic(), patience))
        if self._courier is not None:
            if hurry and written:
                left = max(deadline - time.monotonic(), 0.0)
                within(left + _GRACE, lambda: self.await_delivery(deadline))
            for courier in self.couriers:
                courier.close(max(deadline - time.monotonic(), 0.3))
            for store, _ in self.older:
                store.close()
        self.upkeep.close(1.0)
        if self._store is not None and written:
            if self.in_memory and (left := sum(self._store.totals().states.get(state, 0) for state in OPEN_STATES)):
                self._host.lost_some(left, JournalError("they were in memory only, and this process ends"))
            self._store.close()
