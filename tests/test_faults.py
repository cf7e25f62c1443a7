"""Failures of the real OpenAI client, under PromptLayer's names; what fails outside a call is not ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from fake_openai import FakeOpenAI
from langchain_core import exceptions
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel
from wire import in_call_order

import pltrack
from pltrack import pl_session
from pltrack.testing import FakePromptLayer, Logged

SECRETS = ("sk-own-key", "header-secret", "bound-secret", "kwargs-secret", "cookie-secret")
MODEL = FakeListChatModel(responses=["four"])


class Answer(BaseModel):
    """What a structured answer looks like."""

    x: int


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as running:
        yield running


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client of our own: those that langchain-openai shares are never closed."""
    with httpx.Client() as made:
        yield made


@pytest.fixture
def asking(server: FakeOpenAI, client: httpx.Client) -> Any:
    """Make models of OpenAI's real client, which ask the server on loopback."""

    def make(name: str = "gpt-4o", kind: Any = ChatOpenAI, **more: Any) -> Any:
        given = {"api_key": "sk-own-key", "base_url": server.url, "http_client": client, "max_retries": 0}
        return kind(model=name, **{**given, **more})

    return make


def only(promptlayer: FakePromptLayer) -> Logged:
    assert pltrack.flush(10).pending == 0
    (logged,) = promptlayer.requests
    return logged


@pytest.mark.parametrize("way", ["invoke", "stream", "responses", "completion"])
@pytest.mark.parametrize(
    ("model", "error", "kind"),
    [
        ("err-400", openai.BadRequestError, "PROVIDER_ERROR"),
        ("err-401", openai.AuthenticationError, "PROVIDER_AUTH_ERROR"),
        ("err-402", openai.APIStatusError, "PROVIDER_QUOTA_LIMIT"),
        ("err-403", openai.PermissionDeniedError, "PROVIDER_AUTH_ERROR"),
        ("err-404", openai.NotFoundError, "PROVIDER_ERROR"),
        ("err-408", openai.APIStatusError, "PROVIDER_TIMEOUT"),
        ("err-429", openai.RateLimitError, "PROVIDER_RATE_LIMIT"),
        ("err-429-insufficient_quota", openai.RateLimitError, "PROVIDER_QUOTA_LIMIT"),
        ("err-500", openai.InternalServerError, "PROVIDER_ERROR"),
        ("err-504", openai.InternalServerError, "PROVIDER_TIMEOUT"),
    ],
)
def test_each_refusal_has_its_name(
    promptlayer: FakePromptLayer, asking: Any, model: str, error: type[Exception], kind: str, way: str
) -> None:
    """The caller gets the client's own error; the record has PromptLayer's type, the words, and no answer."""
    asked = asking(model, OpenAI if way == "completion" else ChatOpenAI)
    if way == "responses":
        asked = asking(model, use_responses_api=True)
    with pl_session() as session, pytest.raises(error):
        list(asked.stream("x")) if way == "stream" else asked.invoke("x")
    logged = only(promptlayer)
    assert (logged.body["status"], logged.body["error_type"]) == ("ERROR", kind)
    assert "told to answer" in logged.body["error_message"]
    assert not logged.body["output"].get("messages" if way != "completion" else "content")
    assert logged.body["api_type"] is None
    assert (session.usage.errors, session.usage.input_tokens) == (1, 0)


