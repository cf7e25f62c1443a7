"""What the fake PromptLayer takes and refuses of requests, and of what is said about them."""

from collections.abc import Iterator
from typing import Any

import contract
import httpx
import pytest
from wire import GREETING, body, log, said, words

from pltrack.testing import FakePromptLayer

MALFORMED: list[tuple[str, Any, str]] = [
    ("provider", None, "string_type"),
    ("request_start_time", "2026-11-21T10:00:00", "timezone_aware"),
    ("request_end_time", "yesterday", "datetime_parsing"),
    ("request_end_time", True, "float_type"),
    ("tags", ["x" * 513], "string_too_long"),
    ("tags", "prod", "list_type"),
    ("metadata", {"k": 1}, "string_type"),
    ("metadata", {"k" * 1025: "v"}, "string_too_long"),
    ("error_message", "x" * 1025, "string_too_long"),
    ("score", 101, "less_than_equal"),
    ("score", -1, "greater_than_equal"),
    ("score", 90.0, "int_type"),
    ("score", True, "int_type"),
    ("score_name", "tone", "none_required"),
    ("input_tokens", -1, "greater_than_equal"),
    ("price", -0.1, "greater_than_equal"),
    ("prompt_version_number", 0, "greater_than_equal"),
    ("prompt_input_variables", None, "dict_type"),
    ("parameters", [], "dict_type"),
    ("status", "success", "enum"),
    ("error_type", "OOPS", "enum"),
    ("span_id", "abc", "extra_forbidden"),
]


def calling(**call: Any) -> dict[str, Any]:
    return said(role="assistant", tool_calls=[call])


@pytest.fixture
def pl() -> Iterator[FakePromptLayer]:
    with FakePromptLayer(api_keys={"pl_a", "pl_b"}) as pl:
        yield pl


@pytest.fixture
def client(pl: FakePromptLayer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=pl.url, headers={"X-API-KEY": "pl_a"}, timeout=10) as client:
        yield client


# -- logging


