"""The four shapes of a callable, each driven step by step inside a life cycle that is written once elsewhere."""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Steps(AbstractContextManager[Any], Protocol):
    """What surrounds the steps of a stream: entered for each of them, closed after the last."""

    def close(self) -> None:
        """Hear that there are no more steps."""


class Life(Protocol):
    """What surrounds a call: `step` or `steps` around what runs of it, `end` once when it is over."""

    def step(self) -> AbstractContextManager[Any]:
        """Return a context manager for the whole of a plain call or coroutine."""

    def steps(self) -> Steps:
        """Return what to enter for each step of a stream."""

    def end(self, error: BaseException | None) -> None:
        """Hear that the call is over, with the error that ended it."""


def drive(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], life: Life) -> Any:
    """Call `function` inside `life`; what comes back is of the kind that it would have been without."""
    plain = _underlying(function)
    # Called now, each of them: an error in the arguments is raised at the call, as it is without us.
    if inspect.iscoroutinefunction(plain):
        return _awaited(function(*args, **kwargs), life)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        return follow(function(*args, **kwargs), life)
    return _call(function, args, kwargs, life)


def follow(stream: Any, life: Life) -> Any:
    """Return `stream` (sync or async) as a generator whose every step runs inside `life`."""
    outer: Any
    if hasattr(stream, "__anext__"):
        outer = _agenerate(stream, life)
    elif hasattr(stream, "__aiter__"):
        outer = _agenerate(aiter(stream), life)
    else:
        outer = _generate(iter(stream), life)
    return _named(outer, stream) if is_stream(stream) else outer


def is_stream(value: Any) -> bool:
    """Tell whether `value` is a running generator: its work is not over when it is returned."""
    return inspect.isgenerator(value) or inspect.isasyncgen(value)


def _underlying(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(type(function), "__call__", function)  # noqa: B004 -- the function, not whether there is one


def _named(outer: Any, inner: Any) -> Any:
    outer.__name__, outer.__qualname__ = inner.__name__, inner.__qualname__
    return outer


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
        return _awaited(result, life)
    life.end(None)
    return result


# -- coroutines -----------------------------------------------------------------------------------------------

_unstarted: dict[int, weakref.ref[Any]] = {}


def _awaited(inner: Any, life: Life) -> Coroutine[Any, Any, Any]:
    outer = _await(inner, life)
    if inspect.iscoroutine(inner):
        key = id(inner)

        def given_up(_: object) -> None:
            _unstarted.pop(key, None)
            inner.close()

        # Who never awaits the one is told once, by its name, and not about the other.
        _unstarted[key] = weakref.ref(_named(outer, inner), given_up)
    return outer


async def _await(awaitable: Awaitable[Any], life: Life) -> Any:
    _unstarted.pop(id(awaitable), None)
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


# -- generators -----------------------------------------------------------------------------------------------


def _generate(inner: Iterator[Any], life: Life) -> Generator[Any, Any, Any]:
    steps = life.steps()
    step: Callable[[], Any] = functools.partial(next, inner)
    while True:
        try:
            with steps:
                item = step()
        except StopIteration as stop:
            _over(steps, life, None)
            return stop.value
        except BaseException as error:
            del step  # it may hold the error, and the error holds this frame
            _over(steps, life, error)
            raise
        try:
            sent = yield item
        except BaseException as error:  # noqa: BLE001 -- thrown on into the user's generator, GeneratorExit too
            step = _thrower(inner, error)
        else:
            step = functools.partial(next, inner) if sent is None else functools.partial(inner.send, sent)  # type: ignore[attr-defined]


def _thrower(inner: Any, error: BaseException) -> Callable[[], Any]:
    if hasattr(inner, "throw"):
        return functools.partial(inner.throw, error)

    def raise_it() -> Any:
        if isinstance(error, GeneratorExit) and hasattr(inner, "close"):
            inner.close()
        raise error

    return raise_it


async def _agenerate(inner: AsyncIterator[Any], life: Life) -> AsyncGenerator[Any, Any]:
    steps = life.steps()
    step: Callable[[], Any] = functools.partial(_first, inner)
    while True:
        try:
            with steps:
                item = await step()
        except StopAsyncIteration:
            _over(steps, life, None)
            return
        except BaseException as error:
            del step
            _over(steps, life, error)
            raise
        try:
            sent = yield item
        except BaseException as error:  # noqa: BLE001 -- thrown on into the user's generator, GeneratorExit too
            step = _athrower(inner, error)
        else:
            step = inner.__anext__ if sent is None else functools.partial(inner.asend, sent)  # type: ignore[attr-defined]


def _first(inner: AsyncIterator[Any]) -> Awaitable[Any]:
    # The event loop gets to know the outer one only: it would close both at its end, the one while the other runs.
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return inner.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _athrower(inner: Any, error: BaseException) -> Callable[[], Any]:
    if hasattr(inner, "athrow"):
        return functools.partial(inner.athrow, error)

    async def raise_it() -> Any:
        if isinstance(error, GeneratorExit) and hasattr(inner, "aclose"):
            await inner.aclose()
        raise error

    return raise_it


def _over(steps: Steps, life: Life, error: BaseException | None) -> None:
    steps.close()
    life.end(error)
