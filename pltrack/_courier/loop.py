"""The courier: a thread with an event loop that claims what is due, sends it, and writes down the outcome."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .. import _loading
from .._journal import orphans
from .._journal.statements import BORROW_AFTER
from .._journal.store import Claimed, ClaimedNote, Delivered, Store
from .._settings import Destination, Settings
from .._shortening import shrunk
from ..errors import JournalError
from . import search
from .answers import Act, Verdict, backoff, judge
from .api import Answer, Api
from .folding import fold, is_linked, link_of, note_call, unlinked
from .ledger import Again, Ledger, Told
from .line import Line

log = logging.getLogger("pltrack")

_POLL = 2.0  # other processes may have left something in the journal
_EXPIRE_EVERY = 5.0
# Between two rounds while answers come in, so that one transaction takes many of them: longer under load.
_BREATH = 0.01
_DEEP_BREATH = 0.03
_MANY = 32
_LOG = "/log-request"


class Courier:
    """Delivers one journal's rows to the destinations whose keys this process holds."""

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
        self._settings = settings
        self.lines: Mapping[str, Line] = {}  # replaced, never changed: other threads read it
        self.patience = BORROW_AFTER  # 0: deliver other processes' rows as soon as they are due, as `pltrack sync` does
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._wake_at = 0.0
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ledger = Ledger(told)
        self._expire_at = 0.0

    # -- called from other threads ------------------------------------------------------------------------

    def serve(self, destinations: Iterable[Destination]) -> None:
        """Deliver to these destinations too, from now on; a changed key ends a pause."""
        with self._starting:
            for to in destinations:
                if to.api_key and ((known := self.lines.get(to.fingerprint)) is None or known.to != to):
                    line = Line(to, asyncio.Semaphore(self._settings().concurrency))
                    self.lines = {**self.lines, to.fingerprint: line}
        self.wake()

    def start(self) -> None:
        """Start the thread unless it runs."""
        with self._starting:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._main, name="pltrack-courier", daemon=True)
                self._thread.start()

    def wake(self, within: float = 0.0) -> None:
        """Look at the journal again, `within` seconds from now at the latest."""
        loop, woken = self._loop, self._woken
        if loop is None or woken is None or time.monotonic() + within >= self._wake_at:
            return
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(woken.set)

    def waits_for(self, destination: str) -> str:
        """Say why nothing can be delivered there right now; the empty string when it can."""
        line = self.lines.get(destination)
        if line is None:
            return "no key"
        return line.paused or (line.last_error if line.open else "")

    def ask(self, ids: Iterable[str]) -> None:
        """Do nothing: what other processes deliver is seen in the journal."""

    def unsettled(self, store: Store, marks: tuple[int, int]) -> bool:
        """Tell whether rows of this process up to `marks` are still to be delivered, and can be."""
        going = [name for name in self.lines if not self.waits_for(name)]
        return bool(going) and store.unsettled(self._owner, marks, going)

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
        self._woken = asyncio.Event()
        with _loading.LOCK:
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
                    await asyncio.sleep(_BREATH if len(self._tasks) < _MANY else _DEEP_BREATH)
        finally:
            await self._stop(api)

    def _round(self, api: Api) -> float:
        """Settle what was answered, claim what is due; return in how many seconds to look again."""
        try:
            store = self._open()
            self._ledger.settle(store)
            if self._settings().delivery != "background":
                return _POLL
            if time.monotonic() >= self._expire_at:
                self._expire_at = time.monotonic() + _EXPIRE_EVERY
                store.expire()
                self._idle()
                self._spawn_searches(api, store)
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
        except Exception as error:  # noqa: BLE001 -- this thread must live on, or nothing is delivered any more
            self._fault("a round of the courier", error)
        return _POLL

    def _claim(self, api: Api, store: Store, line: Line) -> bool:
        """Claim what is due for one destination and set to work; return whether more may be due."""
        room = line.room(self._settings().concurrency)
        if room <= 0:
            return line.out > 0
        names, since, wall = [line.to.fingerprint], time.monotonic(), time.time()
        rows = store.claim(names, self._owner, room, self.patience)
        self._ledger.hold(rows, since, wall)
        self._take_on(api, line, rows)
        # A probe is one exchange: with a request, or with a note where nothing else waits.
        notes = store.claim_notes(names, self._owner, room, self.patience) if not (rows and line.probing) else []
        self._ledger.hold(notes, since, wall)
        by_target: dict[int | None, list[ClaimedNote]] = {}
        for note in notes:
            by_target.setdefault(note.pl_id, []).append(note)
        for group in by_target.values():
            self._spawn(line, group, self._send_notes(api, line, group))
        if line.paused and not rows and not notes:
            line.probe_later()
        return bool(rows or notes)

    def _take_on(self, api: Api, line: Line, rows: Sequence[Claimed]) -> None:
        on_unknown = self._settings().on_unknown
        unsure = [row for row in rows if row.uncertain and on_unknown != "resend"]
        for row in rows:
            if not row.uncertain or on_unknown == "resend":
                self._spawn(line, [row], self._send(api, line, row))
        if unsure and on_unknown == "hold":
            self._hold_back(line, unsure, "the lease of a courier ended before it had an answer")
        elif unsure:
            self._spawn(line, unsure, self._look(api, line, unsure))

    def _spawn(self, line: Line, rows: Sequence[Claimed | ClaimedNote], work: Coroutine[Any, Any, None]) -> None:
        line.out += 1
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            line.out -= 1
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                for row in self._ledger.open_of(rows):
                    self._ledger.give_back(row, backoff(row.attempts), f"pltrack failed: {error!r}"[:500], counts=True)
                self._fault("delivery", error)
            if self._woken is not None:
                self._woken.set()

        task.add_done_callback(done)

    # -- one exchange -------------------------------------------------------------------------------------

    async def _exchange(
        self, api: Api, line: Line, path: str, body: bytes, rows: Sequence[Claimed | ClaimedNote]
    ) -> tuple[Answer, float] | None:
        """Send when it is its turn; return the answer and when it was begun, None when it must not go now."""
        async with line.gate:
            timeout = self._settings().http_timeout
            holds = [hold for row in rows if (hold := self._ledger.held(row)) is not None]
            let_go = len(holds) < len(rows)
            if let_go or not line.free() or not all(hold.lasts(timeout) for hold in holds):
                return None
            for hold in holds:
                hold.sent = path != search.PATH
            line.sending += 1
            begun = time.monotonic()
            try:
                return await api.post(line.to, path, body, timeout), begun
            finally:
                line.sending -= 1

    # -- one request --------------------------------------------------------------------------------------

    async def _send(self, api: Api, line: Line, row: Claimed) -> None:
        folded = fold(row.payload, row.notes, self._settings().fold)
        whole = body = folded.body
        carried = set(folded.notes)
        failed: list[tuple[int, str]] = []
        lost_link: tuple[str, str] | None = None
        cuts = 0
        while True:
            exchange = await self._exchange(api, line, _LOG, body, [row])
            if exchange is None:
                self._ledger.give_back(row, 0.0, line.last_error or "kept back")
                return
            answer, begun = exchange
            verdict = judge(answer, row.attempts, linked=answer.status == 404 and is_linked(body))
            if verdict.act is Act.UNLINK:
                failed = self._link_notes(line, row, carried, verdict.why)
                lost_link = None if failed else (link_of(whole), verdict.why)
                whole, body = unlinked(whole), unlinked(body)
            elif verdict.act is Act.SHRINK and (smaller := shrunk(whole, cuts + 1)) is not None:
                cuts, body = cuts + 1, smaller
            elif verdict.act is Act.REFUSED and carried:  # a note may be what is wrong: then it fails, not the request
                carried, failed, cuts = set(), [], 0
                whole = body = row.payload
            else:
                break
            self._ledger.refused(row)
        if verdict.act is Act.DONE and verdict.pl_id is not None:
            carried -= {seq for seq, _ in failed}
            self._arrived(line, Delivered(row, verdict.pl_id, tuple(sorted(carried)), tuple(failed), lost_link))
        else:
            self._not_arrived(line, row, verdict, begun)

    def _link_notes(self, line: Line, row: Claimed, carried: Collection[int], why: str) -> list[tuple[int, str]]:
        links = [note.seq for note in row.notes if note.kind == "prompt" and note.seq in carried]
        line.say("a prompt link was refused", why, logging.WARNING)
        return [(seq, why) for seq in links]

    def _arrived(self, line: Line, delivered: Delivered) -> None:
        self._ledger.delivered.append(delivered)
        self._recovered(line)

    def _not_arrived(self, line: Line, row: Claimed, verdict: Verdict, begun: float) -> None:
        if verdict.act in (Act.REFUSED, Act.SHRINK):
            self._recovered(line, unless_paused=True)
            line.say("a request was refused", verdict.why, logging.ERROR)
            self._ledger.failed.append((row, verdict.why))
            return
        if verdict.act is Act.DONE:  # accepted, but by whom? A proxy's page has no id.
            verdict = Verdict(Act.LOOK, "answered without an id", backoff(row.attempts))
        unknown = verdict.act is Act.LOOK and self._settings().on_unknown != "resend"
        if unknown and self._settings().on_unknown == "hold":
            line.failed(verdict, begun)
            self._hold_back(line, [row], verdict.why)
            return
        self._failed(line, verdict, begun)
        if verdict.act is Act.PAUSE:
            self._ledger.again.append(Again(row, 0.0, 0, verdict.why, counts=False))
            self._told([(row.id, None, False)])
        else:
            self._ledger.again.append(Again(row, verdict.wait, int(unknown), verdict.why, counts=True))

    def _hold_back(self, line: Line, rows: Sequence[Claimed], why: str) -> None:
        """Leave it to the user whether what may have arrived is sent again (`on_unknown="hold"`)."""
        line.say("a request may have arrived and is held back", why, logging.ERROR)
        self._ledger.failed += [(row, f"held back, it may have arrived: {why}") for row in rows]

    # -- a request that may have arrived ------------------------------------------------------------------

    async def _look(self, api: Api, line: Line, rows: Sequence[Claimed]) -> None:
        """Ask PromptLayer whether it has these; take over the ids it knows, send the others again in the end."""
        now = time.monotonic()
        if now < line.search_at:
            self._postpone(rows, line.search_at - now)
            return
        some, later = rows[: line.search_most], rows[line.search_most :]
        line.search_at = now + search.EVERY
        self._postpone(later, search.EVERY)
        exchange = await self._exchange(api, line, search.PATH, search.body([row.id for row in some]), some)
        if exchange is None:
            self._postpone(some, 0.0)
            return
        answer, begun = exchange
        found = search.found(answer)
        if found is None:
            self._cannot_look(line, some, answer, begun)
            return
        for row in some:
            if row.id in found:
                self._arrived(line, Delivered(row, found[row.id]))
        missing = [row for row in some if row.id not in found]
        line.search_most = search.MOST
        if search.has_more(answer) and len(some) > 1:  # someone else's copies fill the page
            line.search_most = len(some) // 2
            self._postpone(missing, search.EVERY)
        else:
            self._ledger.again += [self._not_found(row) for row in missing]

    def _not_found(self, row: Claimed) -> Again:
        if row.uncertain > len(search.PATIENCE):
            return Again(row, 0.0, 0, "it had not arrived", counts=False)
        return Again(row, search.PATIENCE[row.uncertain - 1], row.uncertain + 1, "not found yet", counts=False)

    def _cannot_look(self, line: Line, rows: Sequence[Claimed], answer: Answer, begun: float) -> None:
        """Wait for the search alone: that it is refused or too busy says nothing about the rest."""
        verdict = judge(answer, rows[0].attempts)
        if answer.status in (0, 401) or answer.status >= 500:
            self._failed(line, verdict, begun)
        else:
            line.say("what may have arrived cannot be looked up", answer.words, logging.WARNING)
        wait = max(verdict.wait, search.EVERY)
        line.search_at = max(line.search_at, time.monotonic() + wait)
        self._postpone(rows, wait, answer.words)

    def _postpone(self, rows: Sequence[Claimed], wait: float, why: str = "") -> None:
        words = f"looking whether it arrived{f': {why}' if why else ''}"
        self._ledger.again += [Again(row, wait, row.uncertain, words, counts=False) for row in rows]

    def _spawn_searches(self, api: Api, store: Store) -> None:
        for name, line in self.lines.items():
            free = not (line.paused or line.open) and time.monotonic() >= line.search_at
            if free and orphans.due(store, [name], self.patience):
                self._spawn(line, (), self._find_orphans(api, line))

    async def _find_orphans(self, api: Api, line: Line) -> None:
        """Ask PromptLayer for requests that this journal does not know and notes speak about."""
        line.search_at = time.monotonic() + search.EVERY
        ids = orphans.take(self._open(), line.to.fingerprint, search.MOST, self.patience)
        if not ids:  # another process was quicker
            return
        begun = time.monotonic()
        answer = await api.post(line.to, search.PATH, search.body(ids), self._settings().http_timeout)
        known = search.found(answer)
        if known is not None:
            found = {ours: theirs for ours, theirs in known.items() if ours in ids}
            orphans.resolve(self._open(), line.to.fingerprint, found)
            self._told([(ours, theirs, True) for ours, theirs in found.items()])
        elif answer.status == 401:
            self._failed(line, judge(answer, 1), begun)

    # -- the notes about one request ----------------------------------------------------------------------

    async def _send_notes(self, api: Api, line: Line, group: Sequence[ClaimedNote]) -> None:
        for position, note in enumerate(group):
            path, body = note_call(note)
            exchange = await self._exchange(api, line, path, body, [note])
            if exchange is None:
                for each in group[position:]:
                    self._ledger.give_back(each, 0.0, line.last_error or "kept back")
                return
            answer, begun = exchange
            verdict = judge(answer, note.attempts)
            if verdict.act is Act.DONE:
                self._recovered(line)
                self._ledger.notes_delivered.append(note)
            elif verdict.act in (Act.RETRY, Act.LOOK, Act.PAUSE):
                self._failed(line, verdict, begun)
                self._ledger.notes_again += [(each, verdict.wait, verdict.why) for each in group[position:]]
                return
            else:
                self._recovered(line, unless_paused=True)
                line.say(f"a {note.kind} was refused", verdict.why, logging.ERROR)
                self._ledger.notes_failed.append((note, verdict.why))

    # -- how it stands ------------------------------------------------------------------------------------

    def _recovered(self, line: Line, *, unless_paused: bool = False) -> None:
        if not (unless_paused and line.paused) and line.recovered():
            self._ledger.hurried.add(line.to.fingerprint)

    def _failed(self, line: Line, verdict: Verdict, begun: float) -> None:
        line.failed(verdict, begun)
        if verdict.act is not Act.PAUSE:
            line.say("delivery failed and will be tried again", verdict.why, logging.WARNING)

    def _fault(self, where: str, error: BaseException) -> None:
        log.error("pltrack: an error in %s; what was recorded stays in the journal", where, exc_info=error)

    # -- the end ------------------------------------------------------------------------------------------

    async def _stop(self, api: Api) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Cut off in mid-send: each may have arrived, so the next courier looks before it sends.
        self._ledger.give_all_back("cut off")
        with suppress(JournalError):
            self._ledger.settle(self._open())
        await api.close()
