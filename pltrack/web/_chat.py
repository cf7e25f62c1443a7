"""A prompt blueprint as a conversation. Nothing in it is ever loaded from elsewhere, nor made a link."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import orjson
from markupsafe import Markup

from .._shown import line

Row = dict[str, Any]
_EMBEDDED = re.compile(
    r"data:((?:image/(?:png|jpeg|gif|webp))|(?:audio/(?:wav|mpeg|mp3|ogg|webm|flac)));base64,[A-Za-z0-9+/=]+"
)
_HEAD = 2_000  # characters of a text that are shown at once
_MOST = 200_000
_SNIPPET = 140


def conversation(body: Row) -> list[Row]:
    """Return the messages of a call: what was asked, then what was answered."""
    asked = [_message(each, "input") for each in _messages(body.get("input"))]
    answered = [_message(each, "output") for each in _messages(body.get("output"))]
    named = {call["id"]: call["name"] for each in asked for call in each["calls"] if call["id"]}
    for each in asked:
        each["answers"] = named.get(each["answers"], each["answers"])
    return asked + answered


def gist(payload: bytes | None) -> tuple[str, str]:
    """Return the last thing that was asked and what was answered, on a line each."""
    try:
        body = orjson.loads(payload or b"{}")
    except orjson.JSONDecodeError:
        return "", ""
    asked, answered = (_messages(body.get(side)) for side in ("input", "output"))
    users = [each for each in asked if each.get("role") != "system"] or asked
    answer = _words(answered[-1]) if answered else ""
    return _asked(users[-1]) if users else "", answer or line(body.get("error_message") or "", _SNIPPET)


def lines(template: Row) -> list[str]:
    """Return a prompt's template line by line."""
    found: list[str] = []
    for message in _messages(template):
        found.append(f"[{line(message.get('role', template.get('type', 'text')), 40)}]")
        for part in _message(message, "")["parts"]:
            found += (part["text"] + part["rest"]).splitlines()
    return found


def pretty(value: Any) -> str:
    """Return a value as JSON that can be read."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _messages(blueprint: Any) -> list[Row]:
    if not isinstance(blueprint, dict):
        return []
    if blueprint.get("type") == "completion":
        content = blueprint.get("content") or []
        return [{"role": "text", "content": content}] if content else []
    return [each for each in blueprint.get("messages") or () if isinstance(each, dict)]


def _blocks(message: Row) -> Iterable[Row]:
    content = message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    return [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []


def _calls(message: Row) -> list[Row]:
    found = message.get("tool_calls")
    calls = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    legacy = message.get("function_call")
    return [*calls, {"function": legacy}] if isinstance(legacy, dict) else calls


def _asked(message: Row) -> str:
    role = message.get("role", "user")
    return line(("" if role in ("user", "text") else f"{role}: ") + _words(message), _SNIPPET)


def _words(message: Row) -> str:
    """Return what a message says, on one line."""
    parts = [_part(block) for block in _blocks(message)]
    said = [part["text"] or f"[{part['kind']}]" for part in parts if part["kind"] != "thinking"]
    said += [f"{_call(call)['name']}(…)" for call in _calls(message)]
    return line(" ".join(each[: 4 * _SNIPPET] for each in said if each), _SNIPPET)


def _message(message: Row, side: str) -> Row:
    return {
        "side": side,
        "role": line(message.get("role", "?"), 40),
        "name": line(message.get("name") or "", 80),
        "answers": line(message.get("tool_call_id") or "", 120),
        "parts": [_part(block) for block in _blocks(message)],
        "calls": [_call(call) for call in _calls(message)],
    }


def _part(block: Row) -> Row:
    kind = str(block.get("type", "?"))
    url, what = _media(block)
    if url is not None:
        found = _EMBEDDED.fullmatch(url)
        if found is not None:  # letters and digits: nothing in it to clean or escape, and it may be megabytes
            return {"kind": found[1].partition("/")[0], "text": "", "rest": "", "source": Markup(url)}
        where = "in the record" if url.startswith("data:") else line(url, 300)
        return {"kind": what, "text": f"{where} (not loaded)", "rest": "", "source": ""}
    words = block.get("text", block.get(kind))
    return {"kind": kind, **_cut(words if isinstance(words, str) else pretty(block)), "source": ""}


def _media(block: Row) -> tuple[str | None, str]:
    """Return where a block's picture, sound or file is, None for other blocks, and what it is."""
    holder = block.get("image_url") or block.get("media") or (block if "url" in block else None)
    if isinstance(holder, str):
        return holder, "image"
    if not isinstance(holder, dict) or not isinstance(holder.get("url"), str):
        return None, ""
    url, kind = holder["url"], str(holder.get("mime_type") or holder.get("type") or "")
    if holder.get("format") == "base64" and "/" in kind:
        url = f"data:{kind};base64,{url}"
    title = " ".join(filter(None, (line(holder.get("title") or "", 80), kind if "/" in kind else "image")))
    return url, title


def _call(call: Row) -> Row:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments", "")
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = pretty(json.loads(arguments)) if len(arguments) < _MOST else arguments
    shown = _cut(arguments if isinstance(arguments, str) else pretty(arguments))
    return {"name": line(function.get("name", "?"), 120), "id": line(call.get("id") or "", 120), **shown}


def _cut(text: str) -> Row:
    """Return the beginning of a text, the rest, and how long it is in all."""
    rest = text[_HEAD:_MOST] + ("…" if len(text) > _MOST else "")
    return {"text": text[:_HEAD], "rest": rest, "length": len(text)}
