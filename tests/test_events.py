"""The mechanics of LangChain's events: what a handler of ours must not do to a program, and what it must stand."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_gguf
from fake_openai import FakeOpenAI
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langsmith.run_helpers import tracing_context
from langsmith.run_trees import RunTree

import pltrack
from pltrack import _handler, pl_session
from pltrack.testing import FakePromptLayer, Logged

MODEL = FakeListChatModel(responses=["four"])
WaitUntil = Callable[[Callable[[], object]], None]


def only(promptlayer: FakePromptLayer) -> Logged:
    assert pltrack.flush(10).pending == 0
    (logged,) = promptlayer.requests
    return logged


@pytest.fixture
def openai() -> Iterator[Any]:
    """Make models of OpenAI's real client, which ask a server on loopback."""
    with FakeOpenAI() as server, httpx.Client() as client:

        def make(name: str = "gpt-4o", **more: Any) -> ChatOpenAI:
            given: dict[str, Any] = {"base_url": server.url, "http_client": client, "max_retries": 0}
            return ChatOpenAI(model=name, api_key="sk-test", **given, **more)

        yield make


async def test_an_async_call_needs_no_thread() -> None:
    """With the default executor taken up by the program, calls and streams in a session do not wait for it. [63]"""
    release = threading.Event()
    executor = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(executor)
    busy = asyncio.get_running_loop().run_in_executor(None, release.wait, 30)

    class Native(FakeListChatModel):
        async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            return self._generate(messages)

    try:
        async with asyncio.timeout(10), pl_session() as session:
            await Native(responses=["four"]).ainvoke("x")
            assert [_ async for _ in Native(responses=["four"]).astream("x")]
        assert [each.status for each in session.requests] == ["SUCCESS"] * 2
    finally:
        release.set()
        await busy


def test_no_event_starts_a_loop_or_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Synchronous calls are heard on their own thread, without an event loop. [64]"""
    with pl_session():
        MODEL.invoke("starts what runs anyway")
    heard: list[threading.Thread] = []
    begin = _handler._begin
    monkeypatch.setattr(_handler, "_begin", lambda *given: heard.append(threading.current_thread()) or begin(*given))
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: pytest.fail("a loop was made"))
    before = threading.active_count()
    with pl_session():
        MODEL.invoke("x")
        list(MODEL.stream("x"))
    assert heard == [threading.current_thread()] * 2
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError])
async def test_an_error_of_ours_stays_with_us(
    promptlayer: FakePromptLayer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Any
) -> None:
    """LangChain neither sees nor reports it, asks for no flattened text instead, and the answer is there.

    We count it, and log it ourselves, with its traceback. [65] [66]
    """

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise error("of ours")

    monkeypatch.setattr(_handler.messages, "snap", broken)
    flattened: list[Any] = []
    monkeypatch.setattr(_handler.Handler, "on_llm_start", lambda *args, **kwargs: flattened.append(args))
    before = pltrack.status().internal_errors
    with pl_session():
        assert MODEL.invoke("x").content == "four"
        assert (await MODEL.ainvoke("x")).content == "four"
    assert not flattened
    assert pltrack.status().internal_errors >= before + 2  # the self-check meets it, too
    assert not [each for each in caplog.records if each.name == "langchain_core.callbacks.manager"]
    ours = [each for each in caplog.records if each.name == "pltrack" and each.levelno >= logging.ERROR]
    assert ours
    assert ours[0].exc_info


def test_only_model_events_are_heard(promptlayer: FakePromptLayer) -> None:
    """Chains, tools, retrievers and custom events are none of ours; starts and ends of both kinds of models are.

    [67] [93]
    """

    @tool
    def adding(a: int) -> int:
        """Add one."""
        return a + 1

    handler = pltrack.PromptLayerCallbackHandler()
    ignored = {
        each: getattr(handler, f"ignore_{each}") for each in ("llm", "chat_model", "chain", "agent", "retriever")
    }
    assert ignored == {"llm": False, "chat_model": False, "chain": True, "agent": True, "retriever": True}
    with pl_session() as session:
        adding.invoke({"a": 1}, config={"callbacks": [handler]})
        RunnableLambda(lambda x: x).invoke("x", config={"callbacks": [handler]})
        assert not session.requests
        MODEL.invoke("x")
        FakeListLLM(responses=["x"]).invoke("x")
    pltrack.flush(10)
    assert [logged.body["status"] for logged in promptlayer.requests] == ["SUCCESS"] * 2


@pytest.mark.parametrize("fails", [False, True])
def test_a_record_joins_start_and_end(promptlayer: FakePromptLayer, fails: bool) -> None:
    """Metadata, tags and parameters come with the start only: they are on the record of an answer and an error. [68]"""

    class Knowing(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            if fails:
                raise ConnectionError("no")
            return "yes"

    with pl_session():
        try:
            Knowing(responses=[]).invoke("x", {"tags": ["t"], "metadata": {"k": "v"}}, stop=["z"], temperature=0.5)
        except ConnectionError:
            assert fails
    logged = only(promptlayer)
    assert logged.body["status"] == ("ERROR" if fails else "SUCCESS")
    assert (logged.tags, logged.metadata["k"]) == (["t"], "v")
    assert (logged.body["parameters"]["stop"], logged.body["parameters"]["temperature"]) == (["z"], 0.5)


def test_what_handlers_share_is_read_once_and_never_written(promptlayer: FakePromptLayer) -> None:
    """Another handler's changes after the start are not recorded, and it finds all as LangChain gave it. [69]"""

    class Meddling(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **event: Any) -> None:
            self.found = [repr(each) for each in (event["metadata"], event["tags"], event["invocation_params"])]
            event["metadata"]["evil"] = "evil"
            event["tags"].append("evil")
            event["invocation_params"]["stop"].append("evil")
            serialized["evil"] = "evil"

    def call(*handlers: Any) -> Meddling:
        mine = Meddling()
        config: Any = {"callbacks": [*handlers, mine], "tags": ["t"], "metadata": {"k": "v"}}
        FakeListChatModel(responses=["x"]).invoke("x", config, stop=["z"])
        return mine

    without = call()
    assert call(pltrack.PromptLayerCallbackHandler()).found == without.found
    logged = only(promptlayer)
    assert (logged.tags, logged.body["parameters"]["stop"]) == (["t"], ["z"])
    assert "evil" not in str(logged.body)


