"""Keeping the journal within its bounds: what is old goes, then what is too much, in small steps."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._settings import Settings
from ..errors import JournalError

if TYPE_CHECKING:  # the thread loads it
    from sqlalchemy import Connection

    from .clearing import Step
    from .store import Store

log = logging.getLogger("pltrack")

_LOOK_EVERY = 1.0
_SWEEP_EVERY = 60.0
_SAY_AGAIN = 60.0
_STEP_SECONDS = 0.008  # what one step may take: other writers wait for it
_STEP_LEAST, _STEP_MOST = 8, 500  # rows
_REST = 2  # times as long as a step took
_DAY = 86_400.0
_ROOM = 0.9  # of `max_size`: down to this, so that not every new row removes an old one
_SPARE = 1_048_576  # bytes: free pages that stay for what comes next
_REFUSED_KEPT = 1.0  # days at least: somebody may mend what was wrong and send it again


class Upkeep:
    """Looks after one journal, on a thread of its own that rests while nothing comes in."""

    def __init__(
        self, store: Callable[[], Store], settings: Callable[[], Settings], mend: Callable[[], bool] = lambda: False
    ) -> None:
        self._open = store
        self._settings = settings
        self._mend = mend  # returns whether it is to be called again soon
        self._sweep_at = 0.0
        self._behind = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked = threading.Event()
        self._closing = threading.Event()
        self._unsaid = 0
        self._said_at = float("-inf")

    def look(self) -> None:
        """Look soon whether there is something to do; for threads that come by often."""
        self._asked.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._closing.is_set():
                    self._thread = threading.Thread(target=self._main, name="pltrack-upkeep", daemon=True)
                    self._thread.start()

    def close(self, timeout: float) -> None:
        """End after the step that is under way."""
        with self._starting:
            self._closing.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _is_large(self) -> bool:
        """Tell whether the journal is larger than it may be, or the disk fuller; quickly where it is not."""
        from . import clearing

        store, settings = self._open(), self._settings()
        if store.path is not None:
            wal = store.path.with_name(f"{store.path.name}-wal")
            size = store.path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
            if shutil.disk_usage(store.path.parent).free < settings.min_free:
                return True
            if size <= settings.max_size:
                return False
        with store._reading() as db:
            return clearing.Size.of(db).whole > settings.max_size

    def _main(self) -> None:
        from . import clearing

        while not self._closing.is_set():
            self._asked.wait()
            self._asked.clear()
            try:
                if self._mend():
                    self._asked.set()
                if time.monotonic() >= self._sweep_at or self._is_large():
                    self._run(self._open(), self._settings())
                    self._behind = True
                # The file itself shrinks when the WAL is in it, which needs a moment without readers.
                self._behind = self._behind and (self._is_large() or not clearing.checkpoint(self._open()))
                if self._behind:
                    self._asked.set()
            except (JournalError, OSError) as error:
                log.debug("pltrack: %s", error)
            except Exception:
                log.exception("pltrack: upkeep of the journal failed; it is tried again")
            self._closing.wait(_LOOK_EVERY)

    def _run(self, store: Store, settings: Settings) -> None:
        from . import clearing

        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + _SWEEP_EVERY
        with store._reading() as db:
            sweeps = clearing.sweeps(db, _SWEEP_EVERY)
        if not sweeps and not self._is_large():
            return  # another process has done it
        with store._writing() as db:
            if not clearing.takes_over(db):
                return  # another process is at it
        if sweeps:
            content = settings.keep_content * _DAY
            refused = max(settings.keep_content, _REFUSED_KEPT) * _DAY
            for step in clearing.old_content(content, refused), clearing.old_rows(settings.keep_ids * _DAY):
                self._repeat(store, step)
        self._shrink(store, settings)
        with store._writing() as db:
            clearing.hands_over(db, sweeps)

    def _shrink(self, store: Store, settings: Settings) -> None:
        from . import clearing

        free = shutil.disk_usage(store.path.parent).free if store.path is not None else settings.min_free
        wanted = max(0, settings.min_free - free)
        with store._reading() as db:
            size = clearing.Size.of(db)
        if wanted:  # others fill the disk: nothing undelivered is given up for that
            self._repeat(store, clearing.until(size.used - wanted, clearing.delivered_content))
        if size.used > settings.max_size:
            target = int(settings.max_size * _ROOM)
            self._repeat(store, clearing.until(target, clearing.delivered_content))
            self._repeat(store, clearing.until(target, clearing.refused_content))
            self._repeat(store, clearing.until(target, clearing.rows_beyond(settings.max_size // 2)))
            self._lost(store, self._repeat(store, clearing.until(target, clearing.keyless)))
            self._lost(store, self._repeat(store, clearing.until(target, clearing.undelivered)))
        self._repeat(store, clearing.vacuum(_SPARE, settings.max_size, bool(wanted)))

    def _repeat(self, store: Store, step: Step) -> int:
        """Do `step`, a transaction each time, until nothing is left for it; return how many rows that were."""
        done, some = 0, 32
        while not self._closing.is_set():
            with store._writing() as db:
                started = time.monotonic()  # the others' turn does not count
                count = self._once(db, step, some)
            took = time.monotonic() - started
            done += count
            if count < 1:
                break
            some = max(_STEP_LEAST, min(_STEP_MOST, int(some * min(2.0, _STEP_SECONDS / max(took, 1e-6)))))
            self._closing.wait(took * _REST)
        return done

    def _once(self, db: Connection, step: Step, some: int) -> int:
        from . import clearing

        clearing.goes_on(db)
        return step(db, some)

    def _lost(self, store: Store, count: int) -> None:
        self._unsaid += count
        if self._unsaid and time.monotonic() - self._said_at >= _SAY_AGAIN:
            log.error(
                "pltrack: %d record(s) were lost: the journal %s was larger than max_size (%d bytes) and they were "
                "the oldest that nobody had delivered", self._unsaid, store.path, self._settings().max_size,
            )  # fmt: skip
            self._unsaid, self._said_at = 0, time.monotonic()
