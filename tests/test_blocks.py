"""Where a session's blocks may be entered and left, and whose the calls are then."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from programs import environment, run

import pltrack
from pltrack import current_session, pl_session
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])


def in_thread(function: Callable[..., Any], *args: Any) -> None:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join(10)


def test_a_block_left_in_another_thread_gathers_no_more() -> None:
    """Where it was entered it is no longer current: calls there belong to the session around it, or to none [40]."""

    def body() -> None:
        with pl_session() as outer:
            inner = pl_session()
            inner.__enter__()
            in_thread(inner.__exit__, None, None, None)
            assert current_session() is outer
            MODEL.invoke("x")
            RunnableLambda(lambda _: MODEL.invoke("y")).invoke("")
            assert (len(outer.requests), len(inner.requests)) == (2, 0)
        lost = pl_session()
        lost.__enter__()
        contextvars.copy_context().run(lost.__exit__, None, None, None)
        before = pltrack.status().recorded
        MODEL.invoke("z")
        assert (pltrack.status().recorded, lost.requests) == (before, ())

    contextvars.copy_context().run(body)


async def test_a_block_entered_in_one_task_and_left_in_another() -> None:
    """Calls between are gathered, nothing raises, and nothing is current afterwards [40]."""
    session = pl_session()

    async def enter() -> None:
        await session.__aenter__()
        await MODEL.ainvoke("x")

    async def leave() -> None:
        await session.__aexit__(None, None, None)
        await session.__aexit__(None, None, None)

    await asyncio.create_task(enter())
    await asyncio.create_task(leave())
    assert current_session() is None
    assert len(session.requests) == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_blocks_left_in_any_order(order: tuple[int, ...]) -> None:
    """Always the innermost one that is still open is current, and it alone gathers [39]."""
    sessions = [pl_session(str(i)) for i in range(3)]
    for session in sessions:
        session.__enter__()
    still = list(sessions)
    for i in order:
        sessions[i].__exit__(None, None, None)
        still.remove(sessions[i])
        assert current_session() is (still[-1] if still else None)
        counts = [len(each.requests) for each in sessions]
        MODEL.invoke("x")
        if still:
            assert len(still[-1].requests) == counts[sessions.index(still[-1])] + 1
        else:
            assert [len(each.requests) for each in sessions] == counts


async def test_one_session_entered_twice_at_once() -> None:
    """Two tasks in the same session: the one that leaves first does not close the other's block."""
    session = pl_session()
    left = asyncio.Event()

    async def first() -> None:
        async with session:
            await asyncio.sleep(0)
        left.set()

    async def second() -> None:
        async with session:
            await left.wait()
            assert current_session() is session
            await MODEL.ainvoke("x")

    for pair in ((first, second), (second, first)):
        left.clear()
        await asyncio.gather(*(each() for each in pair))
    assert len(session.requests) == 2
    with session, session, session.attach() as attached, attached:
        MODEL.invoke("y")
    assert current_session() is None
    assert len(session.requests) == 3


async def test_an_async_generator_that_holds_a_block() -> None:
    """Exhausted, broken off, closed from another task, collected or cancelled: nothing raises or stays current [40]."""

    async def steps() -> AsyncIterator[Any]:
        with pl_session() as session:
            sessions.append(session)
            for _ in range(2):
                yield await MODEL.ainvoke("x")
            await asyncio.Event().wait()

    async def use(how: str) -> None:
        stream: Any = steps()
        await anext(stream)
        if how == "close":
            await stream.aclose()
        elif how == "task":
            await asyncio.create_task(stream.aclose())
        elif how == "cancel":
            await anext(stream)
            task = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            del stream
            gc.collect()
            for _ in range(10):  # the loop closes it in a task of its own
                await asyncio.sleep(0)
        assert current_session() is None
        await MODEL.ainvoke("mine")

    sessions: list[pltrack.Session] = []
    for how in ("close", "task", "cancel", "collect"):
        await asyncio.create_task(use(how))
    assert [len(each.requests) for each in sessions] == [1, 1, 2, 1]


def test_a_sync_generator_that_holds_a_block_and_is_closed_in_a_thread() -> None:
    """Nothing raises, and the reader's later calls are not charged to it [40]."""

    def steps() -> Iterator[Any]:
        with pl_session() as session:
            yield session

    def body() -> None:
        stream: Any = steps()
        session = next(stream)
        in_thread(stream.close)
        MODEL.invoke("mine")
        assert session.requests == ()
        assert current_session() is None

    contextvars.copy_context().run(body)


