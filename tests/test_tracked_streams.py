"""`@tracked` generators, sync and async: everything that can be done with one arrives."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import pltrack
from pltrack import tracked

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

ended: list[pltrack.Session] = []


@pytest.fixture(autouse=True)
def _nothing_ended_yet() -> None:
    ended.clear()


def following(function: Callable[..., Any]) -> Any:
    return tracked(on_end=ended.append)(function)


def test_send_throw_and_return_reach_a_generator() -> None:
    """send and throw arrive at the yield, `yield from` gets the return value, names are kept."""

    @following
    def talks() -> Any:
        heard = []
        heard.append((yield "first"))
        try:
            yield "second"
        except KeyError as error:
            heard.append(error)
        yield "third"
        return heard

    def outer() -> Any:
        result.append((yield from talks()))

    result: list[Any] = []
    error = KeyError("thrown")
    steps = outer()
    assert (next(steps), steps.send("sent"), steps.throw(error)) == ("first", "second", "third")
    assert not ended
    assert list(steps) == []
    assert result == [["sent", error]]
    assert len(ended) == 1
    assert talks().__qualname__.endswith("talks")


def test_a_generators_error_is_the_same_object() -> None:
    """Raised inside, or thrown in and let through: the same error comes out, with no context added."""
    error = KeyError("boom")

    @following
    def fails() -> Iterator[int]:
        yield 1
        raise error

    steps = fails()
    next(steps)
    with pytest.raises(KeyError) as caught:
        next(steps)
    assert caught.value is error
    thrown = ValueError("thrown")
    steps = fails()
    next(steps)
    with pytest.raises(ValueError, match="thrown") as caught_too:
        steps.throw(thrown)
    assert caught_too.value is thrown
    assert thrown.__context__ is None
    assert len(ended) == 2


@pytest.mark.parametrize("how", ["close", "del", "break"])
def test_a_generator_that_is_given_up_is_closed(how: str) -> None:
    """GeneratorExit reaches the body at once, and the session ends."""
    heard: list[str] = []

    @following
    def counts() -> Iterator[int]:
        try:
            yield 1
            yield 2
        except GeneratorExit:
            heard.append("exit")
            raise

    steps = counts()
    if how == "break":
        for _ in steps:
            break
    else:
        next(steps)
    if how == "close":
        steps.close()
    del steps
    assert (heard, len(ended)) == (["exit"], 1)


def test_closing_behaves_as_without_us() -> None:
    """A body that returns on GeneratorExit is closed silently; one that goes on yielding is an error."""

    def returns() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            return

    def ignores() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    for kind in (lambda f: f, following):
        steps = kind(returns)()
        next(steps)
        steps.close()
        steps = kind(ignores)()
        next(steps)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            steps.close()
        steps = kind(ignores)()
        next(steps)
        assert steps.throw(GeneratorExit()) == 2
        steps = kind(returns)()
        steps.close()  # before it started
        assert list(steps) == []


def test_context_variables_pass_in_and_out_of_generators() -> None:
    """What the consumer sets between steps is seen in the body, and what the body sets is seen outside."""

    @tracked
    def looks() -> Iterator[str]:
        VAR.set("body")
        yield VAR.get()
        yield VAR.get()

    def in_context() -> None:
        steps = looks()
        assert next(steps) == "body" == VAR.get()
        VAR.set("consumer")
        assert next(steps) == "consumer"

    contextvars.copy_context().run(in_context)


def test_an_error_of_a_generator_leaves_no_cycle() -> None:
    """What the error held goes away with it, without the garbage collector, as it does without us."""
    import weakref

    class Big:
        pass

    @tracked
    def holds() -> Iterator[int]:
        big = Big()
        seen.append(weakref.ref(big))
        yield 1
        yield id(big)

    seen: list[Any] = []
    gc.disable()
    try:
        steps = holds()
        next(steps)
        with contextlib.suppress(ValueError):
            steps.throw(ValueError("x"))
        del steps
        assert seen[0]() is None
    finally:
        gc.enable()


async def test_asend_and_athrow_reach_an_async_generator() -> None:
    """asend and athrow arrive at the yield; contextvars pass both ways; the end ends the session [53]."""
    error = KeyError("thrown")
    heard: list[Any] = []

    @following
    async def talks() -> Any:
        VAR.set("body")
        heard.append((yield "first"))
        heard.append(VAR.get())
        try:
            yield "second"
        except KeyError as thrown:
            heard.append(thrown)
        yield "third"

    steps = talks()
    assert await anext(steps) == "first"
    assert VAR.get() == "body"
    VAR.set("consumer")
    assert await steps.asend("sent") == "second"
    assert await steps.athrow(error) == "third"
    assert not ended
    with pytest.raises(StopAsyncIteration):
        await anext(steps)
    assert heard == ["sent", "consumer", error]
    assert len(ended) == 1


async def test_an_async_generator_fails_and_closes_as_without_us() -> None:
    """Its error is the same object; aclose, cancellation and ignoring GeneratorExit are as usual."""
    error = KeyError("boom")
    heard: list[str] = []

    async def body(how: str) -> AsyncIterator[int]:
        try:
            yield 1
            if how == "fail":
                raise error
            await asyncio.Event().wait()
        except (GeneratorExit, asyncio.CancelledError) as given_up:
            heard.append(type(given_up).__name__)
            if how == "ignore":
                yield 2
            await asyncio.sleep(0)
            raise

    for kind in (lambda f: f, following):
        heard.clear()
        steps = kind(body)("fail")
        await anext(steps)
        with pytest.raises(KeyError) as caught:
            await anext(steps)
        assert caught.value is error
        steps = kind(body)("close")
        await anext(steps)
        await steps.aclose()
        steps = kind(body)("ignore")
        await anext(steps)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            await steps.aclose()
        steps = kind(body)("cancel")
        await anext(steps)
        task = asyncio.create_task(anext(steps))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard == ["GeneratorExit", "GeneratorExit", "CancelledError"]
    assert len(ended) == 4


@pytest.mark.parametrize("how", ["dropped", "still held"])
def test_an_async_generator_left_open_is_closed_by_its_loop(how: str) -> None:
    """Given up half-way, its awaiting `finally` runs as without us, and the loop has nothing to complain of [53]."""

    async def counts(heard: list[str]) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            heard.append("begin")
            await asyncio.sleep(0)
            heard.append("end")

    async def main(kind: Callable[..., Any], heard: list[str], complaints: list[Any], held: list[Any]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        for _ in range(5):
            steps = kind(counts)(heard)
            await anext(steps)
            if how == "still held":
                held.append(steps)
        del steps
        for _ in range(5):
            await asyncio.sleep(0)

    for kind in (lambda f: f, following):
        heard: list[str] = []
        complaints: list[Any] = []
        held: list[Any] = []
        asyncio.run(main(kind, heard, complaints, held))
        assert heard.count("begin") == heard.count("end") == 5
        assert not complaints
    assert len(ended) == 5
