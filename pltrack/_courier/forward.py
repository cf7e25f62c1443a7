"""The way to the hub: hands over what the journal has, and fetches the ids that somebody here waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import _loading
from .._journal.statements import BORROW_AFTER
from .._journal.store import Store
from .._settings import Destination, Settings
from ..errors import JournalError
from .answers import backoff
from .line import Line

if TYPE_CHECKING:
    from .._journal.hub import Hub

log = logging.getLogger("pltrack")

_POLL = 2.0
_POLL_BUSY = 0.25  # while somebody waits for an id
_ASK_FOR = 30.0  # seconds; who still waits then asks again
_EXPIRE_EVERY = 5.0
_BATCH = 500
_ASKED_MOST = 10_000

Told = Callable[[Sequence[tuple[str, int | None, bool]]], None]


class Forwarder:
    """Stands where the courier stands when there is a hub: the same questions, other answers.

    A thread that may wait for PostgreSQL as long as it likes: nothing else waits for it.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        owner: str,
        told: Told,
        idle: Callable[[], None],
        settings: Callable[[], Settings],
    ) -> None:
        self._open = store
        self._owner = owner
        self._told = told
        self._idle = idle
        self._url = settings().hub
        self._hub: Hub | None = None
        self._line = Line(Destination("the hub", ""))
        self.lines = {"hub": self._line}
        self.patience = BORROW_AFTER
        self.settled: Mapping[str, int] = {"requests": 0}  # the hub knows what became of them
        self._asked: dict[str, float] = {}  # ids of requests that somebody waits for, and until when
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._woken = threading.Event()
        self._closing = False
        self._expire_at = 0.0

    # -- called from other threads ------------------------------------------------------------------------

    def serve(self, destinations: Iterable[Destination]) -> None:
        """Do nothing: workers hold the keys."""

    def start(self) -> None:
        """Start the thread unless it runs."""
        with self._starting:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="pltrack-forwarder", daemon=True)
                self._thread.start()

    def wake(self, within: float = 0.0) -> None:
        """Look at the journal soon: there is no reason to wait `within`, the hub does that."""
        self._woken.set()

    def ask(self, ids: Iterable[str]) -> None:
        """Find out what became of requests, here or on any other machine."""
        if len(self._asked) < _ASKED_MOST:
            self._asked.update(dict.fromkeys(ids, time.monotonic() + _ASK_FOR))
        self.start()
        self._woken.set()

    def let_go(self, seqs: Iterable[int]) -> list[int]:
        """Return those that will not be handed over: none, a batch under way may have arrived."""
        return []

    def waits_for(self, destination: str) -> str:
        """Say why nothing gets to the hub right now; the empty string when it does."""
        return self._line.last_error if self._line.open else ""

    def unsettled(self, store: Store, marks: tuple[int, int]) -> bool:
        """Tell whether rows of this process up to `marks` are still to be handed over, and can be."""
        return not self._line.open and store.unforwarded(self._owner, marks)

    def close(self, timeout: float) -> bool:
        """End the thread; return whether it ended in time."""
        self._closing = True
        self._woken.set()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._woken.clear()
            wait = self._round()
            if not self._closing:
                self._woken.wait(wait)
                self._breathe()
        if self._hub is not None:
            self._hub.close()

    def _breathe(self) -> None:
        """After a failure, let the hub alone for a while, whoever wakes us."""
        while not self._closing and (left := self._line.blocked_until - time.monotonic()) > 0:
            self._woken.clear()
            self._woken.wait(left)

    def _round(self) -> float:
        try:
            store = self._open()
            if time.monotonic() >= self._expire_at:
                self._expire_at = time.monotonic() + _EXPIRE_EVERY
                store.expire()
                self._idle()
            more = self._forward(store)
            self._bring_back(store)
        except JournalError as error:
            self._failed(error)
            return 0.0
        except Exception as error:  # this thread must live on, or nothing gets to the hub any more
            log.error("pltrack: an error on the way to the hub; records stay in the journal", exc_info=error)
            self._failed(JournalError(f"pltrack failed: {error!r}"))
            return 0.0
        return 0.0 if more else _POLL_BUSY if self._asked else _POLL

    def _forward(self, store: Store) -> bool:
        """Hand over a batch; return whether there may be more."""
        batch = store.outgoing(self._owner, _BATCH, self.patience)
        if not batch.requests and not batch.notes:
            return False
        try:
            self._connected().receive(batch)
        except Exception:
            store.put_back(batch)
            raise
        store.handed_over(batch)
        self._recovered()
        self._told([])  # those who wait for a flush look again
        return batch.full

    def _bring_back(self, store: Store) -> None:
        """Write down here what became of requests that somebody waits for, and tell them."""
        asked = list(self._asked)[:_BATCH]
        if not asked:
            return
        hub = self._connected()
        known = hub.outcomes(asked)
        hub.hurry(ids=[each.id for each in known if each.state == "pending"])
        final = [each for each in known if each.state in ("delivered", "failed")]
        store.brought_back(final)
        self._recovered()
        answered = {each.id for each in final}
        for our_id in asked:
            if our_id in answered or self._asked[our_id] < time.monotonic():
                del self._asked[our_id]
        self._told([(each.id, each.pl_id, True) for each in final])

    def _connected(self) -> Hub:
        if self._hub is None:
            with _loading.MODULES:
                from .._journal.hub import Hub

                with suppress(ImportError):  # opening the hub says so
                    import psycopg  # noqa: F401

            self._hub = Hub.open(self._url)
        return self._hub

    # -- how it stands ------------------------------------------------------------------------------------

    def _failed(self, error: JournalError) -> None:
        self._line.failures += 1
        self._line.blocked_until = time.monotonic() + min(backoff(self._line.failures), 30.0)
        self._line.say("records wait in the local journal", str(error), logging.WARNING)

    def _recovered(self) -> None:
        self._line.recovered()
        self._line.last_error = ""
