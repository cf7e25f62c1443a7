"""What LangChain's messages, results, parameters and errors become for PromptLayer."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel, FakeMessagesListChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from pydantic import BaseModel

from pltrack._blueprint.faults import fault, finish_fault
from pltrack._blueprint.messages import chat_prompt, completion_prompt, message, snap
from pltrack._blueprint.outputs import output, snap_result
from pltrack._blueprint.parameters import api_type, model_of, parameters, snap_parameters
from pltrack._blueprint.usage import Usage, find_usage, price, read_usage
from pltrack._plain import thaw


def said(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def converted(one: object) -> dict[str, Any]:
    return message(snap(one))


def content_of(content: Any, *, ai: bool = False) -> Any:
    return converted((AIMessage if ai else HumanMessage)(content=content))["content"]


# --- messages


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (SystemMessage("a"), {"role": "system", "content": [said("a")]}),
        (
            SystemMessage("a", additional_kwargs={"__openai_role__": "developer"}),
            {"role": "developer", "content": [said("a")]},
        ),
        (ChatMessage("a", role="developer"), {"role": "developer", "content": [said("a")]}),
        (ChatMessage("a", role="critic"), {"role": "user", "content": [said("a")], "name": "critic"}),
        (ChatMessage("a", role="assistant"), {"role": "assistant", "content": [said("a")]}),
        (HumanMessage("a", name="bob"), {"role": "user", "content": [said("a")], "name": "bob"}),
        (HumanMessage(""), {"role": "user", "content": []}),
        (AIMessage("a"), {"role": "assistant", "content": [said("a")]}),
        (AIMessageChunk("a"), {"role": "assistant", "content": [said("a")]}),
        (
            ToolMessage("a", tool_call_id="c1", name="f", status="error", artifact=object()),
            {"role": "tool", "content": [said("a")], "tool_call_id": "c1", "name": "f"},
        ),
        (FunctionMessage("a", name="f"), {"role": "function", "content": [said("a")], "name": "f"}),
        (RemoveMessage(id="m1"), {"role": "user", "content": [said("[remove message m1]")]}),
        ("hello", {"role": "user", "content": [said("hello")]}),
        ({"role": "assistant", "content": "a"}, {"role": "assistant", "content": [said("a")]}),
        (None, {"role": "user", "content": [said("None")]}),
    ],
)
def test_each_kind_of_message_has_its_role(one: object, expected: dict[str, Any]) -> None:
    """Every kind of message, and whatever else stands among messages, becomes a blueprint message. [85]"""
    assert converted(one) == expected


def test_odd_messages_never_raise() -> None:
    """Mocks and objects that are no messages are kept as text."""
    for odd in (MagicMock(), object(), 3, ("human", "hi"), SimpleNamespace(type=1, content=None)):
        assert converted(odd)["role"] == "user"


def test_a_snapshot_keeps_what_was_said_then() -> None:
    """What happens to a message after the snapshot is not seen. [83]"""
    human = HumanMessage([{"type": "text", "text": "before"}])
    answer = AIMessage("x", tool_calls=[{"name": "f", "args": {"a": [1]}, "id": "1"}])
    snapshots = [snap(human), snap(answer)]
    human.content[0]["text"] = "after"  # type: ignore[index]
    human.content = "after"
    answer.tool_calls[0]["args"]["a"].append(2)
    prompt = chat_prompt(snapshots)
    assert prompt["messages"][0]["content"] == [said("before")]
    assert prompt["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a":[1]}'


def test_text_is_shared_not_copied() -> None:
    """A megabyte of text costs nothing to snapshot. [83]"""
    words = "x" * 1_000_000
    assert snap(HumanMessage(words))[1] is words


def call(identity: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_tool_calls_are_kept_with_empty_content() -> None:
    """An answer that only calls tools has an empty list as content; broken arguments stay as they were."""
    answer = AIMessage(
        "",
        tool_calls=[{"name": "f", "args": {"x": 1}, "id": "c1"}],
        invalid_tool_calls=[{"name": "g", "args": "{oops", "id": "c2", "error": "bad"}],
    )
    assert converted(answer) == {
        "role": "assistant",
        "content": [],
        "tool_calls": [call("c1", "f", '{"x":1}'), call("c2", "g", "{oops")],
    }


def test_missing_call_ids_are_made_up_the_same_each_time() -> None:
    """Calls without an id get ones that differ between calls and not between conversions."""
    answer = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": None}] * 2)
    first, second = (one["id"] for one in converted(answer)["tool_calls"])
    assert first != second
    assert [first, second] == [one["id"] for one in converted(answer)["tool_calls"]]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {}, "partial_json": '{"x": 1}'},
        {"type": "tool_call", "id": "c1", "name": "f", "args": {"x": 1}},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
    ],
)
def test_a_call_in_the_content_is_not_told_twice(block: dict[str, Any]) -> None:
    """A tool-call block that repeats a declared call vanishes; an undeclared one becomes a call."""
    declared = AIMessage([said("a"), block], tool_calls=[{"name": "f", "args": {"x": 1}, "id": "c1"}])
    assert converted(declared) == {
        "role": "assistant",
        "content": [said("a")],
        "tool_calls": [call("c1", "f", '{"x":1}')],
    }
    alone = AIMessage([said("a"), block])
    alone.tool_calls = []
    found = converted(alone)
    assert found["content"] == [said("a")]
    assert [one["id"] for one in found["tool_calls"]] == ["c1"]


def test_calls_of_older_integrations_are_found() -> None:
    """Calls that only stand in additional_kwargs are told."""
    raw = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    answer = AIMessage("", additional_kwargs={"tool_calls": [raw]})
    answer.tool_calls = []
    assert converted(answer)["tool_calls"] == [call("c1", "f", '{"x": 1}')]
    older = AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}})
    assert converted(older)["function_call"] == {"name": "f", "arguments": "{}"}


def test_what_providers_put_beside_the_content_is_told_once() -> None:
    """Reasoning comes before the content, refusals and spoken answers after it."""
    answer = AIMessage(
        "a",
        additional_kwargs={
            "reasoning_content": "hm",
            "refusal": "no",
            "audio": {"id": "au1", "data": "QQ==", "transcript": "spoken"},
        },
    )
    assert converted(answer)["content"] == [
        {"type": "thinking", "thinking": "hm"},
        said("a"),
        said("no"),
        said("spoken"),
        {
            "type": "output_media",
            "url": "data:audio/wav;base64,QQ==",
            "mime_type": "audio/wav",
            "media_type": "audio",
            "id": "au1",
        },
    ]
    twice = AIMessage([{"type": "thinking", "thinking": "hm"}], additional_kwargs={"reasoning_content": "hm"})
    assert converted(twice)["content"] == [{"type": "thinking", "thinking": "hm"}]


def test_a_prompt_carries_its_tools() -> None:
    """Tools and tool choice stand beside the messages; an empty prompt has neither."""
    tool = {"type": "function", "function": {"name": "f"}}
    assert chat_prompt([], [tool], "auto") == {
        "type": "chat",
        "messages": [],
        "input_variables": [],
        "tools": [tool],
        "tool_choice": "auto",
    }
    assert chat_prompt([]) == {"type": "chat", "messages": [], "input_variables": []}
    assert completion_prompt(["a\ud800"])["content"] == [said("a\ufffd")]


# --- blocks


def media(url: str, mime: str, form: str, title: str = "media") -> dict[str, Any]:
    return {"type": "media", "media": {"title": title, "type": mime, "url": url, "format": form}}


def image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("a", said("a")),
        ({"text": "a"}, said("a")),
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}, "index": 0}, said("a")),
        ({"type": "output_text", "text": "a", "id": "i"}, said("a", id="i")),
        ({"type": "text", "text": "a", "extras": {"signature": "s"}}, said("a", thought_signature="s")),
        ({"type": "text-plain", "text": "a", "mime_type": "text/plain"}, said("a")),
        ({"type": "refusal", "refusal": "no"}, said("no")),
        (
            {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "s"}},
            {"type": "thinking", "thinking": "hm", "signature": "s"},
        ),
        (
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": t} for t in "ab"]},
            {"type": "thinking", "thinking": "a\nb", "id": "rs"},
        ),
        (
            {"type": "reasoning_content", "reasoning_content": {"text": "hm", "signature": "s"}},
            {"type": "thinking", "thinking": "hm", "signature": "s"},
        ),
        (
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "thinking", "thinking": "hm", "signature": "s"},
        ),
        (
            {"type": "redacted_thinking", "data": "zzz"},
            {"type": "thinking", "thinking": "", "signature": "zzz"},
        ),
        ({"type": "image_url", "image_url": {"url": "u", "detail": "low"}}, image("u", detail="low")),
        ({"type": "image_url", "image_url": "u"}, image("u")),
        ({"type": "input_image", "image_url": "u"}, image("u")),
        ({"type": "image", "url": "u"}, image("u")),
        (
            {"type": "image", "base64": "QQ==", "mime_type": "image/png"},
            image("data:image/png;base64,QQ=="),
        ),
        ({"type": "image", "source_type": "url", "url": "u"}, image("u")),
        (
            {"type": "image", "source_type": "base64", "data": "QQ==", "mime_type": "image/png"},
            image("data:image/png;base64,QQ=="),
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
            image("data:image/png;base64,QQ=="),
        ),
        ({"type": "image", "source": {"type": "url", "url": "u"}}, image("u")),
        ({"type": "image", "file_id": "f1"}, media("f1", "image/jpeg", "neither")),
        (
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "mp3"}},
            media("QQ==", "audio/mp3", "base64"),
        ),
        (
            {"type": "audio", "base64": "QQ==", "mime_type": "audio/wav"},
            media("QQ==", "audio/wav", "base64"),
        ),
        ({"type": "video", "url": "u", "mime_type": "video/mp4"}, media("u", "video/mp4", "url")),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QQ==", "filename": "a.pdf"}},
            media("QQ==", "application/pdf", "base64", "a.pdf"),
        ),
        (
            {"type": "input_file", "file_id": "f1", "filename": "a.pdf"},
            media("f1", "application/octet-stream", "neither", "a.pdf"),
        ),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
                "title": "A",
                "citations": {"enabled": True},
            },
            media("QQ==", "application/pdf", "base64", "A"),
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            said("words"),
        ),
        (
            {"type": "media", "mime_type": "video/mp4", "file_uri": "gs://x"},
            media("gs://x", "video/mp4", "url"),
        ),
        (
            {"type": "server_tool_call", "id": "s1", "name": "web_search", "args": {"q": "x"}},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"q": "x"}},
        ),
        (
            {"type": "web_search_call", "id": "s1", "status": "completed", "action": {"query": "x"}},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
        ),
        (
            {"type": "server_tool_result", "tool_call_id": "s1", "output": {"stdout": "1", "return_code": 0}},
            {"type": "code_execution_result", "output": "1", "outcome": "OUTCOME_OK"},
        ),
        (
            {"type": "executable_code", "executable_code": "1+1"},
            {"type": "code", "code": "1+1"},
        ),
        (
            {
                "type": "code_execution_tool_result",
                "content": {"stdout": "2", "stderr": "", "return_code": 0},
            },
            {"type": "code_execution_result", "output": "2", "outcome": "OUTCOME_OK"},
        ),
        (
            {"type": "mcp_call", "id": "m", "name": "f", "server_label": "s", "arguments": "{}"},
            {"type": "mcp_call", "id": "m", "name": "f", "server_label": "s", "arguments": "{}"},
        ),
        ({"type": "non_standard", "value": {"type": "text", "text": "a"}}, said("a")),
        ({"type": "brand_new", "x": [1]}, said('{"type":"brand_new","x":[1]}')),
        ({"type": "text", "text": 5}, said('{"type":"text","text":5}')),
        ({"type": "image"}, said('{"type":"image"}')),
    ],
)
def test_each_format_of_block_has_its_place(block: Any, expected: dict[str, Any]) -> None:
    """Blocks of LangChain's, OpenAI's, Anthropic's and Google's formats become the blueprint's."""
    assert content_of([block]) == [expected]


