"""`@tracked`: what a decorated function still is, and what its session gathers."""

from __future__ import annotations

import asyncio
import contextlib
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
from pltrack.testing import FakePromptLayer

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
    """Signature, kind, name, docstring, module and annotations are those of the function, three times over."""
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


# -- generators -----------------------------------------------------------------------------------------------


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
    """asend and athrow arrive at the yield; contextvars pass both ways; the end ends the session."""
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
    """Given up half-way, its awaiting `finally` runs as without us, and the loop has nothing to complain of."""

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
    """Methods, class and static methods (either order) and properties work from instances and from classes."""
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


# -- sessions -------------------------------------------------------------------------------------------------


def test_a_call_is_a_session(promptlayer: FakePromptLayer) -> None:
    """Bare, with brackets, with a name and with options: name, tags, metadata, user and conversation arrive."""

    def ask() -> None:
        MODEL.invoke("x")

    tracked(ask)()
    tracked()(ask)()
    tracked("titled")(ask)()
    tracked(name="named", tags=["t"], metadata={"k": 1}, user="u", conversation="c")(ask)()
    pltrack.flush(10)
    first, second, third, fourth = (logged.metadata for logged in promptlayer.requests)
    assert first["session"] == second["session"] == "test_a_call_is_a_session.<locals>.ask"
    assert (third["session"], fourth["session"]) == ("titled", "named")
    assert first["session_id"] != second["session_id"]
    assert (fourth["k"], fourth["user_id"], fourth["conversation_id"]) == ("1", "u", "c")
    assert promptlayer.requests[3].tags == ["t"]


def test_decorating_three_times_records_once() -> None:
    """Three decorators are three nested sessions with one record, whose tags add up."""

    @tracked(tags=["a"], on_end=ended.append)
    @tracked(tags=["b"], on_end=ended.append)
    @tracked(tags=["c"], on_end=ended.append)
    def ask() -> None:
        MODEL.invoke("x")

    before = pltrack.status().recorded
    ask()
    assert pltrack.status().recorded == before + 1
    assert [len(each.requests) for each in ended] == [1, 1, 1]
    assert [each.scope.tags for each in ended] == [("a", "b", "c"), ("a", "b"), ("a",)]


def test_a_tracked_function_is_nested_in_the_session_around_it() -> None:
    """The session around gathers its calls; a call of itself is a session in a session."""

    @following
    def descends(depth: int) -> None:
        MODEL.invoke("x")
        if depth:
            descends(depth - 1)

    with pltrack.pl_session(tags=["outer"]) as outer:
        descends(3)
    assert len(outer.requests) == 4
    assert [len(each.requests) for each in ended] == [1, 2, 3, 4]
    assert all(each.scope.tags == ("outer",) and each.scope.root == outer.id for each in ended)


def test_tags_and_metadata_may_be_computed_from_the_call() -> None:
    """They get the bound arguments with defaults by keyword; what **kwargs took is among them."""

    @tracked(
        tags=lambda language, **_: [language],
        metadata=lambda question, depth, extra, **_: {"len": len(question), "depth": depth, "extra": extra},
        on_end=ended.append,
    )
    def answer(question: str, language: str, depth: int = 3, **more: Any) -> str:
        return question

    assert answer("hello", language="en", extra="e") == "hello"
    with pltrack.pl_session():
        pass
    assert ended[0]._tags == ("en",)
    assert ended[0]._metadata == {"len": "5", "depth": "3", "extra": "e"}


def test_a_failing_computation_costs_only_itself() -> None:
    """Tags or metadata that fail or are refused never break the call, nor the other; each is counted."""

    def broken(**_: Any) -> Any:
        raise KeyError("broken")

    before = pltrack.status().internal_errors

    @tracked(tags=["fixed"], metadata=broken, on_end=ended.append)
    @tracked(tags=broken, metadata=lambda **_: {"a": 1}, on_end=ended.append)
    @tracked(tags=lambda **_: "text", metadata=lambda **_: {"a": []}, on_end=ended.append)
    def answer(question: str) -> str:
        return question

    assert answer("q") == "q"
    assert [(each._tags, each._metadata) for each in ended] == [((), {}), ((), {"a": "1"}), (("fixed",), {})]
    assert pltrack.status().internal_errors == before + 4
    with pytest.raises(TypeError, match="answer"):
        answer()


