"""Sessions: what they gather, what can be said about it, and where their blocks may be left."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel

import pltrack
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])


def asked(logged: Any) -> str:
    return str(logged.body["input"]["messages"][-1]["content"][0]["text"])


def test_a_session_gathers_every_call_in_it(promptlayer: FakePromptLayer) -> None:
    """Chains, batches, streams and parallel branches are each gathered once, with ids; calls outside are not."""
    chain = ChatPromptTemplate.from_template("{x}") | MODEL | StrOutputParser()
    MODEL.invoke("before")
    with pltrack.pl_session() as session:
        chain.invoke({"x": "chain"})
        chain.batch([{"x": "b1"}, {"x": "b2"}])
        list(chain.stream({"x": "stream"}))
        RunnableParallel(one=chain, two=chain).invoke({"x": "parallel"})
    MODEL.invoke("after")
    assert pltrack.flush(10).pending == 0
    assert len(session.requests) == len(set(session.ids)) == 6
    assert sorted(map(asked, promptlayer.requests)) == ["b1", "b2", "chain", "parallel", "parallel", "stream"]
    assert sorted(session.request_ids) == [logged.id for logged in promptlayer.requests]


async def test_async_calls_are_gathered(promptlayer: FakePromptLayer) -> None:
    """ainvoke, abatch, astream and tasks started in the block belong to it."""
    chain = ChatPromptTemplate.from_template("{x}") | MODEL
    async with pltrack.pl_session() as session:
        await chain.ainvoke({"x": "one"})
        await chain.abatch([{"x": "two"}, {"x": "three"}])
        async for _ in chain.astream({"x": "four"}):
            pass
        await asyncio.gather(chain.ainvoke({"x": "five"}), asyncio.create_task(chain.ainvoke({"x": "six"})))
    assert len(await session.arequest_ids()) == len(promptlayer.requests) == 6


async def test_five_concurrent_sessions_do_not_mix(promptlayer: FakePromptLayer) -> None:
    """Each of five tasks gathers its own calls and nothing of the others."""

    async def one(name: str) -> pltrack.Session:
        async with pltrack.pl_session(name, tags=[name]) as session:
            for _ in range(3):
                await MODEL.ainvoke(name)
                await asyncio.sleep(0)
        return session

    sessions = await asyncio.gather(*(one(f"s{i}") for i in range(5)))
    await pltrack.aflush(10)
    for session in sessions:
        mine = [logged for logged in promptlayer.requests if logged.metadata["session_id"] == session.id]
        assert {logged.metadata["pltrack_id"] for logged in mine} == set(session.ids)
        assert len(mine) == 3
        assert {tuple(logged.tags) for logged in mine} == {(asked(mine[0]),)}


def test_nested_sessions_add_up(promptlayer: FakePromptLayer) -> None:
    """Tags add up, metadata merge with the inner winning, user and conversation are inherited; outer gathers inner."""
    with pltrack.pl_session("o", tags=["a"], metadata={"x": 1, "y": 1}, user="u", conversation="c") as outer:
        MODEL.invoke("first")
        with pltrack.pl_session("i", tags=["b"], metadata={"x": 2}) as inner:
            MODEL.invoke("second")
            assert pltrack.current_session() is inner
        MODEL.invoke("third")
        assert pltrack.current_session() is outer
    assert pltrack.current_session() is None
    assert len(outer.ids) == 3
    assert outer.ids[1:2] == inner.ids
    pltrack.flush(10)
    logged = promptlayer.by_pltrack_id(inner.ids[0])
    assert logged.tags == ["a", "b"]
    said = {key: logged.metadata[key] for key in ("x", "y", "user_id", "conversation_id", "session", "session_id")}
    assert said == {"x": "2", "y": "1", "user_id": "u", "conversation_id": "c", "session": "i", "session_id": inner.id}


def test_nested_sessions_inside_a_chain_record_once(promptlayer: FakePromptLayer) -> None:
    """An outer session, an inner one in a chain and two explicit handlers of ours: one record, everyone's tags [3]."""
    handlers = [pltrack.PromptLayerCallbackHandler(pl_tags=[tag]) for tag in ("h1", "h2")]

    def step(text: str) -> str:
        with pltrack.pl_session(tags=["inner"]) as inner:
            MODEL.invoke(text, config={"callbacks": handlers})
        assert len(inner.requests) == 1
        return inner.id

    with pltrack.pl_session(tags=["outer"]) as outer:
        inner_id = RunnableLambda(step).invoke("hi")
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert len(outer.requests) == 1
    assert logged.metadata["session_id"] == inner_id
    assert set(logged.tags) == {"outer", "inner", "h1", "h2"}