def test_media_made_by_a_model_are_output() -> None:
    """A picture in an answer is output media, with its bytes as a data URL."""
    made = {"type": "image", "base64": "QQ==", "mime_type": "image/png", "id": "i"}
    expected = {
        "type": "output_media",
        "url": "data:image/png;base64,QQ==",
        "mime_type": "image/png",
        "media_type": "image",
        "id": "i",
    }
    assert content_of([made], ai=True) == [expected]
    call = {"type": "image_generation_call", "id": "i", "result": "QQ==", "status": "completed"}
    assert content_of([call], ai=True) == [expected]


@pytest.mark.parametrize(
    "note",
    [
        {"type": "citation", "url": "u", "title": "t", "start_index": 0, "end_index": 3},
        {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 3},
        {
            "type": "url_citation",
            "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 3},
        },
        {"type": "web_search_result_location", "url": "u", "title": "t"},
    ],
)
def test_citations_of_any_provider_become_annotations(note: dict[str, Any]) -> None:
    """A web citation in any spelling is a complete annotation; one with no range speaks of the whole text."""
    expected = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 3}
    field = "citations" if note["type"].endswith("location") else "annotations"
    assert content_of([said("abc", **{field: [note]})], ai=True) == [said("abc", annotations=[expected])]


def test_a_citation_that_does_not_fit_is_kept_as_text() -> None:
    """An annotation without a slot stands behind its text."""
    note = {"type": "char_location", "cited_text": "x", "document_index": 0}
    assert content_of([said("abc", citations=[note])], ai=True) == [
        said("abc"),
        said(json.dumps({"citations": [note]}, separators=(",", ":"))),
    ]


