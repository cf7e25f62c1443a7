"""Content blocks of any provider and of LangChain's own formats -> the blueprint's blocks.

A converter takes from a copy of the block what it understands and puts it into blueprint blocks; what it
leaves behind is kept as text, so that nothing a block says is ever lost.
"""

from __future__ import annotations

from collections.abc import Callable

from .._plain import Json, clean, dumps
from .citations import cited
from .media import KINDS, Block, media, take
from .native import NATIVE, native, page_results

Converter = Callable[[Block, bool], list[Block] | None]

# Says how a block travels or is cached, nothing that anybody wrote.
_WIRING = frozenset({"type", "index", "id", "cache_control", "status", "tool_use_id"})


def blocks(content: Json, *, from_model: bool = False) -> list[Block]:
    """Return the blueprint's blocks for a message's JSON-clean content: a string, or blocks in any format."""
    if isinstance(content, str):
        return [said(content)] if content else []
    found: list[Block] = []
    for item in content if isinstance(content, list) else [content]:
        if isinstance(item, dict):
            found += _block(item, from_model)
        elif item is not None and item != "":
            found.append(said(item if isinstance(item, str) else dumps(item).decode()))
    return found


def said(words: str) -> Block:
    """Return a text block."""
    return {"type": "text", "text": clean(words)}


def dumped(value: Json) -> Block:
    """Return a text block with the value as JSON, for what the blueprint has no slot for."""
    return said(dumps(value).decode())


def leftover(rest: Block) -> list[Block]:
    """Return what a converter did not take from a block, as text; nothing if that is only wiring."""
    kept = {name: value for name, value in rest.items() if name not in _WIRING and value not in (None, "", [], {})}
    return [dumped(kept)] if kept else []


def _block(block: Block, from_model: bool) -> list[Block]:
    if not block:
        return []
    kind = block.get("type")
    if kind is None and len(block) == 1:  # Bedrock's way: {"text": "..."}
        kind = next(iter(block))
    convert = _CONVERTERS.get(kind) if isinstance(kind, str) else None
    if convert is None:
        return [dumped(block)]
    rest: Block = {**block, "type": kind}
    found = convert(rest, from_model)
    return [dumped(block)] if found is None else found + leftover(rest)


def _text(rest: Block, _: bool) -> list[Block] | None:
    name = "refusal" if rest["type"] == "refusal" else "text"
    words = rest.get(name)
    if not isinstance(words, str):
        return None
    del rest[name]
    found = said(words)
    for slot, value in (
        ("id", take(rest, "id")),
        ("thought_signature", _signature(rest, "thought_signature")),
    ):
        if value:
            found[slot] = value
    fitting = [note for field in ("annotations", "citations") for note in cited(rest, field, len(words))]
    if fitting:
        found["annotations"] = fitting
    return [found] if words or fitting else []


def _thinking(rest: Block, _: bool) -> list[Block] | None:
    """Convert reasoning: a string, an OpenAI item with a summary, Bedrock's nested form, a redacted one."""
    nested = rest.get("reasoning_content")
    if isinstance(nested, dict) and not nested.keys() & rest.keys() - {"type"}:
        rest.update(rest.pop("reasoning_content"))
    texts = [words for name in ("thinking", "reasoning", "reasoning_content", "text") if (words := take(rest, name))]
    texts += _texts(rest, "summary") + _texts(rest, "content")
    found: Block = {"type": "thinking", "thinking": "\n".join(texts)}
    names = ("signature", "data") if rest["type"] == "redacted_thinking" else ("signature", "encrypted_content")
    for slot, value in (("id", take(rest, "id")), ("signature", _signature(rest, *names))):
        if value:
            found[slot] = value
    return [found] if texts or "signature" in found else []


def _texts(rest: Block, name: str) -> list[str]:
    """Take the texts of a list of `{"type": ..., "text": ...}`, or leave the list where it is not one."""
    items = rest.get(name)
    if not isinstance(items, list):
        return []
    fitting = all(
        isinstance(item, dict) and item.keys() <= {"type", "text"} and isinstance(item.get("text"), str)
        for item in items
    )
    return [item["text"] for item in rest.pop(name)] if fitting else []


def _signature(rest: Block, *names: str) -> str | None:
    """Take a signature from the block or from LangChain's `extras` beside it."""
    extras = rest.get("extras")
    if isinstance(extras, dict) and isinstance(extras.get("signature"), str) and "signature" not in rest:
        rest["extras"] = {name: value for name, value in extras.items() if name != "signature"}
        return str(extras["signature"])
    return take(rest, *names)


def _document(rest: Block, from_model: bool) -> list[Block] | None:
    """Convert a document whose text is in the block itself; others are media."""
    source = rest.get("source")
    if isinstance(rest.get("citations"), dict):
        del rest["citations"]  # asks for citations, cites nothing
    if isinstance(rest.get("text"), str) and not take({**rest}, "url", "base64", "data", "file_id"):
        for name in ("source_type", "mime_type"):  # it is text, as can be seen
            rest.pop(name, None)
        return [said(rest.pop("text"))]
    if isinstance(source, dict) and source.get("type") in ("text", "content"):
        inner = {**source}
        body = inner.pop("data", None) if source["type"] == "text" else inner.pop("content", None)
        if isinstance(body, str | list):
            inner.pop("media_type", None)
            del rest["source"]
            return blocks(body, from_model=from_model) + leftover(inner)
    return media(rest, from_model)


