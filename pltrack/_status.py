"""How it stands, as `pltrack.status()` shows it."""

from __future__ import annotations

import importlib.metadata
import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("pltrack")

PAUSED_BY_HAND = "paused by `pltrack pause`"
MISSING = "?"  # the version of a package that is not installed
_WARNINGS_MOST = 20
_UNSAMPLED_MOST = 10_000
_PACKAGES = ("langchain-core", "pltrack")
_MISFITS = (TypeError, AttributeError, LookupError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How it stands; `pending` counts requests and notes that PromptLayer has not taken yet."""

    enabled: bool
    recorded: int
    delivered: int
    pending: int
    failed: int
    lost: int
    orphans: int
    without_key: int
    oldest_pending_seconds: float | None
    paused_reason: str | None
    paused_since: datetime | None  # when it was paused by hand; at the hub where there is one, so not known here
    last_error: str | None
    journal: str
    hub: str | None  # its address without the password
    forwarded: int  # handed over to the hub; what became of them is counted there
    delivery: str
    in_memory: bool
    hook_ok: bool | None  # whether LangChain still calls us; None before the first session
    warnings: tuple[str, ...]  # what of LangChain we did not understand
    unsampled: int  # calls of sessions that were not sampled: recorded nowhere
    internal_errors: int


def paused(since: float | None, reasons: Iterable[str]) -> dict[str, Any]:
    """Return what the status says of delivery that was paused by hand, or else of why a courier does not go on."""
    if since is not None:
        return {"paused_reason": PAUSED_BY_HAND, "paused_since": datetime.fromtimestamp(since, UTC)}
    return {"paused_reason": next(filter(None, reasons), None), "paused_since": None}


class Health:
    """What a process has noticed of LangChain and of sampling."""

    def __init__(self) -> None:
        self.hook_ok: bool | None = None
        self.unsampled = 0
        self.looked_at = 0.0
        self._warnings: dict[str, None] = {}
        self._left_out: OrderedDict[str, None] = OrderedDict()

    def shown(self) -> dict[str, Any]:
        """Return its part of the status."""
        return {"hook_ok": self.hook_ok, "warnings": tuple(self._warnings), "unsampled": self.unsampled}

    def warn(self, words: str) -> None:
        """Say once, with the versions, that LangChain does something that we do not know."""
        if words not in self._warnings and len(self._warnings) < _WARNINGS_MOST:
            self._warnings[words] = None
            log.warning("pltrack: %s (langchain-core %s, pltrack %s)", words, *map(installed, _PACKAGES))

    def heard(self, where: str, error: BaseException) -> None:
        """Take an error of our own: one in an event's handler means that the event was of another shape."""
        if where.startswith("Handler.on_") and isinstance(error, _MISFITS):
            self.warn(f"an event has a shape that is not known here: {where[8:]}, {type(error).__name__}")

    def leave_out(self, our_id: str) -> None:
        """Count a call that is not recorded, and remember it: what is said about it by its id is dropped, too."""
        self.unsampled += 1
        self._left_out[our_id] = None
        if len(self._left_out) > _UNSAMPLED_MOST:
            self._left_out.popitem(last=False)

    def is_left_out(self, our_id: str) -> bool:
        """Tell whether this process has lately left out that call."""
        return our_id in self._left_out


def installed(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


class Said:
    """What was said already: each cause is logged once."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def before(self, where: str, words: str) -> bool:
        """Tell whether this was said before, and remember that it is."""
        known = (where, words) in self._said
        if len(self._said) < 1_000:
            self._said.add((where, words))
        return known
