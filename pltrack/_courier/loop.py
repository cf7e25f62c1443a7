"""The courier: a thread with an event loop that claims what is due, sends it, and writes down the outcome."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from .. import _loading
from .._journal.statements import BORROW_AFTER
from .._journal.store import Claimed, ClaimedNote, Delivered, Store
from .._settings import Destination, Settings
from .._shortening import shrunk
from ..errors import JournalError
from . import search
from .answers import Act, Verdict, backoff, judge
from .api import Api
from .folding import fold, is_linked, note_call, unlinked
from .line import OPEN_AFTER, Line

log = logging.getLogger("pltrack")

_POLL = 2.0  # other processes may have left something in the journal
_EXPIRE_EVERY = 5.0
_PROBE_KEY_EVERY = 60.0
# Between two rounds while answers come in, so that one transaction takes many of them: longer under load.
_BREATH = 0.01
_DEEP_BREATH = 0.03
_MANY = 32

# (our id, PromptLayer's id or None, whether that is final): answered, refused for good, or paused for now
Told = Callable[[Sequence[tuple[str, int | None, bool]]], None]


class Courier:
    """Delivers one journal's rows to the destinations whose keys this process holds."""

    def __init__(
        self, store: Callable[[], Store], owner: str, told: Told, idle: Callable[[], None], settings: Settings
    ) -> None:
        self._open = store
        self._owner = owner
        self._told = told
        self._idle = idle
        self._settings = settings
        self.lines: dict[str, Line] = {}
        self.patience = BORROW_AFTER  # 0: deliver other processes' rows as soon as they are due, as `pltrack sync` does
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._wake_at = 0.0
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[tuple[str, int], bool] = {}  # ("r" | "n", seq) under our lease: has its body gone out?
        self._gate = asyncio.Semaphore(settings.concurrency)
        self._delivered: list[Delivered] = []
        self._expire_at = 0.0

    # -- called from other threads ------------------------------------------------------------------------

    def serve(self, destinations: Iterable[Destination]) -> None:
        """Deliver to these destinations too, from now on; a changed key ends a pause."""
        for to in destinations:
            if to.api_key:
                self.lines.setdefault(to.fingerprint, Line(to))
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

    def let_go(self, seqs: Iterable[int]) -> list[int]:
        """Never send these, except what has gone out already; return those that will not."""
        loop, done = self._loop, threading.Event()
        unsent: list[int] = []

        def forget() -> None:
            unsent.extend(seq for seq in seqs if not self._held.get(("r", seq), True))
            for seq in unsent:
                self._held.pop(("r", seq))
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
            api = Api(self._settings.http_timeout, self._settings.concurrency)
        try:
            while not self._closing:
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
            self._settle()
            store = self._open()
            if time.monotonic() >= self._expire_at:
                self._expire_at = time.monotonic() + _EXPIRE_EVERY
                store.expire()
                self._idle()
            full = self._claim(api, store)
            if full:
                return 0.05  # an answer wakes the loop sooner
            due = store.next_due(
                [name for name, line in self.lines.items() if not line.paused], self._owner, self.patience
            )
            blocked = [line.blocked_until - time.monotonic() for line in self.lines.values()]
            waits = [_POLL, *(each for each in blocked if each > 0)]
            if due is not None:
                waits.append(max(due, 0.01))
            return min(waits)
        except JournalError as error:
            log.debug("pltrack: %s", error)
            return _POLL

    def _claim(self, api: Api, store: Store) -> bool:
        full = False
        for name, line in self.lines.items():
            room = line.room(self._settings.concurrency)
            if room <= 0:
                full = full or line.out > 0
                continue
            rows = store.claim([name], self._owner, room, self.patience)
            self._held |= {("r", row.seq): False for row in rows}
            unsure = [row for row in rows if row.uncertain]
            for row in rows:
                if not row.uncertain:
                    self._spawn(line, self._send(api, line, row))
            if unsure:
                self._spawn(line, self._look(api, line, unsure))
            notes = [] if line.open or line.paused else store.claim_notes([name], self._owner, room, self.patience)
            self._held |= {("n", note.seq): False for note in notes}
            by_target: dict[int | None, list[ClaimedNote]] = {}
            for note in notes:
                by_target.setdefault(note.pl_id, []).append(note)
            for group in by_target.values():
                self._spawn(line, self._send_notes(api, line, group))
            if not rows and line.paused:
                line.blocked_until = time.monotonic() + _PROBE_KEY_EVERY
            full = full or bool(rows or notes)
        return full

    def _spawn(self, line: Line, work: Coroutine[Any, Any, None]) -> None:
        line.out += 1
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            line.out -= 1
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                log.error("pltrack: delivery failed", exc_info=task.exception())
            if self._woken is not None:
                self._woken.set()

        task.add_done_callback(done)

    # -- one request --------------------------------------------------------------------------------------

    async def _send(self, api: Api, line: Line, row: Claimed) -> None:
        folded = fold(row.payload, row.notes, self._settings.fold)
        whole = body = folded.body
        failed: list[tuple[int, str]] = []
        cuts = 0
        while True:
            async with self._gate:
                if ("r", row.seq) not in self._held:  # let go of meanwhile
                    return
                self._held["r", row.seq] = True
                answer = await api.post(line.to, "/log-request", body)
            verdict = judge(answer, row.attempts, linked=answer.status == 404 and is_linked(body))
            if verdict.act is Act.UNLINK:
                failed = self._link_notes(row, folded.notes, verdict.why)
                whole, body = unlinked(whole), unlinked(body)
            elif verdict.act is Act.SHRINK and (smaller := shrunk(whole, cuts + 1)) is not None:
                cuts, body = cuts + 1, smaller
            else:
                break
        if verdict.act is Act.DONE and verdict.pl_id is not None:
            carried = set(folded.notes) - {seq for seq, _ in failed}
            self._arrived(line, Delivered(row, verdict.pl_id, tuple(carried), tuple(failed)))
        else:
            self._not_arrived(line, row, verdict)

    def _link_notes(self, row: Claimed, folded: Sequence[int], why: str) -> list[tuple[int, str]]:
        links = [note.seq for note in row.notes if note.kind == "prompt" and note.seq in folded]
        self.lines[row.destination].say(f"a prompt link was refused: {why}", logging.WARNING)
        return [(seq, why) for seq in links]

    def _arrived(self, line: Line, delivered: Delivered) -> None:
        self._recovered(line)
        self._delivered.append(delivered)

    def _not_arrived(self, line: Line, row: Claimed, verdict: Verdict) -> None:
        self._held.pop(("r", row.seq), None)
        if verdict.act in (Act.REFUSED, Act.SHRINK):
            line.say(f"a request was refused: {verdict.why}", logging.ERROR)
            self._open().failed([(row, verdict.why)])
            self._told([(row.id, None, True)])
            return
        if verdict.act is Act.DONE:  # accepted, but by whom? A proxy's page has no id.
            verdict = Verdict(Act.LOOK, "answered without an id", backoff(row.attempts))
        self._setback(line, verdict)
        paused = verdict.act is Act.PAUSE
        wait = 0.0 if paused else verdict.wait
        self._open().retry([(row.seq, wait, verdict.act is Act.LOOK, verdict.why, not paused)])
        if paused:
            self._told([(row.id, None, False)])

    # -- a request that may have arrived ------------------------------------------------------------------

    async def _look(self, api: Api, line: Line, rows: Sequence[Claimed]) -> None:
        """Ask PromptLayer whether it has these; take over the ids it knows, send the others again."""
        now = time.monotonic()
        if now < line.search_at:
            self._postpone(rows, line.search_at - now)
            return
        line.search_at = now + search.EVERY
        some, later = rows[: search.MOST], rows[search.MOST :]
        self._postpone(later, search.EVERY)
        answer = await api.post(line.to, search.PATH, search.body([row.id for row in some]))
        if not 200 <= answer.status < 300 or not isinstance(answer.body, dict):
            verdict = judge(answer, some[0].attempts)
            if verdict.act is not Act.REFUSED:
                self._setback(line, verdict)
            self._postpone(some, max(verdict.wait, search.EVERY))
            return
        found = search.found(answer)
        for row in some:
            if row.id in found:
                self._arrived(line, Delivered(row, found[row.id]))
            else:
                await self._send(api, line, row)

    def _postpone(self, rows: Sequence[Claimed], wait: float) -> None:
        for row in rows:
            self._held.pop(("r", row.seq), None)
        self._open().retry([(row.seq, wait, True, "looking whether it arrived", False) for row in rows])

    # -- the notes about one request ----------------------------------------------------------------------

    async def _send_notes(self, api: Api, line: Line, group: Sequence[ClaimedNote]) -> None:
        for position, note in enumerate(group):
            path, body = note_call(note)
            async with self._gate:
                verdict = judge(await api.post(line.to, path, body), note.attempts)
            if verdict.act is Act.DONE:
                self._recovered(line)
                self._open().notes_delivered([note.seq])
            elif verdict.act in (Act.RETRY, Act.LOOK, Act.PAUSE):
                self._setback(line, verdict)
                rest = [each.seq for each in group[position:]]
                self._open().retry_notes([(seq, verdict.wait, verdict.why) for seq in rest])
                for seq in rest:
                    self._held.pop(("n", seq), None)
                return
            else:
                line.say(f"a {note.kind} was refused: {verdict.why}", logging.ERROR)
                self._open().notes_failed([(note.seq, verdict.why)])
            self._held.pop(("n", note.seq), None)

    # -- how the line stands ------------------------------------------------------------------------------

    def _recovered(self, line: Line) -> None:
        was_open = line.open or bool(line.paused)
        line.failures, line.blocked_until, line.paused = 0, 0.0, ""
        if was_open:
            log.warning("pltrack: %s answers again; delivery goes on", line.to.base_url)
            line.said_at, line.unsaid = float("-inf"), 0
            self._open().hurry(destination=line.to.fingerprint)

    def _setback(self, line: Line, verdict: Verdict) -> None:
        line.failures += 1
        line.last_error = verdict.why
        if verdict.act is Act.PAUSE:
            line.paused = verdict.why
            line.blocked_until = time.monotonic() + _PROBE_KEY_EVERY
            text = f"the key was refused, delivery is paused (records wait in the journal): {verdict.why}"
            line.say(f"{text} [destination {line.to.fingerprint}]", logging.ERROR)
            return
        if verdict.why.startswith("429"):
            line.blocked_until = time.monotonic() + verdict.wait
        elif line.open:
            line.blocked_until = time.monotonic() + backoff(line.failures - OPEN_AFTER)
        line.say(f"delivery failed and will be tried again: {verdict.why}", logging.WARNING)

    # -- the end ------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        if not self._delivered:
            return
        answers, self._delivered = self._delivered, []
        try:
            self._open().delivered(answers)
        except JournalError:
            self._delivered = answers + self._delivered
            raise
        for answer in answers:
            self._held.pop(("r", answer.claimed.seq), None)
        self._told([(answer.claimed.id, answer.pl_id, True) for answer in answers])

    async def _stop(self, api: Api) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(JournalError):
            self._settle()
            # Cut off in mid-send: each may have arrived, so the next courier looks before it sends.
            store = self._open()
            mine = [(seq, sent) for (kind, seq), sent in self._held.items() if kind == "r"]
            store.retry((seq, 0.0, sent, "cut off", sent) for seq, sent in mine)
            store.retry_notes((seq, 0.0, "cut off") for kind, seq in self._held if kind == "n")
        await api.close()