def _tool_result(rest: Block, from_model: bool) -> list[Block] | None:
    """Show which call a result is of, then the result itself in blocks of its own."""
    body = rest.pop("content", None)
    if not isinstance(body, str | list) or not body:
        return None
    head = dumped(dict(rest))
    rest.clear()
    return [head, *blocks(body, from_model=from_model)]


def _server_tool_call(rest: Block, _: bool) -> list[Block] | None:
    name = take(rest, "name")
    if name is None:
        return None
    arguments = rest.pop("args") if isinstance(rest.get("args"), dict) else {}
    return [{"type": "server_tool_use", "id": take(rest, "id") or "", "name": name, "input": arguments}]


def _hosted_call(rest: Block, _: bool) -> list[Block] | None:
    """Convert OpenAI's `web_search_call` and its like: whatever they carry is the tool's input."""
    identity, name = take(rest, "id") or "", str(rest["type"]).removesuffix("_call")
    inputs = {key: value for key, value in rest.items() if key not in _WIRING}
    if inputs.keys() == {"action"} and isinstance(inputs["action"], dict):
        inputs = inputs["action"]
    rest.clear()
    return [{"type": "server_tool_use", "id": identity, "name": name, "input": inputs}]


def _server_tool_result(rest: Block, _: bool) -> list[Block] | None:
    output, call = rest.get("output"), rest.get("tool_call_id")
    if isinstance(call, str) and page_results(output):
        del rest["output"], rest["tool_call_id"]
        return [{"type": "web_search_tool_result", "tool_use_id": call, "content": output}]
    if isinstance(output, dict) and "stdout" in output:
        del rest["output"]
        take(rest, "tool_call_id")
        return [_executed(output)]
    return None


def _executed(result: Block) -> Block:
    """Return the outcome of a program that a provider ran; its bare output if that is all there is."""
    quiet = not any(value for name, value in result.items() if name not in ("type", "stdout"))
    words = result.get("stdout")
    output = words if quiet and isinstance(words, str) else dumps(result).decode()
    outcome = "OUTCOME_FAILED" if result.get("return_code") else "OUTCOME_OK"
    return {"type": "code_execution_result", "output": output, "outcome": outcome}


def _executed_by_anthropic(rest: Block, _: bool) -> list[Block] | None:
    body = rest.pop("content", None)
    return [_executed(body)] if isinstance(body, dict) and "stdout" in body else None


def _code_interpreter(rest: Block, _: bool) -> list[Block] | None:
    code = rest.get("code")
    if not isinstance(code, str):
        return None
    del rest["code"]
    found: list[Block] = [{"type": "code", "code": code}]
    for slot in ("id", "container_id"):
        if value := take(rest, slot):
            found[0][slot] = value
    outputs = rest.get("outputs")
    if isinstance(outputs, list) and all(
        isinstance(item, dict) and item.keys() <= {"type", "logs"} and isinstance(item.get("logs"), str)
        for item in outputs
    ):
        del rest["outputs"]
        found += [{"type": "code_execution_result", "output": item["logs"]} for item in outputs]
    return found


def _gemini_code(rest: Block, _: bool) -> list[Block] | None:
    code = take(rest, "executable_code")
    return [{"type": "code", "code": code}] if code else None


def _code_result(rest: Block, from_model: bool) -> list[Block] | None:
    """Convert Gemini's result, or one that is in the blueprint's form already."""
    output = take(rest, "code_execution_result")
    if output is None and "stdout" in rest:
        result = dict(rest)
        rest.clear()
        return [_executed(result)]
    if output is None:
        return native(rest, from_model)
    return [{"type": "code_execution_result", "output": output}]


def _generated_image(rest: Block, _: bool) -> list[Block] | None:
    data = take(rest, "result")
    if data is None:
        return None
    mime = f"image/{take(rest, 'output_format') or 'png'}"
    found = {
        "type": "output_media",
        "url": f"data:{mime};base64,{data}",
        "mime_type": mime,
        "media_type": "image",
    }
    identity = take(rest, "id")
    return [found | ({"id": identity} if identity else {})]


def _non_standard(rest: Block, from_model: bool) -> list[Block] | None:
    value = rest.pop("value", None)
    return _block(value, from_model) if isinstance(value, dict) and value else None


def _each(convert: Converter, *names: str) -> dict[str, Converter]:
    return dict.fromkeys(names, convert)


_CONVERTERS: dict[str, Converter] = {
    **_each(native, *NATIVE),
    **_each(media, *KINDS),
    **_each(_text, "text", "input_text", "output_text", "refusal"),
    **_each(_thinking, "thinking", "redacted_thinking", "reasoning", "reasoning_content"),
    **_each(_document, "document", "file", "text-plain", "input_file"),
    **_each(_hosted_call, "web_search_call", "file_search_call", "web_fetch_call", "tool_search_call"),
    "tool_result": _tool_result,
    "server_tool_call": _server_tool_call,
    "server_tool_result": _server_tool_result,
    "code_execution_tool_result": _executed_by_anthropic,
    "code_interpreter_call": _code_interpreter,
    "executable_code": _gemini_code,
    "code_execution_result": _code_result,
    "image_generation_call": _generated_image,
    "non_standard": _non_standard,
}
