"""The handler: one record per run, every way a run can end, and nobody else's events disturbed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from wire import in_call_order

import pltrack
from pltrack import _handler
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])


class Slow(FakeListChatModel):
    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.Event().wait()


class Picky(FakeListChatModel):
    """Fails on a prompt that says so."""

    def _call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
        if "fail" in str(messages[-1].content):
            raise ConnectionError("Rate limit sk-proj-abcdefghijklmnopqrstuvwx")
        return "fine"


class Several(FakeListChatModel):
    """Answers with three candidates."""

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        usage = {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}
        said = [AIMessage(f"answer {i}", usage_metadata=usage) for i in range(3)]
        return ChatResult(generations=[ChatGeneration(message=each) for each in said])


def answers(logged: Any) -> list[str]:
    return [each["content"][0]["text"] for each in logged.body["output"]["messages"] if each["content"]]


async def test_a_graph_and_an_agent_are_gathered_once(promptlayer: FakePromptLayer) -> None:
    """A LangGraph graph (sync and async) and a create_agent agent with a tool: every LLM call once, with ids."""
    from langchain.agents import create_agent
    from langgraph.graph import START, StateGraph

    class State(TypedDict):
        said: str

    def node(state: State) -> Any:
        return {"said": MODEL.invoke(state["said"]).content}

    async def anode(state: State) -> Any:
        return {"said": (await MODEL.ainvoke(state["said"])).content}

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    class Agent(GenericFakeChatModel):
        def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
            return self

    call = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "call_1"}])
    agent: Any = create_agent(Agent(messages=iter([call, AIMessage("three")])), tools=[add])
    sync, asynchronous = StateGraph(State), StateGraph(State)
    for graph, each in ((sync, node), (asynchronous, anode)):
        graph.add_node("n", each)
        graph.add_edge(START, "n")
    async with pltrack.pl_session() as session:
        sync.compile().invoke({"said": "sync"})
        await asynchronous.compile().ainvoke({"said": "async"})
        agent.invoke({"messages": [HumanMessage("1 + 2?")]})
    ids = await session.arequest_ids()
    assert len(session.requests) == len(set(ids)) == len(promptlayer.requests) == 4
    last = in_call_order(promptlayer)[-1].body["input"]["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "tool"]
    assert last[1]["tool_calls"][0]["function"]["name"] == "add"


def test_candidates_are_all_kept_and_usage_counted_once(promptlayer: FakePromptLayer) -> None:
    """n>1: one record with every candidate; the repeated usage counts once [13]."""
    with pltrack.pl_session() as session:
        Several(responses=[]).invoke("x")
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert answers(logged) == ["answer 0", "answer 1", "answer 2"]
    assert (logged.body["input_tokens"], logged.body["output_tokens"]) == (5, 9)
    assert (session.usage.input_tokens, session.usage.output_tokens) == (5, 9)


def test_an_error_is_recorded_with_its_words_but_no_secret(promptlayer: FakePromptLayer) -> None:
    """A failed call is an ERROR record without output."""
    with pltrack.pl_session(), pytest.raises(ConnectionError):
        Picky(responses=[]).invoke("please fail")
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert (logged.body["status"], logged.body["output"]["messages"]) == ("ERROR", [])
    assert logged.body["error_message"] == "ConnectionError: Rate limit [redacted]"


def test_a_failing_neighbour_does_not_hide_the_others(promptlayer: FakePromptLayer) -> None:
    """generate() with three prompts of which one fails: three records, none left open [11]."""
    with pltrack.pl_session() as session, pytest.raises(ConnectionError):
        Picky(responses=[]).generate([[HumanMessage(text)] for text in ("one", "fail", "three")])
    pltrack.flush(10)
    assert len(session.requests) == len(promptlayer.requests) == 3
    assert sorted(logged.body["status"] for logged in promptlayer.requests) == ["ERROR", "WARNING", "WARNING"]
    assert not _handler._live


async def test_a_cancelled_call_is_recorded(promptlayer: FakePromptLayer) -> None:
    """A cancelled ainvoke, for which LangChain reports no end, becomes a WARNING record [34]."""
    async with pltrack.pl_session() as session:
        task = asyncio.create_task(Slow(responses=[]).ainvoke("x"))
        while not session.requests:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await pltrack.aflush(10)
    (logged,) = promptlayer.requests
    assert (logged.body["status"], logged.body["error_type"]) == ("WARNING", "PROVIDER_PARTIAL_RESPONSE")
    assert not _handler._live


def test_an_abandoned_stream_keeps_what_had_arrived(promptlayer: FakePromptLayer) -> None:
    """break in a stream: a WARNING record with the partial text and the time to the first token."""
    with pltrack.pl_session() as session:
        for _ in FakeListChatModel(responses=["abcdef"]).stream("x"):
            break
        gc.collect()
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert logged.body["status"] == "WARNING"
    assert answers(logged) == ["a"]
    assert session.usage.first_token_seconds is not None


async def test_completion_models_on_the_async_path(promptlayer: FakePromptLayer) -> None:
    """ainvoke of a completion model is recorded whole."""
    async with pltrack.pl_session():
        await FakeListLLM(responses=["done"]).ainvoke("x")
    await pltrack.aflush(10)
    (logged,) = promptlayer.requests
    assert logged.body["status"] == "SUCCESS"
    assert logged.body["input"]["content"][0]["text"] == "x"
    assert logged.body["output"]["content"][0]["text"] == "done"


def test_a_run_id_given_twice_is_two_requests(promptlayer: FakePromptLayer) -> None:
    """A user's own run_id used again does not overwrite or lose a record [21]."""
    run_id = uuid.uuid4()
    with pltrack.pl_session() as session:
        for _ in range(2):
            MODEL.invoke("x", config={"run_id": run_id})
    pltrack.flush(10)
    assert len(set(session.ids)) == len(promptlayer.requests) == 2
    assert session.ids[0] == str(run_id)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_other_handlers_get_every_event(asynchronous: bool) -> None:
    """A user's async or sync handler hears start and end of a completion model with a session open."""
    heard: list[str] = []

    class Sync(BaseCallbackHandler):
        def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
            heard.append("start")

        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            heard.append("end")

    class Async(AsyncCallbackHandler):
        async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
            heard.append("start")

        async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            heard.append("end")

    mine = Async() if asynchronous else Sync()
    async with pltrack.pl_session() as session:
        await FakeListLLM(responses=["x"]).ainvoke("x", config={"callbacks": [mine]})
        events = [e["event"] async for e in FakeListLLM(responses=["x"]).astream_events("x", version="v2")]
    assert heard == ["start", "end"]
    assert (events[0], events[-1]) == ("on_llm_start", "on_llm_end")
    assert len(session.requests) == 2


