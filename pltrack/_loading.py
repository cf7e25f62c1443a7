"""What a fork must not cut in two: a module half loaded, or SQLite with its own locks held."""

from __future__ import annotations

# Before our hooks are set: they run in the reverse order, and what is being loaded may need logging's lock.
import logging  # noqa: F401
import os
import threading
from contextlib import suppress

LOCK = threading.RLock()  # around SQLite; who takes both takes it first
MODULES = threading.RLock()  # around imports in functions, on our threads
FIRST = threading.RLock()  # the same on the program's own, which do not wait for ours
_LONGEST = 2.0  # more than SQLite waits for other programs; a disk that hangs must not hold up the program
_LONGEST_LOAD = 30.0  # a busy machine takes seconds, and a child would wait for ever for what is half loaded in it


def _hold() -> None:
    LOCK.acquire(timeout=_LONGEST)
    MODULES.acquire(timeout=_LONGEST_LOAD)
    FIRST.acquire(timeout=_LONGEST_LOAD)


def _release() -> None:
    for lock in (FIRST, MODULES, LOCK):
        with suppress(RuntimeError):  # it could not be had in time
            lock.release()


def renew() -> None:
    """Begin with new locks in a child: the holders may be threads that no longer exist there."""
    global LOCK, MODULES, FIRST
    LOCK, MODULES, FIRST = threading.RLock(), threading.RLock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=renew)
