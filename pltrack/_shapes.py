"""The four shapes of a callable, each driven step by step inside a life cycle that is written once elsewhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Life(Protocol):
    """What surrounds a call: `step` around each piece of it that runs, `end` once when it is over."""

    def step(self) -> AbstractContextManager[Any]:
        """Return a context manager for one uninterrupted run of the callable's own code."""

    def end(self, error: BaseException | None) -> None:
        """Hear that the call is over, with the error that ended it."""


def drive(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], life: Life) -> Any:
    """Call `function` inside `life`; what comes back is of the kind that it would have been without."""
    plain = _underlying(function)
    if inspect.iscoroutinefunction(plain):
        return _await(function(*args, **kwargs), life)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        # Called now: an error in the arguments is raised at the call, as it is without us.
        return follow(function(*args, **kwargs), life)
    return _call(function, args, kwargs, life)


def follow(stream: Any, life: Life) -> Any:
    """Return `stream` (sync or async) as a generator whose every step runs inside `life`."""
    if hasattr(stream, "__anext__"):
        return _agenerate(stream, life)
    if hasattr(stream, "__aiter__"):
        return _agenerate(aiter(stream), life)
    return _generate(iter(stream), life)


def is_stream(value: Any) -> bool:
    """Tell whether `value` is a running generator: its work is not over when it is returned."""
    return inspect.isgenerator(value) or inspect.isasyncgen(value)


def _underlying(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(type(function), "__call__", function)  # noqa: B004 -- the function, not whether there is one


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], life: Life) -> Any:
    try:
        with life.step():
            result = function(*args, **kwargs)
    except BaseException as error:
        life.end(error)
        raise
    if is_stream(result):
        return follow(result, life)
    if inspect.iscoroutine(result):
        return _await(result, life)
    life.end(None)
    return result


async def _await(awaitable: Awaitable[Any], life: Life) -> Any:
    try:
        with life.step():
            result = await awaitable
    except BaseException as error:
        life.end(error)
        raise
    if is_stream(result):
        return follow(result, life)
    life.end(None)
    return result


def _generate(inner: Iterator[Any], life: Life) -> Generator[Any, Any, Any]:
    step: Callable[[], Any] = functools.partial(next, inner)
    while True:
        try:
            with life.step():
                item = step()
        except StopIteration as stop:
            life.end(None)
            return stop.value
        except BaseException as error:
            life.end(error)
            raise
        try:
            sent = yield item
        except GeneratorExit:
            _close(inner, life)
            raise
        except BaseException as error:  # noqa: BLE001 -- thrown on into the user's generator
            step = _thrower(inner, error)
        else:
            step = functools.partial(next, inner) if sent is None else functools.partial(inner.send, sent)  # type: ignore[attr-defined]


def _thrower(inner: Any, error: BaseException) -> Callable[[], Any]:
    if hasattr(inner, "throw"):
        return functools.partial(inner.throw, error)

    def raise_it() -> Any:
        raise error

    return raise_it


def _close(inner: Any, life: Life) -> None:
    try:
        if hasattr(inner, "close"):
            with life.step():
                inner.close()
    except BaseException as error:
        life.end(error)
        raise
    life.end(None)


async def _agenerate(inner: AsyncIterator[Any], life: Life) -> AsyncGenerator[Any, Any]:
    step: Callable[[], Any] = inner.__anext__
    while True:
        try:
            with life.step():
                item = await step()
        except StopAsyncIteration:
            life.end(None)
            return
        except BaseException as error:
            life.end(error)
            raise
        try:
            sent = yield item
        except GeneratorExit:
            await _aclose(inner, life)
            raise
        except BaseException as error:  # noqa: BLE001 -- thrown on into the user's generator
            step = _athrower(inner, error)
        else:
            step = inner.__anext__ if sent is None else functools.partial(inner.asend, sent)  # type: ignore[attr-defined]


def _athrower(inner: Any, error: BaseException) -> Callable[[], Any]:
    if hasattr(inner, "athrow"):
        return functools.partial(inner.athrow, error)

    async def raise_it() -> Any:
        raise error

    return raise_it


async def _aclose(inner: Any, life: Life) -> None:
    try:
        if hasattr(inner, "aclose"):
            with life.step():
                await inner.aclose()
    except BaseException as error:
        life.end(error)
        raise
    life.end(None)