def test_a_silent_provider_is_a_timeout(promptlayer: FakePromptLayer, asking: Any) -> None:
    """The client gives up on a server that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = asking(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=0.2)
        with pl_session(), pytest.raises(openai.APITimeoutError):
            model.invoke("x")
    body = only(promptlayer).body
    assert (body["status"], body["error_type"]) == ("ERROR", "PROVIDER_TIMEOUT")


def test_a_provider_that_is_not_there(promptlayer: FakePromptLayer, asking: Any) -> None:
    """A refused connection is the provider's error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pl_session(), pytest.raises(openai.APIConnectionError):
        asking(base_url=f"http://127.0.0.1:{port}/v1").invoke("x")
    assert only(promptlayer).body["error_type"] == "PROVIDER_ERROR"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        *(
            (getattr(exceptions, name)("no"), kind)
            for name, kind in (
                ("ModelAuthenticationError", "PROVIDER_AUTH_ERROR"),
                ("ModelPermissionDeniedError", "PROVIDER_AUTH_ERROR"),
                ("ModelRateLimitError", "PROVIDER_RATE_LIMIT"),
                ("ModelTimeoutError", "PROVIDER_TIMEOUT"),
                ("ModelInvalidRequestError", "PROVIDER_ERROR"),
                ("ContextOverflowError", "PROVIDER_ERROR"),
            )
            if hasattr(exceptions, name)  # newer than the oldest langchain-core
        ),
        (ValueError("no"), "UNKNOWN_ERROR"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_langchains_own_errors(promptlayer: FakePromptLayer, error: Exception, kind: str) -> None:
    """Integrations of any provider raise LangChain's model errors: they are the provider's; others are nobody's."""

    class Failing(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            raise error

    with pl_session(), pytest.raises(type(error)):
        Failing(responses=[]).invoke("x")
    assert only(promptlayer).body["error_type"] == kind


def test_a_filtered_answer_is_a_warning(promptlayer: FakePromptLayer, asking: Any) -> None:
    """What a content filter cut is an answer with a warning; where the client raises over it, too."""
    with pl_session():
        asking("filtered").invoke("x")
        with pytest.raises(openai.ContentFilterFinishReasonError):
            asking("filtered").with_structured_output(Answer, method="json_schema").invoke("x")
    pltrack.flush(10)
    kinds = [(each.body["status"], each.body["error_type"]) for each in promptlayer.requests]
    assert kinds == [("WARNING", "PROVIDER_PARTIAL_RESPONSE")] * 2
    assert in_call_order(promptlayer)[0].body["output"]["messages"][0]["content"]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of the oldest langchain-openai
@pytest.mark.parametrize(
    ("model", "method", "error", "status"),
    [
        ("gpt-4o", "json_mode", OutputParserException, "SUCCESS"),
        ("gpt-4o", "json_schema", Exception, "ERROR"),
        ("json", "json_schema", None, "SUCCESS"),
        ("json", "json_mode", None, "SUCCESS"),
    ],
)
def test_structured_output(
    promptlayer: FakePromptLayer, asking: Any, model: str, method: str, error: Any, status: str
) -> None:
    """The model's call is recorded as LangChain tells it: a parser's failure after an answer is not the model's.

    The schema may be a pydantic class; what is recorded is its JSON schema. [79] [81]
    """
    structured = asking(model).with_structured_output(Answer, method=method)
    with pl_session():
        if error is None:
            assert structured.invoke("Say JSON.") == Answer(x=1)
        else:
            with pytest.raises(error):
                structured.invoke("Say JSON.")
    body = only(promptlayer).body
    assert body["status"] == status
    form = body["parameters"]["response_format"]
    assert form["type"] == {"json_mode": "json_object"}.get(method, "json_schema")
    assert method == "json_mode" or "x" in form["json_schema"]["schema"]["properties"]


@tool
def failing(question: str) -> str:
    """Fail."""
    raise KeyError("mine")


@pytest.mark.parametrize(
    "chain",
    [
        MODEL | RunnableLambda(lambda _: {}["mine"]),
        MODEL | JsonOutputParser(),
        MODEL | (lambda _: {"question": "x"}) | failing,
    ],
    ids=["lambda", "parser", "tool"],
)
def test_errors_around_a_call_are_not_the_calls(promptlayer: FakePromptLayer, chain: Any) -> None:
    """What raises after the model has answered leaves the record a success; nothing else is recorded."""
    with pl_session(), pytest.raises((KeyError, OutputParserException)):
        chain.invoke("x")
    assert only(promptlayer).body["status"] == "SUCCESS"


def test_errors_before_a_call_are_no_call(promptlayer: FakePromptLayer) -> None:
    """A missing variable, or a role that nobody knows: no model was asked, nothing is recorded. [87]"""
    with pl_session() as session:
        with pytest.raises(KeyError):
            (ChatPromptTemplate.from_template("{x}") | MODEL).invoke({})
        with pytest.raises(ValueError, match="martian"):
            MODEL.invoke([("martian", "x")])
    pltrack.flush(10)
    assert not session.requests
    assert not promptlayer.requests


def test_retries_inside_the_client_are_one_request(
    promptlayer: FakePromptLayer, asking: Any, server: FakeOpenAI
) -> None:
    """The client's own attempts are one call for LangChain, and one record."""
    with pl_session(), pytest.raises(openai.InternalServerError):
        asking("err-500", max_retries=2).invoke("x")
    assert len(server.requests) == 3
    assert only(promptlayer).body["status"] == "ERROR"


@pytest.mark.parametrize("model", ["gpt-4o", "err-401"])
def test_nothing_secret_is_recorded(promptlayer: FakePromptLayer, asking: Any, model: str) -> None:
    """Keys, headers given to the model, bound or in its kwargs, and the answer's cookies leave no trace. [78]"""
    asked = asking(
        model,
        default_headers={"x-own": "header-secret"},
        model_kwargs={"extra_headers": {"x-kwargs": "kwargs-secret"}},
    ).bind(extra_headers={"x-bound": "bound-secret"})
    with pl_session():
        try:
            asked.invoke("x")
        except openai.AuthenticationError:
            assert model == "err-401"
    body = str(only(promptlayer).body)
    assert [secret for secret in SECRETS if secret in body] == []


async def test_the_task_that_was_cancelled_is_the_one_recorded(promptlayer: FakePromptLayer) -> None:
    """Of two calls in one gather, the cancelled one is a warning and the other a success. [72]"""
    begun, allowed = asyncio.Event(), asyncio.Event()

    class Waiting(FakeListChatModel):
        async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            await allowed.wait()
            return self._generate(messages)

    async with pl_session() as session:
        tasks = [asyncio.create_task(Waiting(responses=["ok"]).ainvoke(each)) for each in ("a", "b")]
        await begun.wait()
        while len(session.requests) < 2:
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        allowed.set()
        await tasks[1]
    await pltrack.aflush(10)
    found = {
        each.body["input"]["messages"][0]["content"][0]["text"]: each.body["status"] for each in promptlayer.requests
    }
    assert found == {"a": "WARNING", "b": "SUCCESS"}
