"""How sessions get into LangChain's calls, and what others who listen to them still hear."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, CallbackManager
from langchain_core.language_models.fake import FakeListLLM, FakeStreamingListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.language_models.llms import BaseLLM
from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tracers import context as tracers
from oldest import V3
from programs import environment, run
from wire import in_call_order

import pltrack
from pltrack import PromptLayerCallbackHandler, _blocks, current_session, pl_session
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
LLM = FakeListLLM(responses=["four"])


class Counting(BaseLLM):
    """A completion model that tells what it took, for the whole batch; fails on a prompt that says so."""

    @property
    def _llm_type(self) -> str:
        return "counting"

    def _generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        if "fail" in prompts:
            raise ConnectionError("cut")
        usage = {"prompt_tokens": 3 * len(prompts), "completion_tokens": 7 * len(prompts)}
        return LLMResult(generations=[[Generation(text="a")] for _ in prompts], llm_output={"token_usage": usage})


def test_the_hook_is_registered_once() -> None:
    """However many sessions, threads and calls there are, LangChain's list has one entry of ours [1]."""
    for _ in range(3):
        with pl_session(), pl_session() as session:
            MODEL.invoke("x")
            LLM.invoke("x")
        assert len(session.requests) == 2
    assert sum(1 for hook in tracers._configure_hooks if hook[0] is _blocks._current) == 1


def test_a_bare_thread_that_is_given_the_config() -> None:
    """The session travels in a chain's config, so that a thread that passes it on needs no attach() [2]."""

    def step(x: str, config: Any) -> None:
        thread = threading.Thread(target=MODEL.invoke, args=(x, config))
        thread.start()
        thread.join(10)

    with pl_session() as session:
        RunnableLambda(step).invoke("x")
    assert [each.status for each in session.requests] == ["SUCCESS"]


def test_nested_sessions_in_chains_in_chains() -> None:
    """Each level's own session has its calls and those inside, one record each [3]."""
    sessions: list[pltrack.Session] = []

    def nested(depth: int) -> Any:
        with pl_session(str(depth)) as session:
            sessions.append(session)
            MODEL.invoke("x")
            return depth and RunnableParallel(a=RunnableLambda(nested), b=RunnableLambda(nested)).invoke(depth - 1)

    before = pltrack.status().recorded
    RunnableLambda(nested).invoke(2)
    assert pltrack.status().recorded == before + 7
    assert sorted(len(each.requests) for each in sessions) == [1, 1, 1, 1, 3, 3, 7]


def test_an_explicit_handler_of_ours_hides_nobody() -> None:
    """A handler in the call's own list, or inherited from a chain, does not hide the session's, nor that it [4, 7]."""
    handler = PromptLayerCallbackHandler(pl_tags=["mine"])
    model = FakeListChatModel(responses=["x"], callbacks=[handler])
    before = pltrack.status().recorded
    with pl_session() as session:
        model.invoke("x", config={"callbacks": [handler]})
        model.with_config(callbacks=[handler]).invoke("x")
        with pl_session() as inner:
            RunnableLambda(lambda x: MODEL.invoke(x)).invoke("x", config={"callbacks": [handler]})
    assert (len(session.requests), len(inner.requests)) == (3, 1)
    assert pltrack.status().recorded == before + 3


def test_what_langchain_holds_of_us_is_a_plain_object() -> None:
    """Always true, equal to itself only, and hashable: managers compare, test and merge handlers [5, 6]."""
    with pl_session() as session:
        entry = _blocks._current.get()
        assert session.requests == ()
        assert entry
        a, b = PromptLayerCallbackHandler(), PromptLayerCallbackHandler()
        merged = CallbackManager([a, b]).merge(CallbackManager([b]))
        assert set(merged.handlers) == {a, b}
        assert a != b
        MODEL.invoke("x", config={"callbacks": merged})
    assert len(session.requests) == 1


async def test_an_empty_list_of_callbacks_is_no_opt_out(promptlayer: FakePromptLayer) -> None:
    """The call is the session's; in a chain it has no parent then, which is LangChain's doing [8]."""
    with pl_session() as session:
        chosen: Any = {"callbacks": []}
        MODEL.invoke("x", config=chosen)
        RunnableLambda(lambda x: MODEL.invoke(x, config=chosen)).invoke("x")
        RunnableLambda(lambda x: MODEL.invoke(x)).invoke("x")
    await pltrack.aflush(10)
    assert len(session.requests) == 3
    parents = ["_langchain_parent_run_id" in logged.metadata for logged in in_call_order(promptlayer)]
    assert parents == [False, False, True]


async def test_an_empty_list_of_callbacks_for_an_async_completion() -> None:
    """LangChain raises IndexError there, with us as without; we never pass an empty list ourselves [9]."""

    async def ask() -> Any:
        try:
            return await LLM.ainvoke("x", config={"callbacks": []})
        except IndexError as error:
            return repr(error)

    without = await ask()
    async with pl_session() as session:
        assert await ask() == without
        assert await LLM.ainvoke("x") == "four"
    assert session.last.status == "SUCCESS"