def test_an_answer_without_candidates(promptlayer: FakePromptLayer) -> None:
    """A model that returns nothing raises as without us, and is one record. [70]"""

    class Empty(FakeListChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[])

    with pl_session(), pytest.raises(IndexError):
        Empty(responses=[]).invoke("x")
    assert only(promptlayer).body["output"]["messages"] == []
    assert not _handler._live


def test_more_ends_than_starts(promptlayer: FakePromptLayer) -> None:
    """Whoever uses LangChain's managers may end a run twice, or a run we never saw begin: one record a start. [70]"""
    handler = pltrack.PromptLayerCallbackHandler()
    (run,) = CallbackManager([handler]).on_chat_model_start({}, [[HumanMessage("x")]])
    run.on_llm_end(LLMResult(generations=[]))
    run.on_llm_end(LLMResult(generations=[[]]))
    run.on_llm_error(ValueError("late"))
    (unseen,) = CallbackManager([]).on_chat_model_start({}, [[HumanMessage("y")]])
    unseen.handlers.append(handler)
    unseen.on_llm_end(LLMResult(generations=[]))
    assert only(promptlayer).body["status"] == "SUCCESS"
    assert pltrack.status().internal_errors == 0


def test_a_parent_of_langsmith(promptlayer: FakePromptLayer) -> None:
    """Inside a trace of LangSmith, calls name a parent that LangChain never told of: recorded like any other. [71]"""
    parent = RunTree(name="p", run_type="chain")
    with tracing_context(parent=parent, enabled=False), pl_session() as session:
        MODEL.invoke("x")
    logged = only(promptlayer)
    assert logged.metadata["_langchain_parent_run_id"] == str(parent.id)
    assert logged.metadata["session_id"] == session.id


async def test_inline_handlers_of_others_do_not_hide_a_start(promptlayer: FakePromptLayer) -> None:
    """With a tracer like LangSmith's in the list, an async completion is recorded with its prompt. [62]"""

    class Tracer(BaseCallbackHandler):
        run_inline = True

    async with pl_session():
        await FakeListLLM(responses=["x"]).ainvoke("asked", config={"callbacks": [Tracer()]})
    await pltrack.aflush(10)
    assert only(promptlayer).body["input"]["content"][0]["text"] == "asked"


