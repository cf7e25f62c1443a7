"""The couriers of one journal: of its file, of what is in memory, of the files that earlier schemas wrote."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Protocol

from . import _loading
from ._settings import Destination, Settings
from .errors import JournalError

if TYPE_CHECKING:
    from ._courier.forward import Forwarder
    from ._courier.loop import Courier
    from ._journal.keeping import Keeper
    from ._journal.memory import Memory
    from ._journal.store import Store

_LOOK_AGAIN = 0.02  # while answers come in: looking costs the courier the lock


class Host(Protocol):
    """What couriers need of the runtime that they belong to."""

    owner: str
    settings: Settings
    destinations: dict[str, Destination]

    def told(self, answers: Sequence[tuple[str, int | None, bool]]) -> None:
        """Hear what became of requests."""

    def look_again(self) -> None:
        """Hear that the courier found nothing to do for a while."""

    def listening(self, listener: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `listener` each time something was answered."""


class Couriers:
    """Made when first needed; what is in memory has one of its own, so that nothing is mixed up when it moves."""

    def __init__(self, host: Host, keeper: Callable[[], Keeper], hub: str, idle: Callable[[], None]) -> None:
        self._host, self._keeper, self._hub, self._idle = host, keeper, hub, idle
        self._of_file: Courier | Forwarder | None = None
        self._of_memory: Courier | Forwarder | None = None
        self.older: list[tuple[Store, Courier]] = []
        self._lock = threading.Lock()

    def current(self) -> Courier | Forwarder:
        """Return the one that takes new records further, not necessarily started."""
        keeper = self._keeper()
        if self._of_file is None:
            with _loading.MODULES:
                from ._journal import older

            made, others = self._made(keeper.serving, self._idle), older.stores(keeper.path)
            with self._lock:
                if self._of_file is None:
                    self.older = [(store, self._made_for(store)) for store in others]
                    self._of_file = made
        if (memory := keeper.memory) is not None and keeper.why:
            return self._beside(memory)
        return self._of_file

    def _beside(self, memory: Memory) -> Courier | Forwarder:
        if self._of_memory is None:
            made = self._made(lambda: memory, self._host.look_again)
            with self._lock:
                self._of_memory = self._of_memory or made
        return self._of_memory

    def _made(self, store: Callable[[], Store], idle: Callable[[], None]) -> Courier | Forwarder:
        with _loading.MODULES:
            if self._hub:
                from ._courier.forward import Forwarder as Kind
            else:
                from ._courier.loop import Courier as Kind  # type: ignore[assignment]

        host = self._host
        made = Kind(store, host.owner, host.told, idle, lambda: host.settings)
        made.serve(host.destinations.values())
        return made

    def _made_for(self, store: Store) -> Courier:
        from ._courier.loop import Courier

        host = self._host
        store.beside = lambda: self._keeper().file
        courier = Courier(lambda: store, host.owner, host.told, host.look_again, lambda: host.settings)
        courier.serve(host.destinations.values())
        return courier

    @property
    def running(self) -> Courier | Forwarder | None:
        """Return the one that takes new records further, if there is one already."""
        return self._of_memory if self._of_memory is not None and self._keeper().why else self._of_file

    @property
    def all(self) -> list[Courier | Forwarder]:
        """Return those that there are."""
        own = [each for each in (self._of_file, self._of_memory) if each is not None]
        return [*own, *(courier for _, courier in self.older)]

    @property
    def settled(self) -> Counter[str]:
        """Return how many rows they have written down as delivered or failed, and how many of them are requests."""
        found: Counter[str] = Counter()
        for each in self.all:
            found.update(each.settled)
        return found

    def start(self, within: float) -> None:
        """Have them look at what there is, `within` seconds from now at the latest."""
        self.current()
        for each in self.all:
            each.start()
        for own in (self._of_file, self._of_memory):
            if own is not None:
                own.wake(within)

    def wake(self) -> None:
        """Have those that run look again."""
        for each in self.all:
            each.wake()

    def await_delivery(self, deadline: float) -> None:
        """Send this process's rows now and wait until they are settled, cannot go, or time is up."""
        answered, pause, keeper = threading.Event(), threading.Event(), self._keeper()
        with self._host.listening(answered.set):
            epoch, ways = keeper.epoch, self._hurried()
            while (left := deadline - time.monotonic()) > 0:
                answered.clear()
                if epoch != keeper.epoch:  # rows are, or have to go, somewhere else
                    epoch, ways = keeper.epoch, self._hurried()
                if not any(courier.unsettled(store, marks) for store, courier, marks in ways):
                    return
                answered.wait(min(left, 0.1))
                pause.wait(min(left, _LOOK_AGAIN))

    def _hurried(self) -> list[tuple[Store, Courier | Forwarder, tuple[int, int]]]:
        """Have this process's rows sent now; return where they are, who sends them, and up to which number."""
        self.current()
        keeper, found = self._keeper(), []
        for store in keeper.claimable():
            courier = self._of_memory if store is keeper.memory else self._of_file
            if courier is not None:
                for each in courier.lines:
                    with suppress(JournalError):  # a lock: what is due goes anyway
                        store.hurry(owner=self._host.owner, destination=each)
                found.append((store, courier, store.marks()))
        self.start(0.0)
        return found

    def close(self, deadline: float) -> None:
        """End them."""
        for courier in self.all:
            courier.close(max(deadline - time.monotonic(), 0.3))
        for store, _ in self.older:
            store.close()