def test_what_a_block_says_besides_is_kept() -> None:
    """Fields without a slot follow their block as text."""
    block = {"type": "image", "url": "u", "extras": {"caption": "a cat"}}
    assert content_of([block]) == [image("u"), said('{"caption":"a cat"}')]


def test_a_tool_result_shows_its_own_blocks() -> None:
    """A tool result among a user's blocks shows which call it is of and what came back."""
    block = {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": [said("42"), {"type": "image", "url": "u"}],
    }
    assert content_of([block]) == [said('{"type":"tool_result","tool_use_id":"c1"}'), said("42"), image("u")]


# --- outputs


class Seen(BaseCallbackHandler):
    """Keeps the snapshot of each end."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def on_llm_end(self, response: LLMResult, *, run_id: Any, **_: Any) -> None:
        self.results.append(snap_result(response, run_id))


def chat_result(*messages: AIMessage, **more: Any) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=one) for one in messages]], **more)


def test_all_candidates_are_told() -> None:
    """n>1 gives one output with a message for each candidate and the usage of one."""
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    result = snap_result(chat_result(*(AIMessage(t, usage_metadata=usage) for t in "ab")))
    assert output(result, "chat")["messages"] == [
        {"role": "assistant", "content": [said("a")]},
        {"role": "assistant", "content": [said("b")]},
    ]
    assert result is not None
    assert result.usage == Usage(input_tokens=1, output_tokens=2)
    texts = snap_result(LLMResult(generations=[[Generation(text="a"), Generation(text="b")]]))
    assert output(texts, "llm")["content"] == [said("a"), said("b")]


@pytest.mark.parametrize(
    "response",
    [None, LLMResult(generations=[]), LLMResult(generations=[[]]), object(), MagicMock(), SimpleNamespace()],
)
def test_no_answer_is_an_empty_output(response: Any) -> None:
    """A failed call and results of odd shapes give an empty output of the right type. [70]"""
    assert output(snap_result(response), "chat")["type"] == "chat"
    if response is None or isinstance(response, LLMResult):
        assert output(snap_result(response), "chat")["messages"] == []
        assert output(snap_result(response), "llm")["content"] == []


def test_facts_about_the_answer_are_found() -> None:
    """Answered model, provider's id and finish reason come from wherever the provider put them. [75] [80]"""
    told = {"model_name": "gpt-4o-2024", "id": "chatcmpl-1", "finish_reason": "stop"}
    result = snap_result(chat_result(AIMessage("a", response_metadata=told, id="lc_run--1")))
    assert result is not None
    assert (result.model_name, result.provider_id, result.finish_reason) == (
        "gpt-4o-2024",
        "chatcmpl-1",
        "stop",
    )
    responses = AIMessage(
        "a",
        id="resp_1",
        response_metadata={"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
    )
    result = snap_result(chat_result(responses))
    assert result is not None
    assert (result.provider_id, result.finish_reason) == ("resp_1", "max_output_tokens")
    doubled = {"model_name": "gpt-4ogpt-4o", "finish_reason": "stopstop"}
    result = snap_result(chat_result(AIMessage("a", response_metadata=doubled)))
    assert result is not None
    assert (result.model_name, result.finish_reason) == ("gpt-4o", "stop")


def test_the_candidate_that_is_not_whole_decides() -> None:
    """One truncated candidate among several makes the finish reason."""
    both = [AIMessage("a", response_metadata={"finish_reason": one}) for one in ("stop", "length")]
    result = snap_result(chat_result(*both))
    assert result is not None
    assert result.finish_reason == "length"


def test_a_cache_hit_is_seen_and_only_that() -> None:
    """The second call of a cached model is a hit; a fake that repeats one message object never is [16]."""
    seen = Seen()
    model = FakeListChatModel(responses=["a"], cache=InMemoryCache())
    for _ in range(2):
        model.invoke("q", config={"callbacks": [seen]})
    assert [one.cache_hit for one in seen.results] == [False, True]
    repeating = Seen()
    fake = FakeMessagesListChatModel(responses=[AIMessage("a")])
    for _ in range(2):
        fake.invoke("q", config={"callbacks": [repeating]})
    assert [one.cache_hit for one in repeating.results] == [False, False]
    run = uuid4()
    free = AIMessage("a", id=f"lc_run--{run}-0")
    free.usage_metadata = {"total_cost": 0}  # type: ignore[typeddict-item, typeddict-unknown-key]
    assert not snap_result(chat_result(free), run).cache_hit  # type: ignore[union-attr]


def test_a_result_does_not_change_with_its_message() -> None:
    """LangChain replaces messages of a result on a later cache hit; the snapshot stays [17]."""
    answer = AIMessage([said("before")])
    response = chat_result(answer)
    result = snap_result(response)
    answer.content[0]["text"] = "after"  # type: ignore[index]
    response.generations[0].clear()
    assert output(result, "chat")["messages"][0]["content"] == [said("before")]


# --- usage


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "input_token_details": {"cache_read": 4, "cache_creation": 1, "audio": 2},
                "output_token_details": {"reasoning": 3, "audio": 1},
            },
            Usage(
                input_tokens=10,
                output_tokens=5,
                cached_tokens=4,
                cache_write_tokens=1,
                reasoning_tokens=3,
                audio_input_tokens=2,
                audio_output_tokens=1,
            ),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input_tokens=10, output_tokens=5, cached_tokens=4, reasoning_tokens=3),
        ),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 1,
            },
            Usage(input_tokens=15, output_tokens=5, cached_tokens=4, cache_write_tokens=1),
        ),
        (
            {"prompt_token_count": 10, "candidates_token_count": 5, "thoughts_token_count": 2},
            Usage(input_tokens=10, output_tokens=7, reasoning_tokens=2),
        ),
        ({"inputTokens": 10, "outputTokens": 5}, Usage(input_tokens=10, output_tokens=5)),
        (
            {
                "input_tokens": 9,
                "input_token_details": {"cache_creation": 0, "ephemeral_5m_input_tokens": 6},
            },
            Usage(input_tokens=9, cache_write_tokens=6),
        ),
        ({"input_tokens": 0, "output_tokens": 0}, Usage(input_tokens=0, output_tokens=0)),
        ({"total_cost": 0}, None),
        ({"input_tokens": "many", "output_tokens": -1, "prompt_tokens": True}, None),
        (None, None),
        ([1], None),
    ],
)
def test_each_spelling_of_usage_is_understood(raw: Any, expected: Usage | None) -> None:
    """OpenAI, Anthropic, Google, Bedrock and LangChain count the same; absent stays absent."""
    assert read_usage(raw) == expected


