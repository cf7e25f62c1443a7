"""The real ChatOpenAI and OpenAI classes in a session, against a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fake_openai import FakeOpenAI
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from oldest import needs_v3
from wire import in_call_order

import pltrack
from pltrack.testing import FakePromptLayer, Logged

# With more than one prompt langchain-openai adds up usage details that it cannot add up.
pytestmark = pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning")

clients: dict[FakeOpenAI, httpx.Client] = {}  # of our own: those that langchain-openai shares are never closed


@pytest.fixture
def openai() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server, httpx.Client() as client:
        clients[server] = client
        yield server
        del clients[server]


def chat(openai: FakeOpenAI, model: str = "gpt-4o-mini", **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=model, api_key="sk-test", base_url=openai.url, http_client=clients[openai], max_retries=0, **more
    )


def completion(openai: FakeOpenAI, model: str = "gpt-3.5-turbo-instruct", **more: Any) -> OpenAI:
    return OpenAI(
        model=model, api_key="sk-test", base_url=openai.url, http_client=clients[openai], max_retries=0, **more
    )


def only(promptlayer: FakePromptLayer) -> Logged:
    pltrack.flush(5)
    (logged,) = promptlayer.requests
    return logged


def texts(blueprint: dict[str, Any]) -> list[str]:
    parts = blueprint["messages"] if blueprint["type"] == "chat" else [blueprint]
    return ["".join(block["text"] for block in part["content"] or []) for part in parts]


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def test_a_chat_call(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """Provider, model, input, output, parameters and usage are what was asked and answered."""
    with pltrack.pl_session("c", tags=["t"]):
        chat(openai, temperature=0.5).invoke([("system", "Be brief."), ("user", "hi")])
    logged = only(promptlayer)
    body = logged.body
    assert (body["provider"], body["model"], logged.tags) == ("openai", "gpt-4o-mini", ["t"])
    assert texts(body["input"]) == ["Be brief.", "hi"]
    assert texts(body["output"]) == ["Hello there"]
    assert body["parameters"]["temperature"] == 0.5
    assert (body["input_tokens"], body["output_tokens"]) == (11, 7)


def test_a_completion_call(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """A completion model's prompt, answer and usage are logged as a completion."""
    with pltrack.pl_session():
        completion(openai).invoke("Once upon a time, ")
    body = only(promptlayer).body
    assert (body["input"]["type"], body["output"]["type"]) == ("completion", "completion")
    assert (texts(body["input"]), texts(body["output"])) == (["Once upon a time, "], ["Hello there"])
    assert (body["provider"], body["model"]) == ("openai", "gpt-3.5-turbo-instruct")
    assert (body["input_tokens"], body["output_tokens"]) == (11, 7)


