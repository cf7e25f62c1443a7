"""The courier: a thread with an event loop that claims what is due, sends it, and writes down the outcome."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from .. import _loading
from .._journal import orphans, pausing
from .._journal.store import Claimed, ClaimedNote, Store
from .._settings import Destination, Settings
from .._status import PAUSED_BY_HAND
from ..errors import JournalError
from .answers import backoff
from .api import Api
from .ledger import Told
from .line import Line, Work
from .sending import Sender

log = logging.getLogger("pltrack")

_POLL = 2.0  # other processes may have left something in the journal
_EXPIRE_EVERY = 5.0
_LOOK_PAUSED_EVERY = 0.5
# Between two rounds while answers come in, so that one transaction takes many of them: longer under load.
_BREATH = 0.01
_DEEP_BREATH = 0.03
_MANY = 32
_FEW = 8  # jobs left, so that more are claimed


class Courier(Sender):
    """Delivers one journal's rows to the destinations whose keys this process holds."""

    def __init__(
        self,
        store: Callable[[], Store],
        owner: str,
        told: Told,
        idle: Callable[[], None],
        settings: Callable[[], Settings],
    ) -> None:
        super().__init__(store, told, settings)
        self._owner = owner
        self._idle = idle
        self.lines: Mapping[str, Line] = {}  # replaced, never changed: other threads read it
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken, self._hungry = asyncio.Event(), asyncio.Event()  # of the thread's loop, once they are waited for
        self._wake_at = 0.0
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._expire_at = self._look_paused_at = 0.0
        self._halted = ""

    # -- called from other threads ------------------------------------------------------------------------

    def serve(self, destinations: Iterable[Destination]) -> None:
        """Deliver to these destinations too, from now on; a changed key ends a pause."""
        with self._starting:
            for to in destinations:
                if to.api_key and ((known := self.lines.get(to.fingerprint)) is None or known.to != to):
                    self.lines = {**self.lines, to.fingerprint: Line(to)}
        self.wake()

    def start(self) -> None:
        """Start the thread unless it runs."""
        with self._starting:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._main, name="pltrack-courier", daemon=True)
                self._thread.start()

    def wake(self, within: float = 0.0) -> None:
        """Look at the journal again, `within` seconds from now at the latest."""
        loop = self._loop
        if loop is None or time.monotonic() + within >= self._wake_at:
            return
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._woken.set)

    def waits_for(self, destination: str) -> str:
        """Say why nothing can be delivered there right now; the empty string when it can."""
        line = self.lines.get(destination)
        if line is None:
            return "no key"
        return line.halted or line.paused or (line.last_error if line.open else "")

    def ask(self, ids: Iterable[str]) -> None:
        """Do nothing: what other processes deliver is seen in the journal."""

    def unsettled(self, store: Store, marks: tuple[int, int]) -> bool:
        """Tell whether rows of this process up to `marks` are still to be delivered, and can be."""
        going = [name for name in self.lines if not self.waits_for(name)]
        return bool(going) and store.unsettled(self._owner, marks, going)

    @property
    def settled(self) -> Mapping[str, int]:
        """Return how many rows were written down as delivered or failed, and how many of them are requests."""
        return self._ledger.settled

    @property
    def busy(self) -> bool:
        """Tell whether anything is under way."""
        return bool(self._tasks)

    def let_go(self, seqs: Iterable[int]) -> list[int]:
        """Never send these, except what has gone out already; return those that will not."""
        loop, done = self._loop, threading.Event()
        unsent: list[int] = []

        def forget() -> None:
            unsent.extend(self._ledger.let_go(seqs))
            done.set()

        with suppress(RuntimeError):  # the loop was closed meanwhile
            if loop is not None:
                loop.call_soon_threadsafe(forget)
                done.wait(1.0)
        return unsent

    def close(self, timeout: float) -> bool:
        """Stop sending and end the thread; return whether it ended in time."""
        self._closing = True
        self._wake_at = float("inf")
        self.wake()
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
            return not thread.is_alive()
        return True

    # -- the loop -----------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception:
            log.exception("pltrack: the courier stopped; what was recorded stays in the journal")
        finally:
            self._loop = None

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        with _loading.MODULES:
            api = Api()
        try:
            while not self._closing:
                self._wake_at = float("inf")  # whoever wakes us during the round means what it may have missed
                self._woken.clear()
                wait = self._round(api)
                self._wake_at = time.monotonic() + wait
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), wait)
                if self._tasks and not self._closing:
                    await self._breathe()
        finally:
            await self._stop(api)

    async def _breathe(self) -> None:
        """Let answers gather, unless workers run out of jobs."""
        self._hungry.clear()
        out = sum(line.out for line in self.lines.values())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hungry.wait(), _BREATH if out < _MANY else _DEEP_BREATH)

    def _round(self, api: Api) -> float:
        """Settle what was answered, claim what is due; return in how many seconds to look again."""
        try:
            store = self._open()
            self._ledger.settle(store)
            self._obey(store)
            if self._settings().delivery != "background":
                return _POLL
            if time.monotonic() >= self._expire_at:
                self._expire_at = time.monotonic() + _EXPIRE_EVERY
                store.expire()
                self._idle()
                self._search_orphans(api, store)
            if any([self._claim(api, store, line) for line in self.lines.values()]):
                return 0.05  # an answer wakes the loop sooner
            concurrency = self._settings().concurrency
            going = [name for name, line in self.lines.items() if line.room(concurrency) > 0]
            due = store.next_due(going, self._owner, self.patience) if going else None
            blocked = [line.blocked_until - time.monotonic() for line in self.lines.values()]
            waits = [_POLL, *(each for each in blocked if each > 0)]
            if due is not None:
                waits.append(max(due, 0.01))
            return min(waits)
        except JournalError as error:
            log.debug("pltrack: %s", error)
            self._ledger.tell()
        except Exception as error:  # noqa: BLE001 -- this thread must live on, or nothing is delivered any more
            self._fault("a round of the courier", error)
        return _POLL

    def _obey(self, store: Store) -> None:
        """Send nothing while somebody has paused delivery; what was claimed goes back."""
        now = time.monotonic()
        if now >= self._look_paused_at:
            self._look_paused_at = now + _LOOK_PAUSED_EVERY
            halted = PAUSED_BY_HAND if pausing.look(store) is not None else ""
            if halted != self._halted:
                self._halted = halted
                self._told([])  # who waits for something looks again
                log.warning("pltrack: delivery %s", "was paused by hand; records wait" if halted else "goes on")
        for line in self.lines.values():
            line.halted = self._halted

    def _claim(self, api: Api, store: Store, line: Line) -> bool:
        """Claim what is due for one destination and set to work; return whether more may be due."""
        room = line.room(self._settings().concurrency)
        if room <= 0:
            return line.out > 0
        names, since, wall = [line.to.fingerprint], time.monotonic(), time.time()
        rows = store.claim(names, self._owner, room, self.patience)
        line.more = len(rows) == room
        self._ledger.hold(rows, since, wall)
        self._take_on(api, line, rows)
        # A probe is one exchange: with a request, or with a note where nothing else waits.
        notes = store.claim_notes(names, self._owner, room, self.patience) if not (rows and line.probing) else []
        self._ledger.hold(notes, since, wall)
        by_target: dict[int | None, list[ClaimedNote]] = {}
        for note in notes:
            by_target.setdefault(note.pl_id, []).append(note)
        for group in by_target.values():
            self._give(line, group, partial(self._send_notes, api, line, group))
        if line.paused and not rows and not notes:
            line.probe_later()
        return bool(rows or notes)

    def _take_on(self, api: Api, line: Line, rows: Sequence[Claimed]) -> None:
        on_unknown = self._settings().on_unknown
        unsure = [row for row in rows if row.uncertain and on_unknown != "resend"]
        for row in rows:
            if not row.uncertain or on_unknown == "resend":
                self._give(line, [row], partial(self._send, api, line, row))
        if unsure and on_unknown == "hold":
            self._hold_back(line, unsure, "the lease of a courier ended before it had an answer")
        elif unsure:
            self._give(line, unsure, partial(self._look, api, line, unsure))

    def _give(self, line: Line, rows: Sequence[Claimed | ClaimedNote], work: Work) -> None:
        line.out += 1
        line.jobs.append((rows, work))
        if line.workers < self._settings().concurrency:
            line.workers += 1
            task = asyncio.get_running_loop().create_task(self._work(line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, line: Line) -> None:
        """Do what is to be done for one destination, one job after the other."""
        try:
            while line.jobs and not self._closing:
                rows, work = line.jobs.popleft()
                if len(line.jobs) == _FEW and line.more:
                    self._hungry.set()
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 -- the next job has nothing to do with it
                    for row in self._ledger.open_of(rows):
                        self._ledger.give_back(
                            row, backoff(row.attempts), f"pltrack failed: {error!r}"[:500], counts=True
                        )
                    self._fault("delivery", error)
                finally:
                    line.out -= 1
                    self._woken.set()
        finally:
            line.workers -= 1

    def _search_orphans(self, api: Api, store: Store) -> None:
        for name, line in self.lines.items():
            free = not (line.halted or line.paused or line.open) and time.monotonic() >= line.search_at
            if free and store.knows_all and orphans.due(store, [name], self.patience):
                self._give(line, (), partial(self._find_orphans, api, line))

    # -- the end ------------------------------------------------------------------------------------------

    async def _stop(self, api: Api) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Cut off in mid-send: each may have arrived, so the next courier looks before it sends.
        self._ledger.give_all_back("cut off")
        with suppress(JournalError):
            self._ledger.settle(self._open())
        api.close()
