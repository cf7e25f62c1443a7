"""Cutting texts that are too long, each with a mark that tells its size. Pure; what comes out is of the same shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

_MARK = "… [cut by pltrack: {size} characters]"
_SHORTEST = 64  # ids and names are shorter
_MOST_KEYS = 64


def shrunk(body: bytes, times: int) -> bytes | None:
    """Return `body` with its longest texts cut to a quarter `times` times, None when little is left to cut.

    Always from the whole body: the mark tells the size that a text really had.
    """
    whole = orjson.loads(body)
    limit = max((len(text) for text in _texts(whole)), default=0) // 4**times
    return None if limit < _SHORTEST else orjson.dumps(_cut(whole, limit))


def fitting(body: bytes, most: int) -> bytes:
    """Return `body` in at most `most` bytes: its longest texts cut, or only its facts where that is not enough."""
    if len(body) <= most:
        return body
    whole = orjson.loads(body)
    limit = min(most, max((len(text) for text in _texts(whole)), default=0))
    while limit >= _SHORTEST:
        cut = orjson.dumps(_cut(whole, limit))
        if len(cut) <= most:
            return cut
        limit //= 2
    return orjson.dumps({key: _facts(key, value, len(body)) for key, value in whole.items()})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _cut(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return value[:limit] + _MARK.format(size=len(value)) if len(value) > limit else value
    if isinstance(value, list):
        return [_cut(each, limit) for each in value]
    if isinstance(value, dict):
        return {key: _cut(each, limit) for key, each in value.items()}
    return value


def _facts(key: str, value: Any, size: int) -> Any:
    """Return what is kept of one field of a body that has too many texts, not too long ones."""
    if key in ("input", "output") and isinstance(value, dict):
        text = {"type": "text", "text": _MARK.format(size=size).removeprefix("… ")}
        if value.get("type") == "completion":
            return {"type": "completion", "content": [text], "input_variables": []}
        role = "user" if key == "input" else "assistant"
        return {"type": "chat", "messages": [{"role": role, "content": [text]}], "input_variables": []}
    if isinstance(value, dict):
        ours = [name for name in value if name.startswith(("pltrack_", "session_", "_langchain_r", "prompt_"))]
        few = dict.fromkeys([*ours, *list(value)[:_MOST_KEYS]])
        return {name: _cut(value[name], _SHORTEST) for name in few if not isinstance(value[name], list | dict)}
    return _cut(value[:_MOST_KEYS] if isinstance(value, list) else value, _SHORTEST)