def test_threads_belong_with_attach_or_bind() -> None:
    """A bare thread is not owned; with attach() or bind() it is, also after the block."""
    with pltrack.pl_session() as session, ThreadPoolExecutor(1) as pool:
        pool.submit(MODEL.invoke, "lost").result()
        pool.submit(session.bind(MODEL.invoke), "bound").result()
    with session.attach():
        MODEL.invoke("attached later")
    assert len(session.requests) == 2


async def test_bind_keeps_the_kind_of_a_function() -> None:
    """Coroutines, generators and async generators run attached, step by step [51]."""
    import inspect

    session = pltrack.pl_session()
    with session:
        pass

    async def coroutine() -> str:
        return str((await MODEL.ainvoke("x")).content)

    def generator() -> Iterator[Any]:
        yield MODEL.invoke("x")
        yield pltrack.current_session()

    async def agenerator() -> AsyncIterator[Any]:
        yield await MODEL.ainvoke("x")

    assert inspect.iscoroutinefunction(session.bind(coroutine))
    assert await session.bind(coroutine)() == "four"
    for _ in session.bind(generator)():
        assert pltrack.current_session() is None
    async for _ in session.bind(agenerator)():
        assert pltrack.current_session() is None
    assert len(session.requests) == 3


async def test_a_followed_stream_belongs_to_the_session_wherever_it_is_read() -> None:
    """A stream made in the block and first read after it is gathered through follow(), sync and async."""
    with pltrack.pl_session() as session:
        lost = MODEL.stream("lost")
        sync = session.follow(MODEL.stream("sync"))
        later = session.follow(MODEL.astream("async"))
    list(lost)
    assert "".join(str(chunk.content) for chunk in sync) == "four"
    assert [chunk async for chunk in later]
    assert len(session.requests) == 2


