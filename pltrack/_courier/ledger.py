"""What came of the rows that a courier holds, until it is written down: many in one transaction."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._journal.statements import LEASE
from .._journal.store import Claimed, ClaimedNote, Delivered, Store

# (our id, PromptLayer's id or None, whether that is final): answered, refused for good, or paused for now
Told = Callable[[Sequence[tuple[str, int | None, bool]]], None]
_MARGIN = 5.0  # seconds of a lease that are left for writing the outcome down


class Again(NamedTuple):
    """A request that goes back: when it is due, whether it may have arrived, why, and if it counts as an attempt."""

    row: Claimed
    wait: float
    uncertain: int
    why: str
    counts: bool


@dataclass(slots=True)
class Hold:
    """A row under our lease."""

    row: Claimed | ClaimedNote
    since: float
    wall: float
    sent: bool = False  # its body has gone out, at least in part

    def lasts(self, seconds: float) -> bool:
        """Tell whether the lease lasts for an exchange of that length, whatever the clock was set to meanwhile."""
        age = max(time.monotonic() - self.since, time.time() - self.wall)
        return age + seconds + _MARGIN < LEASE


class Ledger:
    """Which rows are held, and what came of them; an outcome that cannot be written is kept for the next time."""

    def __init__(self, told: Told) -> None:
        self._tell = told
        self._holds: dict[tuple[type, int], Hold] = {}
        self.delivered: list[Delivered] = []
        self.failed: list[tuple[Claimed, str]] = []
        self.again: list[Again] = []
        self.notes_delivered: list[ClaimedNote] = []
        self.notes_failed: list[tuple[ClaimedNote, str]] = []
        self.notes_again: list[tuple[ClaimedNote, float, str]] = []
        self.settled = Counter[str]()  # how many requests and notes were written down as delivered or failed
        self.hurried: set[str] = set()  # destinations whose rows need not wait any longer

    def hold(self, rows: Sequence[Claimed | ClaimedNote], since: float, wall: float) -> None:
        """Remember rows that were claimed at that time."""
        for row in rows:
            self._holds[type(row), row.seq] = Hold(row, since, wall)

    def held(self, row: Claimed | ClaimedNote) -> Hold | None:
        """Return the hold on a row, None when it was let go of."""
        return self._holds.get((type(row), row.seq))

    def refused(self, row: Claimed) -> None:
        """Take note that what was sent has not arrived."""
        hold = self.held(row)
        if hold is not None:
            hold.sent = False

    def let_go(self, seqs: Iterable[int]) -> list[int]:
        """Forget requests that have not gone out; return which that were."""
        unsent = [seq for seq in seqs if (hold := self._holds.get((Claimed, seq))) is not None and not hold.sent]
        for seq in unsent:
            del self._holds[Claimed, seq]
        return unsent

    def open_of(self, rows: Sequence[Claimed | ClaimedNote]) -> list[Claimed | ClaimedNote]:
        """Return those of `rows` that nothing was noted about."""
        noted = {(type(row), row.seq) for row in self._noted()}
        return [row for row in rows if (type(row), row.seq) in self._holds.keys() - noted]

    def give_back(self, row: Claimed | ClaimedNote, wait: float, why: str, *, counts: bool = False) -> None:
        """Let a row go back as it came, or as one that may have arrived if its body has gone out."""
        hold = self.held(row)
        if hold is None:
            return
        if isinstance(row, ClaimedNote):
            self.notes_again.append((row, wait, why))
        else:
            uncertain = row.uncertain or int(hold.sent)
            self.again.append(Again(row, wait, uncertain, why, counts or hold.sent))

    def give_all_back(self, why: str) -> None:
        """Let go of everything that nothing was noted about."""
        for row in self.open_of([hold.row for hold in self._holds.values()]):
            self.give_back(row, 0.0, why)

    def settle(self, store: Store) -> None:
        """Write everything down, then tell those who wait for it."""
        folded = sum(len(each.folded) for each in self.delivered)
        rows = [each.claimed for each in self.delivered]
        self._write(self.delivered, store.delivered, rows, self._arrived(), kind="delivered", more=folded)
        refused_rows = [row for row, _ in self.failed]
        self._write(self.failed, store.failed, refused_rows, self._refused(), kind="failed")
        self._write(self.again, store.retry, [each.row for each in self.again])
        taken = [note.seq for note in self.notes_delivered]
        accepted = self.notes_delivered
        self._write(accepted, lambda _: store.notes_delivered(taken), accepted, kind="delivered")
        refused = [(note.seq, why) for note, why in self.notes_failed]
        refused_notes = [note for note, _ in self.notes_failed]
        self._write(self.notes_failed, lambda _: store.notes_failed(refused), refused_notes, kind="failed")
        self._write(self.notes_again, store.retry_notes, [each[0] for each in self.notes_again])
        while self.hurried:
            store.hurry(destination=next(iter(self.hurried)))
            self.hurried.pop()

    def tell(self) -> None:
        """Tell those who wait for what cannot be written down just now."""
        if told := self._arrived() + self._refused():
            self._tell(told)

    def _arrived(self) -> list[tuple[str, int | None, bool]]:
        return [(each.claimed.id, each.pl_id, True) for each in self.delivered]

    def _refused(self) -> list[tuple[str, int | None, bool]]:
        return [(row.id, None, True) for row, _ in self.failed]

    def _write(
        self,
        entries: list[Any],
        write: Callable[[list[Any]], None],
        rows: Sequence[Claimed | ClaimedNote],
        told: Sequence[tuple[str, int | None, bool]] = (),
        *,
        kind: str = "",
        more: int = 0,
    ) -> None:
        if not entries:
            return
        counted = Counter({kind: len(entries) + more, "requests": len(told)})
        self.settled.update(counted)  # before others can see it in the journal
        try:
            write(entries)
        except BaseException:
            self.settled.subtract(counted)
            raise
        for row in list(rows):
            self._holds.pop((type(row), row.seq), None)
        entries.clear()
        if told:
            self._tell(told)

    def _noted(self) -> list[Claimed | ClaimedNote]:
        notes = [*self.notes_delivered, *(note for note, _ in self.notes_failed), *(n for n, _, _ in self.notes_again)]
        requests = [each.claimed for each in self.delivered] + [row for row, _ in self.failed]
        return [*requests, *(each.row for each in self.again), *notes]
