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
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain_core.language_models.fake import FakeListLLM, FakeStreamingListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt
from oldest import V3, needs_lifecycle, needs_source
from wire import in_call_order

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


def agent(**more: Any) -> Any:
    call = AIMessage("", tool_calls=[{"name": "asking", "args": {"question": "q"}, "id": "call_1"}])
    return create_agent(ToolModel(messages=iter([call, AIMessage("done")])), tools=[asking], **more)


CALLS = AIMessage("", tool_calls=[{"name": "asking", "args": {"question": c}, "id": c} for c in "ab"])
TALK = [HumanMessage("a"), AIMessage("b"), HumanMessage("c")]


class Passing(AgentMiddleware):
    """Takes part in everything and changes nothing."""

    def before_model(self, state: Any, runtime: Any) -> None:
        return None

    def after_model(self, state: Any, runtime: Any) -> None:
        return None

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


class Failing(FakeListChatModel):
    """Always fails."""

    responses: list[str] = []  # noqa: RUF012 -- a pydantic field

    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise ConnectionError("always")


def retrying() -> Any:
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="continue")
    return create_agent(Failing(), [], middleware=[retry])


def falling_back() -> Any:
    return create_agent(Failing(), [], middleware=[ModelFallbackMiddleware(MODEL)])


def summarizing() -> Any:
    summary = SummarizationMiddleware(model=MODEL, trigger=("messages", 2), keep=("messages", 1))
    return create_agent(MODEL, [], middleware=[summary])


def commanded() -> Any:
    def first(state: Any) -> Command[str]:
        return Command(goto="second", update=ask(state))

    graph: Any = StateGraph(State)
    graph.add_node("first", first, destinations=("second",))
    graph.add_node("second", ask)
    graph.add_edge(START, "first")
    return graph.compile()


def tool_graph() -> Any:
    graph: Any = StateGraph(MessagesState)
    graph.add_node("t", ToolNode([asking]))
    graph.add_edge(START, "t")
    return graph.compile()


def functional() -> Any:
    @task
    def step(text: str) -> str:
        return str(MODEL.invoke(text).content)

    @entrypoint()
    def flow(text: str) -> list[Any]:
        return [each.result() for each in (step(text), step(text))] + [MODEL.invoke(text).content]

    return flow


def node_retry() -> Any:
    seen: list[Any] = []

    def flaky(state: Any) -> Any:
        seen.append(MODEL.invoke("x"))
        if len(seen) < 3:
            raise ConnectionError("again")
        return {"said": []}

    graph: Any = StateGraph(State)
    policy = RetryPolicy(initial_interval=0.001, max_attempts=3, jitter=False)
    graph.add_node("n", flaky, retry_policy=policy)
    graph.add_edge(START, "n")
    return graph.compile()


def node_cache() -> None:
    graph: Any = StateGraph(State)
    graph.add_node("n", ask, cache_policy=CachePolicy())
    graph.add_edge(START, "n")
    compiled = graph.compile(cache=InMemoryCache())
    assert compiled.invoke({"said": ["x"]}) == compiled.invoke({"said": ["x"]})


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
    "command": (lambda: commanded().invoke({"said": []}), 2),
    "tool node": (lambda: tool_graph().invoke({"messages": [CALLS]}), 2),
    "functional": (lambda: functional().invoke("x"), 3),
    "agent with middleware": (lambda: agent(middleware=[Passing()]).invoke({"messages": [HumanMessage("q")]}), 3),
    "agent stream": (lambda: list(agent().stream({"messages": [HumanMessage("q")]}, stream_mode="updates")), 3),
    "model retry": (lambda: retrying().invoke({"messages": [HumanMessage("q")]}), 3),
    "model fallback": (lambda: falling_back().invoke({"messages": [HumanMessage("q")]}), 2),
    "summarization": (lambda: summarizing().invoke({"messages": TALK}), 2),
    "node retry": (lambda: node_retry().invoke({"said": []}), 3),
    "node cache": (lambda: node_cache(), 1),
    **{
        f"graph {mode}": (lambda mode=mode: list(graph_of(ask, ask).stream({"said": []}, stream_mode=mode)), 2)
        for mode in ("values", "updates", "debug", "custom", "checkpoints", "tasks")
    },
    "graph modes": (lambda: list(graph_of(ask).stream({"said": []}, stream_mode=["values", "messages"])), 1),
    "subgraph messages": (
        lambda: list(graph_of(ask, graph_of(ask)).stream({"said": []}, stream_mode="messages", subgraphs=True)),
        2,
    ),
    **({"graph v3": (lambda: list(graph_of(ask).stream_events({"said": []}, version="v3")), 1)} if V3 else {}),
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
    "subgraph": (lambda: graph_of(aask, graph_of(aask)).ainvoke({"said": []}), 2),
    "send": (lambda: fan_out(aask).ainvoke({"said": []}), 3),
    "command": (lambda: commanded().ainvoke({"said": []}), 2),
    "tool node": (lambda: tool_graph().ainvoke({"messages": [CALLS]}), 2),
    "agent with middleware": (lambda: agent(middleware=[Passing()]).ainvoke({"messages": [HumanMessage("q")]}), 3),
    "model fallback": (lambda: falling_back().ainvoke({"messages": [HumanMessage("q")]}), 2),
    "summarization": (lambda: summarizing().ainvoke({"messages": TALK}), 2),
    "graph modes": (lambda: drained(graph_of(aask).astream({"said": []}, stream_mode=["values", "messages"])), 1),
    "graph events": (lambda: drained(graph_of(aask).astream_events({"said": []}, version="v2")), 1),
}