def test_the_lists_of_a_program_are_left_alone() -> None:
    """Neither the user's list of handlers nor the user's manager has anything of ours in it afterwards [4]."""
    given: list[Any] = []
    manager = CallbackManager([])
    with pl_session():
        MODEL.invoke("x", config={"callbacks": given})
        MODEL.invoke("x", config={"callbacks": manager})
    assert (given, manager.handlers, manager.inheritable_handlers) == ([], [], [])


def test_several_prompts_of_one_call(promptlayer: FakePromptLayer) -> None:
    """Each is a record; LangChain ends them together, so their number is told beside their times [10]."""
    with pl_session() as session:
        MODEL.generate([[HumanMessage(text)] for text in ("a", "b", "c")])
        MODEL.invoke("d")
    pltrack.flush(10)
    assert len(session.requests) == 4
    assert [each.metadata.get("batch_size") for each in in_call_order(promptlayer)] == ["3", "3", "3", None]


def test_the_usage_of_a_batch_of_completions(promptlayer: FakePromptLayer) -> None:
    """The batch's total is nobody's own, so no record has it; a failing prompt fails every run of its batch [12]."""
    with pl_session() as alone:
        Counting().invoke("a")
    with pl_session() as batch:
        Counting().batch(["a", "b"])
    with pl_session() as failing, pytest.raises(ConnectionError):
        Counting().generate(["a", "fail"])
    assert (alone.usage.input_tokens, alone.usage.output_tokens) == (3, 7)
    assert (batch.usage.calls, batch.usage.input_tokens) == (2, 0)
    assert [each.status for each in failing.requests] == ["ERROR", "ERROR"]
    pltrack.flush(10)
    assert sorted(each.body["input_tokens"] for each in promptlayer.requests) == [0, 0, 0, 0, 3]


@pytest.mark.parametrize("model", [MODEL, LLM])
def test_parameters_of_one_call(promptlayer: FakePromptLayer, model: Any) -> None:
    """They are recorded also where LangChain tells them in the metadata only, as for completion models [14]."""
    with pl_session():
        model.invoke("x", temperature=0.3, stop=["s"])
    pltrack.flush(10)
    parameters = promptlayer.requests[0].body["parameters"]
    assert (parameters["temperature"], parameters["stop"]) == (0.3, ["s"])


def test_every_attempt_is_a_record(promptlayer: FakePromptLayer) -> None:
    """with_retry and with_fallbacks: failed attempts are errors, the good one a success, without inner tags [15]."""

    class Flaky(FakeListChatModel):
        fails: int = 1

        def _call(self, *args: Any, **kwargs: Any) -> str:
            self.fails -= 1
            if self.fails >= 0:
                raise ConnectionError("cut")
            return "four"

    with pl_session() as session:
        Flaky(responses=[]).with_retry(wait_exponential_jitter=False).invoke("x")
        Flaky(responses=[]).with_fallbacks([MODEL]).invoke("x")
    assert [each.status for each in session.requests] == ["ERROR", "SUCCESS"] * 2
    assert session.score(90) == 2
    pltrack.flush(10)
    assert [logged.tags for logged in promptlayer.requests] == [[]] * 4


def test_cache_hits_of_completions_and_of_streams() -> None:
    """LangChain tells nobody of a completion's cache hit: no record. A stream is never from the cache [18]."""
    completion = FakeListLLM(responses=["four"], cache=InMemoryCache())
    chat = FakeListChatModel(responses=["four"], cache=InMemoryCache())
    with pl_session() as session:
        assert completion.invoke("x") == completion.invoke("x") == "four"
    assert len(session.requests) == 1
    with pl_session() as session:
        for _ in range(2):
            list(chat.stream("x"))
    assert [each.outcome.cache_hit for each in session.requests if each.outcome] == [False, False]


def test_the_wait_for_a_limiter_counts() -> None:
    """LangChain starts a call before its limiter lets it through: its seconds contain the wait [19]."""
    limiter = InMemoryRateLimiter(requests_per_second=20, check_every_n_seconds=0.005, max_bucket_size=1)
    model = FakeListChatModel(responses=["x"], rate_limiter=limiter)
    with pl_session() as session:
        model.invoke("a")
        model.invoke("b")
    assert session.last.usage.seconds > 0.03


def test_what_no_callback_tells_of() -> None:
    """Calls below LangChain's callbacks, and embeddings, are nobody's: no record, no error [20]."""
    from langchain_core.embeddings import DeterministicFakeEmbedding

    with pl_session() as session:
        MODEL._generate([HumanMessage("x")])
        DeterministicFakeEmbedding(size=3).embed_query("x")
    assert session.requests == ()


# -- handlers of others -----------------------------------------------------------------------------------------

EVENTS = ("on_chat_model_start", "on_llm_start", "on_llm_new_token", "on_llm_end", "on_llm_error", "on_chain_start",
          "on_chain_end", "on_stream_event")  # fmt: skip


