"""@tracked is transparent: the function stays what it is, and its calls are a session each."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import gc
import inspect
import multiprocessing
import pickle
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="")


def plain(a: int, b: int = 2, *, name: str = "n", tags: Any = None, config: Any = None) -> tuple[Any, ...]:
    """Return what it was given."""
    return a, b, name, tags, config


def steps(first: str) -> Generator[Any, Any, str]:
    try:
        got = yield first
        while True:
            got = yield f"got {got}"
    except KeyError as error:
        yield f"caught {error.args[0]}"
    return "returned"


async def asteps(first: str) -> AsyncIterator[Any]:
    try:
        got = yield first
        while True:
            got = yield f"got {got}"
    except KeyError as error:
        yield f"caught {error.args[0]}"


async def coroutine(value: str) -> Any:
    VAR.set(value)
    return asyncio.current_task()


@pltrack.tracked(tags=["module"])
def module_level(value: int) -> int:
    return value * 2


class Thing:
    """Methods of all kinds."""

    @pltrack.tracked
    def method(self, x: int) -> Any:
        return self, x, pltrack.current_session()

    @classmethod
    @pltrack.tracked
    def below_class(cls, x: int) -> Any:
        return cls, x, pltrack.current_session()

    @pltrack.tracked
    @classmethod
    def above_class(cls, x: int) -> Any:
        return cls, x, pltrack.current_session()

    @pltrack.tracked()
    @staticmethod
    def static(x: int) -> Any:
        return x, pltrack.current_session()

    def __call__(self, x: int) -> Any:
        return x, pltrack.current_session()


class Summer:
    """A callable object that can be pickled."""

    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, x: int) -> int:
        return self.base + x


@pytest.mark.parametrize("function", [plain, steps, asteps, coroutine])
def test_inspect_answers_as_before(function: Any) -> None:
    """Signature, name, docstring, module and kind are the function's own."""
    wrapped = pltrack.tracked(function)
    assert inspect.signature(wrapped) == inspect.signature(function)
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(wrapped, name) == getattr(function, name)
    assert wrapped.__wrapped__ is function
    for ask in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert ask(wrapped) == ask(function)


@pytest.mark.parametrize("decorate", [pltrack.tracked, pltrack.tracked(), pltrack.tracked("t", tags=["x"], user="u")])
def test_no_keyword_is_stolen(decorate: Any) -> None:
    """Every argument reaches the function, whatever it is called."""
    wrapped = decorate(decorate(decorate(plain)))
    assert wrapped(1, name="mine", tags=["y"], config={}) == (1, 2, "mine", ["y"], {})
    with pytest.raises(TypeError, match="unexpected keyword"):
        wrapped(1, other=2)


def test_generators_keep_their_whole_protocol() -> None:
    """send, throw, close and the return value pass."""
    tracked = pltrack.tracked(steps)("one")
    assert (next(tracked), tracked.send("x"), next(tracked)) == ("one", "got x", "got None")
    assert tracked.throw(KeyError("k")) == "caught k"
    with pytest.raises(StopIteration) as stop:
        next(tracked)
    assert stop.value.value == "returned"

    def outer() -> Generator[Any, Any, Any]:
        return (yield from pltrack.tracked(short)())

    def short() -> Generator[Any, Any, str]:
        yield 1
        return "value"

    walker = outer()
    next(walker)
    with pytest.raises(StopIteration) as stop:
        next(walker)
    assert stop.value.value == "value"


async def test_async_generators_keep_their_whole_protocol() -> None:
    """asend, athrow and aclose pass."""
    tracked: Any = pltrack.tracked(asteps)("one")
    assert (await anext(tracked), await tracked.asend("x")) == ("one", "got x")
    assert await tracked.athrow(KeyError("k")) == "caught k"
    with pytest.raises(StopAsyncIteration):
        await anext(tracked)
    another: Any = pltrack.tracked(asteps)("one")
    await anext(another)
    await another.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(another)


async def test_a_coroutine_stays_in_its_task_and_context() -> None:
    """The body runs in the caller's task; a context variable set inside is visible after."""
    assert await pltrack.tracked(coroutine)("inside") is asyncio.current_task()
    assert VAR.get() == "inside"


def test_the_consumers_context_is_seen_between_yields() -> None:
    """What the consumer sets between two steps is seen in the body, and our session is not seen by the consumer."""

    @pltrack.tracked
    def body() -> Iterator[Any]:
        while True:
            yield VAR.get(), pltrack.current_session() is not None

    walker = body()
    for value in ("a", "b"):
        VAR.set(value)
        assert next(walker) == (value, True)
        assert pltrack.current_session() is None


def test_errors_pass_unchanged() -> None:
    """The same error object comes out; StopIteration from a plain function is not swallowed."""
    error = ValueError("mine")

    @pltrack.tracked
    def fail(which: BaseException) -> None:
        raise which

    with pytest.raises(ValueError, match="mine") as caught:
        fail(error)
    assert caught.value is error
    with pytest.raises(StopIteration):
        fail(StopIteration("x"))


