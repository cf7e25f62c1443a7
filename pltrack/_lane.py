"""One journal with its writer and its courier: made on first use, heavy parts on the writer's thread."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import _loading
from ._journal.upkeep import Upkeep
from ._journal.writer import Writer
from ._records import Barrier, Call
from ._settings import Destination, Settings, program_name
from .errors import JournalError

if TYPE_CHECKING:
    from ._courier.forward import Forwarder
    from ._courier.loop import Courier
    from ._journal.counting import Totals
    from ._journal.rows import Encoder
    from ._journal.store import Store

log = logging.getLogger("pltrack")

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
        settings = host.settings
        self.in_memory = False
        self.upkeep = Upkeep(self.store, lambda: host.settings)
        self.writer = Writer(self, self.store, self._encoder, settings.max_pending)

    def store(self) -> Store:
        """Return the open journal; where the file cannot be used, one in memory, and say so."""
        if self._store is None:
            with _loading.LOCK:
                from ._journal.store import Store

            # Under the same lock: opening makes SQLAlchemy load its dialect.
            with _loading.LOCK, self._lock:
                if self._store is None:
                    try:
                        self._store = Store.open(self.path)
                    except JournalError as error:
                        log.error("pltrack: %s; records are kept in memory until this process ends", error)
                        self.in_memory = True
                        self._store = Store.in_memory()
                    self._store.forwards = bool(self._hub)
                    self._store.keeps_content = lambda: self._host.settings.keep_content > 0
        return self._store

    def courier(self) -> Courier | Forwarder:
        """Return what takes this journal's rows further, not necessarily started."""
        if self._courier is None:
            with _loading.LOCK:
                if self._hub:
                    from ._courier.forward import Forwarder as Kind
                else:
                    from ._courier.loop import Courier as Kind  # type: ignore[assignment]

            with self._lock:
                if self._courier is None:
                    host = self._host
                    made = Kind(self.store, host.owner, host.told, self._idle, lambda: host.settings)
                    made.serve(host.destinations.values())
                    self.older = [(store, self._courier_of(store)) for store in _older_stores(self.path)]
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
        self.upkeep.look()
        if self._host.sends:
            courier = self.courier()
            for each in self.couriers:
                each.start()
            courier.wake(0.05 if urgent else self._host.settings.linger)

    def flush(self, timeout: float) -> FlushResult:
        """Wait at most `timeout` seconds for what this process has put here until now."""
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
            self.await_delivery(deadline)

    def close(self, deadline: float, *, hurry: bool) -> None:
        """Write what is queued, send what there is time for, end the threads."""
        self.writer.close(max(deadline - time.monotonic(), 5.0))
        if self._courier is not None:
            if hurry:
                self.await_delivery(deadline)
            for courier in self.couriers:
                courier.close(max(deadline - time.monotonic(), 0.3))
            for store, _ in self.older:
                store.close()
        self.upkeep.close(1.0)
        if self._store is not None:
            self._store.close()


def _always(store: Store) -> Callable[[], Store]:
    return lambda: store


def _older_stores(path: Path) -> list[Store]:
    from ._journal import files
    from ._journal.store import Store

    found: list[Store] = []
    for file in files.older(path):
        try:
            found.append(Store.open_older(file))
        except files.OtherSchemaError:  # this schema's own, or of a program that is newer
            continue
        except JournalError as error:
            log.error("pltrack: %s; what is left in it is not delivered", error)
    return found


def default_journal() -> Path:
    """Return the journal's default place: the user's state folder, or the temporary one without a home."""
    import platformdirs

    try:
        folder = platformdirs.user_state_path("pltrack", appauthor=False)
        if folder.is_absolute() and not str(folder).startswith("/nonexistent"):
            return folder / "journal.db"
    except (RuntimeError, OSError):
        pass

    place = Path(tempfile.gettempdir()) / f"pltrack-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    log.warning("pltrack: there is no home folder, the journal is kept in %s", place)
    return place / "journal.db"
