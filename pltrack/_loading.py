"""One lock for what a fork must not cut in two: a module half loaded, or SQLite with its own locks held."""

from __future__ import annotations

# Before our hooks are set: they run in the reverse order, and what is being loaded may need logging's lock.
import logging  # noqa: F401
import os
import threading
from contextlib import suppress

LOCK = threading.RLock()
_LONGEST = 1.0


def _hold() -> None:
    LOCK.acquire(timeout=_LONGEST)


def _release() -> None:
    with suppress(RuntimeError):  # it could not be had in time
        LOCK.release()


def renew() -> None:
    """Begin with a new lock in a child: the holder may be a thread that no longer exists there."""
    global LOCK
    LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=renew)
