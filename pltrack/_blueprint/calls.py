"""Tool calls of any provider's form -> the blueprint's, each of them once."""

from __future__ import annotations

from hashlib import blake2b

import orjson

from .._plain import Json, clean, dumps, text
from .blocks import leftover
from .media import Block

_CALL_BLOCKS = frozenset({"tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call"})
_ARGUMENTS = ("args", "input", "arguments")


def tool_calls(more: dict[str, Json]) -> list[Block]:
    """Return the calls a message declares: LangChain's own fields, else those of older integrations."""
    declared = [*_dicts(more.get("tool_calls")), *_dicts(more.get("invalid_tool_calls"))]
    if declared:
        return [_call(one, index) for index, one in enumerate(declared)]
    legacy = _dicts(more.get("kwargs.tool_calls"))
    return [_call(_unnested(one), index) for index, one in enumerate(legacy)]


def split_calls(content: Json, calls: list[Block]) -> tuple[Json, list[Block]]:
    """Return the content without its tool calls, and all calls: the declared ones first, each once."""
    if not isinstance(content, list):
        return content, calls
    found, rest = list(calls), []
    for item in content:
        if not isinstance(item, dict) or str(item.get("type")) not in _CALL_BLOCKS:
            rest.append(item)
            continue
        call = _call(item, len(found))
        if not _is_known(item, call, calls):
            if not isinstance(item.get("name"), str):
                rest.append(item)
                continue
            found.append(call)
        rest += _unsaid(item)
    return rest, found


def _call(one: Block, index: int) -> Block:
    name = text(one.get("name") or "")
    arguments = _arguments(one)
    identity = one.get("call_id") or one.get("id")
    if not isinstance(identity, str):
        identity = "call_" + blake2b(f"{index}:{name}:{arguments}".encode(), digest_size=9).hexdigest()
    return {
        "id": clean(identity),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _arguments(one: Block) -> str:
    """Return the arguments as a JSON string; those that are no valid JSON as the model wrote them."""
    for name in _ARGUMENTS:
        value = one.get(name)
        if isinstance(value, str):
            return clean(value)
        if value:
            return dumps(value).decode()
    partial = one.get("partial_json")  # Anthropic's stream: the block's own input stays empty
    return partial if isinstance(partial, str) and partial else "{}"


def _is_known(item: Block, call: Block, calls: list[Block]) -> bool:
    """Return whether a block repeats a declared call: its id (or name, without one) and its arguments."""
    named = item.get("call_id") or item.get("id")
    for other in calls:
        same = other["id"] == call["id"] if named else other["function"]["name"] == call["function"]["name"]
        if same and (call["function"]["arguments"] == "{}" or _equal(call, other)):
            return True
    return False


def _equal(one: Block, other: Block) -> bool:
    ours, theirs = one["function"]["arguments"], other["function"]["arguments"]
    if ours == theirs:
        return True
    try:
        return bool(orjson.loads(ours) == orjson.loads(theirs))
    except orjson.JSONDecodeError:
        return False


def _unsaid(item: Block) -> list[Json]:
    """Return what a call's block says besides the call, as blocks."""
    known = {"type", "id", "call_id", "name", "index", "partial_json", "caller", *_ARGUMENTS}
    return list(leftover({name: value for name, value in item.items() if name not in known}))


def _dicts(value: Json) -> list[Block]:
    if not isinstance(value, list):
        return []
    return [one if isinstance(one, dict) else {"args": one} for one in value]


def _unnested(one: Block) -> Block:
    function = one.get("function")
    return one | function if isinstance(function, dict) else {"args": one}
