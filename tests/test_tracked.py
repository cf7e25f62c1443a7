"""`@tracked`: what a decorated function still is."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack
from pltrack import tracked

MODEL = FakeListChatModel(responses=["four"])
VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

ended: list[pltrack.Session] = []


@pytest.fixture(autouse=True)
def _nothing_ended_yet() -> None:
    ended.clear()


def following(function: Callable[..., Any]) -> Any:
    return tracked(on_end=ended.append)(function)


# -- what a function is -------------------------------------------------------------------------------------


def plain(question: str, /, *rest: int, tags: str = "t", **config: Any) -> tuple[Any, ...]:
    """Say what came."""
    return question, rest, tags, config


async def coroutine(x: int = 1) -> int:
    return x


def generator(x: int = 1) -> Iterator[int]:
    yield x


async def agenerator(x: int = 1) -> AsyncIterator[int]:
    yield x


@pytest.mark.parametrize("function", [plain, coroutine, generator, agenerator])
def test_a_decorated_function_looks_as_before(function: Any) -> None:
    """Signature, kind, name, docstring, module and annotations are those of the function, three times over [51]."""
    decorated = tracked(tracked(tags=["x"])(tracked()(function)))
    for answer in (
        inspect.signature,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isfunction,
        inspect.getdoc,
        inspect.getsource,
        inspect.getfullargspec,
        callable,
    ):
        assert answer(decorated) == answer(function)  # type: ignore[operator]
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__", "__defaults__"):
        assert getattr(decorated, name) == getattr(function, name)
    assert inspect.unwrap(decorated) is function


def test_no_keyword_is_taken_from_the_user() -> None:
    """Keywords of any name reach the function, those of our own wrapper too."""

    def takes(**kwargs: Any) -> dict[str, Any]:
        return kwargs

    names = "self name tags config function wrapped instance args kwargs metadata session on_end cls life title"
    given = dict.fromkeys(names.split(" "), 1)
    assert tracked(takes)(**given) == given
    assert tracked(name="n", tags=["t"])(takes)(**given) == given
    assert tracked(plain)("q", 1, 2, tags="z", config=5, question=6) == ("q", (1, 2), "z", {"config": 5, "question": 6})


def test_errors_in_arguments_come_at_the_call() -> None:
    """A wrong call raises the TypeError that it would have raised, at once, for every kind of function."""
    for function in (plain, coroutine, generator, agenerator):
        with pytest.raises(TypeError, match="argument"):
            tracked(function)()(1, 2, 3) if function is plain else tracked(function)(1, 2, 3)


def test_a_plain_functions_error_passes_unchanged() -> None:
    """The same object, with the frame of the function in its traceback; on_end is called all the same."""
    error = KeyError("boom")

    @following
    def fails() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        fails()
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    assert [entry.name for entry in caught.traceback][-1] == "fails"
    assert len(ended) == 1


def test_stop_iteration_of_a_plain_function_is_not_swallowed() -> None:
    """StopIteration passes like every other error."""

    @tracked
    def stops() -> None:
        raise StopIteration(5)

    with pytest.raises(StopIteration) as caught:
        stops()
    assert caught.value.value == 5


async def test_a_coroutine_stays_in_its_task() -> None:
    """It runs in the caller's task, and what it sets in its context stays set; its error is the same object."""
    error = ValueError("boom")

    @following
    async def inside() -> Any:
        VAR.set("inside")
        await asyncio.sleep(0)
        return asyncio.current_task()

    @following
    async def fails() -> None:
        await asyncio.sleep(0)
        raise error

    assert await inside() is asyncio.current_task()
    assert VAR.get() == "inside"
    with pytest.raises(ValueError, match="boom") as caught:
        await fails()
    assert caught.value is error
    assert len(ended) == 2


async def test_a_cancelled_coroutine_is_cancelled() -> None:
    """CancelledError reaches the body and the caller, and ends the session."""
    heard: list[str] = []
    started = asyncio.Event()

    @following
    async def waits() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            heard.append(str(error))
            raise

    task = asyncio.create_task(waits())
    await started.wait()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (heard, len(ended)) == (["enough"], 1)


