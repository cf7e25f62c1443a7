"""What a courier does with a row that it holds: send it, look whether it has arrived, and note what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from .._journal import orphans
from .._journal.statements import BORROW_AFTER
from .._journal.store import Claimed, ClaimedNote, Delivered, Store
from .._settings import Settings
from .._shortening import shrunk
from . import search
from .answers import Act, Verdict, backoff, judge
from .api import Answer, Api
from .folding import fold, is_linked, link_of, note_call, unlinked
from .ledger import Again, Ledger, Told
from .line import Line

log = logging.getLogger("pltrack")

_LOG = "/log-request"


class Sender:
    """The exchanges, one after the other or side by side; what came of them goes into the ledger."""

    def __init__(self, store: Callable[[], Store], told: Told, settings: Callable[[], Settings]) -> None:
        self._open = store
        self._told = told
        self._settings = settings
        self._ledger = Ledger(told)
        self.patience = BORROW_AFTER  # 0: deliver other processes' rows as soon as they are due, as `pltrack sync` does

    # -- one exchange -------------------------------------------------------------------------------------

    async def _exchange(
        self, api: Api, line: Line, path: str, body: bytes, rows: Sequence[Claimed | ClaimedNote]
    ) -> tuple[Answer, float] | None:
        """Send when it is its turn; return the answer and when it was begun, None when it must not go now."""
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
