"""What had arrived of a stream of protocol events (`stream_events(version="v3")`) that was cut short."""

from __future__ import annotations

from typing import Any

from .._plain import plain
from .outputs import Result

_GROWING = ("text", "reasoning", "args", "data")
_NOTHING_TOLD = (((None, None, None), None),)
_CALL = "tool_call_chunk"


class Arrived:
    """The pieces as they came; what they add up to is worked out where it is needed."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[tuple[Any, bool, tuple[tuple[str, Any], ...]]] = []

    def take(self, event: Any) -> dict[str, Any] | None:
        """Keep what an event carries, and return it. For the app's thread."""
        delta = event.get("delta")
        piece = event.get("content") if delta is None else delta
        if type(piece) is not dict:
            return None
        self._pieces.append((event.get("index"), delta is None, tuple(piece.items())))
        return piece

    def result(self) -> Result:
        """Return the pieces as the answer of a run."""
        blocks: dict[Any, dict[str, Any]] = {}
        for index, whole, items in self._pieces:
            block = blocks.setdefault(index, {})
            if whole:
                block.clear()
                block.update(items)
            else:
                _grow(block, dict(items))
        content = [block for block in blocks.values() if any(block.get(key) for key in _GROWING) or "id" in block]
        candidates = (("ai", plain(content), None, None),) if content else ()
        return Result(candidates, _NOTHING_TOLD[: len(candidates)], None, 1)


def says(piece: dict[str, Any] | None) -> bool:
    """Tell whether a piece is of the answer itself."""
    return piece is not None and (any(piece.get(key) for key in _GROWING) or piece.get("type") == _CALL)


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    kind = str(delta.pop("type", "")).removesuffix("-delta")
    block.setdefault("type", _CALL if kind == "tool-call" else kind)
    fields = delta.pop("fields", None)
    if isinstance(fields, dict):
        block.update(fields)
    for key, value in delta.items():
        block[key] = block.get(key, "") + value if key in _GROWING and isinstance(value, str) else value
