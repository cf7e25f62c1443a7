"""What a fork must not cut in two: a module half loaded, or SQLite with its own locks held."""

from __future__ import annotations

# Before our hooks are set: they run in the reverse order, and what is being loaded may need logging's lock.
import logging  # noqa: F401
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOCK = threading.RLock()  # around SQLite; who takes both takes it first
MODULES = threading.RLock()  # around imports in functions
_LONGEST = 2.0  # more than SQLite waits for other programs; a disk that hangs must not hold up the program
_LONGEST_LOAD = 30.0  # a busy machine takes seconds, and a child would wait for ever for what is half loaded in it


@contextmanager
def at_once() -> Iterator[None]:
    """Hold MODULES, unless another thread loads something: the program's own threads do not wait for ours."""
    lock = MODULES
    held = lock.acquire(blocking=False)
    try:
        yield
    finally:
        if held:
            lock.release()


def _hold() -> None:
    LOCK.acquire(timeout=_LONGEST)
    MODULES.acquire(timeout=_LONGEST_LOAD)


def _release() -> None:
    for lock in (MODULES, LOCK):
        with suppress(RuntimeError):  # it could not be had in time
            lock.release()


def renew() -> None:
    """Begin with new locks in a child: the holders may be threads that no longer exist there."""
    global LOCK, MODULES
    LOCK, MODULES = threading.RLock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=renew)