def test_methods_of_every_kind() -> None:
    """Methods, classmethods in both orders, staticmethods, callable objects and partials run in a session."""
    thing = Thing()
    owner, x, session = thing.method(1)
    assert owner is thing
    assert (x, isinstance(session, pltrack.Session)) == (1, True)
    for call in (Thing.below_class, thing.below_class, Thing.above_class, thing.above_class):
        owner, x, session = call(2)
        assert owner is Thing
        assert (x, isinstance(session, pltrack.Session)) == (2, True)
    for static in (Thing.static, thing.static, pltrack.tracked(thing), pltrack.tracked(functools.partial(thing, 3))):
        arguments = () if isinstance(static.__wrapped__, functools.partial) else (3,)
        x, session = static(*arguments)
        assert (x, isinstance(session, pltrack.Session)) == (3, True)


def test_pickle_copy_and_deepcopy() -> None:
    """Functions pickle by name, bound methods and callable objects by value; copies work the same."""
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert copy.copy(module_level) is copy.deepcopy(module_level) is module_level
    thing = Thing()
    for again in (pickle.loads(pickle.dumps(thing.method)), copy.deepcopy(thing.method)):
        owner, _, session = again(5)
        assert isinstance(owner, Thing)
        assert owner is not thing
        assert session is not None
    tracked = pltrack.tracked("sum", tags=["x"])(Summer(10))
    for again in (pickle.loads(pickle.dumps(tracked)), copy.copy(tracked), copy.deepcopy(tracked)):
        assert again(5) == 15
        assert again.__wrapped__ is not tracked.__wrapped__
    partial = pltrack.tracked(functools.partial(Summer(1), 2))
    assert pickle.loads(pickle.dumps(partial))() == copy.deepcopy(partial)() == 3


def test_a_process_pool_takes_it() -> None:
    """A decorated function can be sent to a spawned process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(module_level, 21).result(60) == 42


def test_tags_and_metadata_from_the_arguments(promptlayer: FakePromptLayer) -> None:
    """Callables get the bound arguments by keyword; one that fails costs what it computes, never the call."""

    @pltrack.tracked(tags=lambda question, **_: [question[:2]], metadata=lambda question, k, **_: {"k": str(k)})
    def answer(question: str, k: int = 7) -> Any:
        return MODEL.invoke(question).content

    @pltrack.tracked(tags=lambda **_: 1 / 0)
    def broken(question: str) -> Any:
        return MODEL.invoke(question).content

    assert answer("hello") == broken("still works") == "four"
    pltrack.flush(10)
    first, second = sorted(promptlayer.requests, key=lambda logged: str(logged.body["request_start_time"]))
    assert (first.tags, first.metadata["k"]) == (["he"], "7")
    assert "answer" in first.metadata["session"]
    assert second.tags == []


@pytest.mark.parametrize("ending", ["exhaust", "close", "collect", "fail"])
def test_on_end_hears_of_every_end(ending: str) -> None:
    """on_end(session) is called once when the call is over, however it ends; its own error goes nowhere."""
    heard: list[Any] = []

    def on_end(session: pltrack.Session) -> None:
        heard.append(len(session.requests))
        raise RuntimeError("mine")

    @pltrack.tracked(on_end=on_end)
    def body() -> Iterator[Any]:
        yield MODEL.invoke("x")
        if ending == "fail":
            raise KeyError("body")

    walker = body()
    next(walker)
    assert heard == []
    match ending:
        case "exhaust":
            assert list(walker) == []
        case "close":
            walker.close()  # type: ignore[attr-defined]
        case "collect":
            del walker
            gc.collect()
        case _:
            with pytest.raises(KeyError):
                next(walker)
    assert heard == [1]


async def test_cancellation_ends_it() -> None:
    """A cancelled coroutine ends its session and stays cancelled."""
    heard: list[Any] = []
    entered = asyncio.Event()

    @pltrack.tracked(on_end=heard.append)
    async def body() -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(heard) == 1


def test_a_returned_stream_belongs_to_the_session_until_it_ends() -> None:
    """A LangChain stream that is returned and read by the caller is gathered; on_end waits for it."""
    heard: list[pltrack.Session] = []

    @pltrack.tracked(on_end=heard.append)
    def answer() -> Any:
        return MODEL.stream("x")

    stream = answer()
    assert heard == []
    assert "".join(str(chunk.content) for chunk in stream) == "four"
    assert len(heard[0].requests) == 1


def test_what_cannot_be_decorated_says_so() -> None:
    """A class, a non-callable and an unknown option are refused when decorating."""
    with pytest.raises(TypeError, match="methods"):
        pltrack.tracked(Thing)
    with pytest.raises(TypeError, match="callable"):
        pltrack.tracked(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="colour"):
        pltrack.tracked(colour="red")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="tags"):
        pltrack.tracked(tags="prod")
