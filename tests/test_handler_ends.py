"""Every way a run can end, and what the handler must not do to anybody."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake import FakeListLLM, FakeStreamingListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tracers.context import collect_runs

import pltrack
from pltrack import PromptLayerCallbackHandler, _handler, pl_session
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
WaitUntil = Callable[[Callable[[], object]], None]


class Breaking(FakeListChatModel):
    """Streams two pieces and fails."""

    responses: list[str] = ["four"]  # noqa: RUF012 -- a pydantic field

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        stream = super()._stream(*args, **kwargs)
        yield next(stream)
        yield next(stream)
        raise ConnectionError("cut")

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        for chunk in list(super()._stream(*args, **kwargs))[:2]:
            yield chunk
        raise ConnectionError("cut")

    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise ConnectionError("cut")


class Slow(FakeListChatModel):
    """Never answers."""

    responses: list[str] = []  # noqa: RUF012 -- a pydantic field

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.Event().wait()


async def test_errors_are_recorded_in_every_way_of_calling(promptlayer: FakePromptLayer) -> None:
    """invoke, ainvoke, stream and astream: an ERROR each, with the words, streams with what had arrived."""
    model = Breaking()
    async with pl_session() as session:
        for call in (lambda: model.invoke("1"), lambda: list(model.stream("2"))):
            with pytest.raises(ConnectionError):
                call()
        with pytest.raises(ConnectionError):
            await model.ainvoke("3")
        with pytest.raises(ConnectionError):
            [_ async for _ in model.astream("4")]
    await pltrack.aflush(10)
    logged = [promptlayer.by_pltrack_id(own).body for own in session.ids]
    assert [each["status"] for each in logged] == ["ERROR"] * 4
    assert {each["error_message"] for each in logged} == {"ConnectionError: cut"}
    said = [[m["content"][0]["text"] for m in each["output"]["messages"]] for each in logged]
    assert said == [[], ["fo"], [], ["fo"]]
    assert session.score(5) == 0
    assert (session.usage.calls, session.usage.errors) == (4, 4)


async def test_a_timeout_inside_a_long_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio.timeout cancels a call, its task goes on: it is recorded soon after the session is left [34]."""
    monkeypatch.setattr(_handler, "_GRACE", 0.01)
    async with pl_session() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Slow().ainvoke("x")
        await MODEL.ainvoke("goes on")
        stream = MODEL.astream("read later")
        await anext(stream)
    async with asyncio.timeout(10):
        while session.requests[0].status is None:
            await asyncio.sleep(0)
    assert [each.status for each in session.requests] == ["WARNING", "SUCCESS", None]
    assert [chunk async for chunk in stream]
    assert [each.status for each in session.requests] == ["WARNING", "SUCCESS", "SUCCESS"]
    with pytest.raises(TimeoutError):
        async with pl_session() as other:
            await asyncio.wait_for(Slow().ainvoke("x"), 0.01)
    assert other.last.status == "WARNING"
    assert not _handler._live


async def test_cancelled_streams_and_completions() -> None:
    """A cancelled astream and a cancelled completion call are warnings."""
    begun = asyncio.Event()

    class SlowStream(FakeListChatModel):
        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
                begun.set()
                await asyncio.Event().wait()

    class SlowCompletion(FakeListLLM):
        async def _acall(self, *args: Any, **kwargs: Any) -> str:
            begun.set()
            await asyncio.Event().wait()
            return ""

    async def read() -> None:
        async for _ in SlowStream(responses=["four"]).astream("x"):
            pass

    async with pl_session() as session:
        for call in (read, lambda: SlowCompletion(responses=[]).ainvoke("x")):
            begun.clear()
            task = asyncio.ensure_future(call())
            await begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert [each.status for each in session.requests] == ["WARNING", "WARNING"]
    assert not _handler._live


