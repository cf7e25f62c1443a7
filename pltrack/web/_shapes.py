"""Requests and sessions as the templates want them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson

from .._entries import entry_of, mapping_of
from .._shown import line
from . import _chat
from ._rendering import seconds

Row = dict[str, Any]
_TIMELINE = 1_000.0  # the width of a timeline in units of its own
_NARROWEST = 4.0
_DEEPEST = 50


def row(found: Row) -> Row:
    """Return a request as a list shows it."""
    entry = entry_of({**found, "payload": None})
    first = found["first_token_at"]
    asked, answered = _chat.gist(found.get("payload"))
    return {
        **found,
        "short_model": entry.short_model,
        "seconds": entry.seconds,
        "tag_list": tags(found["tags"]),
        "scores": entry.scores,
        "delivery": entry.delivery,
        "session_name": (found.get("session") or {}).get("name") or "",
        "first_token": None if first is None else max(0.0, first - found["started_at"]),
        "asked": asked,
        "answered": answered,
    }


def whole(found: Row) -> Row:
    """Return a request as its own page shows it."""
    entry = entry_of(found)
    tools = (entry.body.get("input") or {}).get("tools") or ()
    hidden = {"session_id", "session", "user_id", "conversation_id", "pltrack_id", "first_token_seconds"}
    return {
        **row(found),
        "body": entry.body,
        "messages": _chat.conversation(dict(entry.body)),
        "tools": [{"name": _tool_name(tool), "text": _chat.pretty(tool)} for tool in tools],
        "parameters": {key: _plain(value) for key, value in (entry.body.get("parameters") or {}).items()},
        "metadata": {key: value for key, value in entry.metadata.items() if key not in hidden},
        "prompts": [_link(each) for each in entry.prompts],
        "said": [{**note, "words": _note(note)} for note in entry.notes()],
        "session": entry.session,
    }


def session_row(found: Row) -> Row:
    """Return a session as a list shows it."""
    return {**found, "tag_list": tags(found["tags"]), "facts": mapping_of(found["metadata"])}


def tree(family: Sequence[Row], calls: Sequence[Row]) -> Row:
    """Return a session as rows in call order: nested ones below theirs, and where each call lies in time."""
    first = min([each["started_at"] for each in family] + [call["started_at"] for call in calls])
    last = max([call["ended_at"] for call in calls] or [each["started_at"] for each in family])
    span = max(last - first, 1e-6)

    def place(row: Row, end: float) -> Row:
        start = row["started_at"]
        at = round((start - first) / span * (_TIMELINE - _NARROWEST), 1)
        return {**row, "at": at, "width": max(_NARROWEST, round((end - start) / span * _TIMELINE, 1))}

    def walk(parent: str | None, depth: int) -> None:
        for each in inside.get(parent, ()):
            if "model" in each:
                rows.append({**place(each, each["ended_at"]), "depth": depth, "is_call": True})
                continue
            within = ends.get(each["id"]) or each["started_at"]
            shown = {**session_row(each), "depth": depth, "is_call": False, "seconds": within - each["started_at"]}
            rows.append(place(shown, within))
            if depth < _DEEPEST:
                walk(each["id"], depth + 1)

    ends = _ends(family, calls)
    inside = _inside(family, calls)
    rows: list[Row] = []
    walk(None, 0)
    scale = [{"at": n / 4 * _TIMELINE, "words": seconds(span * n / 4) if n else "0"} for n in range(5)]
    return {"rows": rows, "seconds": span, "width": _TIMELINE, "scale": scale}


def _inside(family: Sequence[Row], calls: Sequence[Row]) -> dict[str | None, list[Row]]:
    known = {each["id"] for each in family}
    inside: defaultdict[str | None, list[Row]] = defaultdict(list)
    for each in family:
        inside[each["parent"] if each["parent"] in known else None].append(each)
    for call in calls:
        inside[call["session_id"]].append(call)
    return {parent: sorted(rows, key=lambda each: each["started_at"]) for parent, rows in inside.items()}


def _ends(family: Sequence[Row], calls: Sequence[Row]) -> dict[str, float]:
    """Return when the last call in each session, or in one nested in it, ended."""
    parents = {each["id"]: each["parent"] for each in family}
    ends: dict[str, float] = {}
    for call in calls:
        holder, seen = call["session_id"], 0
        while holder is not None and seen < _DEEPEST:
            ends[holder] = max(ends.get(holder, 0.0), call["ended_at"])
            holder, seen = parents.get(holder), seen + 1
    return ends


def tags(text: str) -> list[str]:
    """Return stored tags."""
    try:
        return [str(tag) for tag in orjson.loads(text)]
    except (orjson.JSONDecodeError, TypeError):
        return []


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _chat.pretty(value)


def _tool_name(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    named = function if isinstance(function, dict) else tool if isinstance(tool, dict) else {}
    return line(named.get("name", "?"), 120)


def _link(link: Row) -> Row:
    given = link.get("prompt_input_variables")
    return {
        "name": str(link.get("prompt_name") or "?"),
        "version": link.get("version"),
        "label": link.get("label"),
        "variables": {key: _plain(value) for key, value in given.items()} if isinstance(given, dict) else {},
    }


def _note(note: Row) -> str:
    said = note["said"]
    if note["kind"] == "score":
        return " ".join(filter(None, (line(said.get("name") or "", 120), str(said.get("score", "?")))))
    if note["kind"] == "metadata" and isinstance(said.get("metadata"), dict):
        return "\n".join(f"{key} = {value}" for key, value in said["metadata"].items())
    if note["kind"] == "prompt":
        link = _link(said)
        which = f"version {link['version']}" if link["version"] else link["label"] or ""
        return f"{link['name']} {which}".strip()
    return _chat.pretty(said)
