"""Blocks that the blueprint took over from a provider as they are: passed on where their fields fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .._plain import Json, dumps
from .media import Block


class _Slot(NamedTuple):
    """What a field may hold, and whether the block is void without it."""

    fits: Callable[[Json], bool]
    required: bool = False


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_object(value: Json) -> bool:
    return isinstance(value, dict)


def _is_objects(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_error(value: Json) -> bool:
    return isinstance(value, str | dict)


def _is_flag(value: Json) -> bool:
    return isinstance(value, bool)


def page_results(value: Json) -> bool:
    """Return whether this is a list of pages that a web search found, in the blueprint's form."""
    return isinstance(value, list) and bool(value) and all(_is_page(item) for item in value)


def _is_page(item: Json) -> bool:
    if not isinstance(item, dict) or item.get("type") != "web_search_result":
        return False
    texts = all(isinstance(item.get(name, ""), str) for name in ("url", "title", "encrypted_content"))
    return texts and isinstance(item.get("page_age"), str | None)


_TEXT, _OBJECT, _OBJECTS, _ERROR = _Slot(_is_text), _Slot(_is_object), _Slot(_is_objects), _Slot(_is_error)
_NEEDED = _Slot(_is_text, required=True)
_CALL = {"id": _TEXT, "call_id": _TEXT, "status": _TEXT}

NATIVE: dict[str, dict[str, _Slot]] = {
    "code": {"code": _NEEDED, "id": _TEXT, "container_id": _TEXT},
    "server_tool_use": {"id": _NEEDED, "name": _NEEDED, "input": _OBJECT},
    "web_search_tool_result": {"tool_use_id": _NEEDED, "content": _Slot(page_results)},
    "code_execution_result": {"output": _NEEDED, "outcome": _TEXT},
    "bash_code_execution_tool_result": {"tool_use_id": _NEEDED, "content": _OBJECT},
    "text_editor_code_execution_tool_result": {"tool_use_id": _NEEDED, "content": _OBJECT},
    "mcp_list_tools": {"id": _TEXT, "server_label": _TEXT, "tools": _OBJECTS, "error": _ERROR},
    "mcp_call": {
        **dict.fromkeys(("id", "name", "server_label", "arguments", "output", "approval_request_id"), _TEXT),
        "error": _ERROR,
    },
    "mcp_approval_request": dict.fromkeys(("id", "name", "arguments", "server_label"), _TEXT),
    "mcp_approval_response": {"approval_request_id": _NEEDED, "approve": _Slot(_is_flag, required=True)},
    "shell_call": {**_CALL, "action": _OBJECT},
    "shell_call_output": {**_CALL, "output": _OBJECTS},
    "apply_patch_call": {**_CALL, "operation": _OBJECT},
    "apply_patch_call_output": {**_CALL, "output": _TEXT},
    "mcp_tool_use": {"id": _TEXT, "name": _NEEDED, "server_name": _TEXT, "input": _OBJECT},
}


def native(rest: Block, _: bool) -> list[Block] | None:
    """Take the fields that fit the block's schema; None where one that it needs is missing."""
    found: Block = {"type": rest["type"]}
    for name, slot in NATIVE[str(rest["type"])].items():
        if name in rest and slot.fits(rest[name]):
            found[name] = rest.pop(name)
        elif slot.required:
            return None
    if found["type"] == "mcp_tool_use":  # Anthropic's words for OpenAI's mcp_call
        arguments = dumps(found.pop("input", {})).decode()
        found |= {"type": "mcp_call", "server_label": found.pop("server_name", ""), "arguments": arguments}
    return [found]