def test_usage_is_asked_in_order() -> None:
    """usage_metadata beats llm_output, llm_output beats response_metadata. [74]"""
    answer = AIMessage("a", response_metadata={"token_usage": {"prompt_tokens": 3, "completion_tokens": 3}})
    total = {"token_usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    candidates = [ChatGeneration(message=answer)]
    assert find_usage(candidates, None) == Usage(input_tokens=3, output_tokens=3)
    assert find_usage(candidates, total) == Usage(input_tokens=2, output_tokens=2)
    answer.usage_metadata = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    assert find_usage(candidates, total) == Usage(input_tokens=1, output_tokens=1)


def test_the_total_of_a_batch_is_nobodys_usage() -> None:
    """A completion model's llm_output in a batch is not taken for the first run's own [12]."""
    total = {"token_usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    assert find_usage([Generation(text="a")], total, 1) == Usage(input_tokens=2, output_tokens=2)
    assert find_usage([Generation(text="a")], total, 3) is None
    assert find_usage(object(), object()) is None


def test_prices_are_known_for_known_models() -> None:
    """Known models have a price in which cached tokens cost less; unknown ones have none."""
    at = datetime(2025, 6, 1, tzinfo=UTC)
    full = price("openai", "gpt-4o", Usage(input_tokens=1_000_000, output_tokens=0), at)
    cached = price("openai", "gpt-4o", Usage(input_tokens=1_000_000, cached_tokens=1_000_000), at)
    assert full == pytest.approx(2.5)
    assert cached == pytest.approx(1.25)
    claude = Usage(input_tokens=2_000_000, cached_tokens=1_000_000, output_tokens=0)
    assert price("anthropic", "claude-sonnet-4-20250514", claude, at) == pytest.approx(3.3)
    assert price("openai", "nobody-knows-this", Usage(input_tokens=1), at) is None
    assert price("fakelistchatmodel", "gpt-4o", Usage(input_tokens=1), at) is None
    assert price("openai", "gpt-4o", Usage(), at) is None
    assert price("openai", "gpt-4o", Usage(input_tokens=1, cached_tokens=5), at) is None
    naive = price("openai", "gpt-4o", Usage(input_tokens=1_000_000), datetime(2025, 6, 1))  # noqa: DTZ001
    assert naive == pytest.approx(2.5)


# --- parameters


class Answer(BaseModel):
    x: int


def test_only_known_parameters_leave() -> None:
    """Headers, keys and free-form mappings stay; what ls_* knows better wins; None is nothing said."""
    snapshot = snap_parameters(
        {
            "model": "gpt-4o",
            "temperature": 0.5,
            "max_completion_tokens": 7,
            "top_p": None,
            "extra_headers": {"authorization": "Bearer sk-1"},
            "api_key": "sk-2",
            "model_kwargs": {"secret": "sk-3"},
            "extra_body": {"secret": "sk-4"},
        },
    )
    assert "sk-" not in str(snapshot)
    about = {"ls_temperature": 0.1, "ls_max_tokens": 9, "ls_stop": ["x"], "user": "sk-5"}
    found, tools, choice = parameters(thaw(snapshot), about)
    assert found == {"temperature": 0.1, "max_completion_tokens": 9, "stop": ["x"]}
    assert tools is choice is None
    assert parameters(thaw(snap_parameters(None)), {}) == ({}, None, None)


def test_a_schema_class_is_told_as_json_schema() -> None:
    """response_format may be a pydantic class. [79]"""
    found, _, _ = parameters(thaw(snap_parameters({"response_format": Answer})), {})
    assert found["response_format"]["type"] == "json_schema"
    assert found["response_format"]["json_schema"]["name"] == "Answer"
    assert "x" in found["response_format"]["json_schema"]["schema"]["properties"]


def test_credentials_of_hosted_tools_stay() -> None:
    """A tool that the provider runs keeps its address and loses its keys."""
    tool = {"type": "mcp", "server_label": "s", "authorization": "sk-1", "headers": {"X": "sk-2"}}
    snapshot = snap_parameters({"tools": [tool]})
    assert "sk-" not in str(snapshot)
    _, tools, _ = parameters(thaw(snapshot), {}, "openai")
    assert tools is not None
    assert (tools[0]["type"], tools[0]["provider"], tools[0]["config"]["server_label"]) == (
        "mcp",
        "openai",
        "s",
    )


_SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
_F = {"type": "function", "function": {"name": "f", "description": "d", "parameters": _SCHEMA}}


@pytest.mark.parametrize(
    "tool",
    [
        _F,
        {"type": "function", "name": "f", "description": "d", "parameters": _SCHEMA},
        {"name": "f", "description": "d", "input_schema": _SCHEMA},
        {"function_declarations": [{"name": "f", "description": "d", "parameters": _SCHEMA}]},
        {"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": _SCHEMA}}},
        {"title": "f", "description": "d", **_SCHEMA},
    ],
)
def test_each_form_of_tool_is_understood(tool: dict[str, Any]) -> None:
    """A function offered in OpenAI's, Anthropic's, Google's or Bedrock's form is the same tool."""
    assert parameters(thaw(snap_parameters({"tools": [tool]})), {})[1] == [_F]


