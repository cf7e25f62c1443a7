"""What we send is what PromptLayer's schema accepts, and says all that the messages said."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from contract import AVAILABLE, errors
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from pltrack._blueprint.messages import chat_prompt, completion_prompt, snap
from pltrack._blueprint.outputs import output, snap_result
from pltrack._blueprint.parameters import parameters, snap_parameters
from pltrack._plain import thaw

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="PromptLayer's schema is not beside this checkout")

_text = st.text(min_size=1, max_size=12)
_maybe = st.one_of(st.none(), _text)
_number = st.one_of(st.none(), st.integers(-5, 50))
_junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), _text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_text, inner, max_size=3)),
    max_leaves=6,
)
_citation = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "citation",
                "url_citation",
                "web_search_result_location",
                "char_location",
                "file_citation",
                "map_citation",
                "container_file_citation",
                "non_standard_annotation",
            ]
        )
    },
    optional={
        **dict.fromkeys(("url", "title", "cited_text", "file_id", "filename", "container_id"), _maybe),
        **dict.fromkeys(("start_index", "end_index", "index"), _number),
        "value": st.dictionaries(_text, _junk, max_size=2),
        "url_citation": st.fixed_dictionaries({"url": _text, "title": _text}),
        "extras": st.dictionaries(_text, _text, max_size=2),
    },
)
_source = st.fixed_dictionaries(
    {"type": st.sampled_from(["base64", "url", "text", "content", "file"])},
    optional=dict.fromkeys(("media_type", "data", "url", "file_id", "content"), _text),
)
_KINDS = """
    text input_text output_text refusal reasoning thinking redacted_thinking reasoning_content
    text-plain image image_url input_image audio input_audio video file input_file document media
    server_tool_call server_tool_result tool_result web_search_call code_interpreter_call
    image_generation_call executable_code code code_execution_result code_execution_tool_result
    web_search_tool_result server_tool_use bash_code_execution_tool_result mcp_call mcp_tool_use
    mcp_list_tools mcp_approval_request mcp_approval_response shell_call shell_call_output
    apply_patch_call apply_patch_call_output non_standard input_json_delta nobody_knows_this
"""
_own_format = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("text"), "text": _text}, optional={"annotations": st.lists(_citation, max_size=3)}
    ),
    st.fixed_dictionaries({"type": st.just("text"), "text": _text, "citations": st.lists(_citation, max_size=3)}),
    st.fixed_dictionaries({"type": st.just("reasoning"), "reasoning": _text}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": _text, "signature": _text}),
    st.fixed_dictionaries(
        {
            "type": st.just("reasoning"),
            "summary": st.lists(st.fixed_dictionaries({"type": st.just("summary_text"), "text": _text}), max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["image", "audio", "video", "file"])},
        optional={
            **dict.fromkeys(("url", "base64", "file_id", "mime_type", "data", "source_type"), _text),
            "extras": st.dictionaries(_text, _text, max_size=2),
        },
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["image", "document"]), "source": _source}),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": _text})}),
    st.fixed_dictionaries({"type": st.just("server_tool_call"), "name": _text, "args": st.just({"q": "words"})}),
    st.fixed_dictionaries({"type": st.just("server_tool_result"), "tool_call_id": _text, "output": _junk}),
    st.fixed_dictionaries({"type": st.just("tool_result"), "tool_use_id": _text, "content": _text}),
    st.fixed_dictionaries({"type": st.just("non_standard"), "value": st.dictionaries(_text, _junk, max_size=3)}),
)
_FIELDS = """
    text thinking reasoning summary content data url base64 code output outputs result name args
    input source image_url input_audio file refusal annotations citations extras signature
    tool_call_id tools error arguments operation action approve value server_label reasoning_content
    title filename mime_type executable_code stdout
