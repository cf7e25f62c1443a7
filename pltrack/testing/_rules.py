"""What PromptLayer accepts, call by call; `issues(rule, body)` says what is wrong with a body.

As strict as the documentation allows: what pleases these rules pleases the real server too. Top-level keys
that no document names are refused, so a typing mistake cannot hide.
"""

from collections.abc import Iterator
from typing import Any

from ._blueprint_rules import BLUEPRINT, METADATA, NAMES, OBJECT, TEXT, TEXT_OR_NULL
from ._shapes import (
    Check,
    Issue,
    Loc,
    anything,
    boolean,
    either,
    integer,
    many,
    mapping,
    maybe,
    moment,
    null,
    number,
    one_of,
    record,
    text,
)

ERROR_TYPES = {
    "PROVIDER_RATE_LIMIT": ("WARNING", "ERROR"),
    "PROVIDER_QUOTA_LIMIT": ("WARNING", "ERROR"),
    "UNKNOWN_ERROR": ("WARNING", "ERROR"),
    "PROVIDER_PARTIAL_RESPONSE": ("WARNING",),
    "VARIABLE_MISSING_OR_EMPTY": ("WARNING",),
    "PROVIDER_TIMEOUT": ("ERROR",),
    "PROVIDER_AUTH_ERROR": ("ERROR",),
    "PROVIDER_ERROR": ("ERROR",),
    "TEMPLATE_RENDER_ERROR": ("ERROR",),
}
SCORE = integer(least=0, most=100)
POSITIVE = integer(least=1)
COUNT = integer(least=0)
LABELS = mapping(TEXT, key=text(most=1024))

_REQUEST = record(
    {
        "provider": TEXT,
        "model": TEXT,
        "input": BLUEPRINT,
        "output": BLUEPRINT,
        "request_start_time": moment,
        "request_end_time": moment,
    },
    {
        "parameters": OBJECT,
        "tags": many(text(most=512)),
        "metadata": LABELS,
        "prompt_name": TEXT_OR_NULL,
        "prompt_id": maybe(POSITIVE),
        "prompt_version_number": maybe(POSITIVE),
        "prompt_input_variables": OBJECT,
        "input_tokens": COUNT,
        "output_tokens": COUNT,
        "price": number(least=0),
        "function_name": TEXT,
        "score": SCORE,
        "score_name": null,  # undocumented; the SDK always sends the key, so only a value is refused
        "api_type": TEXT_OR_NULL,
        "status": one_of("SUCCESS", "WARNING", "ERROR"),
        "error_type": maybe(one_of(*ERROR_TYPES)),
        "error_message": maybe(text(most=1024)),
    },
    closed=True,
)


def log_request(body: Any, loc: Loc) -> Iterator[Issue]:
    """Check the body of `POST /log-request`, the pairing of status and error type included."""
    yield from _REQUEST(body, loc)
    if not isinstance(body, dict):
        return
    kind, status = body.get("error_type"), body.get("status", "SUCCESS")
    if isinstance(kind, str) and kind in ERROR_TYPES and status not in ERROR_TYPES[kind]:
        allowed = " or ".join(ERROR_TYPES[kind])
        yield Issue((*loc, "error_type"), f"{kind} needs status {allowed}, not {status}", "value_error")


def track_score(*, sdk: bool) -> Check:
    return _tracked({"request_id": integer(), "score": SCORE}, {"name": TEXT}, sdk)


def track_metadata(*, sdk: bool) -> Check:
    return _tracked({"request_id": _ID, "metadata": LABELS}, {}, sdk)


def track_prompt(*, sdk: bool) -> Check:
    optional = {
        "prompt_input_variables": OBJECT,
        "version": maybe(either(integer(), TEXT)),
        "label": maybe(text(least=1, most=512)),
    }
    return _tracked({"request_id": _ID, "prompt_name": text(least=1, most=512)}, optional, sdk)


_ID = either(integer(), TEXT)