def test_hosted_and_unknown_tools_are_kept() -> None:
    """A provider's own tool gets its blueprint type, an unknown one is shown whole."""
    offered = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}, {"google_search": {}}]
    _, tools, _ = parameters(thaw(snap_parameters({"tools": [*offered, {"type": "brand_new", "x": 1}]})), {})
    assert tools is not None
    assert [one["type"] for one in tools] == ["web_search", "web_search", "function"]
    assert tools[0]["config"]["max_uses"] == 5
    assert tools[2]["function"] == {"name": "brand_new", "description": '{"type":"brand_new","x":1}'}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        (True, "required"),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"tool": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "any"}, "required"),
        ({"auto": {}}, "auto"),
        ({"type": "web_search"}, '{"type":"web_search"}'),
    ],
)
def test_each_form_of_tool_choice_is_understood(choice: Any, expected: Any) -> None:
    """A choice is a word or one function, whatever the provider's form."""
    assert parameters(thaw(snap_parameters({"tool_choice": choice})), {})[2] == expected


@pytest.mark.parametrize(
    ("given", "about", "name", "expected"),
    [
        ({"model": "gpt-4o"}, {"ls_provider": "openai", "ls_model_name": "old"}, "X", ("openai", "gpt-4o")),
        ({}, {"ls_provider": "azure", "ls_model_name": "m"}, None, ("openai.azure", "m")),
        ({}, {"ls_provider": "amazon_bedrock", "ls_model_name": "m"}, None, ("amazon.bedrock", "m")),
        ({}, {"ls_provider": "google_genai", "ls_model_name": "m"}, None, ("google", "m")),
        ({}, {"ls_provider": "groq", "ls_model_name": "m"}, None, ("groq", "m")),
        ({"_type": "openai-chat"}, {"ls_provider": ""}, "ChatOpenAI", ("openai", "ChatOpenAI")),
        ({"model": "/home/me/tiny.gguf", "_type": "gpt4all"}, {}, None, ("gpt4all", "tiny.gguf")),
        ({"model": "meta/llama-3"}, {"ls_provider": "openrouter"}, None, ("openrouter", "meta/llama-3")),
        (None, None, None, ("unknown", "unknown")),
    ],
)
def test_provider_and_model_have_names(given: Any, about: Any, name: Any, expected: Any) -> None:
    """Provider and model carry PromptLayer's names, with a default for whatever LangChain leaves out. [76]"""
    assert model_of(given, about, name) == expected