def test_logged_request_is_answered_with_its_row(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A request is answered 201 with the recorded row under `id`, and can be read back as it was sent."""
    sent = body(tags=["prod"], metadata={"pltrack_id": "r1"}, score=90, input_tokens=3, output_tokens=4)
    answer = client.post("/log-request", json=sent)
    row = answer.json()
    assert (answer.status_code, row["id"], row["type"], row["tokens"]) == (201, 1001, "request", 7)
    assert row["request_start_time"] == "2026-11-21T10:00:00"
    assert row["metadata"] == [{"pltrack_id": "r1"}]
    assert row["tags_array"] == ["prod"]
    logged = pl.request(1001)
    assert pl.requests == (logged,)
    assert pl.by_pltrack_id("r1") is logged
    assert (logged.body, logged.api_key, logged.tags) == (sent, "pl_a", ["prod"])
    assert (logged.scores, logged.metadata, logged.prompt) == ({"default": 90}, {"pltrack_id": "r1"}, None)


def test_zero_at_log_time_is_no_score(pl: FakePromptLayer, client: httpx.Client) -> None:
    """The SDK always sends score 0, so it does not count as one."""
    assert pl.request(log(client, score=0)).scores == {}


@pytest.mark.parametrize("missing", ["provider", "model", "input", "output", "request_start_time"])
def test_required_fields(missing: str, client: httpx.Client) -> None:
    """A missing field is refused with its place, in pydantic's words."""
    sent = body()
    del sent[missing]
    answer = client.post("/log-request", json=sent)
    assert answer.status_code == 422
    assert answer.json()["detail"] == [{"loc": ["body", missing], "msg": "Field required", "type": "missing"}]


@pytest.mark.parametrize(("key", "value", "kind"), MALFORMED)
def test_malformed_fields(key: str, value: Any, kind: str, pl: FakePromptLayer, client: httpx.Client) -> None:
    """Types, lengths, ranges, enums and unknown keys are refused, and nothing is stored."""
    answer = client.post("/log-request", json=body(**{key: value}))
    assert answer.status_code == 422
    assert [issue["type"] for issue in answer.json()["detail"]] == [kind]
    assert pl.requests == ()


@pytest.mark.parametrize(
    ("blueprint", "kind"),
    [
        ("hi", "dict_type"),
        ({"messages": []}, "union_tag_not_found"),
        ({"type": "prose", "messages": []}, "union_tag_invalid"),
        ({"type": "chat"}, "missing"),
        ({"type": "completion", "content": "hi"}, "list_type"),
        ({"type": "chat", "messages": [{"role": "user", "content": "hi"}]}, "list_type"),
        ({"type": "chat", "messages": [{"role": "critic", "content": []}]}, "union_tag_invalid"),
        ({"type": "chat", "messages": [{"role": "tool", "content": []}]}, "missing"),
        ({"type": "chat", "messages": [{"role": "function", "content": []}]}, "missing"),
        ({"type": "chat", "messages": [], "tools": [{"type": "abacus"}]}, "union_tag_invalid"),
        ({"type": "chat", "messages": [], "tool_choice": 1}, "string_type"),
        (said({"type": "non_standard", "value": {}}), "union_tag_invalid"),
        (said({"text": "no type"}), "union_tag_not_found"),
        (said({"type": "text"}), "missing"),
        (said({"type": "text", "text": None}), "string_type"),
        (said({"type": "image_url", "image_url": "https://x"}), "dict_type"),
        (said({"type": "media", "media": {"format": "file"}}), "enum"),
        (said({"type": "text", "text": "", "annotations": [{"type": "url_citation"}]}), "missing"),
        (calling(id=None, function={"name": "f", "arguments": ""}), "string_type"),
        (calling(id="1", function={"name": "f", "arguments": {}}), "string_type"),
        (calling(function={"name": "f", "arguments": ""}), "missing"),
    ],
)
def test_malformed_blueprints(blueprint: Any, kind: str, client: httpx.Client) -> None:
    """A blueprint is checked to its last block: discriminators, lists, required keys, tool calls."""
    for side in ("input", "output"):
        answer = client.post("/log-request", json=body(**{side: blueprint}))
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["type"] == kind
        assert answer.json()["detail"][0]["loc"][:2] == ["body", side]


def test_rich_blueprints_are_taken(client: httpx.Client) -> None:
    """Tool calls, media, thinking, citations, built-in tools and completions pass."""
    citation = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    rich = {
        "type": "chat",
        "messages": [
            {"role": "system", "content": [words("be kind")], "input_variables": []},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}], "name": "u"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": [words("2")], "tool_call_id": "c1"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "so"}]},
            {"role": "assistant", "content": [words("2") | {"annotations": [citation]}]},
            {"role": "user", "content": [{"type": "media", "media": {"type": "audio/wav", "url": "x"}}]},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "input_variables": [],
    }
    log(client, input=rich, output={"type": "completion", "content": [words("2")]})


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        ("ERROR", "PROVIDER_TIMEOUT", 201),
        ("WARNING", "PROVIDER_PARTIAL_RESPONSE", 201),
        ("WARNING", "PROVIDER_RATE_LIMIT", 201),
        ("ERROR", "UNKNOWN_ERROR", 201),
        ("WARNING", "PROVIDER_TIMEOUT", 422),
        ("ERROR", "PROVIDER_PARTIAL_RESPONSE", 422),
        ("SUCCESS", "UNKNOWN_ERROR", 422),
    ],
)
def test_error_type_must_fit_the_status(status: str, kind: str, code: int, client: httpx.Client) -> None:
    """Each error type goes with warnings, with errors or with both, never with success."""
    answer = client.post("/log-request", json=body(status=status, error_type=kind))
    assert answer.status_code == code


@pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"price": NaN}', b"[]", b""])
def test_body_must_be_a_json_object(raw: bytes, client: httpx.Client) -> None:
    """Broken JSON, NaN, a list and nothing at all are refused as a body."""
    headers = {"Content-Type": "application/json"}
    assert client.post("/log-request", content=raw, headers=headers).status_code == 422


def test_body_must_be_called_json(client: httpx.Client) -> None:
    """The content type counts: without it a server does not read the JSON."""
    assert client.post("/log-request", content=b"{}").status_code == 422