"""
_junk_block = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(_KINDS.split()),
    st.dictionaries(st.sampled_from(_FIELDS.split()), _junk, max_size=5),
)
_odd_block = st.dictionaries(st.one_of(_text, st.sampled_from(["type", "text"])), _junk, max_size=3)
_content = st.one_of(_text, st.lists(st.one_of(_text, _own_format, _junk_block, _odd_block), max_size=4))
_calls = st.lists(
    st.fixed_dictionaries(
        {"name": _text, "args": st.dictionaries(_text, _junk, max_size=3), "id": st.one_of(st.none(), _text)}
    ),
    max_size=3,
)
_bad_calls = st.lists(
    st.fixed_dictionaries({"name": _maybe, "args": _maybe, "id": _maybe, "error": st.none()}), max_size=2
)
_kwargs = st.fixed_dictionaries(
    {},
    optional={
        "reasoning_content": _text,
        "refusal": _text,
        "function_call": st.fixed_dictionaries({"name": _text, "arguments": _text}),
        "reasoning": st.fixed_dictionaries({"id": _text, "summary": st.just([])}),
        "audio": st.fixed_dictionaries({"id": _text, "data": _text, "transcript": _text}),
    },
)
_answers = st.builds(
    AIMessage,
    content=_content,
    tool_calls=_calls,
    invalid_tool_calls=_bad_calls,
    additional_kwargs=_kwargs,
    name=_maybe,
)
_messages: st.SearchStrategy[BaseMessage] = st.one_of(
    st.builds(HumanMessage, content=_content, name=_maybe),
    st.builds(SystemMessage, content=_content),
    st.builds(SystemMessage, content=_content, additional_kwargs=st.just({"__openai_role__": "developer"})),
    _answers,
    st.builds(AIMessageChunk, content=_content),
    st.builds(ToolMessage, content=_content, tool_call_id=_text, name=_maybe),
    st.builds(FunctionMessage, content=_content, name=_text),
    st.builds(
        ChatMessage,
        content=_content,
        role=st.one_of(_text, st.sampled_from(["developer", "assistant", "tool"])),
    ),
    _text.map(lambda name: RemoveMessage(id=name)),
)

# How a block travels; nobody wrote these.
_WIRING = {"type", "index", "id", "status", "tool_use_id", "source_type", "mime_type", "media_type"}


def _words(node: Any, *, within: str = "") -> list[str]:
    """Return the texts that a message's content says."""
    if isinstance(node, str):
        return [node] if within not in _WIRING else []
    if isinstance(node, list):
        return [word for item in node for word in _words(item, within=within)]
    if isinstance(node, dict):
        return [word for name, item in node.items() for word in _words(item, within=name)]
    return []


def _said(node: Any) -> list[str]:
    """Return the texts of a blueprint, with those inside JSON texts."""
    if isinstance(node, str):
        try:
            inner = orjson.loads(node)
        except orjson.JSONDecodeError:
            return [node]
        return [node, *_said(inner)] if isinstance(inner, dict | list | str) else [node]
    if isinstance(node, list):
        return [word for item in node for word in _said(item)]
    if isinstance(node, dict):
        return [word for item in node.items() for part in item for word in _said(part)]
    return []


@settings(max_examples=200, deadline=None)
@given(st.lists(_messages, min_size=1, max_size=2))
def test_every_chat_is_accepted_and_complete(messages: list[BaseMessage]) -> None:
    """Any messages of any kind and format give a valid blueprint in which each of their texts is found."""
    blueprint = chat_prompt([snap(one) for one in messages])
    assert errors("ChatPrompt", blueprint) == []
    said = "\n".join(_said(blueprint))
    for one in messages:
        for word in _words(one.content):
            assert word in said, (word, one, blueprint)
        for call in getattr(one, "tool_calls", []):
            assert call["name"] in said
            assert all(word in said for word in _words(call["args"], within="args"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(_answers, _text), max_size=3), st.sampled_from(["chat", "llm"]))
def test_every_answer_is_accepted(answers: list[AIMessage | str], kind: Any) -> None:
    """Any answer, with any number of candidates, gives a valid output for both kinds of model."""
    generations = [
        Generation(text=one) if isinstance(one, str) else ChatGeneration.model_construct(message=one, text="")
        for one in answers
    ]
    result = snap_result(LLMResult(generations=[generations]))
    schema = "ChatPrompt" if kind == "chat" else "CompletionPrompt"
    assert errors(schema, output(result, kind)) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(_junk, _junk_block, _odd_block), max_size=3), _junk)
def test_every_tool_is_accepted(tools: list[Any], choice: Any) -> None:
    """Tools and tool choices of any form give a valid prompt."""
    _, offered, chosen = parameters(thaw(snap_parameters({"tools": tools, "tool_choice": choice})), {})
    assert errors("ChatPrompt", chat_prompt([], offered, chosen)) == []


@given(st.lists(st.text(), max_size=3))
def test_every_completion_prompt_is_accepted(texts: list[str]) -> None:
    """Any prompts of a completion model are valid."""
    assert errors("CompletionPrompt", completion_prompt(texts)) == []


def test_the_validator_knows_wrong_blocks() -> None:
    """A wrong role, an unknown block, a missing field and a bare string are all refused."""
    for message in (
        {"role": "x", "content": []},
        {"role": "user", "content": [{"type": "nope"}]},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": [{"text": "no type"}]},
        {"role": "user", "content": "bare"},
        {"role": "tool", "content": []},
    ):
        assert errors("ChatPrompt", {"type": "chat", "messages": [message]})


def test_a_whole_request_is_accepted() -> None:
    """Prompt, tools and answer together make a valid LogRequest."""
    body = {
        "provider": "openai",
        "model": "gpt-4o",
        "input": chat_prompt([snap(HumanMessage("hi"))]),
        "output": output(None, "llm"),
        "request_start_time": "2026-01-01T00:00:00Z",
        "request_end_time": "2026-01-01T00:00:00Z",
    }
    assert errors("LogRequest", body) == []
    assert errors("LogRequest", body | {"output": {"type": "chat"}})
