"""Functions for the pickling tests: what other processes import by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from pltrack import tracked


@tracked(tags=["t"])
def doubled(x: int) -> int:
    return 2 * x


@tracked
@tracked(name="inner")
async def later(x: int) -> int:
    return x


@tracked()
def steps(x: int) -> Iterator[int]:
    yield x


def plain(x: int) -> int:
    return 3 * x


tripled = tracked(tags=["renamed"])(plain)
partial = tracked(functools.partial(plain, 5))


class Service:
    """Methods of every kind."""

    def __init__(self, factor: int = 1) -> None:
        self.factor = factor

    @tracked
    def method(self, x: int) -> int:
        return self.factor * x

    @classmethod
    @tracked
    def below_class(cls, x: int) -> Any:
        return cls.__name__, x

    @tracked
    @classmethod
    def above_class(cls, x: int) -> Any:
        return cls.__name__, x

    @staticmethod
    @tracked
    def below_static(x: int) -> int:
        return x

    @tracked
    @staticmethod
    def above_static(x: int) -> int:
        return x


class Times:
    """A callable object."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x


times = tracked(tags=["object"])(Times(7))
service = Service(4)