def test_a_coroutine_that_is_never_awaited_is_reported_once_under_its_name() -> None:
    """One warning that names the function; none at all for one that was closed."""
    for function in (coroutine, lambda: coroutine()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tracked(function)().close()
            gc.collect()
            assert [str(each.message) for each in caught] == []
            made = tracked(function)()
            assert inspect.iscoroutine(made)
            assert made.__qualname__ == "coroutine"
            del made
            gc.collect()
        assert [str(each.message) for each in caught] == ["coroutine 'coroutine' was never awaited"]


# -- what can be decorated ------------------------------------------------------------------------------------


class Service:
    """Every kind of method."""

    def __init__(self, word: str = "w") -> None:
        self.word = word

    @following
    def method(self, name: str) -> str:
        return f"{self.word}{name}{MODEL.invoke('x').content}"

    @following
    async def amethod(self) -> str:
        return self.word

    @following
    def steps(self) -> Iterator[str]:
        yield self.word

    @following
    async def asteps(self) -> AsyncIterator[str]:
        yield self.word

    @classmethod
    @following
    def below_class(cls, x: int) -> Any:
        return cls, x

    @following
    @classmethod
    def above_class(cls, x: int) -> Any:
        return cls, x

    @staticmethod
    @following
    def below_static(x: int) -> int:
        return x

    @following
    @staticmethod
    def above_static(x: int) -> int:
        return x

    @property
    @following
    def prop(self) -> str:
        return self.word


class Derived(Service):
    """Its class methods get it, not its parent."""


async def test_methods_of_every_kind() -> None:
    """Methods, class and static methods (either order) and properties work from instances and from classes [54]."""
    one = Derived()
    assert one.method("n") == Service.method(one, "n") == "wnfour"
    assert await one.amethod() == await Service.amethod(one) == one.prop == "w"
    assert list(one.steps()) == list(Service.steps(one)) == ["w"]
    assert [x async for x in one.asteps()] == [x async for x in Service.asteps(one)] == ["w"]
    assert one.below_class(1) == Derived.below_class(1) == one.above_class(1) == Derived.above_class(1) == (Derived, 1)
    assert one.below_static(2) == Service.below_static(2) == one.above_static(2) == Service.above_static(2) == 2
    assert inspect.iscoroutinefunction(one.amethod)
    assert inspect.iscoroutinefunction(Service.amethod)
    assert inspect.isgeneratorfunction(one.steps)
    assert inspect.isasyncgenfunction(Service.asteps)
    assert inspect.ismethod(one.method)
    assert str(inspect.signature(one.method)) == "(name: 'str') -> 'str'"
    assert len(ended) == 2 + 3 + 4 + 8
    assert ended[0]._name == "Service.method"
    assert len(ended[0].requests) == 1


async def test_callable_objects_and_partials() -> None:
    """Objects with __call__ (sync, async, generator) and partials can be decorated."""

    class Plain:
        attribute = 7

        def __call__(self, x: int) -> int:
            return x

    class Async:
        async def __call__(self, x: int) -> int:
            MODEL.invoke("x")
            return x

    class Steps:
        def __call__(self, x: int) -> Iterator[int]:
            yield x
            MODEL.invoke("x")

    decorated = following(Plain())
    assert (decorated(1), decorated.attribute, isinstance(decorated, Plain)) == (1, 7, True)
    assert await following(Async())(2) == 2
    assert list(following(Steps())(3)) == [3]
    assert following(functools.partial(plain, "q"))(tags="t") == ("q", (), "t", {})
    assert await following(functools.partial(coroutine, x=4))() == 4
    assert list(following(functools.partial(functools.partial(generator), 5))()) == [5]
    assert [len(each.requests) for each in ended] == [0, 1, 1, 0, 0, 0]
    with pytest.raises(TypeError, match="class"):
        tracked(Plain)
    with pytest.raises(TypeError, match="callable"):
        tracked(5)  # type: ignore[type-var]


async def test_disabled_functions_behave_the_same() -> None:
    """enabled=False: values, streams and errors pass, nothing is gathered."""
    pltrack.configure(enabled=False)
    assert tracked(plain)("q") == ("q", (), "t", {})
    assert await tracked(coroutine)(3) == 3
    assert list(tracked(generator)(3)) == [3]
    assert [x async for x in tracked(agenerator)(3)] == [3]
    assert following(lambda: MODEL.invoke("x"))().content == "four"
    assert ended[0].requests == ()