async def test_a_task_that_outlives_its_block_is_still_gathered() -> None:
    """What was started inside belongs to the session, though it ends later [37]."""
    go = asyncio.Event()

    async def later() -> None:
        await go.wait()
        await MODEL.ainvoke("x")

    async with pl_session() as session:
        task = asyncio.create_task(later())
    go.set()
    await task
    assert len(session.requests) == 1


def test_an_attached_session_inside_another_owns_its_calls() -> None:
    """Both gather what is called inside both, chain or not; the record is the inner one's."""
    mine = pl_session("mine", tags=["mine"])
    with pl_session("around", tags=["around"]) as around:

        def step(text: str) -> Any:
            with mine.attach():
                return MODEL.invoke(text)

        def direct() -> None:
            with mine.attach():
                MODEL.invoke("x")

        fresh = contextvars.Context()
        fresh.run(mine.__enter__)  # settled elsewhere: not nested in `around`
        fresh.run(mine.__exit__, None, None, None)
        direct()
        RunnableLambda(step).invoke("y")
    assert (len(mine.requests), len(around.requests)) == (2, 2)
    assert mine.ids == around.ids


def test_threads() -> None:
    """Pools and bare threads are the session's with attach or bind, and with copied contexts [36]."""

    def nested() -> None:
        with pl_session() as inner:
            MODEL.invoke("x")
        assert len(inner.requests) == 1
        MODEL.invoke("y")
        raise KeyError("in the worker")

    with pl_session() as session, ThreadPoolExecutor(4) as pool:
        with pytest.raises(KeyError):
            pool.submit(session.bind(nested)).result()
        assert current_session() is session
        list(pool.map(session.bind(MODEL.invoke), ["a"] * 20))
        list(pool.map(lambda text: MODEL.invoke(text), ["lost"] * 2))
        pool.submit(contextvars.copy_context().run, MODEL.invoke, "kept").result()
    assert len(session.requests) == 2 + 20 + 1


async def test_loops() -> None:
    """to_thread, call_soon, gather and TaskGroup keep the session; run_in_executor needs bind [36]."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    async with pl_session() as session:
        await asyncio.to_thread(MODEL.invoke, "1")
        loop.call_soon(lambda: done.set_result(MODEL.invoke("2")))
        await done
        async with asyncio.TaskGroup() as group:
            group.create_task(MODEL.ainvoke("3"))
            group.create_task(MODEL.ainvoke("4"))
        with ThreadPoolExecutor(1) as pool:
            await loop.run_in_executor(pool, MODEL.invoke, "lost")
            await loop.run_in_executor(pool, session.bind(MODEL.invoke), "5")
    assert len(session.requests) == 5


def test_many_threads_open_their_first_session_at_once(tmp_path: Path) -> None:
    """In a fresh process, none of their calls is missed."""
    program = """
        start, counts = threading.Barrier(8), []
        def work():
            start.wait()
            with pltrack.pl_session() as session:
                model.invoke("x")
            counts.append(len(session.requests))
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(counts, pltrack.status().hook_ok)
    """
    assert run(program, environment(tmp_path / "j.db")).strip() == f"{[1] * 8} True"


async def test_followed_streams_that_are_given_up() -> None:
    """A followed stream broken off, closed or never read leaves nothing current and is recorded as far as it came."""
    with pl_session() as session:
        sync, asynchronous = session.follow(MODEL.stream("x")), session.follow(MODEL.astream("x"))
        session.follow(MODEL.stream("never read"))
        items = session.follow([1, 2])
    assert next(sync).content == "f"
    sync.close()
    assert (await anext(asynchronous)).content == "f"
    await asynchronous.aclose()
    assert list(items) == [1, 2]
    assert [each.status for each in session.requests] == ["WARNING", "WARNING"]
    assert current_session() is None
    with pytest.raises(TypeError, match="stream"):
        session.follow(5)
    with pytest.raises(TypeError, match="function"):
        session.bind(5)  # type: ignore[type-var]


def test_a_stream_started_inside_and_finished_after() -> None:
    """It is the session's; one that is never read is no request [26]."""
    with pl_session() as session:
        stream = MODEL.stream("x")
        MODEL.stream("never")
        next(stream)
    list(stream)
    assert [each.status for each in session.requests] == ["SUCCESS"]