async def test_agenerate_with_one_failing_prompt() -> None:
    """Its neighbours are successes, and none is left open [11]."""

    class Picky(FakeListChatModel):
        async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            if "fail" in messages[-1].content:
                raise ConnectionError("x")
            return self._generate(messages)

    async with pl_session() as session:
        with pytest.raises(ConnectionError):
            await Picky(responses=["a"]).agenerate([[HumanMessage(text)] for text in ("one", "fail", "three")])
    assert sorted(str(each.status) for each in session.requests) == ["ERROR", "SUCCESS", "SUCCESS"]
    assert not _handler._live


def test_a_cache_hit_costs_nothing() -> None:
    """It is a request of its own, marked, at a cost of 0 [16]."""
    model = FakeListChatModel(responses=["four"], cache=InMemoryCache())
    with pl_session() as session:
        model.invoke("x")
        model.invoke("x")
    assert [each.outcome.cache_hit for each in session.requests if each.outcome] == [False, True]
    assert session.last.usage.cost in (0, None)


def test_callbacks_without_a_key_get_our_id(wait_until: WaitUntil) -> None:
    """pl_id_callback is called with the id that every verb accepts; one that raises is counted."""
    heard: list[Any] = []

    def failing(own: Any) -> None:
        raise KeyError("mine, in the callback")

    before = pltrack.status().internal_errors
    ours = [PromptLayerCallbackHandler(pl_id_callback=each) for each in (failing, heard.append)]
    with pl_session() as session:
        MODEL.invoke("x", config={"callbacks": ours})
    wait_until(lambda: heard)
    assert heard == list(session.ids)
    assert pltrack.request(heard[0]).score(90) == 1
    assert pltrack.status().internal_errors == before + 1
    with pytest.raises(TypeError, match="pl_id_callback"):
        PromptLayerCallbackHandler(pl_id_callback=5)  # type: ignore[arg-type]


def test_every_explicit_handler_hears_of_the_id_once(promptlayer: FakePromptLayer, wait_until: WaitUntil) -> None:
    """Two handlers with callbacks, given twice: one record with both tags, each callback called once [7]."""
    heard: list[Any] = []
    a = PromptLayerCallbackHandler(lambda own: heard.append(("a", own)), ["a", "both"])
    b = PromptLayerCallbackHandler(lambda own: heard.append(("b", own)), ["b", "both"])
    FakeListChatModel(responses=["x"], callbacks=[a]).invoke("x", config={"callbacks": [a, b, b], "tags": ["c", "a"]})
    wait_until(lambda: len(heard) == 2)
    (logged,) = promptlayer.requests
    assert sorted(heard) == [("a", logged.id), ("b", logged.id)]
    assert sorted(logged.tags) == ["a", "b", "both", "c"]


