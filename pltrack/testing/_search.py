"""Request search: filters in AND and OR groups over what one workspace has logged."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from ._workspace import Logged, RefusedError, said_text, seconds, summary

PER_PAGE = 10

Test = Callable[[Any, Any], bool]

COMPARISONS: dict[str, Test] = {
    "is": operator.eq,
    "eq": operator.eq,
    "is_not": operator.ne,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "before": operator.lt,
    "after": operator.gt,
    "in": lambda have, want: have in want,
    "not_in": lambda have, want: have not in want,
    "between": lambda have, want: want[0] <= have <= want[1],
    "contains": lambda have, want: want in have,
    "not_contains": lambda have, want: want not in have,
    "starts_with": lambda have, want: have.startswith(want),
    "ends_with": lambda have, want: have.endswith(want),
    "is_empty": lambda have, _: not have,
    "is_not_empty": lambda have, _: bool(have),
    "is_null": lambda have, _: have is None,
    "is_not_null": lambda have, _: have is not None,
}
# For fields that hold several values, "in" asks whether one of them is among those wanted.
COLLECTIONS: dict[str, Test] = {
    "in": lambda have, want: bool(set(have) & set(want)),
    "not_in": lambda have, want: not set(have) & set(want),
    "is": lambda have, want: want in have,
    "is_not": lambda have, want: want not in have,
}
KEYED: dict[str, Test] = {
    "key_equals": operator.eq,
    "key_not_equals": operator.ne,
    "key_contains": lambda have, want: have is not None and want in have,
}
FIELDS: dict[str, Callable[[Logged], Any]] = {
    "pl_id": lambda logged: logged.id,
    "engine": lambda logged: logged.body["model"],
    "provider_type": lambda logged: logged.body["provider"],
    "input_text": lambda logged: said_text(logged.body["input"]),
    "output_text": lambda logged: said_text(logged.body["output"]),
    "prompt_version_number": lambda logged: logged.prompt["version"] if logged.prompt else None,
    "input_tokens": lambda logged: logged.body.get("input_tokens", 0),
    "output_tokens": lambda logged: logged.body.get("output_tokens", 0),
    "cost": lambda logged: logged.body.get("price", 0),
    "latency_ms": lambda logged: summary(logged)["latency"] * 1000,
    "request_start_time": lambda logged: seconds(logged.body["request_start_time"]),
    "request_end_time": lambda logged: seconds(logged.body["request_end_time"]),
    "status": lambda logged: logged.body.get("status", "SUCCESS"),
    "tags": lambda logged: logged.tags,
    "metadata_keys": lambda logged: list(logged.metadata),
}


def search(requests: Sequence[Logged], body: dict[str, Any]) -> dict[str, Any]:
    """Answer a search whose body has passed the rules; newest first unless it says otherwise."""
    found = [logged for logged in requests if _fits(logged, body)]
    field = body.get("sort_by")
    if bool(field) != bool(body.get("sort_order")):
        raise RefusedError(400, "sort_by and sort_order go together")
    found.sort(key=FIELDS[field or "pl_id"], reverse=body.get("sort_order") != "asc")
    items = page([summary_with_prompt(logged, body) for logged in found], body.get("page"), body.get("per_page"))
    return {"success": True, **items}


def page(items: Sequence[Any], number: int | None, size: int | None) -> dict[str, Any]:
    """Cut one page out of a list, with the keys that PromptLayer's pagination has."""
    number, size = number or 1, size or PER_PAGE
    pages = -(-len(items) // size)
    return {
        "items": list(items[(number - 1) * size : number * size]),
        "page": number,
        "pages": pages,
        "per_page": size,
        "total": len(items),
        "has_next": number < pages,
        "has_prev": number > 1,
        "next_num": number + 1 if number < pages else None,
        "prev_num": number - 1 if number > 1 else None,
    }


def summary_with_prompt(logged: Logged, body: dict[str, Any]) -> dict[str, Any]:
    named = {"prompt_name": logged.prompt["name"] if logged.prompt else None}
    return summary(logged) | (named if body.get("include_prompt_name") else {})


def _fits(logged: Logged, body: dict[str, Any]) -> bool:
    group, words = body.get("filter_group"), (body.get("q") or "").casefold()
    said = f"{said_text(logged.body['input'])}\n{said_text(logged.body['output'])}".casefold()
    return words in said and (group is None or _passes(logged, group))


def _passes(logged: Logged, condition: dict[str, Any]) -> bool:
    if "filters" not in condition:
        return _filter(logged, condition)
    combine = any if condition.get("logic") == "OR" else all
    return combine([_passes(logged, each) for each in condition["filters"]])


def _filter(logged: Logged, condition: dict[str, Any]) -> bool:
    field, name, want = condition["field"], condition["operator"], condition.get("value")
    if field == "metadata" and name in KEYED:
        if not condition.get("nested_key"):
            raise RefusedError(400, f"{name} needs a nested_key")
        return KEYED[name](logged.metadata.get(condition["nested_key"]), want)
    have = FIELDS[field](logged) if field in FIELDS else None
    test = (COLLECTIONS if isinstance(have, list) else {}).get(name) or COMPARISONS.get(name)
    if field not in FIELDS or test is None:
        raise RefusedError(400, f"this server cannot filter {field} by {name}")
    if field.endswith("_time") and isinstance(want, str):
        want = seconds(want)
    try:
        return test(have, want)
    except (TypeError, LookupError, AttributeError) as exc:
        raise RefusedError(400, f"{field} {name} does not take the value {want!r}") from exc
