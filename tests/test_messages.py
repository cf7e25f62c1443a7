"""Every kind of message and media through real calls: the record says what was sent and what came back."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from contract import AVAILABLE, errors
from fake_openai import FakeOpenAI
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

import pltrack
from pltrack import pl_session
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
B64 = "aGk="
Json = dict[str, Any]


def recorded(promptlayer: FakePromptLayer, given: Any, model: Any = MODEL) -> Json:
    """Call the model in a session, and return the body of the one record, which PromptLayer would accept."""
    with pl_session():
        model.invoke(given)
    assert pltrack.flush(10).pending == 0
    (logged,) = promptlayer.requests
    if AVAILABLE:
        assert errors("LogRequest", logged.body) == []
    return dict(logged.body)


def asked(promptlayer: FakePromptLayer, *given: Any) -> list[Json]:
    return list(recorded(promptlayer, list(given))["input"]["messages"])


def answered(promptlayer: FakePromptLayer, answer: AIMessage) -> Json:
    (found,) = recorded(promptlayer, "x", GenericFakeChatModel(messages=iter([answer])))["output"]["messages"]
    return dict(found)


def said(words: str, **more: Any) -> Json:
    return {"type": "text", "text": words, **more}


def media(kind: str, url: str, form: str, title: str = "media") -> Json:
    return {"type": "media", "media": {"title": title, "type": kind, "url": url, "format": form}}


def image(url: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


EVERY_KIND: list[AnyMessage | BaseException | Any] = [
    SystemMessage("s"),
    SystemMessage("d", additional_kwargs={"__openai_role__": "developer"}),
    HumanMessage("h", name="bob"),
    AIMessage(
        "",
        tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c1"}, {"name": "g", "args": {}, "id": "c2"}],
        invalid_tool_calls=[{"name": "g", "args": "{bad", "id": "c3", "error": "e", "type": "invalid_tool_call"}],
    ),
    ToolMessage("42", tool_call_id="c1", name="f", status="error", artifact={"big": object()}),
    FunctionMessage("r", name="fn"),
    ChatMessage("c", role="moderator"),
    AIMessageChunk("ch"),
    RemoveMessage(id="1"),
]


def test_every_kind_of_message(promptlayer: FakePromptLayer) -> None:
    """Each has its role and says what it said; a tool's artifact, which may be any object, stays where it is. [85]"""
    found = asked(promptlayer, *EVERY_KIND)
    assert [each["role"] for each in found] == [
        "system", "developer", "user", "assistant", "tool", "function", "user", "assistant", "user",
    ]  # fmt: skip
    assert [each.get("name") for each in found] == [None, None, "bob", None, "f", "fn", "moderator", None, None]
    calls = [(each["id"], each["function"]["name"], each["function"]["arguments"]) for each in found[3]["tool_calls"]]
    assert calls == [("c1", "f", '{"a":1}'), ("c2", "g", "{}"), ("c3", "g", "{bad")]
    assert found[4]["tool_call_id"] == "c1"
    assert "object at" not in str(found)


def test_every_form_of_input(promptlayer: FakePromptLayer) -> None:
    """Pairs, mappings and bare texts are the messages that LangChain makes of them."""
    found = asked(
        promptlayer,
        ("developer", "d"),
        ("user", "u"),
        ("assistant", "a"),
        {"role": "tool", "content": "t", "tool_call_id": "1"},
        {"role": "system", "content": "s"},
        "bare",
    )
    assert [each["role"] for each in found] == ["developer", "user", "assistant", "tool", "system", "user"]
    assert [each["content"] for each in found] == [[said(words)] for words in ("d", "u", "a", "t", "s", "bare")]


