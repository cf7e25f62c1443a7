"""Graphs, agents and runnables: every LLM call in a session is one request, whatever it is made through."""

from __future__ import annotations

import asyncio
import itertools
import operator
import threading
import uuid
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake import FakeListLLM, FakeStreamingListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

import pltrack
from pltrack import pl_session, tracked
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
LLM = FakeListLLM(responses=["four"])
CHAIN = ChatPromptTemplate.from_template("{x}") | MODEL | StrOutputParser()


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def ask(state: Any) -> Any:
    return {"said": [MODEL.invoke("x").content]}


async def aask(state: Any) -> Any:
    return {"said": [(await MODEL.ainvoke("x")).content]}


def graph_of(*nodes: Any, **options: Any) -> Any:
    graph: Any = StateGraph(State)
    names = [START, *(f"n{i}" for i in range(len(nodes))), END]
    for name, node in zip(names[1:], nodes, strict=False):
        graph.add_node(name, node)
    for here, there in itertools.pairwise(names):
        graph.add_edge(here, there)
    return graph.compile(**options)


class ToolModel(GenericFakeChatModel):
    def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
        return self


@tool
def asking(question: str) -> str:
    """Ask another model."""
    return str(MODEL.invoke(question).content)


def agent() -> Any:
    call = AIMessage("", tool_calls=[{"name": "asking", "args": {"question": "q"}, "id": "call_1"}])
    return create_agent(ToolModel(messages=iter([call, AIMessage("done")])), tools=[asking])


def talker() -> Any:
    return create_agent(MODEL, tools=[])


SYNC: dict[str, tuple[Any, int]] = {
    "chat": (lambda: MODEL.invoke("x"), 1),
    "completion": (lambda: LLM.invoke("x"), 1),
    "completion stream": (lambda: list(FakeStreamingListLLM(responses=["four"]).stream("x")), 1),
    "chain": (lambda: CHAIN.invoke({"x": "x"}), 1),
    "stream": (lambda: list(CHAIN.stream({"x": "x"})), 1),
    "batch": (lambda: CHAIN.batch([{"x": "x"}] * 5), 5),
    "completion batch": (lambda: LLM.batch(["x"] * 3), 3),
    "batch_as_completed": (lambda: list(CHAIN.batch_as_completed([{"x": "x"}] * 3)), 3),
    "generate": (lambda: MODEL.generate([[HumanMessage("x")]] * 3), 3),
    "parallel": (lambda: RunnableParallel(a=CHAIN, b=CHAIN, c=MODEL).invoke({"x": "x"}), 2),
    "transform": (lambda: list(CHAIN.transform(iter([{"x": "x"}]))), 1),
    "nested lambdas": (lambda: RunnableLambda(lambda x: RunnableLambda(lambda y: MODEL.invoke(y))).invoke("x"), 1),
    "fallbacks": (lambda: FailingOnce().with_fallbacks([MODEL]).invoke("x"), 2),
    "retries": (lambda: FailingOnce().with_retry(wait_exponential_jitter=False).invoke("x"), 2),
    "bound": (lambda: MODEL.bind(stop=["z"]).with_config(tags=["t"]).invoke("x"), 1),
    "tool": (lambda: asking.invoke({"question": "x"}), 1),
    "graph": (lambda: graph_of(ask, ask).invoke({"said": []}), 2),
    "graph stream": (lambda: list(graph_of(ask, ask).stream({"said": []})), 2),
    "graph messages": (lambda: list(graph_of(ask, ask).stream({"said": []}, stream_mode="messages")), 2),
    "subgraph": (lambda: graph_of(ask, graph_of(ask)).invoke({"said": []}), 2),
    "send": (lambda: fan_out().invoke({"said": []}), 3),
    "agent": (lambda: agent().invoke({"messages": [HumanMessage("q")]}), 3),
    "tracked node": (lambda: graph_of(tracked(ask), tracked(tags=["x"])(ask)).invoke({"said": []}), 2),
}
ASYNC: dict[str, tuple[Any, int]] = {
    "chat": (lambda: MODEL.ainvoke("x"), 1),
    "completion": (lambda: LLM.ainvoke("x"), 1),
    "chain": (lambda: CHAIN.ainvoke({"x": "x"}), 1),
    "abatch": (lambda: CHAIN.abatch([{"x": "x"}] * 5), 5),
    "completion abatch": (lambda: LLM.abatch(["x"] * 3), 3),
    "agenerate": (lambda: MODEL.agenerate([[HumanMessage("x")]] * 3), 3),
    "astream": (lambda: drained(CHAIN.astream({"x": "x"})), 1),
    "completion astream": (lambda: drained(FakeStreamingListLLM(responses=["four"]).astream("x")), 1),
    "astream_events": (lambda: drained(CHAIN.astream_events({"x": "x"}, version="v2")), 1),
    "astream_log": (lambda: drained(CHAIN.astream_log({"x": "x"})), 1),
    "parallel": (lambda: RunnableParallel(a=CHAIN, b=CHAIN).ainvoke({"x": "x"}), 2),
    "graph": (lambda: graph_of(aask, ask).ainvoke({"said": []}), 2),
    "graph astream": (lambda: drained(graph_of(aask, aask).astream({"said": []})), 2),
    "graph messages": (lambda: drained(graph_of(aask, aask).astream({"said": []}, stream_mode="messages")), 2),
    "agent": (lambda: agent().ainvoke({"messages": [HumanMessage("q")]}), 3),
    "agent events": (lambda: drained(talker().astream_events({"messages": [HumanMessage("q")]}, version="v2")), 1),
    "tracked node": (lambda: graph_of(tracked(aask), aask).ainvoke({"said": []}), 2),
}


