"""Rows as the templates want them."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from .._entries import entry_of
from .._shown import line

Row = dict[str, Any]
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_LONGEST = 20_000
_TIMELINE = 1_000.0  # the width of a timeline in units of its own


def row(found: Row) -> Row:
    """Return a request as a list shows it."""
    entry = entry_of(found)
    first = found["first_token_at"]
    return {
        **found,
        "entry": entry,
        "short_model": entry.short_model,
        "seconds": entry.seconds,
        "tag_list": _tags(found["tags"]),
        "scores": entry.scores,
        "delivery": entry.delivery,
        "session_name": entry.session.get("name") or "",
        "first_token": None if first is None else max(0.0, first - found["started_at"]),
    }


def whole(found: Row) -> Row:
    """Return a request as its own page shows it."""
    entry = entry_of(found)
    messages = [_message(each, "input") for each in _messages(entry.body.get("input"))]
    messages += [_message(each, "output") for each in _messages(entry.body.get("output"))]
    tools = (entry.body.get("input") or {}).get("tools") or ()
    return {
        **row(found),
        "body": entry.body,
        "messages": messages,
        "tools": [_pretty(tool) for tool in tools],
        "parameters": entry.body.get("parameters") or {},
        "metadata": entry.metadata,
        "prompts": entry.prompts,
        "said": [{**note, "said": _pretty(note["said"])} for note in entry.notes()],
        "session": entry.session,
    }


def session_row(found: Row) -> Row:
    """Return a session as a list shows it."""
    return {**found, "tag_list": _tags(found["tags"])}


def tree(family: Sequence[Row], calls: Sequence[Row]) -> Row:
    """Return a session with its nested ones and where each call lies in time."""
    ends = [call["ended_at"] for call in calls] or [each["started_at"] for each in family]
    first = min([each["started_at"] for each in family] + [call["started_at"] for call in calls])
    whole_time = max(max(ends) - first, 1e-6)

    def place(moment: float) -> float:
        return round(float((moment - first) / whole_time * _TIMELINE), 2)

    by_session: defaultdict[str | None, list[Row]] = defaultdict(list)
    for call in calls:
        at = place(call["started_at"])
        width = max(2.0, place(call["ended_at"]) - at)
        by_session[call["session_id"]].append({**call, "at": at, "width": width})
    known = {each["id"] for each in family}
    inside: defaultdict[str | None, list[Row]] = defaultdict(list)
    for each in family:
        inside[each["parent"] if each["parent"] in known else None].append(each)
    rows: list[Row] = []

    def walk(parent: str | None, depth: int) -> None:
        for each in inside[parent]:
            rows.append({**each, "depth": depth, "calls": by_session[each["id"]], "tag_list": _tags(each["tags"])})
            if depth < 50:
                walk(each["id"], depth + 1)

    walk(None, 0)
    return {"rows": rows, "seconds": whole_time, "width": _TIMELINE}


def with_scores(figures: list[Row], scores: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return figures with the scores that were given to them."""
    by_id: defaultdict[str, list[float]] = defaultdict(list)
    for each in scores:
        value = orjson.loads(each["payload"]).get("score")
        if isinstance(value, int | float):
            by_id[each["request_id"]].append(value)
    return [{**each, "scores": by_id.get(each["id"], ())} for each in figures]


def prompts(known: Iterable[tuple[str, int, int]], used: Mapping[str, Mapping[int | None, Any]]) -> list[Row]:
    """Return the prompts that are kept here or were used, by name."""
    found = {name: {"name": name, "versions": count, "newest": newest} for name, count, newest in known}
    for name in used:
        found.setdefault(name, {"name": name, "versions": 0, "newest": None})
    for name, each in found.items():
        each["calls"] = sum(group.calls for group in used.get(name, {}).values())
    return [found[name] for name in sorted(found)]


def prompt(versions: Mapping[int, Row], used: Mapping[int | None, Any], old: int | None, new: int | None) -> Row:
    """Return one prompt: its versions with their figures, and the difference between two of them."""
    numbers = sorted({*versions, *(number for number in used if number is not None)}, reverse=True)
    new = new if new in versions else next(iter(versions), None)
    earlier = [number for number in versions if new is not None and number < new]
    old = old if old in versions else max(earlier, default=None)
    texts = {number: _template(versions[number]) for number in (old, new) if number is not None}
    changed = []
    if old is not None and new is not None:
        changed = list(difflib.unified_diff(texts[old], texts[new], f"version {old}", f"version {new}", lineterm=""))
    rows = [{"number": number, "kept": number in versions, "group": used.get(number)} for number in numbers]
    return {"rows": rows, "old": old, "new": new, "text": [] if new is None else texts.get(new, []), "diff": changed}


def _template(payload: Row) -> list[str]:
    template = payload.get("prompt_template") or {}
    lines: list[str] = []
    for message in _messages(template):
        lines.append(f"[{message.get('role', template.get('type', 'text'))}]")
        for part in _message(message, "")["parts"]:
            lines += part["text"].splitlines()
    return lines


def _messages(blueprint: Any) -> list[Row]:
    if not isinstance(blueprint, dict):
        return []
    if blueprint.get("type") == "completion":
        return [{"role": "text", "content": blueprint.get("content") or []}]
    return [each for each in blueprint.get("messages") or () if isinstance(each, dict)]


def _message(message: Row, side: str) -> Row:
    content = message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    parts = [_part(block) for block in blocks if isinstance(block, dict)]
    calls = [_call(call) for call in message.get("tool_calls") or () if isinstance(call, dict)]
    return {
        "side": side,
        "role": line(message.get("role", "?"), 40),
        "name": line(message.get("name") or message.get("tool_call_id") or "", 80),
        "parts": parts,
        "calls": calls,
    }


def _part(block: Row) -> Row:
    kind = str(block.get("type", "?"))
    image = _image(block)
    if image:
        return {"kind": kind, "text": "", "image": image}
    words = block.get("text", block.get(kind))
    return {"kind": kind, "text": _cut(words if isinstance(words, str) else _pretty(block)), "image": ""}


def _image(block: Row) -> str:
    """Return a picture that lies in the record itself; nothing is ever loaded from elsewhere."""
    holder = block.get("image_url") or block.get("media") or block.get("url") or ""
    url = holder.get("url", "") if isinstance(holder, dict) else holder
    is_picture = isinstance(url, str) and url.startswith(tuple(f"data:{kind};base64," for kind in _IMAGES))
    return url if is_picture else ""


def _call(call: Row) -> Row:
    function = call.get("function") or {}
    arguments = function.get("arguments", "")
    return {
        "name": line(function.get("name", "?"), 120),
        "id": line(call.get("id", ""), 120),
        "arguments": _cut(arguments if isinstance(arguments, str) else _pretty(arguments)),
    }


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _pretty(value: Any) -> str:
    return _cut(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


def _tags(text: str) -> list[str]:
    try:
        return [line(tag, 60) for tag in orjson.loads(text)]
    except orjson.JSONDecodeError:
        return []
