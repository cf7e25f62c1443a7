"""One journal with its writer and its courier: made on first use, heavy parts on the writer's thread."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import _couriers, _loading
from ._journal.patience import within
from ._journal.upkeep import Upkeep
from ._journal.writer import Writer
from ._records import Barrier, Call, open_of
from ._settings import Settings, program_name
from .errors import JournalError

if TYPE_CHECKING:
    from ._courier.forward import Forwarder
    from ._courier.loop import Courier
    from ._journal.counting import Totals
    from ._journal.keeping import Keeper
    from ._journal.reading import Outcome
    from ._journal.rows import Encoder
    from ._journal.store import Store

_GRACE = 0.3  # seconds beyond a limit, for what is nearly done
_STATUS_SECONDS = 0.5  # what one who only looks waits for a journal that does not answer
_CLOSE_SECONDS = 2.0
_LOOK_AGAIN = 0.05


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What a flush achieved for the rows that this process had written before it."""

    delivered: int  # or handed over to the hub, where there is one
    pending: int
    failed: int
    lost: int = 0  # given up meanwhile: memory was full, or the journal was damaged


class Host(_couriers.Host, Protocol):
    """What a lane needs of the runtime that it belongs to."""

    sends: bool
    lost: int

    def taken(self, call: Call) -> None:
        """Hear of a call that is about to be written."""

    def lost_some(self, count: int, error: BaseException) -> None:
        """Hear of records that had to be given up."""

    def fault(self, where: str, error: BaseException) -> None:
        """Hear of an error of our own."""