BLOCKS: dict[str, tuple[Any, Json]] = {
    "text": (said("t"), said("t")),
    "image_url": (
        {"type": "image_url", "image_url": {"url": "http://x/i.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "http://x/i.png", "detail": "low"}},
    ),
    "data url": (image("data:image/png;base64," + B64), image("data:image/png;base64," + B64)),
    "v0 image": ({"type": "image", "source_type": "url", "url": "http://x/i.png"}, image("http://x/i.png")),
    "v0 image bytes": (
        {"type": "image", "source_type": "base64", "data": B64, "mime_type": "image/png"},
        image("data:image/png;base64," + B64),
    ),
    "v1 image": ({"type": "image", "url": "http://x/i.png"}, image("http://x/i.png")),
    "v1 image bytes": (
        {"type": "image", "base64": B64, "mime_type": "image/png"},
        image("data:image/png;base64," + B64),
    ),
    "v1 image id": ({"type": "image", "file_id": "f1"}, media("image/jpeg", "f1", "neither")),
    "v1 audio": ({"type": "audio", "base64": B64, "mime_type": "audio/wav"}, media("audio/wav", B64, "base64")),
    "v0 audio": (
        {"type": "audio", "source_type": "base64", "data": B64, "mime_type": "audio/wav"},
        media("audio/wav", B64, "base64"),
    ),
    "openai audio": (
        {"type": "input_audio", "input_audio": {"data": B64, "format": "wav"}},
        media("audio/wav", B64, "base64"),
    ),
    "v1 file bytes": (
        {"type": "file", "base64": B64, "mime_type": "application/pdf", "extras": {"filename": "a.pdf"}},
        media("application/pdf", B64, "base64", "a.pdf"),
    ),
    "v1 file": (
        {"type": "file", "url": "http://x/a.pdf"},
        media("application/octet-stream", "http://x/a.pdf", "url"),
    ),
    "openai file": (
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{B64}", "filename": "a.pdf"}},
        media("application/pdf", B64, "base64", "a.pdf"),
    ),
    "v1 video": ({"type": "video", "base64": B64, "mime_type": "video/mp4"}, media("video/mp4", B64, "base64")),
    "anthropic image": (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": B64}},
        image("data:image/png;base64," + B64),
    ),
    "anthropic document": (
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": B64}},
        media("application/pdf", B64, "base64"),
    ),
    "bare": ("just a string", said("just a string")),
    "plain text": ({"type": "text-plain", "text": "doc", "mime_type": "text/plain"}, said("doc")),
    "unknown": ({"type": "weird", "x": 1}, said('{"type":"weird","x":1}')),
    "no type": ({"x": 1}, said('{"type":"x","x":1}')),
    "tool use of a person": (
        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
        said('{"type":"tool_use","id":"1","name":"f","input":{}}'),
    ),
    "cache point": (
        {"cachePoint": {"type": "default"}},
        said('{"type":"cachePoint","cachePoint":{"type":"default"}}'),
    ),
}


@pytest.mark.parametrize("form", sorted(BLOCKS))
def test_every_form_of_media(promptlayer: FakePromptLayer, form: str) -> None:
    """The record is the same whether LangChain has rewritten a block for its handlers or not. [84]"""
    given, expected = BLOCKS[form]
    (found,) = asked(promptlayer, HumanMessage([copy.deepcopy(given)]))
    assert found["content"] == [expected]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (RemoveMessage(id="m1"), "m1"),
        (HumanMessage([{"type": "video", "base64": B64, "mime_type": "video/mp4"}]), "video/mp4"),
        (HumanMessage([{"x": 1}]), '"x":1'),
        (HumanMessage([{"type": "tool_use", "id": "1", "name": "f", "input": {}}]), "tool_use"),
        (HumanMessage([{"type": "file", "base64": B64, "mime_type": "application/pdf"}]), B64),
        (AIMessage("x", additional_kwargs={"reasoning_content": "hm, hm"}), "hm, hm"),
        (AIMessage([{"type": "server_tool_call", "name": "web_search", "args": {"q": "news"}, "id": "1"}]), "news"),
        (AIMessage("", invalid_tool_calls=[{"name": "g", "args": "{bad", "id": "c", "error": None}]), "{bad"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_langchains_converter_refuses(promptlayer: FakePromptLayer, message: Any, words: str) -> None:
    """Messages on which LangChain's own converter raises, warns or forgets are recorded whole and quietly. [86]"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body = recorded(promptlayer, [message])
    assert words in str(body["input"]).replace('\\"', '"')


def test_what_is_changed_later_is_recorded_as_it_was(promptlayer: FakePromptLayer) -> None:
    """Messages, blocks, calls and the answer are the program's own: recorded as sent, never changed by us. [83]"""
    block: Json = {"type": "text", "text": "before"}
    picture: Json = {"type": "image", "url": "http://x/before.png"}
    earlier = AIMessage("", tool_calls=[{"name": "f", "args": {"a": ["before"]}, "id": "c1"}])
    given: list[Any] = [
        HumanMessage([block, picture]),
        earlier,
        ToolMessage("before", tool_call_id="c1", artifact={"x": 1}),
    ]
    untouched = copy.deepcopy(given)
    model = GenericFakeChatModel(messages=iter([AIMessage([said("before")])]))
    with pl_session():
        answer = model.invoke(given)
        assert given == untouched
        assert answer.content == [said("before")]
        block["text"] = picture["url"] = given[2].content = "after"
        earlier.tool_calls[0]["args"]["a"].append("after")
        given[0].content.append(said("after"))
        given.append(HumanMessage("after"))
        answer.content[0]["text"] = "after"  # type: ignore[index]
        answer.content.append(said("after"))  # type: ignore[union-attr]
    pltrack.flush(10)
    body = str(promptlayer.requests[0].body)
    assert "after" not in body
    assert body.count("before") == 5


def test_reasoning_keeps_its_signature(promptlayer: FakePromptLayer) -> None:
    """Reasoning of Anthropic's form, hidden or not, is thinking, with the signature that a next turn needs."""
    blocks: list[Any] = [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "hidden"},
        said("so"),
    ]
    assert answered(promptlayer, AIMessage(blocks))["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "thinking", "thinking": "", "signature": "hidden"},
        said("so"),
    ]


def test_server_tools_and_their_results(promptlayer: FakePromptLayer) -> None:
    """What a provider ran itself is told: the search, what it found, and what the text cites of it."""
    page = {"type": "web_search_result", "url": "http://x", "title": "X", "encrypted_content": "e"}
    note = {"type": "web_search_result_location", "url": "http://x", "title": "X", "cited_text": "words"}
    blocks: list[Any] = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [page]},
        {"type": "text", "text": "words", "citations": [note]},
    ]
    found = answered(promptlayer, AIMessage(blocks))["content"]
    assert [each["type"] for each in found] == ["server_tool_use", "web_search_tool_result", "text"]
    assert found[1]["content"] == [page]
    assert found[2]["annotations"][0]["cited_text"] == "words"


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return city