@pytest.mark.parametrize(
    "where",
    ["messages.snap", "outputs.snap_result", "parameters.snap_parameters", "_finish", "_begin",
     "faults.fault", "Request"],
)  # fmt: skip
async def test_an_internal_failure_never_reaches_the_program(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks in us, calls, streams and their errors are as without us; it is counted; the next call works."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"internal: {where}")

    before = pltrack.status().internal_errors
    with monkeypatch.context() as patched:
        patched.setattr(f"pltrack._handler.{where}", broken)
        async with pl_session() as session:
            assert MODEL.invoke("x").content == "four"
            assert (await MODEL.ainvoke("x")).content == "four"
            assert len(list(MODEL.stream("x"))) >= 4
            assert await FakeListLLM(responses=["four"]).ainvoke("x") == "four"
            with pytest.raises(ConnectionError):
                list(Breaking().stream("x"))
        assert session.usage.errors <= 1
    assert pltrack.status().internal_errors > before
    _handler._live.clear()
    with pl_session() as session:
        MODEL.invoke("x")
    assert session.last.status == "SUCCESS"


def test_an_answer_that_cannot_be_read_is_still_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is recorded without its output."""
    monkeypatch.setattr("pltrack._handler.outputs.snap_result", lambda *_, **__: 1 / 0)
    before = pltrack.status().recorded
    with pl_session() as session:
        MODEL.invoke("x")
    assert pltrack.status().recorded == before + 1
    assert session.score(5) == 1


def test_the_garbage_collector_may_end_a_run_inside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream collected while a record is being made, from any thread: no deadlock, and both are recorded [30]."""
    record = pltrack._runtime.Runtime.record

    def collecting(self: Any, *args: Any) -> None:
        gc.collect()
        record(self, *args)
        gc.collect()

    monkeypatch.setattr(pltrack._runtime.Runtime, "record", collecting)

    def work() -> None:
        with pl_session() as session:
            for _ in range(5):
                stream: Any = MODEL.stream("x")
                next(stream)
                ring: list[Any] = [stream]
                ring.append(ring)
                del stream, ring
                MODEL.invoke("y")
        sessions.append(session)

    sessions: list[pltrack.Session] = []
    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    gc.collect()
    assert [len(each.requests) for each in sessions] == [10, 10, 10]
    assert {each.status for session in sessions for each in session.requests} == {"SUCCESS", "WARNING"}


async def test_events_that_do_not_fit_together() -> None:
    """Ends without a start, second ends, second starts, tokens for nobody, empty results: tolerated."""
    from langchain_core.outputs import LLMResult

    handler, run = PromptLayerCallbackHandler(), uuid.uuid4()
    before = pltrack.status()
    handler.on_llm_end(LLMResult(generations=[]), run_id=run)
    handler.on_llm_error(KeyError("x"), run_id=run)
    handler.on_llm_new_token("x", run_id=run)
    for _ in range(2):
        handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run)
    for result in (LLMResult(generations=[[]]), LLMResult(generations=[])):
        handler.on_llm_end(result, run_id=run)
    handler.on_llm_start(None, ["x"], run_id=run, metadata={"a": object()}, tags=None, invocation_params=None)
    handler.on_llm_end(LLMResult(generations=[]), run_id=run)
    handler.on_chat_model_start(None, [], run_id=run)
    handler.on_llm_error(KeyError("x"), run_id=run, response=LLMResult(generations=[[]]))
    after = pltrack.status()
    assert after.internal_errors == before.internal_errors
    assert after.recorded == before.recorded + 4
    assert not _handler._live


async def test_nothing_grows_with_calls_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that start and never end are bounded, and recorded when they are given up [34]."""
    monkeypatch.setattr(_handler, "_LIVE_MOST", 100)
    monkeypatch.setattr(_handler, "_USED_MOST", 100)
    handler = PromptLayerCallbackHandler()
    before = pltrack.status().recorded
    for _ in range(1000):
        handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=uuid.uuid4())
    assert len(_handler._live) <= 100
    assert pltrack.status().recorded >= before + 900
    monkeypatch.setattr(_handler, "_STALE_AFTER", -1.0)
    monkeypatch.setattr(_handler, "_looked_at", 0.0)
    MODEL.invoke("x", config={"callbacks": [handler]})
    assert not _handler._live
    assert len(_handler._used | _handler._used_before) <= 200


async def test_everybody_elses_events_with_a_completion_model() -> None:
    """astream_events, collect_runs, sync and async handlers: what they hear is what they hear without us. [62]"""

    class Hears(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
            self.heard.append("start")

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            self.heard.append(token)

        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            self.heard.append("end")

    class HearsInline(Hears):
        run_inline = True

    async def hear() -> Any:
        model = FakeStreamingListLLM(responses=["four"])
        mine: list[Hears] = [Hears(), HearsInline()]
        events = [event["event"] async for event in model.astream_events("x", version="v2")]
        with collect_runs() as runs:
            await model.ainvoke("x")
        for handler in mine:
            await model.ainvoke("x", config={"callbacks": [handler]})
            assert [_ async for _ in model.astream("x", config={"callbacks": [handler]})]
        return events, len(runs.traced_runs), [each.heard for each in mine]

    without = await hear()
    async with pl_session() as session, pl_session():
        explicit = PromptLayerCallbackHandler()
        assert await hear() == without
        await MODEL.ainvoke("x", config={"callbacks": [explicit]})
    assert without[0][0] == "on_llm_start"
    assert len(session.requests) == 7
    assert all(each.status == "SUCCESS" for each in session.requests)
