"""The old guide's LLM classes, against real langchain-openai and a server on loopback."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fake_openai import FakeOpenAI
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.load import dumps, loads
from langchain_core.messages import HumanMessage

import pltrack
from pltrack.openai import PromptLayerChatOpenAI, PromptLayerOpenAI
from pltrack.testing import FakePromptLayer, Fault

Model = PromptLayerOpenAI | PromptLayerChatOpenAI

# With more than one prompt langchain-openai adds up usage details that it cannot add up.
pytestmark = pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning")

clients: dict[FakeOpenAI, httpx.Client] = {}  # of our own: those that langchain-openai shares are never closed


@pytest.fixture
def openai() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server, httpx.Client() as client:
        clients[server] = client
        yield server
        del clients[server]


def chat(openai: FakeOpenAI, **more: Any) -> PromptLayerChatOpenAI:
    given = {"model": "gpt-4o-mini", "api_key": "sk-test", "base_url": openai.url, "max_retries": 0}
    given["http_client"] = clients[openai]
    return PromptLayerChatOpenAI(**{**given, **more})


def completion(openai: FakeOpenAI, **more: Any) -> PromptLayerOpenAI:
    given = {"model": "gpt-3.5-turbo-instruct", "api_key": "sk-test", "base_url": openai.url, "max_retries": 0}
    given["http_client"] = clients[openai]
    return PromptLayerOpenAI(**{**given, **more})


def made(openai: FakeOpenAI, kind: str, **more: Any) -> Model:
    return chat(openai, **more) if kind == "chat" else completion(openai, **more)


def given(kind: str, *texts: str) -> list[Any]:
    return [[HumanMessage(text)] for text in texts] if kind == "chat" else list(texts)


def ids(result: Any) -> list[list[Any]]:
    return [[each.generation_info["pl_request_id"] for each in candidates] for candidates in result.generations]


def prompt_of(logged: Any) -> str:
    given = logged.body["input"]
    return (given["messages"][0] if given["type"] == "chat" else given)["content"][0]["text"]


kinds = pytest.mark.parametrize("kind", ["chat", "completion"])


@kinds
def test_a_call_is_logged_with_its_tags(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """A call outside any session is logged once, as OpenAI's, with the tags."""
    model = made(openai, kind, pl_tags=["old", "guide"])
    model.invoke("hi")
    pltrack.flush(5)
    (logged,) = promptlayer.requests
    assert logged.tags == ["old", "guide"]
    assert logged.body["provider"] == "openai"
    assert logged.body["model"] == model.model_name
    assert logged.body["input_tokens"] == 11