def test_a_stream_with_usage(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """With `stream_usage` a stream's usage is logged, and when its first token came is known."""
    with pltrack.pl_session() as s:
        assert "".join(chunk.text for chunk in chat(openai, stream_usage=True).stream("hi")) == "Hello there"
    body = only(promptlayer).body
    assert texts(body["output"]) == ["Hello there"]
    assert (body["input_tokens"], body["output_tokens"]) == (11, 7)
    assert s.usage.first_token_seconds is not None


def test_a_stream_without_usage(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """A stream that tells no usage is logged without one; none is made up. [73]"""
    with pltrack.pl_session():
        list(chat(openai).stream("hi"))
    body = only(promptlayer).body
    assert texts(body["output"]) == ["Hello there"]
    assert not body.get("input_tokens")
    assert not body.get("output_tokens")


async def test_an_async_stream(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """Async streams are logged as sync ones are, chat and completion models alike."""
    async with httpx.AsyncClient() as client, pltrack.pl_session() as s:
        async for _ in chat(openai, stream_usage=True, http_async_client=client).astream("one"):
            pass
        async for _ in completion(openai, http_async_client=client).astream("two"):
            pass
    await pltrack.aflush(5)
    assert [each.body["status"] for each in promptlayer.requests] == ["SUCCESS"] * 2
    assert [texts(each.body["input"]) for each in in_call_order(promptlayer)] == [["one"], ["two"]]
    assert [texts(each.body["output"]) for each in in_call_order(promptlayer)] == [["Hello there"]] * 2
    assert await s.arequest_ids() == tuple(each.id for each in in_call_order(promptlayer))


def test_a_stream_that_breaks_off(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """A stream that the provider cuts raises as without us, and is logged as an error."""
    with pltrack.pl_session(), pytest.raises(Exception):  # noqa: PT011 -- whichever the HTTP client raises
        list(chat(openai, "cut").stream("hi"))
    body = only(promptlayer).body
    assert body["status"] == "ERROR"
    assert body["error_message"]


@pytest.mark.parametrize("way", ["stream", pytest.param("v3", marks=needs_v3), "invoke"])
def test_a_stream_that_ends_too_early(promptlayer: FakePromptLayer, openai: FakeOpenAI, way: str) -> None:
    """One that ends in the middle without an error or a finish reason is a warning with what had arrived [33]."""
    for model in ("short", "gpt-4o-mini"):
        with pltrack.pl_session(model):
            if way == "stream":
                list(chat(openai, model).stream("hi"))
            elif way == "v3":
                list(chat(openai, model).stream_events("hi", version="v3"))
            else:
                chat(openai, model, streaming=True).invoke("hi")
    pltrack.flush(5)
    short, whole = (each.body for each in in_call_order(promptlayer))
    assert (short["status"], short["error_type"]) == ("WARNING", "PROVIDER_PARTIAL_RESPONSE")
    assert "finish reason" in short["error_message"]
    assert texts(short["output"]) == ["Hello "]
    assert (whole["status"], texts(whole["output"])) == ("SUCCESS", ["Hello there"])


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(promptlayer: FakePromptLayer, openai: FakeOpenAI, streamed: bool) -> None:
    """The tools offered, the tool call and the tool's result are all logged."""
    bound = chat(openai, "tool").bind_tools([weather])
    with pltrack.pl_session():
        if streamed:
            chunks = list(bound.stream("Weather?"))
            answer: Any = chunks[0]
            for chunk in chunks[1:]:
                answer = answer + chunk
        else:
            answer = bound.invoke("Weather?")
        call = answer.tool_calls[0]
        bound.invoke([HumanMessage("Weather?"), answer, ToolMessage("sunny", tool_call_id=call["id"])])
    pltrack.flush(5)
    first, second = in_call_order(promptlayer)
    assert [each["function"]["name"] for each in first.body["input"]["tools"]] == ["weather"]
    (called,) = first.body["output"]["messages"][0]["tool_calls"]
    assert (called["function"]["name"], called["id"]) == ("weather", "call_1")
    assert [each["role"] for each in second.body["input"]["messages"]] == ["user", "assistant", "tool"]
    assert texts(second.body["output"]) == ["Hello there"]


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_rate_limit(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """A 429 is raised to the caller and logged as a rate limit, with the provider's words."""
    model: Any = chat(openai, "err-429") if kind == "chat" else completion(openai, "err-429")
    with pltrack.pl_session() as s, pytest.raises(Exception, match="told to answer 429"):
        model.invoke("hi")
    body = only(promptlayer).body
    assert (body["status"], body["error_type"]) == ("ERROR", "PROVIDER_RATE_LIMIT")
    assert "told to answer 429" in body["error_message"]
    assert s.usage.errors == 1


@pytest.mark.parametrize(("status", "kind"), [(401, "PROVIDER_AUTH_ERROR"), (500, "PROVIDER_ERROR")])
def test_other_errors(promptlayer: FakePromptLayer, openai: FakeOpenAI, status: int, kind: str) -> None:
    """Each refusal of the provider is logged under PromptLayer's name for it."""
    with pltrack.pl_session(), pytest.raises(Exception, match=str(status)):
        chat(openai, f"err-{status}").invoke("hi")
    body = only(promptlayer).body
    assert (body["status"], body["error_type"]) == ("ERROR", kind)


def test_the_key_is_never_logged(promptlayer: FakePromptLayer, openai: FakeOpenAI) -> None:
    """Neither the provider's key nor headers with secrets leave, on success or on error. [78]"""
    secret = "sk-very-secret-0123456789"
    for name in ("gpt-4o-mini", "err-401"):
        model = ChatOpenAI(
            model=name,
            api_key=secret,
            base_url=openai.url,
            default_headers={"x-own": f"own-{secret}"},
            max_retries=0,
            http_client=clients[openai],
        )
        with pltrack.pl_session():
            try:
                model.invoke("hi")
            except Exception:
                assert name == "err-401"
    pltrack.flush(5)
    assert len(promptlayer.requests) == 2
    assert secret not in str([each.body for each in promptlayer.calls])


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_several_candidates(promptlayer: FakePromptLayer, openai: FakeOpenAI, kind: str) -> None:
    """With n=2 both candidates are in the one request's output, and the usage is counted once."""
    with pltrack.pl_session() as s:
        if kind == "chat":
            chat(openai, n=2).generate([[HumanMessage("hi")]])
        else:
            completion(openai, n=2).generate(["hi"])
    body = only(promptlayer).body
    assert "".join(texts(body["output"])).count("Hello there") == 2
    assert (body["input_tokens"], body["output_tokens"]) == (11, 7)
    assert (s.usage.calls, s.usage.input_tokens) == (1, 11)
