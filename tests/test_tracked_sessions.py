"""`@tracked`: each call is a session, and what is gathered in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from wire import in_call_order

import pltrack
from pltrack import tracked
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])

ended: list[pltrack.Session] = []


@pytest.fixture(autouse=True)
def _nothing_ended_yet() -> None:
    ended.clear()


def following(function: Callable[..., Any]) -> Any:
    return tracked(on_end=ended.append)(function)


def test_a_call_is_a_session(promptlayer: FakePromptLayer) -> None:
    """Bare, with brackets, with a name and with options: name, tags, metadata, user and conversation arrive."""

    def ask() -> None:
        MODEL.invoke("x")

    tracked(ask)()
    tracked()(ask)()
    tracked("titled")(ask)()
    tracked(name="named", tags=["t"], metadata={"k": 1}, user="u", conversation="c")(ask)()
    pltrack.flush(10)
    logged = in_call_order(promptlayer)
    first, second, third, fourth = (each.metadata for each in logged)
    assert first["session"] == second["session"] == "test_a_call_is_a_session.<locals>.ask"
    assert (third["session"], fourth["session"]) == ("titled", "named")
    assert first["session_id"] != second["session_id"]
    assert (fourth["k"], fourth["user_id"], fourth["conversation_id"]) == ("1", "u", "c")
    assert logged[3].tags == ["t"]


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
    """A LangChain stream that a function returns is gathered where it is read; on_end comes after it [26]."""

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
    """Between its steps the reader's calls are the reader's; at the next step the inner one is current again [38]."""

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