class FailingOnce(FakeListChatModel):
    """Fails at its first call."""

    responses: list[str] = ["fine"]  # noqa: RUF012 -- a pydantic field

    def _call(self, *args: Any, **kwargs: Any) -> str:
        if self.i == 0:
            self.i = 1
            raise ConnectionError("first")
        return "fine"


def fan_out(node: Any = ask) -> Any:
    graph: Any = StateGraph(State)
    graph.add_node("n", node)
    graph.add_conditional_edges(START, lambda _: [Send("n", {}) for _ in range(3)], ["n"])
    return graph.compile()


async def drained(stream: Any) -> list[Any]:
    return [each async for each in stream]


@pytest.mark.parametrize("way", sorted(set(SYNC) - {"parallel"}))
@pytest.mark.parametrize("handlers", [False, True])
def test_each_call_is_one_request(way: str, handlers: bool) -> None:
    """Plain, or with a nested session and two explicit handlers: the same number of requests and records [3, 55]."""
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
    """Every asynchronous way of calling gives each call one request, which has ended. [55]"""
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
    """@entrypoint and @task calls are gathered once, asynchronous tasks among them. [61]"""

    @task
    async def step(text: str) -> str:
        return str((await MODEL.ainvoke(text)).content)

    @entrypoint()
    async def flow(text: str) -> list[str]:
        return list(await asyncio.gather(step(text), step(text)))

    async with pl_session() as session:
        assert await flow.ainvoke("x") == ["four", "four"]
    assert len(session.requests) == 2


