"""LangChain messages -> blueprint messages: a snapshot on the app's thread, the conversion off it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._plain import Json, clean, dumps, peek, plain, text
from .blocks import blocks, said
from .calls import split_calls, tool_calls
from .media import Block

# kind, content, name, and what else the kind needs (None for most messages)
Snapshot = tuple[str, Json, str | None, dict[str, Json] | None]

_KWARGS = (
    "tool_calls",
    "function_call",
    "reasoning_content",
    "reasoning",
    "refusal",
    "audio",
    "__openai_role__",
)
_FIELDS = ("role", "tool_call_id", "tool_calls", "invalid_tool_calls")
_SIMPLE = frozenset({"human", "system", "ai", "AIMessageChunk"})
_ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "developer",
}
on_unknown: list[Callable[[str], None]] = []  # who is told of shapes that are not known here


def unknown(what: str) -> None:
    """Tell of a shape that is not known here: what is recorded is less than what there was."""
    for tell in on_unknown:
        tell(what)


def snap(message: object) -> Snapshot:
    """Return what a message says at this moment, for `message`; later changes are not seen. Never raises.

    For the app's thread: about a microsecond where the content is a string, which is kept by reference.
    """
    try:
        own = message.__dict__
        kind, content = own["type"], own["content"]
        if type(content) is not str:
            content = plain(content)
        if kind in _SIMPLE and not (own["additional_kwargs"] or own.get("tool_calls") or own.get("invalid_tool_calls")):
            return (kind, content, own["name"], None)
        return (str(kind), content, own.get("name"), _more(own))
    except Exception:  # noqa: BLE001 -- whatever a list of messages may hold, its owner wants no error from here
        return _odd(message)


def message(snapshot: Snapshot) -> Block:
    """Return the blueprint message of a snapshot."""
    kind, content, name, more = snapshot
    more = more or {}
    build = _BUILDERS.get(kind.removesuffix("MessageChunk").lower(), _user)
    found = build(content, more)
    if isinstance(name, str) and name:
        label = found.get("name")
        found["name"] = clean(name) if label is None else f"{clean(name)} ({label})"
    elif found["role"] == "function":
        found["name"] = "function"
    return found


def chat_prompt(snapshots: Iterable[Snapshot], tools: Sequence[Block] | None = None, tool_choice: Json = None) -> Block:
    """Return the blueprint of a chat: the messages of these snapshots, with the tools that were offered."""
    found: Block = {"type": "chat", "messages": [message(one) for one in snapshots], "input_variables": []}
    if tools:
        found["tools"] = list(tools)
    if tool_choice is not None:
        found["tool_choice"] = tool_choice
    return found


def completion_prompt(texts: Iterable[str]) -> Block:
    """Return the blueprint of a completion: one text block for each text."""
    return {"type": "completion", "content": [said(one) for one in texts], "input_variables": []}


def _more(own: dict[str, Any]) -> dict[str, Json] | None:
    found: dict[str, Json] = {}
    for name in _FIELDS:
        if value := own.get(name):
            found[name] = value if type(value) is str else plain(value)
    if own["type"] == "remove":
        found["id"] = plain(own.get("id"))
    kwargs = own.get("additional_kwargs")
    if kwargs:
        found |= {f"kwargs.{name}": told for name in _KWARGS if name in kwargs and (told := plain(kwargs[name]))}
    return found or None


def _odd(value: object) -> Snapshot:
    """Snapshot what is no message of LangChain's: a mapping with a role, something with content, anything."""
    found = plain(value)
    if isinstance(found, dict) and isinstance(found.get("role"), str) and "content" in found:
        rest = {name: item for name, item in found.items() if name in _FIELDS and item}
        return ("chat", found["content"], None, rest)
    content = peek(value, "content") if not isinstance(value, str | dict | list | tuple) else None
    if isinstance(content, str | list) and content:
        return (text(peek(value, "type")), plain(content), None, None)
    if not isinstance(value, str):
        unknown(f"a message of class {type(value).__name__} has no content that can be found")
    return ("human", text(value), None, None)


