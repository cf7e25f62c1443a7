"""PromptLayer's own SDK on a thread of ours, with deadlines: it has none, retries for long and is slow to import.

Its coroutines are used, once each: its sync calls can hang for ever and send a publish up to three times.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from . import _runtime
from ._settings import Destination, unkeyed
from .errors import PromptError, PromptNotFoundError

T = TypeVar("T")
Json = dict[str, Any]
_START_SECONDS = 10.0


class _Loop:
    """An event loop on a daemon thread: started by the first job, ended by `close`."""

    def __init__(self) -> None:
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="pltrack-prompts", daemon=True)
        self._thread.start()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._ready.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def submit(self, job: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> Future[T]:
        """Start a job; it is cancelled after `seconds`. Whoever waits for the future cannot cancel it."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def start() -> None:
            task = asyncio.create_task(_settle(future, job, seconds))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._ready.result(_START_SECONDS).call_soon_threadsafe(start)
        return future

    def close(self) -> None:
        """Cancel what is under way; who waits for it gets an error."""
        assert self._stop is not None
        self._ready.result().call_soon_threadsafe(self._stop.set)
        self._thread.join(1.0)


async def _settle(future: Future[T], job: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
    try:
        future.set_result(await asyncio.wait_for(job(), seconds))
    except asyncio.CancelledError:
        future.set_exception(PromptError("pltrack was shut down while it asked PromptLayer"))
        raise
    except Exception as error:  # noqa: BLE001 -- it flies in the thread that waits for the future
        future.set_exception(error)


_lock = threading.RLock()
_loop: _Loop | None = None
_under_way: dict[object, Future[Any]] = {}


def submit(job: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> Future[T]:
    """Run a coroutine function on the SDK's thread."""
    with _lock:
        return _submit(job, seconds)


def share(key: object, job: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> Future[T]:
    """Run a job unless the same one is under way: then return that one's future."""
    with _lock:
        future = _under_way.get(key)
        if future is None:
            future = _under_way[key] = _submit(job, seconds)
            future.add_done_callback(lambda done: _forget(key, done))
    return future


def _submit(job: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> Future[T]:
    global _loop
    if _loop is None:
        _loop = _Loop()
    return _loop.submit(job, seconds)


def _forget(key: object, done: Future[Any]) -> None:
    with _lock:
        if _under_way.get(key) is done:
            del _under_way[key]


def _close() -> None:
    global _loop
    with _lock:
        loop, _loop = _loop, None
    if loop is not None:
        loop.close()


def _begin_anew() -> None:
    """In a forked child: the thread, and who held the lock, stayed with the parent."""
    global _lock, _loop
    _lock, _loop = threading.RLock(), None
    _under_way.clear()


_runtime.before_close.append(_close)
_runtime.after_fork.append(_begin_anew)


# -- the SDK's calls, its errors translated -------------------------------------------------------------------


async def fetch(to: Destination, name: str, params: Mapping[str, Any]) -> Json:
    """Return a prompt as PromptLayer's SDK does: unrendered unless `params` has `input_variables`."""
    asked = dict(params)
    if asked.get("input_variables") is None:
        asked["skip_input_variable_rendering"] = True
    found = await _ask("aget_prompt_template", to, name, asked)
    usable = isinstance(found, dict) and isinstance(found.get("prompt_template"), dict)
    if not usable or type(found.get("version")) is not int:
        raise PromptError(f"PromptLayer's answer for the prompt {name!r} is no prompt")
    return dict(found)


async def publish(to: Destination, body: Mapping[str, Any]) -> Json:
    """Publish a version; sent once only, since every copy that arrives would be a version."""
    found = await _ask("apublish_prompt_template", to, body)
    if not isinstance(found, dict) or not found.get("prompt_name"):
        raise PromptError(f"PromptLayer did not publish the prompt {body['prompt_name']!r}: {found!r:.200}")
    return dict(found)


async def list_all(to: Destination, page: int, per_page: int, label: str | None) -> list[Json]:
    """Return a page of the prompts that there are."""
    found = await _ask("aget_all_prompt_templates", to, page, per_page, label)
    if not isinstance(found, list):
        raise PromptError("PromptLayer's answer is no list of prompts")
    return found


async def _ask(call: str, to: Destination, *arguments: Any) -> Any:
    try:
        from promptlayer import exceptions, utils

        try:
            return await _once(getattr(utils, call))(to.api_key, to.base_url, True, *arguments)
        except exceptions.PromptLayerError as error:
            status = getattr(error.response, "status_code", None)
            if status == 200 and isinstance(error.body, dict):
                return error.body  # documented for a publish, where the SDK knows 201 only
            raise _translated(error, status, to) from _cause(error, to)
    except PromptError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever the SDK raises is translated
        words = _words(error, to)
        raise PromptError(f"PromptLayer's SDK failed: {type(error).__name__}: {words}") from _cause(error, to)


def _words(error: Exception, to: Destination) -> str:
    return unkeyed(to.without_key(str(error).encode(errors="replace")).decode())


def _cause(error: Exception, to: Destination) -> Exception | None:
    """Return the error to show as the cause, unless a key is in its words."""
    return error if _words(error, to) == str(error) else None


def _translated(error: Any, status: int | None, to: Destination) -> PromptError:
    words = _words(error, to).strip() or type(error).__name__
    if status == 404 and isinstance(error.body, dict):
        return PromptNotFoundError(words)
    if status == 404:
        return PromptError(f"{to} does not seem to be PromptLayer: it answered 404 without JSON")
    if status == 401:
        return PromptError(f"PromptLayer refused the key (401), check PROMPTLAYER_API_KEY: {words}")
    if "Timeout" in type(error).__name__:
        return PromptError("PromptLayer did not answer in time")
    return PromptError(f"{words} ({status})" if status else words)


def _once(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Leave out the SDK's repetitions (14 s on every 5xx): the deadline is ours, and the cause should be told."""
    from tenacity import stop_after_attempt

    again = getattr(call, "retry_with", None)
    return call if again is None else again(stop=stop_after_attempt(1))


def timed_out(seconds: float) -> PromptError:
    """Return the error for a deadline that has passed."""
    return PromptError(f"PromptLayer did not answer within {seconds:g} s")


async def awaited(future: Future[T], seconds: float) -> T:
    """Wait for a future of this module without blocking the event loop."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
    except TimeoutError:
        raise timed_out(seconds) from None


def result(future: Future[T], seconds: float) -> T:
    """Wait for a future of this module."""
    try:
        return future.result(seconds)
    except TimeoutError:
        raise timed_out(seconds) from None