@tool
def time_of(city: str) -> str:
    """Tell the time of a city."""
    return city


@pytest.fixture
def model() -> Iterator[Any]:
    """Make models of OpenAI's real client, which ask a server on loopback."""
    with FakeOpenAI() as server, httpx.Client() as client:

        def make(name: str = "gpt-4o", **more: Any) -> Any:
            given = {"api_key": "sk-test", "base_url": server.url, "http_client": client, "max_retries": 0}
            return ChatOpenAI(model=name, **given, **more)

        yield make


def test_parallel_tool_calls_valid_and_not(promptlayer: FakePromptLayer, model: Any) -> None:
    """Two calls in one answer, the second of broken JSON: both are told as the model wrote them."""
    body = recorded(promptlayer, "x", model("tools").bind_tools([weather, time_of]))
    assert [each["function"]["name"] for each in body["input"]["tools"]] == ["weather", "time_of"]
    (answer,) = body["output"]["messages"]
    calls = [(each["id"], each["function"]["name"], each["function"]["arguments"]) for each in answer["tool_calls"]]
    assert calls == [("call_1", "weather", "{}"), ("call_2", "time_of", "{oops")]


def test_a_spoken_answer(promptlayer: FakePromptLayer, model: Any) -> None:
    """An answer in sound is told with its bytes and with its words."""
    (answer,) = recorded(promptlayer, "x", model("spoken"))["output"]["messages"]
    words, sound = answer["content"]
    assert words == said("Hello")
    assert (sound["type"], sound["media_type"], sound["url"]) == (
        "output_media",
        "audio",
        "data:audio/wav;base64,QQ==",
    )


@pytest.mark.parametrize("version", ["responses/v1", "v1", "v0"])
def test_answers_of_the_responses_api(promptlayer: FakePromptLayer, model: Any, version: str) -> None:
    """Reasoning, a hosted search, text and its citation, in each form that langchain-openai gives them."""
    body = recorded(promptlayer, "x", model(use_responses_api=True, output_version=version))
    assert body["api_type"] == "responses"
    (answer,) = body["output"]["messages"]
    (text,) = [each for each in answer["content"] if each["type"] == "text" and each["text"] == "Hello there"]
    assert text["annotations"][0]["url"] == "http://x"
    told = str(answer["content"])
    assert "thinking" in told
    if version != "v0":  # which leaves the search out of the content
        assert [each["type"] for each in answer["content"]][:2] == ["thinking", "server_tool_use"]


def test_an_answer_in_blocks(promptlayer: FakePromptLayer) -> None:
    """`output_version="v1"` turns an answer into blocks: the words are the same."""

    class Speaking(FakeListChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("four"))])

    (answer,) = recorded(promptlayer, "x", Speaking(responses=[], output_version="v1"))["output"]["messages"]
    assert answer["content"] == [said("four")]


def test_empty_inputs(promptlayer: FakePromptLayer) -> None:
    """No messages at all, or one that says nothing, are recorded as such."""
    with pl_session():
        MODEL.invoke([])
        MODEL.invoke("")
    pltrack.flush(10)
    found = sorted(len(logged.body["input"]["messages"]) for logged in promptlayer.requests)
    assert found == [0, 1]