@needs_lifecycle
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_interrupt_is_no_error(promptlayer: FakePromptLayer, asynchronous: bool) -> None:
    """The calls before an interrupt, and those when it is resumed in another session, are successes.

    The resumed node calls again, which is a request of its own; the thread's id is on both. A program's own
    handler hears of the interrupt and the resumption as without us. [58]
    """

    def node(state: Any) -> Any:
        MODEL.invoke("before")
        return {"said": [interrupt("really?")]}

    from langgraph.callbacks import GraphCallbackHandler

    class Lifecycle(GraphCallbackHandler):
        """A program's own ear for interrupts."""

        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_interrupt(self, event: Any) -> None:
            self.heard.append("interrupt")

        def on_resume(self, event: Any) -> None:
            self.heard.append("resume")

    mine, thread = Lifecycle(), str(uuid.uuid4())
    graph = graph_of(node, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": thread, "secret": "sk-configurable"}, "callbacks": [mine]}
    sessions = []
    for given in ({"said": []}, Command(resume="yes")):
        with pl_session() as session:
            found = await graph.ainvoke(given, config) if asynchronous else graph.invoke(given, config)
        sessions.append(session)
    assert found["said"] == ["yes"]
    pltrack.flush(10)
    assert [len(each.requests) for each in sessions] == [1, 1]
    assert {logged.body["status"] for logged in promptlayer.requests} == {"SUCCESS"}
    assert [logged.metadata["thread_id"] for logged in promptlayer.requests] == [thread] * 2
    assert "sk-configurable" not in str([logged.body for logged in promptlayer.requests])
    assert mine.heard == ["interrupt", "resume"]
    assert pltrack.status().internal_errors == 0


def test_a_human_in_the_loop(promptlayer: FakePromptLayer) -> None:
    """An agent that waits for a person's word before its tool: each model call is one success. [58]"""
    middleware = HumanInTheLoopMiddleware(interrupt_on={"asking": True})
    asked = agent(middleware=[middleware], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with pl_session() as session:
        assert "__interrupt__" in asked.invoke({"messages": [HumanMessage("q")]}, config)
        assert len(session.requests) == 1
        asked.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    pltrack.flush(10)
    assert [logged.body["status"] for logged in promptlayer.requests] == ["SUCCESS"] * 3


def test_one_turn_of_an_agent_is_one_session(promptlayer: FakePromptLayer) -> None:
    """The calls of one turn have different parents in LangChain, which no event names; the session has them all.

    Every record tells its run, its parent and the session. [56]
    """
    with pl_session("turn") as session:
        agent().invoke({"messages": [HumanMessage("q")]})
    pltrack.flush(10)
    told = [logged.metadata for logged in promptlayer.requests]
    assert len({each["_langchain_parent_run_id"] for each in told}) == 3
    assert {each["session_id"] for each in told} == {session.id}
    assert {each["_langchain_run_id"] for each in told} == set(session.ids)


def test_the_graphs_own_tags_and_coordinates(promptlayer: FakePromptLayer) -> None:
    """Scalars of LangGraph's metadata arrive as text, tuples and mappings do not; its step tags are no tags. [57]"""
    graph = graph_of(ask, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "T1"}, "tags": ["mine"], "metadata": {"k": 1, "deep": {"a": 1}}}
    with pl_session():
        graph.invoke({"said": []}, config)
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert logged.tags == ["mine"]
    told = logged.metadata
    assert (told["langgraph_node"], told["langgraph_step"], told["thread_id"], told["k"]) == ("n0", "1", "T1", "1")
    assert not {"langgraph_triggers", "langgraph_path", "lc_versions", "deep"} & told.keys()
    assert all(isinstance(value, str) for value in told.values())
    assert "seq:step:1" in told["_langchain_tags"]


@needs_source
def test_calls_of_middleware_can_be_told_apart(promptlayer: FakePromptLayer) -> None:
    """A summary that an agent's middleware asks for is a request too, marked as what it is. [55]"""
    with pl_session():
        summarizing().invoke({"messages": TALK})
    pltrack.flush(10)
    assert [logged.metadata.get("lc_source") for logged in in_call_order(promptlayer)] == ["summarization", None]


def test_sessions_in_nodes_that_run_at_once() -> None:
    """Each of many nodes in threads has a session of its own; the graph's session has them all.

    LangGraph calls the handler from several threads at once. [60]
    """
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


async def test_leaving_an_asynchronous_graph_early() -> None:
    """A graph whose stream is left while a node still waits: its call is recorded, as a warning."""
    begun = asyncio.Event()

    class Slow(FakeListChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

    async def slow(state: Any) -> Any:
        return {"said": [(await Slow(responses=[]).ainvoke("x")).content]}

    async def quick(state: Any) -> Any:
        await begun.wait()
        return await aask(state)

    graph: Any = StateGraph(State)
    for name, node in (("a", slow), ("b", quick)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
    async with pl_session() as session:
        stream = graph.compile().astream({"said": []}, stream_mode="updates")
        async for _ in stream:
            break
        await stream.aclose()
        await asyncio.sleep(0)
    assert sorted(str(each.status) for each in session.requests) == ["SUCCESS", "WARNING"]


def test_a_graph_read_on_after_its_session() -> None:
    """What a stream of a graph calls after the block, when it began inside, still belongs to the session."""
    with pl_session() as session:
        stream = graph_of(ask, ask).stream({"said": []})
        next(stream)
    assert len(list(stream)) == 1
    assert len(session.requests) == 2
