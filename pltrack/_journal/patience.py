"""Not waiting for a disk longer than was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from ..errors import JournalError


def within(seconds: float, work: Callable[[], object]) -> None:
    """Do what may have to wait for the disk, and come back in time whether it is done or not."""

    def quietly() -> None:
        with suppress(JournalError):  # said by the writer, or by the courier
            work()

    thread = threading.Thread(target=quietly, name="pltrack-flush", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending
        quietly()
    else:
        thread.join(seconds)