def test_on_end_that_fails_does_not_reach_the_program() -> None:
    """It is counted."""

    def broken(session: pltrack.Session) -> None:
        raise KeyError("broken on_end")

    before = pltrack.status().internal_errors
    assert tracked(on_end=broken)(lambda: 5)() == 5
    assert pltrack.status().internal_errors == before + 1


def test_arguments_are_checked_when_a_function_is_decorated() -> None:
    """What pl_session would refuse is refused at once."""
    for options, error in [
        ({"tags": "prod"}, TypeError),
        ({"metadata": {"a": []}}, TypeError),
        ({"on_end": 5}, TypeError),
        ({"id": "mine"}, TypeError),
        ({"user": 5}, TypeError),
        ({"capture": "half"}, ValueError),
        ({"unknown": 1}, TypeError),
    ]:
        with pytest.raises(error):
            tracked(**options)  # type: ignore[call-overload]


async def test_a_returned_stream_belongs_to_the_session_until_it_ends() -> None:
    """A LangChain stream that a function returns is gathered where it is read; on_end comes after it."""

    @following
    def ask() -> Any:
        return MODEL.stream("x")

    @following
    async def ask_async() -> Any:
        return MODEL.astream("x")

    @following
    def ask_later() -> Any:
        return MODEL.ainvoke("x")

    stream = ask()
    assert next(stream).content == "f"
    assert pltrack.current_session() is None
    assert not ended
    assert "".join(chunk.content for chunk in stream) == "our"
    astream = await ask_async()
    assert [chunk.content async for chunk in astream][:4] == list("four")
    assert (await ask_later()).content == "four"
    assert [len(each.requests) for each in ended] == [1, 1, 1]
    assert ended[0].last.status == "SUCCESS"


def test_a_session_opened_in_a_generator_stays_inside_it() -> None:
    """Between its steps the reader's calls are the reader's; at the next step the inner session is current again."""

    @following
    def steps() -> Iterator[Any]:
        with pltrack.pl_session("inner") as inner:
            yield MODEL.invoke("one")
            assert pltrack.current_session() is inner
            yield MODEL.invoke("two")
        inners.append(inner)
        yield MODEL.invoke("three")

    inners: list[pltrack.Session] = []
    with pltrack.pl_session("reader") as reader:
        for _ in steps():
            assert pltrack.current_session() is reader
            MODEL.invoke("mine")
    assert len(inners[0].requests) == 2
    assert len(ended[0].requests) == 3
    assert len(reader.requests) == 6


async def test_steps_of_an_async_generator_may_be_read_in_different_tasks() -> None:
    """Each step runs in the session, whichever task asks for it; nothing is left current there."""

    @following
    async def steps() -> AsyncIterator[Any]:
        for word in ("one", "two", "three"):
            yield await MODEL.ainvoke(word)

    stream = steps()

    async def read() -> Any:
        answer = await anext(stream, None)
        assert pltrack.current_session() is None
        return answer

    while await asyncio.create_task(read()):
        pass
    assert len(ended[0].requests) == 3


async def test_disabled_functions_behave_the_same() -> None:
    """enabled=False: values, streams and errors pass, nothing is gathered."""
    pltrack.configure(enabled=False)
    assert tracked(plain)("q") == ("q", (), "t", {})
    assert await tracked(coroutine)(3) == 3
    assert list(tracked(generator)(3)) == [3]
    assert [x async for x in tracked(agenerator)(3)] == [3]
    assert following(lambda: MODEL.invoke("x"))().content == "four"
    assert ended[0].requests == ()
