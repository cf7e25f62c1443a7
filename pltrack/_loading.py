"""One lock around what our threads load late: a fork in the middle would leave the child half a module."""

from __future__ import annotations

# Before our hooks are set: they run in the reverse order, and what is being loaded may need logging's lock.
import logging  # noqa: F401
import os
import threading
from contextlib import suppress

LOCK = threading.RLock()
_LONGEST = 10.0


def _hold() -> None:
    LOCK.acquire(timeout=_LONGEST)


def _release() -> None:
    with suppress(RuntimeError):  # it could not be had in time
        LOCK.release()


def _renew() -> None:
    # In the child the holder may be a thread that no longer exists.
    global LOCK
    LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_renew)
