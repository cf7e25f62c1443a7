"""Prompts as the templates want them: versions, what they came to, and how they differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from . import _chat
from ._figures import Sum

Row = dict[str, Any]
Used = Mapping[int | None, Sum]


def overview(known: Iterable[tuple[str, int, int]], used: Mapping[str, Used]) -> list[Row]:
    """Return the prompts that are kept here or were used, by name."""
    found = {name: {"name": name, "versions": count, "newest": newest} for name, count, newest in known}
    for name, versions in used.items():
        numbers = [number for number in versions if number is not None]
        found.setdefault(name, {"name": name, "versions": 0, "newest": max(numbers, default=None)})
    for name, each in found.items():
        sums = used.get(name, {})
        each["calls"] = sum(one.calls for one in sums.values())
        each["last"] = max((one.last for one in sums.values()), default=None)
        each["scores"] = [
            (number, sums[number].score)
            for number in sorted((n for n in sums if n is not None), reverse=True)
            if sums[number].score is not None
        ][:4]
    return [found[name] for name in sorted(found)]


def whole(versions: Mapping[int, Row], used: Used, old: int | None, new: int | None) -> Row:
    """Return one prompt: its versions with their figures, and the difference between two of them."""
    numbers = sorted({*versions, *(number for number in used if number is not None)}, reverse=True)
    new = new if new in versions else next(iter(versions), None)
    earlier = [number for number in versions if new is not None and number < new]
    old = old if old in versions else max(earlier, default=None)
    texts = {number: _text(versions[number]) for number in (old, new) if number is not None}
    changed = _changes(texts[old], texts[new]) if old is not None and new is not None and old != new else []
    rows = [{"number": number, "kept": number in versions, "sum": used.get(number)} for number in numbers]
    return {
        "rows": rows,
        "unnumbered": used.get(None),
        "kept": list(versions),
        "old": old,
        "new": new,
        "text": texts.get(new, []) if new is not None else [],
        "diff": changed,
    }


def _changes(old: list[str], new: list[str]) -> list[tuple[str, str]]:
    """Return the lines of both, each with what became of it: added, removed or the same."""
    found = []
    for each in difflib.Differ().compare(old, new):
        if not each.startswith("?"):
            found.append(({"+": "added", "-": "removed"}.get(each[0], "same"), each[2:]))
    return found


def _text(payload: Row) -> list[str]:
    return _chat.lines(payload.get("prompt_template") or {})
