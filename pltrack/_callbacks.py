"""Calling back with ids, on a thread of its own: what users do there never holds up delivery."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class IdCallback:
    """A `pl_id_callback` with the surroundings of its call."""

    function: Callable[[Any], Any]
    context: contextvars.Context
    loop: asyncio.AbstractEventLoop | None

    def run(self, value: int | str) -> None:
        """Call it; a coroutine function runs on the call's loop where that still runs."""
        answer = self.context.run(self.function, value)
        if not inspect.iscoroutine(answer):
            return
        if self.loop is not None and self.loop.is_running():
            self.context.run(asyncio.run_coroutine_threadsafe, answer, self.loop)
        else:
            self.context.run(asyncio.run, answer)


class Callbacks:
    """Who waits for which id, and the thread that tells them."""

    def __init__(self, fault: Callable[[str, BaseException], None]) -> None:
        self._fault = fault
        self._waiting: dict[str, list[IdCallback]] = {}
        self._queue: queue.SimpleQueue[Callable[[], object] | None] | None = None
        self._starting = threading.Lock()

    def wait_for(self, our_id: str, callbacks: Sequence[IdCallback]) -> None:
        """Remember who wants to hear of a request's id."""
        self._waiting[our_id] = list(callbacks)

    def waiting(self) -> list[str]:
        """Return the ids that somebody waits for."""
        return list(self._waiting)

    def tell(self, our_id: str, value: int | str) -> None:
        """Give those who wait for `our_id` its value."""
        callbacks = self._waiting.pop(our_id, None)
        if callbacks:
            self.call(callbacks, value)

    def call(self, callbacks: Sequence[IdCallback], value: int | str) -> None:
        """Call back soon, on the thread for it."""
        if not callbacks:
            return
        jobs = self._jobs()
        for callback in callbacks:
            jobs.put(lambda callback=callback: callback.run(value))  # type: ignore[misc]

    def close(self, timeout: float) -> None:
        """Give everyone who still waits our own id, and wait until they have had it."""
        for our_id in self.waiting():
            self.tell(our_id, our_id)
        if self._queue is not None:
            done = threading.Event()
            self._queue.put(done.set)
            self._queue.put(None)
            done.wait(timeout)

    def _jobs(self) -> queue.SimpleQueue[Callable[[], object] | None]:
        with self._starting:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                threading.Thread(target=self._serve, args=(self._queue,), name="pltrack-callbacks", daemon=True).start()
        return self._queue

    def _serve(self, jobs: queue.SimpleQueue[Callable[[], object] | None]) -> None:
        while (job := jobs.get()) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001 -- the user's function: counted and logged, never raised here
                self._fault("pl_id_callback", error)
