"""The thread between the program and the disk: takes records as they come, commits them in groups."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Protocol

from .._records import Barrier, Call, Handle, Note, Scope, SessionEnded, Written
from .._settings import Settings

if TYPE_CHECKING:  # this thread loads them: SQLAlchemy and the converters cost more than the whole first call
    from .rows import Encoder
    from .store import Store

log = logging.getLogger("pltrack")

GROUP_SECONDS = 0.02  # under load a group is committed this often; the promise is 50 ms to disk
_GROUP_MOST = 2_000
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between two attempts to write the same group


@dataclass(slots=True)
class _Group:
    sessions: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.sessions) + len(self.requests) + len(self.notes) + len(self.ended)


class Host(Protocol):
    """Who is told what the writer does, on its thread."""

    @property
    def settings(self) -> Settings:
        """Return the settings that hold now."""

    def taken(self, call: Call) -> None:
        """Hear of a call that is about to be written."""

    def written(self, urgent: bool) -> None:
        """Hear that a group is on disk."""

    def lost_some(self, count: int, error: BaseException) -> None:
        """Hear of records that had to be given up."""

    def stuck(self, error: BaseException) -> bool:
        """Hear that a group could not be written and is tried again; tell whether that can be done at once."""

    def is_of_the_place(self, error: BaseException) -> bool:
        """Tell whether the journal is at fault, and not what was to be written."""


class Writer:
    """Owns the queue of records and the thread that empties it; `put` is all that the program pays for."""

    def __init__(
        self, host: Host, store: Callable[[], Store], encoder: Callable[[Settings], Encoder], most: int
    ) -> None:
        self._host = host
        self._open = store
        self._encoder = encoder
        self._most = most
        # deque.append and Event.set allocate nothing under a lock of ours: the garbage collector may call
        # the handler in the middle of anything, this method included.
        self._queue: deque[tuple[Written, Settings]] = deque()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._idle = True
        self._closing = False
        self._until = float("inf")  # when a group that cannot be written is given up
        self._unwritten = 0
        self._ended = threading.Event()
        self.stuck = ""  # why nothing can be written at present
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def __len__(self) -> int:
        return len(self._queue) + self._unwritten

    def put(self, item: Written, settings: Settings) -> bool:
        """Queue a record; return False when memory is full and it had to be given up."""
        if len(self) >= self._most and not isinstance(item, Barrier):
            return False
        self._queue.append((item, settings))
        # Waking a thread costs more than queueing: not needed while it is awake, it looks again by itself.
        if self._idle:
            self._wake.set()
        if self._thread is None:
            self._start()
        return True

    def queued(self, our_id: str) -> Handle | None:
        """Return the handle of a call that waits to be written."""
        while True:
            try:
                waiting = list(self._queue)
            except RuntimeError:  # it changed meanwhile
                continue
            calls = (item for item, _ in waiting if isinstance(item, Call))
            return next((call.handle for call in calls if call.handle.id == our_id), None)

    @property
    def started(self) -> bool:
        """Tell whether anything was ever put here."""
        return self._thread is not None

    def warm(self) -> None:
        """Start the thread and let it load what it needs, before there is anything to write."""
        if self._thread is None:
            self._start()

    def hurry(self) -> None:
        """Commit what is queued without waiting for a group to fill."""
        self._hurry.set()
        self._wake.set()

    def close(self, timeout: float) -> bool:
        """Write what is queued and end the thread; return whether it ended in time.

        What the disk does not take until then is given up, and counted as lost.
        """
        self._until = time.monotonic() + timeout
        self._closing = True
        self._ended.set()
        self.hurry()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                why = self.stuck or "the disk is slow"
                log.error("pltrack: %d record(s) are not on disk and the time is up: %s", len(self), why)
                return False
        self._drain()  # what was put while the thread ended
        return True

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="pltrack-writer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        with suppress(Exception):  # said when there is something to write
            self._open()
            self._encoder(self._host.settings)
        while True:
            self._idle = True
            if not self._queue and not self._closing:
                self._wake.wait()
            self._idle = False
            self._wake.clear()
            self._drain()
            if self._closing and not self._queue:
                return
            self._hurry.wait(GROUP_SECONDS)
            self._hurry.clear()

    def _drain(self) -> None:
        while self._queue:
            group = self._next_group()
            if group.size:
                self._commit(group)
            for barrier in group.barriers:
                barrier.reached()

    def _next_group(self) -> _Group:
        group = _Group()
        while self._queue and group.size < _GROUP_MOST:
            item, settings = self._queue[0]
            if isinstance(item, Call):
                self._host.taken(
                    item
                )  # before it leaves the queue: whoever looks for its handle finds it in one of them
            self._queue.popleft()
            try:
                self._add(group, item, self._encoder(settings))
            except Exception as error:  # noqa: BLE001 -- one odd record must not take its neighbours along
                self._host.lost_some(1, error)
        return group

    def _add(self, group: _Group, item: Written, encoder: Encoder) -> None:
        match item:
            case Call():
                try:
                    group.requests.append(encoder.request(item))
                    group.calls.append(item)
                finally:
                    item.handle.slim()
            case Note():
                group.notes.append(encoder.note(item))
            case Scope():
                group.sessions.append(encoder.session(item))
            case SessionEnded():
                group.ended.append(item.root)
            case Barrier():
                group.barriers.append(item)

    def _rename(self, group: _Group) -> None:
        """Tell the handles of calls whose id was taken: a program may give the same run id on each of its runs."""
        for call, row in zip(group.calls, group.requests, strict=True):
            if row["id"] != call.handle.id:
                call.handle.renamed(row["id"])
                self._host.taken(call)

    def _commit(self, group: _Group) -> None:
        started = time.monotonic()
        self._unwritten = group.size
        written = self._is_written(group)
        self._unwritten = 0
        if not written:
            return
        self._rename(group)
        if (took := time.monotonic() - started) > 1:
            log.info("pltrack: writing %d records took %.1f s", group.size, took)
        self._host.written(bool(group.notes or group.ended))

    def _is_written(self, group: _Group) -> bool:
        """Write a group, however long it takes; tell whether it was done before the end."""
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                self._put(group)
                break
            except Exception as error:  # noqa: BLE001 -- a full disk or a lock passes; this thread must live on
                self.stuck = str(error)
                if self._host.stuck(error):
                    continue
                left = self._until - time.monotonic()
                if left <= 0:
                    self._host.lost_some(len(group.requests) + len(group.notes), error)
                    return False
                self._pause(min(pause, left))
        self.stuck = ""
        return True

    def _put(self, group: _Group) -> None:
        store = self._open()
        try:
            store.write(group.sessions, group.requests, group.notes, group.ended)
        except Exception as error:
            if self._host.is_of_the_place(error):
                raise
            self._put_each(store, group)

    def _put_each(self, store: Store, group: _Group) -> None:
        """Write the records one by one: what cannot be written goes alone."""
        alone = [_Group(sessions=[row]) for row in group.sessions]
        alone += [_Group(requests=[row]) for row in group.requests]
        alone += [_Group(notes=[row]) for row in group.notes]
        for each in [*alone, _Group(ended=group.ended)]:
            try:
                store.write(each.sessions, each.requests, each.notes, each.ended)
            except Exception as error:
                if self._host.is_of_the_place(error):
                    raise
                self._host.lost_some(len(each.requests) + len(each.notes), error)

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; when the end comes, the next one is at once."""
        if self._closing:
            time.sleep(min(seconds, _PAUSES[0]))
        else:
            self._ended.wait(seconds)