def test_openai_has_two_interfaces() -> None:
    """The id of an answer tells which of OpenAI's interfaces gave it; others have none to tell."""
    assert api_type("openai", "chat", "resp_1") == "responses"
    assert api_type("openai.azure", "chat") == "chat-completions"
    assert api_type("anthropic", "chat") is None


# --- faults


def provider_error(name: str, text: str = "no", module: str = "openai", **fields: Any) -> Exception:
    error: Exception = type(name, (Exception,), {"__module__": module})(text)
    vars(error).update(fields)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (provider_error("RateLimitError", status_code=429), "PROVIDER_RATE_LIMIT"),
        (
            provider_error("RateLimitError", "code: insufficient_quota", status_code=429),
            "PROVIDER_QUOTA_LIMIT",
        ),
        (provider_error("APIStatusError", status_code=402), "PROVIDER_QUOTA_LIMIT"),
        (provider_error("APITimeoutError"), "PROVIDER_TIMEOUT"),
        (TimeoutError(), "PROVIDER_TIMEOUT"),
        (provider_error("AuthenticationError", status_code=401), "PROVIDER_AUTH_ERROR"),
        (provider_error("PermissionDeniedError", status_code=403), "PROVIDER_AUTH_ERROR"),
        (provider_error("BadRequestError", status_code=400), "PROVIDER_ERROR"),
        (provider_error("ServerError", module="google.genai.errors"), "PROVIDER_ERROR"),
        (provider_error("Odd", module="mine", status_code=500), "PROVIDER_ERROR"),
        (
            provider_error(
                "ClientError",
                module="botocore.exceptions",
                response={"Error": {"Code": "ThrottlingException"}},
            ),
            "PROVIDER_RATE_LIMIT",
        ),
        (ValueError("no"), "UNKNOWN_ERROR"),
    ],
)
def test_each_failure_has_its_type(error: BaseException, expected: str) -> None:
    """Errors are told apart by name, status and module, whatever the provider."""
    status, kind, text = fault(error)
    assert (status, kind) == ("ERROR", expected)
    assert text.startswith(type(error).__name__)


