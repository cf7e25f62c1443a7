"""Asking PromptLayer which of our requests it has: its request search, by `pltrack_id`."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from .api import Answer

PATH = "/api/public/v2/requests/search"
EVERY = 6.0  # seconds: 10 a minute are allowed
MOST = 25


def body(ids: Sequence[str]) -> bytes:
    filters = [
        {"field": "metadata", "operator": "key_equals", "nested_key": "pltrack_id", "value": each} for each in ids
    ]
    return orjson.dumps({"filter_group": {"logic": "OR", "filters": filters}, "per_page": MOST})


def found(answer: Answer) -> dict[str, int]:
    """Map our ids to PromptLayer's in a search answer; of two with the same id the older one counts."""
    ids: dict[str, int] = {}
    for item in answer.body.get("items") or ():
        pairs = item.get("metadata") or []
        merged = {key: value for pair in (pairs if isinstance(pairs, list) else [pairs]) for key, value in pair.items()}
        ours, theirs = merged.get("pltrack_id"), item.get("id")
        if isinstance(ours, str) and isinstance(theirs, int):
            ids[ours] = min(theirs, ids.get(ours, theirs))
    return ids
