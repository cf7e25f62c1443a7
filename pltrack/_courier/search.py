"""Asking PromptLayer which of our requests it has: its request search, by `pltrack_id`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from .api import Answer

PATH = "/api/public/v2/requests/search"
EVERY = 6.0  # seconds: 10 a minute are allowed
MOST = 25
# The search may know a request only some time after it was logged, and a second copy costs money while waiting costs
# nothing: a request that is not found is looked for again after each of these seconds, and only then sent again.
PATIENCE = (6.0, 6.0)


def body(ids: Sequence[str]) -> bytes:
    filters = [
        {"field": "metadata", "operator": "key_equals", "nested_key": "pltrack_id", "value": each} for each in ids
    ]
    return orjson.dumps({"filter_group": {"logic": "OR", "filters": filters}, "per_page": MOST})


def found(answer: Answer) -> dict[str, int] | None:
    """Map our ids to PromptLayer's in a search answer, None when it is no such answer; of two the older one counts."""
    items = answer.body.get("items") if isinstance(answer.body, Mapping) else None
    if not 200 <= answer.status < 300 or not isinstance(items, list):
        return None
    ids: dict[str, int] = {}
    for item in items:
        theirs = item.get("id") if isinstance(item, Mapping) else None
        ours = _pltrack_id(item.get("metadata")) if isinstance(theirs, int) else None
        if isinstance(ours, str) and isinstance(theirs, int):
            ids[ours] = min(theirs, ids.get(ours, theirs))
    return ids


def has_more(answer: Answer) -> bool:
    """Tell whether the answer is only the first page: then what is not on it may still be there."""
    return bool(answer.body.get("has_next"))


def _pltrack_id(metadata: Any) -> Any:
    pairs = metadata if isinstance(metadata, list) else [metadata]
    return next((pair["pltrack_id"] for pair in pairs if isinstance(pair, Mapping) and "pltrack_id" in pair), None)
