"""The end of a process of a pool: multiprocessing ends its children with os._exit, past the exit handlers."""

from __future__ import annotations

import sys
from collections.abc import Callable

_LAST = -1_000  # after the program's own finalizers, which may still make calls


def at_end_of_child(function: Callable[[], None]) -> None:
    """Let multiprocessing call `function` at the end of this process, if this process is a child of its."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, function, exitpriority=_LAST)
