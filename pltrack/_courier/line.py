"""How it stands with one destination: may rows go there now, and what was last said about it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from .._settings import Destination

log = logging.getLogger("pltrack")

OPEN_AFTER = 3  # failures in a row until the breaker opens
_AHEAD = 16  # rows claimed for each connection
_SAY_AGAIN = 600.0


@dataclass(slots=True)
class Line:
    """How it stands with one destination."""

    to: Destination
    failures: int = 0
    blocked_until: float = 0.0  # monotonic
    paused: str = ""
    said_at: float = float("-inf")
    unsaid: int = 0
    last_error: str = ""
    search_at: float = 0.0
    out: int = 0  # exchanges under way

    def room(self, concurrency: int) -> int:
        """Return how many rows may be claimed now; a line that failed is probed with one at a time."""
        if time.monotonic() < self.blocked_until:
            return 0
        if self.paused or self.open:
            return 0 if self.out else 1
        most = concurrency * _AHEAD
        room = most - self.out
        return room if room >= most // 2 else 0  # a claim costs about as much as an exchange, whatever it brings

    @property
    def open(self) -> bool:
        """Tell whether the breaker keeps rows back at the moment."""
        return self.failures >= OPEN_AFTER

    def say(self, text: str, level: int) -> None:
        """Log a failure at first, then every ten minutes with a count."""
        now = time.monotonic()
        self.last_error = text
        if now - self.said_at < _SAY_AGAIN:
            self.unsaid += 1
            return
        more = f" (and {self.unsaid} more since)" if self.unsaid else ""
        self.said_at, self.unsaid = now, 0
        log.log(level, "pltrack: %s: %s%s", self.to, text, more)