def test_the_model_that_was_asked_for(promptlayer: FakePromptLayer, openai: Any) -> None:
    """The record has the name that the program gave, not the dated one that answered, and an id of our own. [75]"""
    with pl_session() as session:
        openai("gpt-4o-mini").invoke("x")
    logged = only(promptlayer)
    assert (logged.body["provider"], logged.body["model"]) == ("openai", "gpt-4o-mini")
    assert session.last.outcome is not None
    assert session.last.outcome.result is not None
    told = session.last.outcome.result.reading
    assert (told.model_name, told.provider_id) == ("gpt-4o-mini-2024-01-01", "chatcmpl-1")
    assert session.last.id == logged.metadata["_langchain_run_id"]


class Nameless(LLM):
    """A model that tells LangChain as little as it can."""

    def _call(self, *args: Any, **kwargs: Any) -> str:
        return "x"

    @property
    def _llm_type(self) -> str:
        return "homemade"


def test_a_model_that_says_nothing_of_itself(promptlayer: FakePromptLayer) -> None:
    """No model name, no provider, no usage, no finish reason: defaults that PromptLayer takes. [76]"""
    with pl_session():
        Nameless().invoke("x")
        FakeListChatModel(responses=["x"], metadata={"ls_provider": ""}).invoke("x")
        Nameless().generate(["x"])
    pltrack.flush(10)
    assert len(promptlayer.requests) == 3
    for logged in promptlayer.requests:
        assert logged.body["provider"]
        assert logged.body["model"]
        assert "temperature" not in logged.body["parameters"]


def test_whether_a_call_streamed(promptlayer: FakePromptLayer, openai: Any) -> None:
    """LangChain's parameters say "no stream" of `.stream()`: not repeated; the first token's time tells. [77]"""
    with pl_session() as session:
        list(openai().stream("x"))
        openai().invoke("x")
        openai(streaming=True).invoke("x")
    pltrack.flush(10)
    told = [promptlayer.by_pltrack_id(own) for own in session.ids]
    assert [each.body["parameters"].get("stream") for each in told] == [None, None, True]
    assert ["first_token_seconds" in each.metadata for each in told] == [True, False, True]


def test_candidates_of_a_stream(promptlayer: FakePromptLayer, openai: Any) -> None:
    """LangChain joins the candidates of a stream, their reasons and names: the model asked for stands. [80]"""
    with pl_session() as session:
        list(openai(n=2).stream("x"))
    body = only(promptlayer).body
    assert (body["model"], body["status"]) == ("gpt-4o", "SUCCESS")
    assert session.last.outcome is not None
    assert session.last.outcome.result is not None
    told = session.last.outcome.result.reading
    assert (told.model_name, told.finish_reason) == ("gpt-4o-2024-01-01", "stop")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_on_this_machine(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """GPT4All: the file's name for its path, the temperature, and no tokens, for nobody counted any. [82]"""
    pytest.importorskip("gpt4all")
    from langchain_community.llms import GPT4All

    path = tiny_gguf.make(tmp_path / "tiny.gguf")
    with pl_session() as session:
        said = GPT4All(model=str(path), n_threads=1, max_tokens=4, n_predict=4).invoke("hello")
    body = only(promptlayer).body
    assert (body["provider"], body["model"]) == ("gpt4all", "tiny.gguf")
    assert str(tmp_path) not in str(body)
    assert (body["parameters"]["temp"], body["output"]["content"][0]["text"]) == (0.7, said)
    assert (session.usage.input_tokens, session.usage.output_tokens, session.usage.cost) == (0, 0, None)


def test_runs_are_told_apart_whatever_they_share(promptlayer: FakePromptLayer) -> None:
    """Many threads, one model, one handler: each answer stands with its own question. [60]"""

    class Echo(GenericFakeChatModel):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
            together.wait()
            return FakeListChatModel(responses=[f"re {messages[-1].content}"])._generate(messages)

    together = threading.Barrier(8, timeout=20)
    asked = [str(uuid.uuid4()) for _ in range(8)]
    with pl_session():
        Echo(messages=iter([AIMessage("")])).batch(asked, config={"max_concurrency": 8})
    pltrack.flush(10)
    for logged in promptlayer.requests:
        question = logged.body["input"]["messages"][0]["content"][0]["text"]
        assert logged.body["output"]["messages"][0]["content"][0]["text"] == f"re {question}"
    assert len(promptlayer.requests) == 8