def test_unknown_prompt_refuses_the_request(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A prompt or version that is not in the registry is 404, and the request is not stored."""
    pl.publish("example", GREETING)
    for link in ({"prompt_name": "other"}, {"prompt_name": "example", "prompt_version_number": 2}):
        answer = client.post("/log-request", json=body(**link))
        assert (answer.status_code, answer.json()["success"]) == (404, False)
    assert pl.requests == ()


def test_known_prompt_is_linked(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A link at log time names the prompt, its version (the newest if none is given) and the variables."""
    pl.publish("example", GREETING)
    pl.publish("example", GREETING)
    first = log(client, prompt_name="example", prompt_version_number=1, prompt_input_variables={"p": "x"})
    newest = log(client, prompt_name="example")
    assert pl.request(first).prompt == {
        "name": "example", "version": 1, "label": None, "variables": {"p": "x"}
    }  # fmt: skip
    assert pl.request(newest).prompt["version"] == 2


# -- what is said about a request


def test_scores_and_metadata_add_up(pl: FakePromptLayer, client: httpx.Client) -> None:
    """Named scores stand beside each other, metadata merges by key."""
    one = log(client, metadata={"a": "1", "b": "1"})
    for said_score in ({"score": 80, "name": "tone"}, {"score": 70}):
        answer = client.post("/rest/track-score", json={"request_id": one, **said_score})
        assert (answer.status_code, answer.json()["success"]) == (200, True)
    change = {"request_id": str(one), "metadata": {"b": "2"}}
    assert client.post("/rest/track-metadata", json=change).status_code == 200
    assert pl.request(one).scores == {"tone": 80, "default": 70}
    assert pl.request(one).metadata == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/rest/track-score", {"score": 101}),
        ("/rest/track-score", {"score": 1.5}),
        ("/rest/track-score", {}),
        ("/rest/track-score", {"score": 1, "score_name": "tone"}),
        ("/rest/track-score", {"score": 1, "request_id": "1001"}),
        ("/rest/track-score", {"score": 1, "api_key": "pl_a"}),
        ("/rest/track-metadata", {"metadata": {"a": 1}}),
        ("/rest/track-metadata", {"metadata": None}),
        ("/rest/track-prompt", {"prompt_name": ""}),
        ("/rest/track-prompt", {"prompt_name": "example", "version": 1.5}),
        ("/rest/track-prompt", {"prompt_name": "example", "prompt_input_variables": []}),
    ],
)
def test_malformed_tracking(path: str, changes: dict[str, Any], client: httpx.Client) -> None:
    """The tracking calls check names, types and ranges too."""
    assert client.post(path, json={"request_id": log(client), **changes}).status_code == 422


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/rest/track-score", {"score": 1}),
        ("/rest/track-metadata", {"metadata": {}}),
        ("/rest/track-prompt", {"prompt_name": "example"}),
    ],
)
def test_unknown_request_is_a_bad_request(
    path: str, rest: dict[str, Any], pl: FakePromptLayer, client: httpx.Client
) -> None:
    """Nothing can be said about a request that was never logged."""
    pl.publish("example", GREETING)
    answer = client.post(path, json={"request_id": 4711, **rest})
    assert answer.status_code == 400
    assert "4711" in answer.json()["message"]


def test_prompt_is_linked_by_version_or_label(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A link takes a version, a label or neither, but not both, and only what the registry knows."""
    pl.publish("example", GREETING, labels=["prod"])
    pl.publish("example", GREETING)
    one = log(client)

    def link(**how: Any) -> int:
        sent = {"request_id": one, "prompt_name": "example", "prompt_input_variables": {"p": "x"}, **how}
        return client.post("/rest/track-prompt", json=sent).status_code

    assert link(label="prod") == 200
    assert pl.request(one).prompt == {
        "name": "example", "version": 1, "label": "prod", "variables": {"p": "x"}
    }  # fmt: skip
    assert link() == 200
    assert pl.request(one).prompt["version"] == 2
    assert link(version=1, label="prod") == 400
    assert link(version=3) == 400
    assert link(label="dev") == 400
    assert link(prompt_name="other") == 400


@pytest.mark.skipif(not contract.AVAILABLE, reason="PromptLayer's OpenAPI description is not at hand")
@pytest.mark.parametrize(("key", "value", "kind"), [("tags", ["a"], ""), ("api_type", None, ""), *MALFORMED])
def test_rules_agree_with_the_published_description(
    key: str, value: Any, kind: str, pl: FakePromptLayer, client: httpx.Client
) -> None:
    """PromptLayer's own schema refuses the same bodies, but for where the rules are stricter by intent."""
    sent = body(request_end_time="2026-11-21T10:00:01Z") | {key: value}
    taken = client.post("/log-request", json=sent).status_code == 201
    assert taken == (not kind)
    stricter = kind in ("extra_forbidden", "timezone_aware", "datetime_parsing", "none_required")
    whole_float = value == 90.0 and isinstance(value, float)
    long_key = kind == "string_too_long" and key == "metadata"
    if not (stricter or whole_float or long_key):
        assert (contract.errors("LogRequest", sent) == []) == taken