def _user(content: Json, _: dict[str, Json]) -> Block:
    return {"role": "user", "content": blocks(content)}


def _system(content: Json, more: dict[str, Json]) -> Block:
    role = "developer" if more.get("kwargs.__openai_role__") == "developer" else "system"
    return {"role": role, "content": blocks(content)}


def _assistant(content: Json, more: dict[str, Json]) -> Block:
    """Build the answer of a model: reasoning first, then content, then what providers put beside it."""
    if not more and isinstance(content, str):
        return {"role": "assistant", "content": blocks(content, from_model=True)}
    calls = tool_calls(more)
    rest, calls = split_calls(content, calls)
    said_before = blocks(rest, from_model=True)
    before, after = _beside(more, said_before)
    found: Block = {"role": "assistant", "content": before + said_before + after}
    legacy = more.get("kwargs.function_call")
    if calls:
        found["tool_calls"] = calls
    elif isinstance(legacy, dict) and isinstance(legacy.get("name"), str):
        arguments = legacy.get("arguments")
        arguments = arguments if isinstance(arguments, str) else dumps(arguments).decode()
        found["function_call"] = {"name": legacy["name"], "arguments": arguments}
    return found


def _beside(more: dict[str, Json], content: list[Block]) -> tuple[list[Block], list[Block]]:
    """Return the blocks to put before and after the content, unless the content has them already."""
    before: list[Block] = []
    after: list[Block] = []
    for name in ("reasoning_content", "reasoning"):
        value = more.get(f"kwargs.{name}")
        if isinstance(value, dict):
            before += blocks([{**value, "type": "reasoning"}], from_model=True)
        elif value:
            before.append({"type": "thinking", "thinking": text(value)})
    if refusal := more.get("kwargs.refusal"):
        after.append(said(text(refusal)))
    audio = more.get("kwargs.audio")
    if isinstance(audio, dict):
        words = audio.get("transcript")
        after += [said(words)] if isinstance(words, str) and words else []
        data = {name: audio[name] for name in ("id", "data", "format") if audio.get(name)}
        after += blocks([{**data, "type": "audio"}], from_model=True) if "data" in data else []
    return _new(before, content), _new(after, content)


def _new(beside: list[Block], content: list[Block]) -> list[Block]:
    words = {block.get("thinking") or block.get("text") for block in content}
    return [block for block in beside if block["type"] == "output_media" or block[block["type"]] not in words]


def _tool(content: Json, more: dict[str, Json]) -> Block:
    call = more.get("tool_call_id")
    return {
        "role": "tool",
        "content": blocks(content),
        "tool_call_id": text(call) if call is not None else "",
    }


def _function(content: Json, _: dict[str, Json]) -> Block:
    return {"role": "function", "content": blocks(content)}


def _chat(content: Json, more: dict[str, Json]) -> Block:
    """Build a message of a free role; one that the blueprint does not know speaks as a user of that name."""
    role = text(more.get("role") or "user")
    known = _ROLES.get(role.lower())
    if known == "assistant":
        return _assistant(content, more)
    if role == "tool" and more.get("tool_call_id"):
        return _tool(content, more)
    if known is None:
        return {"role": "user", "content": blocks(content), "name": role}
    return {"role": known, "content": blocks(content)}


def _remove(content: Json, more: dict[str, Json]) -> Block:
    return {"role": "user", "content": [said(f"[remove message {text(more.get('id'))}]"), *blocks(content)]}


_BUILDERS: dict[str, Callable[[Json, dict[str, Json]], Block]] = {
    "human": _user,
    "system": _system,
    "ai": _assistant,
    "tool": _tool,
    "function": _function,
    "chat": _chat,
    "remove": _remove,
}