@kinds
def test_the_provider_never_sees_what_is_ours(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """Neither `pl_tags` nor `return_pl_id` reaches OpenAI, in calls, streams or batches."""
    model = made(openai, kind, pl_tags=["secret-tag"], return_pl_id=True)
    model.invoke("hi")
    model.batch(["a", "b"])
    list(model.stream("hi"))
    assert len(openai.requests) >= 3
    for asked in openai.requests:
        sent = str(asked)
        assert "secret-tag" not in sent
        assert "pl_tags" not in sent
        assert "pl_id" not in sent


@kinds
def test_one_record_inside_a_session(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """Inside a session the call is still one record, with both's tags."""
    with pltrack.pl_session(tags=["outer"]) as s:
        made(openai, kind, pl_tags=["model"], return_pl_id=True).invoke("hi")
    pltrack.flush(5)
    (logged,) = promptlayer.requests
    assert set(logged.tags) == {"outer", "model"}
    assert s.request_ids == (logged.id,)


@kinds
def test_each_generation_tells_its_id(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """Each prompt's candidates tell the id of that prompt's request."""
    model = made(openai, kind, return_pl_id=True, n=2)
    result = model.generate(given(kind, "one", "two"))
    logged = {prompt_of(each): each.id for each in promptlayer.requests}
    assert ids(result) == [[logged["one"]] * 2, [logged["two"]] * 2]


@kinds
async def test_async_calls_tell_it_too(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """`agenerate` waits for the ids without blocking the event loop."""
    promptlayer.fail(Fault.slow(0.3, path="/log-request"))
    turns = 0

    async def ticking() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(ticking())
    async with httpx.AsyncClient() as client:
        model = made(openai, kind, return_pl_id=True, http_async_client=client)
        await model.agenerate(given(kind, "warm"))
        before = turns
        result = await model.agenerate(given(kind, "one", "two"))
    ticker.cancel()
    assert turns - before > 50
    assert {each.body["status"] for each in promptlayer.requests} == {"SUCCESS"}
    logged = {prompt_of(each): each.id for each in promptlayer.requests}
    assert ids(result) == [[logged["one"]], [logged["two"]]]


def test_invoke_tells_it_in_the_message(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """`invoke` gives the message only, so its response_metadata tells the id too; every verb takes it."""
    message = chat(openai, return_pl_id=True).invoke("hi")
    request_id = message.response_metadata["pl_request_id"]
    pltrack.track.score(request_id=request_id, score=88)
    pltrack.flush(5)
    assert set(promptlayer.request(request_id).scores.values()) == {88}


@kinds
def test_without_return_pl_id_nothing_waits(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """By default a call neither waits for PromptLayer nor says an id."""
    promptlayer.fail(Fault.silent(path="/"))
    result = made(openai, kind).generate(given(kind, "hi"))
    assert "pl_request_id" not in (result.generations[0][0].generation_info or {})


@kinds
def test_our_own_id_where_none_can_come(openai: FakeOpenAI, pltrack_journal: Any, kind: str) -> None:
    """Without delivery the id is our own text, at once, and the verbs take it."""
    started = time.monotonic()
    ((own_id,),) = ids(made(openai, kind, return_pl_id=True).generate(given(kind, "hi")))
    assert time.monotonic() - started < 5
    assert isinstance(own_id, str)
    assert pltrack.request(own_id).score(50) == 1


@kinds
def test_our_own_id_where_it_does_not_come_in_time(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """Against a silent PromptLayer a call waits `id_timeout`, then says our id; a score by it arrives later."""
    pltrack.configure(id_timeout=0.2)
    promptlayer.fail(Fault.silent(path="/log-request"))
    ((own_id,),) = ids(made(openai, kind, return_pl_id=True).generate(given(kind, "hi")))
    assert isinstance(own_id, str)
    pltrack.request(own_id).score(77)
    promptlayer.heal()
    promptlayer.wait_for(lambda pl: set(pl.by_pltrack_id(own_id).scores.values()) == {77})


def test_a_call_that_is_not_sampled_does_not_wait(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """A session that is not sampled logs nothing; its calls say our id at once."""
    pltrack.configure(sample_rate=0.0)
    started = time.monotonic()
    with pltrack.pl_session():
        ((own_id,),) = ids(chat(openai, return_pl_id=True).generate(given("chat", "hi")))
    assert isinstance(own_id, str)
    assert time.monotonic() - started < 5


@kinds
async def test_streams_are_tracked(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """Streams are logged with the tags too, sync and async."""
    async with httpx.AsyncClient() as client:
        model = made(openai, kind, pl_tags=["s"], return_pl_id=True, http_async_client=client)
        list(model.stream("one"))
        async for _ in model.astream("two"):
            pass
    await pltrack.aflush(5)
    assert {prompt_of(each): each.tags for each in promptlayer.requests} == {"one": ["s"], "two": ["s"]}


@kinds
def test_a_failed_call_is_logged_and_raised(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """The provider's error reaches the caller unchanged, and is logged."""
    with pytest.raises(Exception, match="429") as caught:
        made(openai, kind, model="err-429", return_pl_id=True).invoke("hi")
    assert "RateLimit" in type(caught.value).__name__
    pltrack.flush(5)
    (logged,) = promptlayer.requests
    assert (logged.body["status"], logged.body["error_type"]) == ("ERROR", "PROVIDER_RATE_LIMIT")


def test_prompts_answered_by_a_cache_have_no_request(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """Of a batch that LangChain's cache answers in part, only the others were requests, each with its own id."""
    model = completion(openai, return_pl_id=True, cache=InMemoryCache())
    ((first,),) = ids(model.generate(["one"]))
    (cached,), (second,) = ids(model.generate(["one", "two"]))
    assert cached is None
    assert {prompt_of(each): each.id for each in promptlayer.requests} == {"one": first, "two": second}


@pytest.mark.parametrize("as_manager", [False, True])
@kinds
def test_the_users_own_callbacks_stay(
    promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str, as_manager: bool
) -> None:
    """Callbacks given to the model or the call, as a list or a manager, are called as without us."""
    heard: list[str] = []

    class Hearing(BaseCallbackHandler):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_llm_end(self, *_: Any, **__: Any) -> None:
            heard.append(self.name)

    def wrapped(name: str) -> Any:
        return CallbackManager([Hearing(name)]) if as_manager else [Hearing(name)]

    model = made(openai, kind, callbacks=wrapped("model"), pl_tags=["t"], return_pl_id=True)
    model.generate(given(kind, "hi"), callbacks=wrapped("call"))
    assert sorted(heard) == ["call", "model"]
    (logged,) = promptlayer.requests
    assert logged.tags == ["t"]


def test_a_copy_carries_its_own_tags_only(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """A model made from another's fields (as configurable_fields does) has its own tags, not both's."""
    first = chat(openai, pl_tags=["first"])
    PromptLayerChatOpenAI(**{**first.__dict__, "pl_tags": ["second"]}).invoke("hi")
    pltrack.flush(5)
    assert promptlayer.requests[0].tags == ["second"]


def test_it_can_be_written_and_read(openai: FakeOpenAI) -> None:
    """What `dumps` writes has no key in it, and `loads` makes the same class of it."""
    text = dumps(chat(openai, pl_tags=["kept"], api_key="sk-very-secret"))
    assert "sk-very-secret" not in text
    allowed: dict[str, Any] = {"allowed_objects": [PromptLayerChatOpenAI]}
    if "allowed_objects" not in inspect.signature(loads).parameters:  # langchain-core before 1.2.5 asks for no list
        allowed = {}
    read = loads(text, valid_namespaces=["pltrack"], secrets_map={"OPENAI_API_KEY": "sk-test"}, **allowed)
    assert type(read) is PromptLayerChatOpenAI
    assert read.pl_tags == ["kept"]


def test_wrong_tags_are_refused_at_once(openai: FakeOpenAI) -> None:
    """One text is not several tags."""
    with pytest.raises(ValueError, match="pl_tags"):
        chat(openai, pl_tags="prod")


def test_without_langchain_openai_the_remedy_is_told() -> None:
    """Importing the module without langchain-openai says what to install."""
    code = "import sys; sys.modules['langchain_openai'] = None; import pltrack.openai"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install pltrack[openai]" in done.stderr.splitlines()[-1]