def _tracked(required: dict[str, Check], optional: dict[str, Check], sdk: bool) -> Check:
    """Close a record; only the SDK's own routes take the key inside the body."""
    return record(required, {**optional, "api_key": TEXT} if sdk else optional, closed=True)


GET_TEMPLATE = maybe(
    record(
        {},
        {
            "api_key": TEXT,
            "version": maybe(POSITIVE),
            "workspace_id": maybe(integer()),
            "label": TEXT_OR_NULL,
            "provider": TEXT_OR_NULL,
            "model": TEXT_OR_NULL,
            "input_variables": maybe(OBJECT),
            "metadata_filters": maybe(mapping(TEXT)),
            "model_parameter_overrides": maybe(OBJECT),
            "skip_input_variable_rendering": boolean,
        },
        closed=True,
    )
)
PUBLISH_TEMPLATE = record(
    {
        # The SDK sends one flat body in both halves, so each half tolerates the keys of the other.
        "prompt_template": record(
            {"prompt_name": text(least=1, most=512)},
            {"tags": maybe(NAMES), "folder_id": maybe(POSITIVE), "workspace_id": maybe(integer())},
        ),
        "prompt_version": record(
            {"prompt_template": BLUEPRINT},
            {"commit_message": maybe(text(most=72)), "metadata": METADATA},
        ),
    },
    {
        "release_labels": maybe(NAMES),
        "external_ids": maybe(
            many(record({"source": text(least=1, most=128), "external_id": text(least=1, most=512)}, closed=True))
        ),
    },
    closed=True,
)

FIELDS = (
    "pl_id",
    "prompt_id",
    "engine",
    "provider_type",
    "input_text",
    "output_text",
    "prompt_version_number",
    "input_tokens",
    "output_tokens",
    "cost",
    "latency_ms",
    "request_start_time",
    "request_end_time",
    "status",
    "is_json",
    "is_tool_call",
    "is_plain_text",
    "tags",
    "metadata_keys",
    "metadata",
    "tool_names",
    "output",
    "output_keys",
    "input_variables",
    "input_variable_keys",
    "user_intent",
    "agent_intent",
)
OPERATORS = (
    "is",
    "is_not",
    "in",
    "not_in",
    "contains",
    "not_contains",
    "starts_with",
    "ends_with",
    "eq",
    "neq",
    "gt",
    "gte",
    "lt",
    "lte",
    "between",
    "before",
    "after",
    "is_true",
    "is_false",
    "is_empty",
    "is_not_empty",
    "is_null",
    "is_not_null",
    "key_equals",
    "key_not_equals",
    "key_contains",
)
_FILTER = record(
    {"field": one_of(*FIELDS), "operator": one_of(*OPERATORS)},
    {"value": either(TEXT_OR_NULL, number(), boolean, many(anything)), "nested_key": TEXT_OR_NULL},
    closed=True,
)


def filter_group(value: Any, loc: Loc) -> Iterator[Issue]:
    """Check a group of filters and of groups, however deep."""
    yield from record({"filters": many(_filter_or_group)}, {"logic": one_of("AND", "OR")}, closed=True)(value, loc)


def _filter_or_group(value: Any, loc: Loc) -> Iterator[Issue]:
    grouped = isinstance(value, dict) and "filters" in value
    yield from (filter_group if grouped else _FILTER)(value, loc)


SEARCH = record(
    {},
    {
        "filter_group": maybe(filter_group),
        "q": TEXT_OR_NULL,
        "sort_by": maybe(one_of("request_start_time", "input_tokens", "output_tokens", "cost", "latency_ms", "status")),
        "sort_order": maybe(one_of("asc", "desc")),
        "metadata_cost_breakdown_key": TEXT_OR_NULL,
        "page": maybe(POSITIVE),
        "per_page": maybe(integer(least=1, most=25)),
        "include_prompt_name": maybe(boolean),
    },
    closed=True,
)


def issues(rule: Check, body: Any) -> list[dict[str, Any]]:
    """List what is wrong with a body, as PromptLayer would; empty when nothing is."""
    return [issue.as_json() for issue in rule(body, ())]