def test_the_cause_of_an_error_counts() -> None:
    """An error that says nothing itself is typed by what caused it."""
    outer = ValueError("wrapped")
    outer.__cause__ = provider_error("RateLimitError", status_code=429)
    assert fault(outer)[1] == "PROVIDER_RATE_LIMIT"
    ring = ValueError("a")
    ring.__cause__ = ring
    assert fault(ring)[1] == "UNKNOWN_ERROR"


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError(), KeyboardInterrupt()])
def test_giving_up_is_a_warning(error: BaseException) -> None:
    """A stream that nobody reads on and a cancelled call are no failures of the provider."""
    assert fault(error)[:2] == ("WARNING", "PROVIDER_PARTIAL_RESPONSE")


def test_an_interrupt_of_langgraph_is_no_error() -> None:
    """A graph that waits for a human has not failed."""
    from langgraph.errors import GraphInterrupt

    assert fault(GraphInterrupt()) == ("SUCCESS", None, "")


def test_truncation_is_a_warning() -> None:
    """Answers that were cut off or filtered warn, others say nothing."""
    assert fault(provider_error("LengthFinishReasonError"))[:2] == ("WARNING", "PROVIDER_PARTIAL_RESPONSE")
    for reason in ("length", "max_tokens", "MAX_TOKENS", "content_filter", "SAFETY", "stoplength"):
        assert finish_fault(reason) == ("WARNING", "PROVIDER_PARTIAL_RESPONSE", f"finish_reason: {reason}")
    for ordinary in ("stop", "end_turn", "tool_calls", "tool_use", "STOP", "", None, 3):
        assert finish_fault(ordinary) is None


def test_error_texts_are_short_and_clean() -> None:
    """A message has at most 4096 characters, no header of the response, and never raises."""

    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    leaking = provider_error("E", "no", response=SimpleNamespace(status_code=500, headers={"cookie": "sk-1"}))
    assert len(fault(ValueError("x" * 5000))[2]) == 4096
    assert fault(SilentError())[2] == "SilentError: <no text>"
    assert "sk-1" not in fault(leaking)[2]
    fault(ValueError("\ud800"))[2].encode()


def test_conversion_needs_no_provider_package() -> None:
    """None of the modules imports a provider's package, or the price list before a price is asked."""
    import subprocess

    program = (
        "import sys, pltrack._blueprint.outputs, pltrack._blueprint.parameters;"
        "print([m for m in ('openai', 'anthropic', 'genai_prices', 'langchain_core') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
