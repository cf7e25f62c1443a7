"""How it stands with one destination: may rows go there now, and what was last said about it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from .._journal.store import Claimed, ClaimedNote
from .._settings import Destination
from . import search
from .answers import Act, Verdict, backoff

log = logging.getLogger("pltrack")

OPEN_AFTER = 3  # failures in a row until the breaker opens
PROBE_KEY_EVERY = 60.0
_AHEAD = 16  # rows claimed for each connection
_SAY_AGAIN = 600.0

Work = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Line:
    """How it stands with one destination."""

    to: Destination
    failures: int = 0
    blocked_until: float = 0.0  # monotonic
    paused: str = ""
    halted: str = ""  # why nothing is sent anywhere, though all is well
    said: dict[str, tuple[float, int]] = field(default_factory=dict)  # what: when it was last said, how often not since
    last_error: str = ""
    search_at: float = 0.0
    search_most: int = search.MOST
    # Jobs and workers of its own: one destination's hanging calls hold up no other's.
    jobs: deque[tuple[Sequence[Claimed | ClaimedNote], Work]] = field(default_factory=deque)
    workers: int = 0
    out: int = 0  # jobs that are not done
    more: bool = False  # the last claim brought as many rows as it asked for
    sending: int = 0  # exchanges under way

    def room(self, concurrency: int) -> int:
        """Return how many rows may be claimed now; a line that failed is probed with one at a time."""
        if self.halted or time.monotonic() < self.blocked_until:
            return 0
        if self.probing:
            return 0 if self.out else 1
        most = concurrency * _AHEAD
        room = most - self.out
        return room if room >= most // 2 else 0  # a claim costs about as much as an exchange, whatever it brings

    def free(self) -> bool:
        """Tell whether an exchange may begin: much was claimed before the line turned out to be bad."""
        return not self.halted and time.monotonic() >= self.blocked_until and not (self.probing and self.sending)

    @property
    def open(self) -> bool:
        """Tell whether the breaker keeps rows back at the moment."""
        return self.failures >= OPEN_AFTER

    @property
    def probing(self) -> bool:
        """Tell whether only one exchange may be under way, to see if things are well again."""
        return self.open or bool(self.paused)

    def recovered(self) -> bool:
        """Take an answer for a sign of health; return whether it ends a pause or closes the breaker."""
        was_bad = self.probing
        self.failures, self.blocked_until, self.paused = 0, 0.0, ""
        if was_bad:
            log.warning("pltrack: %s answers again; delivery goes on", self.to)
            self.said.clear()
        return was_bad

    def failed(self, verdict: Verdict, begun: float) -> None:
        """Take a failure of an exchange that began at `begun`: wait, open the breaker, or pause."""
        now = time.monotonic()
        if verdict.act is Act.PAUSE:
            self.paused = verdict.why
            self.probe_later()
            what = "the key was refused, delivery is paused (records wait in the journal)"
            self.say(what, f"{verdict.why} [destination {self.to.fingerprint}]", logging.ERROR)
            return
        if verdict.blocks:
            self.blocked_until = max(self.blocked_until, now + verdict.wait)
        elif begun >= self.blocked_until:  # those that were out when the breaker opened count as one
            self.failures += 1
            if self.open:
                self.blocked_until = now + backoff(self.failures - OPEN_AFTER)

    def probe_later(self) -> None:
        """Try a refused key again after a while."""
        self.blocked_until = time.monotonic() + PROBE_KEY_EVERY

    def say(self, what: str, why: str, level: int) -> None:
        """Log a failure at first, then every ten minutes with a count."""
        self.last_error = f"{what}: {why}"
        now = time.monotonic()
        said_at, unsaid = self.said.get(what, (float("-inf"), 0))
        if now - said_at < _SAY_AGAIN:
            self.said[what] = said_at, unsaid + 1
            return
        more = f" (and {unsaid} more since)" if unsaid else ""
        self.said[what] = now, 0
        log.log(level, "pltrack: %s: %s: %s%s", self.to, what, why, more)
