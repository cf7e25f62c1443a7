"""Waiting for PromptLayer's ids: in threads, in tasks, and not at all where it would be in vain."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from . import _runtime
from ._request import Request

log = logging.getLogger("pltrack")

_LOOK_EVERY = 0.5  # another process that shares the journal may have delivered it


def wait(requests: Sequence[Request], timeout: float) -> dict[str, int | None]:
    """Wait at most `timeout` seconds for the ids of requests."""
    deadline = time.monotonic() + timeout
    told = threading.Event()
    runtime = _runtime.get()
    with runtime.listening(told.set):
        open_ids = _open(requests)
        if open_ids:
            runtime.hurry(open_ids)
        while (open_ids := _open(requests)) and (left := deadline - time.monotonic()) > 0:
            told.clear()
            if not told.wait(min(left, _LOOK_EVERY)):
                runtime.refresh(open_ids)
    return _known(requests)


async def await_ids(requests: Sequence[Request], timeout: float) -> dict[str, int | None]:
    """Do what `wait` does on the event loop."""
    deadline = time.monotonic() + timeout
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    runtime = _runtime.get()

    def tell() -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(told.set)

    with runtime.listening(tell):
        open_ids = _open(requests)
        if open_ids:
            runtime.hurry(open_ids)
        while (open_ids := _open(requests)) and (left := deadline - time.monotonic()) > 0:
            told.clear()
            try:
                await asyncio.wait_for(told.wait(), min(left, _LOOK_EVERY))
            except TimeoutError:
                runtime.refresh(open_ids)
    return _known(requests)


def request_ids(requests: Sequence[Request]) -> tuple[int, ...]:
    """Return the ids, waiting at most `id_timeout` in a thread and not at all on a running event loop."""
    if _open(requests) and asyncio._get_running_loop() is not None:
        log.warning("pltrack: request_ids does not wait on a running event loop; use `await session.arequest_ids()`")
        return _found(_known(requests))
    return _said(requests, wait(requests, _runtime.get().settings.id_timeout))


async def arequest_ids(requests: Sequence[Request]) -> tuple[int, ...]:
    """Return the ids, waiting at most `id_timeout` without blocking the event loop."""
    return _said(requests, await await_ids(requests, _runtime.get().settings.id_timeout))


def _open(requests: Sequence[Request]) -> list[str]:
    """Return whose ids are unknown and may still come soon."""
    runtime = _runtime.get()
    return [
        each.id
        for each in requests
        if not each.settled
        and not each.dropped
        and each.outcome is not None
        and not runtime.why_not_deliverable(each.destination)
    ]


def _known(requests: Sequence[Request]) -> dict[str, int | None]:
    return {each.id: each.request_id for each in requests}


def _found(known: dict[str, int | None]) -> tuple[int, ...]:
    return tuple(each for each in known.values() if each is not None)


def _said(requests: Sequence[Request], known: dict[str, int | None]) -> tuple[int, ...]:
    missing = [each for each in requests if each.request_id is None]
    if missing:
        reason = _runtime.get().why_not_deliverable(missing[0].destination)
        why = reason or ("refused by PromptLayer" if missing[0].settled else "not answered in time")
        log.warning("pltrack: %d of %d request ids are not known: %s", len(missing), len(requests), why)
    return _found(known)