class FailingOnce(FakeListChatModel):
    """Fails at its first call."""

    responses: list[str] = ["fine"]  # noqa: RUF012 -- a pydantic field

    def _call(self, *args: Any, **kwargs: Any) -> str:
        if self.i == 0:
            self.i = 1
            raise ConnectionError("first")
        return "fine"


def fan_out() -> Any:
    graph: Any = StateGraph(State)
    graph.add_node("n", ask)
    graph.add_conditional_edges(START, lambda _: [Send("n", {}) for _ in range(3)], ["n"])
    return graph.compile()


async def drained(stream: Any) -> list[Any]:
    return [each async for each in stream]


@pytest.mark.parametrize("way", sorted(set(SYNC) - {"parallel"}))
@pytest.mark.parametrize("handlers", [False, True])
def test_each_call_is_one_request(way: str, handlers: bool) -> None:
    """Plain, or with a nested session and two explicit handlers: the same number of requests and records [3]."""
    call, expected = SYNC[way]
    before = pltrack.status().recorded
    with pl_session() as session:
        if handlers:
            ours = [pltrack.PromptLayerCallbackHandler(pl_tags=[tag]) for tag in "ab"]
            RunnableLambda(lambda _: inside(call)).invoke("", config={"callbacks": ours})
        else:
            call()
    assert len(session.requests) == expected
    assert pltrack.status().recorded == before + expected
    assert all(each.status for each in session.requests)


def inside(call: Any) -> None:
    with pl_session() as inner:
        call()
    assert inner.requests


@pytest.mark.parametrize("way", sorted(ASYNC))
async def test_each_async_call_is_one_request(way: str) -> None:
    """Every asynchronous way of calling gives each call one request, which has ended."""
    call, expected = ASYNC[way]
    before = pltrack.status().recorded
    async with pl_session() as outer, pl_session() as session:
        await call()
    assert len(outer.requests) == len(session.requests) == expected
    assert pltrack.status().recorded == before + expected


def test_parallel_branches() -> None:
    """Each branch of a RunnableParallel is gathered."""
    with pl_session() as session:
        RunnableParallel(a=CHAIN, b=CHAIN, c=RunnableLambda(lambda _: MODEL.invoke("x"))).invoke({"x": "x"})
    assert len(session.requests) == 3


async def test_functional_graphs() -> None:
    """@entrypoint and @task calls are gathered once."""

    @task
    async def step(text: str) -> str:
        return str((await MODEL.ainvoke(text)).content)

    @entrypoint()
    async def flow(text: str) -> list[str]:
        return list(await asyncio.gather(step(text), step(text)))

    async with pl_session() as session:
        assert await flow.ainvoke("x") == ["four", "four"]
    assert len(session.requests) == 2


def test_an_interrupt_is_no_error(promptlayer: FakePromptLayer) -> None:
    """The calls before an interrupt, and those when it is resumed in another session, are successes."""

    def node(state: Any) -> Any:
        MODEL.invoke("before")
        return {"said": [interrupt("really?")]}

    graph = graph_of(node, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": str(uuid.uuid4())}}
    with pl_session() as first:
        graph.invoke({"said": []}, config)
    with pl_session() as second:
        assert graph.invoke(Command(resume="yes"), config)["said"] == ["yes"]
    pltrack.flush(10)
    assert (len(first.requests), len(second.requests)) == (1, 1)
    assert {logged.body["status"] for logged in promptlayer.requests} == {"SUCCESS"}


def test_sessions_in_nodes_that_run_at_once() -> None:
    """Each of many nodes in threads has a session of its own; the graph's session has them all."""
    inner: list[Any] = []
    together = threading.Barrier(3, timeout=10)

    def node(state: Any) -> Any:
        with pl_session() as mine:
            together.wait()
            MODEL.invoke("x")
            together.wait()
            MODEL.invoke("y")
        inner.append(mine)
        return {"said": []}

    graph: Any = StateGraph(State)
    graph.add_node("n", node)
    graph.add_conditional_edges(START, lambda _: [Send("n", {}) for _ in range(3)], ["n"])
    with pl_session() as outer:
        graph.compile().invoke({"said": []})
    assert [len(each.requests) for each in inner] == [2, 2, 2]
    assert len(outer.requests) == 6


async def test_a_failing_sibling_cancels_a_call() -> None:
    """The call that LangGraph cancels is recorded too, as a warning."""
    begun = asyncio.Event()

    class Slow(FakeListChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

    async def slow(state: Any) -> Any:
        await Slow(responses=[]).ainvoke("x")

    async def failing(state: Any) -> Any:
        await begun.wait()
        raise KeyError("sibling")

    graph: Any = StateGraph(State)
    for name, node in (("a", slow), ("b", failing)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
    async with pl_session() as session:
        with pytest.raises(KeyError):
            await graph.compile().ainvoke({"said": []})
        await asyncio.sleep(0)
    assert [each.status for each in session.requests] == ["WARNING"]