def listening(base: type[Any], inline: bool) -> Any:
    """Return a handler that notes every event it hears."""
    heard: list[str] = []

    def noting(name: str) -> Any:
        if base is AsyncCallbackHandler:

            async def hear(self: Any, *args: Any, **kwargs: Any) -> None:
                heard.append(name)

            return hear

        def hear_now(self: Any, *args: Any, **kwargs: Any) -> None:
            heard.append(name)

        return hear_now

    kind = type("Listening", (base,), {name: noting(name) for name in EVENTS} | {"run_inline": inline, "heard": heard})
    return kind()


class Failing(FakeListChatModel):
    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise ConnectionError("cut")


async def everything(handlers: list[Any]) -> None:
    """Call in every way, one after the other."""
    config: Any = {"callbacks": handlers}
    for model in (MODEL, LLM, FakeStreamingListLLM(responses=["four"]), RunnableLambda(lambda x: x) | MODEL):
        model.invoke("x", config=config)
        await model.ainvoke("x", config=config)
        list(model.stream("x", config=config))
        [_ async for _ in model.astream("x", config=config)]
        [_ async for _ in model.astream_events("x", config=config, version="v2")]
        model.batch(["x"], config=config)
        await model.abatch(["x"], config=config)
    if V3:
        list(MODEL.stream_events("x", version="v3", config=config))
    for call in (lambda: Failing(responses=[]).ainvoke("x", config=config),):
        with pytest.raises(ConnectionError):
            await call()


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("base", [BaseCallbackHandler, AsyncCallbackHandler])
async def test_other_handlers_hear_what_they_hear_without_us(base: type[Any], inline: bool) -> None:
    """Sync or async, inline or not, alone or with an inline neighbour: the same events in the same order [62]."""
    for neighbour in (False, True):
        heard = []
        for with_us in (False, True):
            handler, other = listening(base, inline), listening(BaseCallbackHandler, True)
            handlers = [handler, other] if neighbour else [handler]
            if with_us:
                async with pl_session() as outer, pl_session() as session:
                    await everything([*handlers, PromptLayerCallbackHandler()])
            else:
                await everything(handlers)
            heard.append((handler.heard, other.heard))
        assert heard[1] == heard[0]
        assert heard[0][0]
        assert {each.status for each in session.requests} == {"SUCCESS", "ERROR"}
        assert session.ids == outer.ids


@pytest.fixture
def langsmith() -> Iterator[tuple[str, list[str]]]:
    """A server that takes what LangSmith's client sends: its address, and the names of the runs that came."""
    came: list[str] = []

    class Taking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(b"{}")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append(f"{self.path} {body[:200]!r}")
            self.answer(b"{}")

        do_PATCH = do_POST  # noqa: N815 -- http.server's name

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", came
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_langsmith_at_the_same_time(
    promptlayer: FakePromptLayer, langsmith: tuple[str, list[str]], tmp_path: Path
) -> None:
    """With LANGSMITH_TRACING on every call is recorded whole, completions on the async path too, and traced [62]."""
    url, came = langsmith
    program = """
        import asyncio
        from langchain_core.language_models.fake import FakeListLLM
        from langchain_core.tracers.langchain import wait_for_all_tracers
        llm = FakeListLLM(responses=["four"])
        async def main():
            async with pltrack.pl_session() as s:
                model.invoke("chat")
                llm.invoke("completion")
                await model.ainvoke("chat")
                await llm.ainvoke("completion")
                [_ async for _ in model.astream("chat")]
                [_ async for _ in llm.astream("completion")]
                print(len(s.requests), {r.status for r in s.requests})
        asyncio.run(main())
        wait_for_all_tracers()
        pltrack.flush(10)
    """
    more = {"LANGSMITH_TRACING": "true", "LANGSMITH_ENDPOINT": url, "LANGSMITH_API_KEY": "ls-test"}
    out = run(program, environment(tmp_path / "j.db", promptlayer, **more))
    assert out.split() == ["6", "{'SUCCESS'}"]
    kinds = [logged.body["input"]["type"] for logged in in_call_order(promptlayer)]
    assert sorted(kinds) == ["chat"] * 3 + ["completion"] * 3
    texts = [str(logged.body["input"]) for logged in promptlayer.requests]
    assert all("chat" in text or "completion" in text for text in texts)
    assert came


async def test_a_loop_is_not_blocked_by_us() -> None:
    """No event of ours leaves the loop's thread for an answer: a call with a full default executor goes on [62]."""
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    pool, go = ThreadPoolExecutor(1), threading.Event()
    loop.set_default_executor(pool)
    busy = loop.run_in_executor(None, go.wait)
    try:
        async with pl_session() as session, asyncio.timeout(10):

            class Inside(FakeListChatModel):
                async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
                    return self._generate(messages)

            await Inside(responses=["x"]).ainvoke("x")
    finally:
        go.set()
        await busy
    assert session.last.status == "SUCCESS"
    assert current_session() is None