class Lane:
    """One journal with its writer and its couriers."""

    def __init__(self, host: Host, path: Path, hub: str = "") -> None:
        self.path = path
        self._hub = hub
        self._host = host
        self._kept: Keeper | None = None
        self._lock = threading.Lock()
        self._encoders: dict[int, tuple[Settings, Encoder]] = {}
        self._taken = self._written = 0  # calls
        self._closed = False
        self._is_silent = False
        self._way = _couriers.Couriers(host, self.keeper, hub, self._idle)
        self.upkeep = Upkeep(lambda: self.keeper().serving(), lambda: host.settings, lambda: self.keeper().mend())
        self.writer = Writer(self, lambda: self.keeper().target(), self._encoder, host.settings.max_pending)

    def keeper(self) -> Keeper:
        """Return who knows where records are."""
        if self._kept is None:
            with _loading.MODULES:
                from ._journal.keeping import Keeper

            with self._lock:
                if self._kept is None:
                    self._kept = Keeper(self.path, self, self._fitted)
        return self._kept

    def store(self) -> Store:
        """Return the open journal, which may only be readable just now; where there is no file, one in memory."""
        return self.keeper().store()

    def _fitted(self, store: Store) -> Store:
        store.forwards = bool(self._hub)
        store.keeps_content = lambda: self._host.settings.keep_content > 0
        return store

    # -- how it stands ------------------------------------------------------------------------------------

    @property
    def file(self) -> Path:
        """Return the file that is written: another schema's may have the name that was configured."""
        file = self._kept and self._kept.file
        return (file and file.path) or self.path

    @property
    def stuck_by(self) -> str:
        """Say why nothing is written to a file; empty when it is."""
        silent = f"the journal {self.file} does not answer; its numbers are old" if self._is_silent else ""
        return (self._kept.why if self._kept is not None else "") or self.writer.stuck or silent

    @property
    def in_memory(self) -> bool:
        """Tell whether records are kept in memory only."""
        return self._kept is not None and bool(self._kept.why)

    @property
    def is_split(self) -> bool:
        """Tell whether rows are in memory that belong into a file."""
        return self._kept is not None and self._kept.is_split

    @property
    def in_use(self) -> bool:
        """Tell whether anything was put here, or looked up."""
        return self.writer.started or self._kept is not None

    def totals(self) -> Totals | None:
        """Return what the journal holds, or held when it last answered; None where there is none yet."""
        if self.in_use or self.path.exists():
            found: list[Totals] = []
            within(_STATUS_SECONDS, lambda: found.append(self.keeper().totals()))
            self._is_silent = not found
            return found[0] if found else self.keeper().last
        return None

    # -- its couriers -------------------------------------------------------------------------------------

    def courier(self) -> Courier | Forwarder:
        """Return what takes records further just now, not necessarily started."""
        return self._way.current()

    @property
    def couriers(self) -> list[Courier | Forwarder]:
        """Return the couriers there are."""
        return self._way.all

    @property
    def running_courier(self) -> Courier | Forwarder | None:
        """Return what takes records further just now, if there is one already."""
        return self._way.running if self._kept is not None else None

    @property
    def older(self) -> list[tuple[Store, Courier]]:
        """Return the files that earlier schemas wrote, which are only delivered."""
        return self._way.older

    def outcomes(self, ids: Sequence[str]) -> list[Outcome]:
        """Return what became of those of our ids that are known, wherever they are."""
        found: list[Outcome] = []
        for store in self.keeper().stores():
            with suppress(JournalError):
                found += store.outcomes(ids)
        return found

    def hurry(self, ids: Sequence[str]) -> None:
        """Have requests sent now, wherever they are."""
        for store in self.keeper().claimable():
            with suppress(JournalError):  # a lock: what is due goes anyway
                store.hurry(ids=ids)
        if self._host.sends:
            self._way.start(0.0)

    def _idle(self) -> None:
        self._host.look_again()
        self.upkeep.look()

    # -- what the keeper tells ----------------------------------------------------------------------------

    @property
    def owner(self) -> str:
        """Return the name of this process."""
        return self._host.owner

    @property
    def settings(self) -> Settings:
        """Return the settings that hold now."""
        return self._host.settings

    @property
    def unsettled(self) -> int:
        """Return how many requests were written and, as far as this process knows, are not settled."""
        return max(self._written - self._way.settled["requests"], 0)

    def moved(self) -> None:
        """Hear that rows are, or are to be, in another place."""
        self.upkeep.look()
        self._way.wake()

    # -- what the writer tells ----------------------------------------------------------------------------

    def _encoder(self, settings: Settings) -> Encoder:
        known = self._encoders.get(id(settings))
        if known is None or known[0] is not settings:
            with _loading.MODULES:
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
        self._taken += 1
        self._host.taken(call)

    def lost_some(self, count: int, error: BaseException) -> None:
        """Hear of records that had to be given up."""
        self._host.lost_some(count, error)

    def stuck(self, error: BaseException) -> bool:
        """Hear that nothing could be written; tell whether it can be tried again at once."""
        return self.keeper().failed(error)

    def is_of_the_place(self, error: BaseException) -> bool:
        """Tell whether the journal is at fault, and not what was to be written."""
        from ._journal import places

        return places.is_of_the_place(error)

    def written(self, urgent: bool) -> None:
        """Hear that a group is on disk, or in memory: the courier may look."""
        self._written = self._taken
        if self.in_memory:
            self.keeper().shrink()
        if self._closed:
            self.keeper().close()
            return
        self.upkeep.look()
        if self._host.sends:
            self._way.start(0.05 if urgent else self._host.settings.linger)

    # -- flush and exit -----------------------------------------------------------------------------------

    def flush(self, timeout: float) -> FlushResult:
        """Wait at most `timeout` seconds for what this process has put here until now."""
        results: list[FlushResult] = []
        deadline, lost = time.monotonic() + timeout, self._host.lost
        within(timeout + _GRACE, lambda: results.append(self._flush_anyhow(deadline)))
        result = results[0] if results else FlushResult(0, max(len(self.writer), 1), 0)
        return replace(result, lost=self._host.lost - lost)

    def _flush_anyhow(self, deadline: float) -> FlushResult:
        """Begin anew where the journal cannot be read: its file may be replaced, or memory take its place."""
        pause = threading.Event()
        while True:
            try:
                return self._flush(deadline)
            except JournalError:
                if time.monotonic() >= deadline:
                    raise
                pause.wait(_LOOK_AGAIN)

    def _flush(self, deadline: float) -> FlushResult:
        keeper = self.keeper()
        epoch, settled = keeper.epoch, self._way.settled
        since = self._marks()
        before = self._progress(since, since)
        if not self.is_written(max(deadline - time.monotonic(), 0.0)):
            return FlushResult(0, len(self.writer) + open_of(before), 0)
        marks = self._marks()
        if self._host.sends:
            self._way.await_delivery(deadline)
        moved = epoch != keeper.epoch
        after = self._progress(self._marks() if moved else marks, since)
        pending = open_of(after)
        if moved:  # rows have other numbers now: what the couriers have done tells more than comparing them
            now = self._way.settled
            delivered, failed = (now[kind] - settled[kind] for kind in ("delivered", "failed"))
        else:
            failed = after["failed"] - before["failed"]
            there = sum(before.values()) - before["forwarded"] + after["written"]
            delivered = there - pending - after["failed"]
        return FlushResult(max(delivered, 0), pending, max(failed, 0))

    def _marks(self) -> dict[Store, tuple[int, int]]:
        return {store: store.marks() for store in self.keeper().stores()}

    def _progress(self, marks: Mapping[Store, tuple[int, int]], since: Mapping[Store, tuple[int, int]]) -> Counter[str]:
        found: Counter[str] = Counter()
        for store, mark in marks.items():
            found.update(store.progress(self._host.owner, mark, since.get(store, mark)))
        return found

    def is_written(self, timeout: float) -> bool:
        """Wait until what was put here is on disk; return whether it is."""
        reached = threading.Event()
        self.writer.put(Barrier(reached.set), self._host.settings)
        self.writer.hurry()
        return reached.wait(timeout)

    def settle(self, deadline: float) -> None:
        """Write and send what there is time for; more may come afterwards."""
        if self.is_written(max(deadline - time.monotonic(), 1.0)):
            self._deliver(deadline)

    def close(self, deadline: float, *, hurry: bool) -> None:
        """Write what is queued, send what there is time for, end the threads."""
        patience = _GRACE if self.writer.stuck else 5.0  # a disk that works gets the time it needs
        written = self.writer.close(max(deadline - time.monotonic(), patience))
        if self._kept is None:
            return
        if hurry and written and self._way.running is not None:
            self._deliver(deadline)
        self._way.close(deadline)
        self.upkeep.close(1.0)
        self._closed = True
        if written:
            within(_CLOSE_SECONDS, self._kept.close)

    def _deliver(self, deadline: float) -> None:
        left = max(deadline - time.monotonic(), 0.0)
        within(left + _GRACE, lambda: self._way.await_delivery(deadline))