def test_a_block_can_be_left_anywhere() -> None:
    """A block entered here and left in another thread or context raises nothing, and is not current afterwards."""
    session = pltrack.pl_session()
    contextvars.copy_context().run(session.__enter__)
    thread = threading.Thread(target=session.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    again = pltrack.pl_session()
    again.__enter__()
    context = contextvars.copy_context()
    context.run(again.__exit__, None, None, None)
    assert pltrack.current_session() is None
    again.__exit__(None, None, None)


def test_blocks_left_out_of_order_do_not_bring_a_closed_one_back() -> None:
    """a enter, b enter, a exit, b exit: afterwards nothing is current [39]."""
    a, b = pltrack.pl_session("a"), pltrack.pl_session("b")
    a.__enter__()
    b.__enter__()
    a.__exit__(None, None, None)
    assert pltrack.current_session() is b
    b.__exit__(None, None, None)
    assert pltrack.current_session() is None


def test_an_exception_keeps_what_was_collected_and_passes() -> None:
    """The error is the same object, and the session can still be scored."""
    error = KeyError("boom")
    with pytest.raises(KeyError) as caught, pltrack.pl_session() as session:  # noqa: PT012 -- the call comes first
        MODEL.invoke("x")
        raise error
    assert caught.value is error
    assert session.score(10) == 1


def test_headers_carry_a_session() -> None:
    """from_headers joins the same session; only what was asked for travels besides."""
    with pltrack.pl_session("web", tags=["t"], metadata={"k": "v"}, user="u") as session:
        bare, full = session.headers(), session.headers(include={"tags", "metadata", "user"})
    joined = pltrack.pl_session.from_headers(bare)
    with joined:
        assert (joined.id, joined.scope.tags, joined.scope.user) == (session.id, (), None)
    with pltrack.pl_session.from_headers({key.upper(): value for key, value in full.items()}) as joined:
        assert (joined.id, joined.scope.tags, joined.scope.user) == (session.id, ("t",), "u")
        assert joined.scope.metadata == {"k": "v"}


def test_signed_headers_join_only_when_the_signature_holds() -> None:
    """With a secret, unsigned and altered headers join nothing."""
    pltrack.configure(secret="s3cret")
    with pltrack.pl_session() as session:
        headers = session.headers()
    (name,) = headers
    assert pltrack.pl_session.from_headers(headers).id == session.id
    for bad in (headers[name].rsplit(";", 1)[0], headers[name][:-1] + "x", "a;b;1;", ";;;;", "\x00", "x" * 9000):
        assert pltrack.pl_session.from_headers({name: bad}).id != session.id


@pytest.mark.parametrize("value", [True, 5.0, "90", None, [1]])
def test_a_score_is_a_whole_number(value: Any) -> None:
    """bool, float and text are refused, naming the argument."""
    with pytest.raises(TypeError, match="score"):
        pltrack.pl_session().score(value)


def test_argument_errors_come_at_once() -> None:
    """Each verb and option says which argument, what came and what is allowed."""
    session = pltrack.pl_session()
    for call, error, words in [
        (lambda: session.score(101), ValueError, "0 to 100"),
        (lambda: session.score(1, name=""), ValueError, "name"),
        (lambda: session.score(1, on="first"), ValueError, "on"),
        (lambda: session.metadata({"a": {}}), TypeError, "'a'"),
        (lambda: session.metadata({1: "x"}), TypeError, "keys"),
        (lambda: session.metadata([1]), TypeError, "mapping"),
        (lambda: session.link_prompt("p", version=1, label="x"), ValueError, "not both"),
        (lambda: session.link_prompt("p", version=0), ValueError, "version"),
        (lambda: session.link_prompt(5), TypeError, "name"),
        (lambda: pltrack.pl_session(tags="prod"), TypeError, "tags"),
        (lambda: pltrack.pl_session(metadata={"a": []}), TypeError, "metadata"),
        (lambda: pltrack.pl_session(user=5), TypeError, "user"),
        (lambda: pltrack.pl_session(capture="half"), ValueError, "capture"),
        (lambda: pltrack.request(""), TypeError, "id"),
        (lambda: pltrack.request(True), TypeError, "id"),
        (lambda: pltrack.request(0), ValueError, "positive"),
        (lambda: pltrack.session("x").__enter__(), TypeError, "did you mean pl_session"),
        (lambda: pltrack.PromptLayerCallbackHandler(pl_tags="x"), TypeError, "pl_tags"),
        (lambda: pltrack.flush(-1), ValueError, "timeout"),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_metadata_values_become_text_and_none_drops_a_key() -> None:
    """Scalars of any kind are turned to text."""
    from pltrack._checks import metadata_payload

    assert metadata_payload({"a": 1, "b": None, "c": True, "d": 1.5}, {"e": "x"}) == {
        "metadata": {"a": "1", "c": "True", "d": "1.5", "e": "x"}
    }


def test_verbs_count_what_they_speak_about() -> None:
    """score counts answered requests, on= chooses, the last of nothing is a request that does nothing."""

    class Failing(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            raise ValueError("no")

    empty = pltrack.pl_session()
    assert (empty.last.score(5), empty.last.metadata(a=1), empty.score(5), empty.last.request_id) == (0, 0, 0, None)
    with pltrack.pl_session() as session:
        MODEL.invoke("one")
        with pytest.raises(ValueError, match="no"):
            Failing(responses=[]).invoke("two")
        MODEL.invoke("three")
        assert (session.score(1), session.metadata(a=1), session.link_prompt("p", version=1)) == (2, 3, 2)
        assert session.score(1, on="last") == session.last.score(1) == 1
        assert session.score(1, on=lambda each: each.id == session.ids[0]) == 1
    assert (session.usage.calls, session.usage.errors) == (3, 1)


def test_reprs_show_no_content() -> None:
    """repr shows ids and counts only."""
    with pltrack.pl_session("private name", metadata={"k": "private"}, api_key="pl_private") as session:
        MODEL.invoke("private question")
    assert "private" not in repr(session) + repr(session.last) + repr(session.requests)


def test_an_unsampled_session_records_nothing() -> None:
    """sample_rate=0: handles work, nothing is recorded, verbs speak about nothing."""
    before = pltrack.status().recorded
    pltrack.configure(sample_rate=0)
    with pltrack.pl_session() as session:
        MODEL.invoke("x")
    assert (len(session.ids), session.score(5), session.request_ids) == (1, 0, ())
    assert pltrack.status().recorded == before


def test_an_own_id_is_kept(promptlayer: FakePromptLayer) -> None:
    """pl_session(id=) is the id that PromptLayer sees and that pltrack.session finds."""
    with pltrack.pl_session(id="req-8f3"):
        MODEL.invoke("x")
    pltrack.flush(10)
    assert promptlayer.requests[0].metadata["session_id"] == "req-8f3"


def test_disabled_is_a_no_op_with_the_same_faces() -> None:
    """enabled=False: nothing is gathered; enabling again works."""
    pltrack.configure(enabled=False)
    with pltrack.pl_session() as session:
        MODEL.invoke("x", config={"callbacks": [pltrack.PromptLayerCallbackHandler(pl_tags=["x"])]})
    assert (session.ids, session.request_ids, session.score(1)) == ((), (), 0)
    pltrack.configure(enabled=True)
    with pltrack.pl_session() as session:
        MODEL.invoke("x")
    assert len(session.ids) == 1