def test_what_is_changed_after_the_call_is_recorded_as_it_was(promptlayer: FakePromptLayer) -> None:
    """Messages and the answer may be mutated at once."""
    block = {"type": "text", "text": "before"}
    message = HumanMessage([block])  # type: ignore[list-item]
    with pltrack.pl_session():
        answer = MODEL.invoke([message])
        block["text"] = "after"
        answer.content = "after"
    pltrack.flush(10)
    assert "after" not in str(promptlayer.requests[0].body)


def test_an_error_of_our_own_never_reaches_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted and logged, and the call answers."""
    monkeypatch.setattr(_handler.outputs, "snap_result", lambda *_, **__: 1 / 0)
    before = pltrack.status().internal_errors
    with pltrack.pl_session():
        assert MODEL.invoke("x").content == "four"
    assert pltrack.status().internal_errors == before + 1


def test_id_callbacks(promptlayer: FakePromptLayer, wait_until: Callable[[Callable[[], object]], None]) -> None:
    """pl_id_callback gets the int, in the call's copied context, on a thread of its own."""
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="")
    heard: list[Any] = []

    def callback(request_id: Any) -> None:
        heard.append((request_id, var.get(), threading.current_thread().name))

    var.set("mine")
    MODEL.invoke("x", config={"callbacks": [pltrack.PromptLayerCallbackHandler(pl_id_callback=callback)]})
    wait_until(lambda: heard)
    assert heard == [(promptlayer.requests[0].id, "mine", "pltrack-callbacks")]


async def test_a_coroutine_callback_runs_on_the_calls_loop(promptlayer: FakePromptLayer) -> None:
    """An async pl_id_callback is run on the loop of the call."""
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def callback(request_id: int) -> None:
        await heard.put((request_id, asyncio.get_running_loop()))

    handler = pltrack.PromptLayerCallbackHandler(pl_id_callback=callback)
    await MODEL.ainvoke("x", config={"callbacks": [handler]})
    async with asyncio.timeout(15):
        assert await heard.get() == (promptlayer.requests[0].id, asyncio.get_running_loop())


def test_the_handler_outside_a_session(promptlayer: FakePromptLayer) -> None:
    """The guide's handler records by itself, also given to the constructor; both at once give one record."""
    handler = pltrack.PromptLayerCallbackHandler(pl_tags=["mine"])
    FakeListChatModel(responses=["x"], callbacks=[handler]).invoke("x", config={"callbacks": [handler]})
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert logged.tags == ["mine"]
    assert "session_id" not in logged.metadata


def test_langchains_own_tags_and_metadata(promptlayer: FakePromptLayer) -> None:
    """Tags and scalar metadata from the config arrive; LangChain's inner step tags do not."""
    from langchain_core.runnables import RunnableLambda

    chain = RunnableLambda(lambda x: x) | MODEL
    with pltrack.pl_session():
        chain.invoke("x", config={"tags": ["mine"], "metadata": {"k": 1, "deep": {"a": 1}}})
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert logged.tags == ["mine"]
    assert logged.metadata["k"] == "1"
    assert "deep" not in logged.metadata
    assert logged.metadata["_langchain_run_id"] == logged.metadata["pltrack_id"]


def test_nothing_stays_behind() -> None:
    """Many calls leave no run open and no reference from the handler."""

    def calls() -> Iterator[None]:
        for _ in range(50):
            yield MODEL.invoke("x")  # type: ignore[misc]

    with pltrack.pl_session():
        list(calls())
    assert not _handler._live
    assert not any(_handler._by_task.values())
