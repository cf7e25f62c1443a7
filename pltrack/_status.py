"""How it stands, as `pltrack.status()` shows it."""

from __future__ import annotations

from dataclasses import dataclass


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
    last_error: str | None
    journal: str
    hub: str | None  # its address without the password
    forwarded: int  # handed over to the hub; what became of them is counted there
    delivery: str
    in_memory: bool
    hook_ok: bool | None
    internal_errors: int
