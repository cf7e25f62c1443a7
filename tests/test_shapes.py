"""Streams that are no generators, followed step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import pltrack
from pltrack import current_session, pl_session


class Plain:
    """An iterator of the simplest kind, which can be closed."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.seen.append(current_session())
        if len(self.seen) == 3:
            raise StopIteration
        return len(self.seen)

    def close(self) -> None:
        self.seen.append("closed")


class PlainAsync(Plain):
    """The same for `async for`."""

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self.close()


async def test_plain_iterators_can_be_followed() -> None:
    """Each step runs in the session; without `throw` of its own the error comes back as it was."""
    session = pl_session()
    error = KeyError("thrown")
    sync, asynchronous = Plain(), PlainAsync()
    assert list(session.follow(sync)) == [1, 2]
    assert [each async for each in session.follow(asynchronous)] == [1, 2]
    assert sync.seen == asynchronous.seen == [session] * 3
    steps = session.follow(Plain())
    next(steps)
    with pytest.raises(KeyError) as caught:
        steps.throw(error)
    assert caught.value is error
    asteps = session.follow(PlainAsync())
    await anext(asteps)
    with pytest.raises(KeyError) as caught:
        await asteps.athrow(error)
    assert caught.value is error


async def test_plain_iterators_are_closed() -> None:
    """Closing the followed stream closes what is followed, once, where it can be closed."""
    session = pl_session()
    for stream in (Plain(), PlainAsync()):
        steps = session.follow(stream)
        if isinstance(stream, PlainAsync):
            await anext(steps)
            await steps.aclose()
        else:
            next(steps)
            steps.close()
        assert stream.seen == [session, "closed"]
    uncloseable = session.follow(iter([1, 2]))
    assert next(uncloseable) == 1
    uncloseable.close()
    assert list(uncloseable) == []


def test_a_bound_function_gives_its_streams_to_the_session() -> None:
    """What a bound function returns is followed, and a generator's return value arrives."""

    def steps() -> Any:
        seen.append(current_session())
        heard = yield 1
        seen.append(current_session())
        return heard

    def outer() -> Any:
        seen.append((yield from session.bind(steps)()))

    seen: list[pltrack.Session | str | None] = []
    session = pl_session()
    running = outer()
    assert next(running) == 1
    with pytest.raises(StopIteration):
        running.send("sent")
    assert seen == [session, session, "sent"]
    assert list(session.bind(lambda: (current_session() for _ in range(2)))()) == [session, session]