def test_a_session_with_a_key_of_its_own(tmp_path: Path) -> None:
    """Its calls go to that workspace, those of a session inside it too, unless that has one of its own."""
    with FakePromptLayer(api_keys={"pl_a", "pl_b", "pl_c"}) as server:
        pltrack.configure(api_key="pl_a", base_url=server.url, journal=tmp_path / "j.db", delivery="background")
        MODEL.invoke("x", config={"callbacks": [pltrack.PromptLayerCallbackHandler()]})
        with pl_session(api_key="pl_b") as b:
            with pl_session():
                MODEL.invoke("x")
            with pl_session(api_key="pl_c") as c:
                MODEL.invoke("x")
                assert c.score(70) == 1
        assert pltrack.flush(10).pending == 0
        assert sorted(each.api_key for each in server.requests) == ["pl_a", "pl_b", "pl_c"]
        assert server.by_pltrack_id(c.ids[0]).scores == {"default": 70}
        assert len(b.request_ids) == 2


def test_a_key_that_cannot_be_one_is_refused_and_not_shown() -> None:
    """Blanks around it are taken away, an empty one is none, and what no header can hold is a ValueError."""
    assert pl_session(api_key=" pl_x\n")._api_key == "pl_x"
    with pl_session(api_key="  ") as session:
        assert session.scope.destination == ""
    for bad in ("pl_\nsecret", "pl_\ud800secret", "pl_ésecret"):
        with pytest.raises(ValueError, match="api_key") as caught:
            pl_session(api_key=bad)
        assert "secret" not in str(caught.value)


def test_the_same_decision_everywhere() -> None:
    """With a rate between, the outermost session's id decides: nested sessions and other processes follow."""
    pltrack.configure(sample_rate=0.5)
    decisions = {}
    for i in range(200):
        with pl_session(id=f"s{i}") as outer, pl_session() as inner:
            assert inner.sampled is outer.sampled
        decisions[outer.id] = outer.sampled
    assert 60 < sum(decisions.values()) < 140
    for own, sampled in decisions.items():
        with pl_session(id=own) as again:
            assert again.sampled is sampled


def test_numbers_of_any_kind_are_scores() -> None:
    """Whatever has __index__ is one, numpy's integers too; numpy's floats and booleans are not."""
    import numpy

    with pl_session() as session:
        MODEL.invoke("x")
    assert session.score(numpy.int64(90)) == session.last.score(numpy.uint8(5)) == 1
    for refused in (numpy.float64(5), numpy.bool_(True), numpy.float32(1)):
        with pytest.raises(TypeError, match="score"):
            session.score(refused)


def test_hostile_words_break_nothing(promptlayer: FakePromptLayer) -> None:
    """Lone surrogates, zero bytes and huge texts in names, tags, metadata and messages are delivered somehow."""
    odd = "a\ud800b\x00c\r\n" + "x" * 400
    with pl_session(odd, tags=[odd], metadata={odd: odd}, user=odd, conversation=odd) as session:
        MODEL.invoke(odd)
        assert session.score(5, name=odd) == session.metadata({odd: odd}) == 1
    assert pltrack.flush(10).failed == 0
    assert len(promptlayer.requests) == 1
    assert pl_session.from_headers(session.headers({"tags", "metadata", "user", "name"})).id == session.id
    for bad in ("a\0", "a\ud800"):
        with pytest.raises(ValueError, match="id"):
            pl_session(id=bad)


def test_disabled_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """PLTRACK_DISABLED wins over configure(enabled=True); every face works and does nothing."""
    monkeypatch.setenv("PLTRACK_DISABLED", "1")
    pltrack.configure(enabled=True, api_key="pl_x")
    with pl_session(tags=["x"]) as session, session.attach(), session:
        MODEL.invoke("x")
        assert current_session() is None
        list(session.follow(MODEL.stream("x")))
        session.bind(MODEL.invoke)("x")
    assert (session.requests, session.score(5), session.metadata(a=1), session.link_prompt("p")) == ((), 0, 0, 0)
    assert (session.last.score(5), session.wait(5), session.request_ids, session.usage.calls) == (0, {}, (), 0)
    assert pltrack.request("x").score(5) == 0
    assert set(session.headers()) == {"x-pltrack-session"}
    assert pltrack.flush(5) == pltrack.FlushResult(0, 0, 0)
    with pytest.raises(TypeError):
        session.score("90")  # type: ignore[arg-type]


def test_enabled_and_disabled_in_each_other() -> None:
    """A block entered while one held is left properly while the other holds."""
    a, b = pl_session("a"), pl_session("b")
    with a:
        pltrack.configure(enabled=False)
        with b:
            MODEL.invoke("unseen")
            pltrack.configure(enabled=True)
            MODEL.invoke("a's")
        assert current_session() is a
        pltrack.configure(enabled=False)
    assert current_session() is None
    pltrack.configure(enabled=True)
    MODEL.invoke("nobody's")
    assert (len(a.requests), len(b.requests)) == (1, 0)
