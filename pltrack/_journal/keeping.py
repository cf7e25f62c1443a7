"""Where records go: into the file, and while it does not take them into memory, from which they move back."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from .. import _loading
from .._records import open_of
from .._settings import Settings
from ..errors import JournalError
from . import clearing, places, saving
from .counting import NOTHING, Totals
from .memory import Memory
from .reading import BUSY_MS
from .saving import Saved
from .store import Store

log = logging.getLogger("pltrack")

_SAY_AGAIN = 600.0
_NO_SEQ = 2**62
_LAST_SECONDS = 1.5  # what an exit takes for moving at last what is in memory
_PROBE_MS = 50  # looking whether another program still holds the file


class Host(Protocol):
    """Who is told what becomes of the file."""

    @property
    def owner(self) -> str:
        """Return the name of this process."""

    @property
    def settings(self) -> Settings:
        """Return the settings that hold now."""

    def moved(self) -> None:
        """Hear that rows are, or are to be, in another place."""

    @property
    def unsettled(self) -> int:
        """Return how many requests were written and, as far as this process knows, are not settled."""

    def lost_some(self, count: int, error: BaseException) -> None:
        """Hear of records that had to be given up."""


class Keeper:
    """One journal's file, and memory beside it."""

    def __init__(self, path: Path, host: Host, fitted: Callable[[Store], Store]) -> None:
        self.path = path
        self.file: Store | None = None
        self.memory: Memory | None = None
        self.why = ""  # why the file takes no records; empty while it does
        self.epoch = 0  # other after rows have got, or will get, numbers in another place
        self._host, self._fitted = host, fitted
        self._error: BaseException | None = None
        self._identity: tuple[places.Identity, places.Identity] = None, None  # which files are open: it, and its log
        self._saved: list[Saved] = []  # of files that were lost, until they are somewhere else
        self.last = NOTHING  # what there was when somebody last counted
        self._known = NOTHING  # of the file, when it could last be read
        self._looked = False
        self._said_at = float("-inf")
        self._lock = threading.RLock()  # before the loading lock, where both are held

    # -- where things are ---------------------------------------------------------------------------------

    def store(self) -> Store:
        """Return the file, which may only be readable just now; memory where there is none."""
        self._look()
        return self.file or self._spare()

    def target(self) -> Store:
        """Return what takes records now: never the file that is no longer at its path."""
        self._look()
        file = self.file
        if file is not None and not self.why:
            if (now := self._at_path(file)) == self._identity:
                return file
            if now[0] == self._identity[0]:
                self._save_log(file)
                return file
            self._replace(file, _gone(file))
        return self.file if self.file is not None and not self.why else self._spare()

    def serving(self) -> Store:
        """Return the file for its courier, a fresh one where it is damaged; raise JournalError while it is unusable."""
        self.stores()
        if self.file is None or self.why:
            raise JournalError(self.why)
        return self.file

    def stores(self) -> list[Store]:
        """Return where rows are; a damaged file is replaced."""
        self._look()
        if self.file is not None and (ruined := self.file.ruined) is not None:
            self._replace(self.file, ruined)
        return [each for each in (self.file, self.memory) if each is not None]

    def claimable(self) -> list[Store]:
        """Return where rows can be claimed now."""
        return [each for each in self.stores() if each is not self.file or not self.why]

    @property
    def is_split(self) -> bool:
        """Tell whether rows are in memory that belong into a file."""
        return self.file is not None and (bool(self.why) or (self.memory is not None and _is_used(self.memory)))

    def totals(self) -> Totals:
        """Count what there is; of a file that cannot be read, what there was."""
        self._look()
        with _loading.LOCK:  # rows may be moving
            if self.file is not None:
                with suppress(JournalError):
                    self._known = self.file.totals()
            found = [self._known if self.file is not None else NOTHING]
            found += [self.memory.totals()] if self.memory is not None else []
        self.last = Totals(
            requests=_sum([each.requests for each in found]),
            notes=_sum([each.notes for each in found]),
            oldest=max((each.oldest for each in found if each.oldest is not None), default=None),
            orphans=sum(each.orphans for each in found),
            keyless=sum(each.keyless for each in found),
            lost=sum(each.lost for each in found),
            paused=found[0].paused,
        )
        return self.last

    def _look(self) -> None:
        if self._looked:
            return
        with self._lock:
            if not self._looked:
                try:
                    self._open()
                except (JournalError, OSError) as error:
                    self._fall(error)
                self._looked = True

    def _spare(self) -> Memory:
        if self.memory is None:
            with self._lock, _loading.LOCK:
                if self.memory is None:
                    memory = Memory.in_memory()
                    self._fitted(memory)
                    memory.beside = lambda: self.file
                    self.memory = memory
        return self.memory

    def shrink(self) -> None:
        """Keep memory within its bounds."""
        most = self._host.settings.max_pending
        if self.memory is not None and (lost := saving.shrink(self.memory, most)):
            self._host.lost_some(lost, MemoryError("the journal in memory is full"))

    # -- the file fails -----------------------------------------------------------------------------------

    def failed(self, error: BaseException) -> bool:
        """Hear that records could not be written; return whether that can be tried again at once, somewhere else."""
        file = self.file
        if self.why or file is None:  # it was memory that failed
            return False
        if places.is_ruined(error):
            if file.ruined is not None:  # or another thread has replaced it
                self._replace(file, error)
        else:
            with self._lock:
                self._fall(error)
        return True

    def _fall(self, error: BaseException) -> None:
        self._error, self.why = error, str(error)
        self.epoch += 1
        if time.monotonic() - self._said_at > _SAY_AGAIN:
            self._said_at = time.monotonic()
            log.error(
                "pltrack: %s; records are kept in memory, up to %d of them, are delivered from there, and are written "
                "when it can be done", error, self._host.settings.max_pending,
            )  # fmt: skip
        self._host.moved()

    def _replace(self, old: Store, error: BaseException) -> None:
        """Save what a lost file owed, and use a fresh one."""
        with self._lock, _loading.LOCK:
            if self.file is not old:
                return  # another thread has done so
            owed = self._owed(old)
            saved = saving.owed(old, self._host.owner, self._host.settings.max_pending)
            old.close()
            self.file = None
            self._saved.append(saved)
            try:
                self._take(self._afresh_twice(error))
            except (JournalError, OSError) as again:
                self._fall(again)
                saving.put_all(self._spare(), self._saved)
            if (lost := owed - saved.of(self._host.owner)) > 0:
                self._host.lost_some(lost, JournalError(f"{error}; at most so many could not be read any more"))
            self.epoch += 1
        self._host.moved()

    def _at_path(self, file: Store) -> tuple[places.Identity, places.Identity]:
        path = file.path or self.path
        return places.identity(path), places.identity(path.with_name(f"{path.name}-wal"))

    def _save_log(self, file: Store) -> None:
        """Put into the file what only this connection still sees: its -wal was taken away."""
        with self._lock, _loading.LOCK:
            self._saved.append(saving.owed(file, self._host.owner, self._host.settings.max_pending))
            with suppress(JournalError):
                clearing.checkpoint(file, truncate=True)
            file.close()  # what is asked of it next opens it anew
            with suppress(JournalError):
                saving.put_all(file, self._saved)
            self._identity = self._at_path(file)

    def _owed(self, file: Store) -> int:
        """Count what this process still has in a lost file: by what can be read there, or as far as it knows itself."""
        try:
            found = file.progress(self._host.owner, file.marks(), (_NO_SEQ, _NO_SEQ))
        except JournalError:
            return self._host.unsettled
        return open_of(found)

    def _open(self, wait_ms: int = BUSY_MS) -> None:
        """Open the file; raise JournalError or OSError where there can be none."""
        with _loading.LOCK:
            if kind := places.network_of(self.path):
                raise JournalError(f"{self.path} is on a network file system ({kind}), which SQLite cannot use")
            seen = places.identity(self.path)
            try:
                store = Store.open(self.path, wait_ms=wait_ms)
            except JournalError as error:
                if not places.is_ruined(error):
                    raise
                store = self._afresh(seen, error)
            self._take(store)

    def _take(self, store: Store) -> None:
        self.file = self._fitted(store)
        self._identity = self._at_path(store)
        saving.put_all(store, self._saved)

    def _afresh_twice(self, error: BaseException) -> Store:
        """Open a fresh file, also where what took the place of ours is no journal."""
        try:
            return self._afresh(self._identity[0], error)
        except JournalError as again:
            if not places.is_ruined(again):
                raise
            return self._afresh(places.identity(self.path), again)

    def _afresh(self, broken: places.Identity, error: BaseException) -> Store:
        """Set the broken file aside and open a fresh one in its place, unless another process did."""
        path = (self.file and self.file.path) or self.path
        with places.one_at_a_time(path.parent):
            aside = places.set_aside(path, broken)
            store = Store.open(self.path)
            store.number_from(int(time.time() * 1000))
        log.error(
            "pltrack: %s; it was set aside as %s and a fresh journal is written in its place",
            error, aside or "another name by another process",
        )  # fmt: skip
        return store

    # -- the way back -------------------------------------------------------------------------------------

    def mend(self, until: float = float("inf")) -> bool:
        """Put into the file what it missed, if it takes it; return whether that is to be tried again soon."""
        if not self.why:
            self.totals()  # for those who ask when the file does not answer any more
        if self.memory is None and not self.why and not self._saved:
            return False
        with self._lock:
            try:
                self._serve_again(until)
            except (JournalError, OSError) as error:
                if not self.why:
                    self._fall(error)
                self._error, self.why = error, str(error)
                return True
        return self.memory is not None and _is_used(self.memory)

    def _serve_again(self, until: float) -> None:
        if self.file is not None and self._at_path(self.file)[0] != self._identity[0]:
            self._replace(self.file, _gone(self.file))
        if self.file is None:
            self._open(_PROBE_MS)
        elif self.why and self._error is not None and not places.is_passing(self._error):
            self.file.close()  # what is asked of it next opens it anew
        file = self.file
        if file is None:
            return
        count = 0
        with file.impatient(_PROBE_MS):
            with file._writing():
                pass  # another program may hold it
            saving.put_all(file, self._saved)
            for some in saving.move(self.memory, file) if self.memory is not None else ():
                self.epoch += 1
                count += len(some.requests) + len(some.notes)
                if time.monotonic() > until:
                    break
        if self.why:
            log.warning("pltrack: the journal %s can be used again; %d record(s) were moved there", file.path, count)
            self.why, self._error = "", None
            self.epoch += 1
        if count:
            self._host.moved()

    def close(self) -> None:
        """Close everything; what is in memory only is put into the file if that is possible at last, else lost."""
        with suppress(JournalError):
            self.mend(time.monotonic() + _LAST_SECONDS)
            if self.memory is not None and (left := saving.left(self.memory)):
                why = self.why or "they could not be written"
                self._host.lost_some(left, JournalError(f"{why}; they were in memory only, and this process ends"))
        for store in self.stores():
            store.close()
        self.memory = None


def _gone(file: Store) -> JournalError:
    return JournalError(f"the journal {file.path} was deleted or replaced by another program")


def _is_used(memory: Memory) -> bool:
    totals = memory.totals()
    return any(totals.states.values())


def _sum(counts: list[dict[str, int]]) -> dict[str, int]:
    whole: Counter[str] = Counter()
    for each in counts:
        whole.update(each)
    return dict(whole)
