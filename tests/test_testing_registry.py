"""The fake PromptLayer's search and prompt registry, the latter through the real SDK."""

from collections.abc import Iterator
from typing import Any

import httpx
import promptlayer
import pytest
from wire import GREETING, SEARCH, body, log, words

from pltrack.testing import FakePromptLayer


@pytest.fixture
def pl() -> Iterator[FakePromptLayer]:
    with FakePromptLayer(api_keys={"pl_a", "pl_b"}) as pl:
        yield pl


@pytest.fixture
def client(pl: FakePromptLayer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=pl.url, headers={"X-API-KEY": "pl_a"}, timeout=10) as client:
        yield client


# -- search


@pytest.fixture
def three(client: httpx.Client) -> list[int]:
    return [log(client, metadata={"pltrack_id": f"r{n}"}, tags=[f"t{n}"], input_tokens=n) for n in range(3)]


def find(client: httpx.Client, *filters: Any, logic: str = "AND", **more: Any) -> list[int]:
    sent = {"filter_group": {"logic": logic, "filters": list(filters)}, **more}
    answer = client.post(SEARCH, json=sent)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def ours(value: str, operator: str = "key_equals") -> dict[str, Any]:
    return {"field": "metadata", "operator": operator, "nested_key": "pltrack_id", "value": value}


def test_search_finds_by_metadata_in_groups(client: httpx.Client, three: list[int]) -> None:
    """AND and OR groups of metadata filters nest; the newest comes first."""
    assert find(client, ours("r1")) == [three[1]]
    assert find(client, ours("r0"), ours("r2"), logic="OR") == [three[2], three[0]]
    assert find(client, ours("r0"), ours("r2")) == []
    either = {"logic": "OR", "filters": [ours("r0"), ours("r1")]}
    assert find(client, either, {"field": "tags", "operator": "in", "value": ["t1"]}) == [three[1]]
    assert find(client, {"field": "input_tokens", "operator": "gte", "value": 1}) == [three[2], three[1]]


def test_search_item_carries_metadata(client: httpx.Client, three: list[int]) -> None:
    """What is found says its metadata, as a list of single pairs."""
    item = client.post(SEARCH, json={"include_prompt_name": True}).json()["items"][0]
    assert (item["id"], item["metadata"]) == (three[2], [{"pltrack_id": "r2"}])
    assert item["prompt_name"] is None


def test_search_comes_in_pages(client: httpx.Client, three: list[int]) -> None:
    """Ten to a page unless asked, never more than 25."""
    answer = client.post(SEARCH, json={"per_page": 2, "page": 2}).json()
    assert [item["id"] for item in answer["items"]] == [three[0]]
    assert (answer["pages"], answer["total"], answer["has_next"], answer["has_prev"]) == (2, 3, False, True)
    assert client.post(SEARCH, json={"per_page": 26}).status_code == 422


def test_search_refuses_what_it_does_not_know(client: httpx.Client, three: list[int]) -> None:
    """Unknown fields and operators are 422; what this fake cannot filter by is 400, not an empty answer."""
    for wrong in ({"field": "run_id", "operator": "is"}, {"field": "tags", "operator": "like"}):
        assert client.post(SEARCH, json={"filter_group": {"filters": [wrong]}}).status_code == 422
    for wrong in (
        {"field": "user_intent", "operator": "is", "value": "x"},
        {"field": "input_tokens", "operator": "gt", "value": "x"},
    ):
        assert client.post(SEARCH, json={"filter_group": {"filters": [wrong]}}).status_code == 400


def test_search_limit_is_enforced_when_asked() -> None:
    """With `search_per_minute=10` the eleventh search within a minute gets 429."""
    with FakePromptLayer(search_per_minute=10) as pl:
        headers = {"X-API-KEY": pl.api_key}
        codes = [httpx.post(pl.url + SEARCH, json={}, headers=headers).status_code for _ in range(11)]
    assert codes == [200] * 10 + [429]


def test_request_can_be_looked_up(client: httpx.Client) -> None:
    """A request is returned by its id, input and output merged; an unknown one is 404."""
    answer = client.get(f"/api/public/v2/requests/{log(client)}").json()
    roles = [message["role"] for message in answer["prompt_blueprint"]["prompt_template"]["messages"]]
    assert (answer["request_id"], answer["provider"], roles) == (1001, "openai", ["user", "assistant"])
    assert client.get("/api/public/v2/requests/1").status_code == 404


# -- the real SDK


@pytest.fixture
def sdk(pl: FakePromptLayer) -> promptlayer.PromptLayer:
    return promptlayer.PromptLayer(api_key=pl.api_key, base_url=pl.url)


def test_sdk_publishes_gets_and_lists_templates(pl: FakePromptLayer, sdk: promptlayer.PromptLayer) -> None:
    """promptlayer's own `templates.publish/get/all` work, with labels and rendering."""
    made = {"prompt_name": "a/b", "prompt_template": GREETING, "release_labels": ["prod"], "tags": ["t"]}
    assert sdk.templates.publish(made)["version_number"] == 1
    assert sdk.templates.publish(made | {"release_labels": None})["version_number"] == 2
    assert sdk.templates.get("a/b")["version"] == 2
    assert sdk.templates.get("a/b", {"label": "prod"})["version"] == 1
    rendered = sdk.templates.get("a/b", {"version": 1, "input_variables": {"product": "sock"}})
    assert rendered["prompt_template"]["messages"][0]["content"][0]["text"] == "Name a sock firm"
    assert pl.publish("other", GREETING) == 1
    assert [(item["prompt_name"], item["version"]) for item in sdk.templates.all()] == [
        ("a/b", 2),
        ("other", 1),
    ]
    assert [item["prompt_name"] for item in sdk.templates.all(label="prod")] == ["a/b"]


def test_sdk_meets_its_own_errors(pl: FakePromptLayer, sdk: promptlayer.PromptLayer) -> None:
    """Unknown templates and wrong keys raise the SDK's not-found and authentication errors."""
    pl.publish("example", GREETING)
    for how in (("other", None), ("example", {"version": 9}), ("example", {"label": "dev"})):
        with pytest.raises(promptlayer.PromptLayerNotFoundError):
            sdk.templates.get(*how)
    stranger = promptlayer.PromptLayer(api_key="pl_x", base_url=pl.url)
    with pytest.raises(promptlayer.PromptLayerAuthenticationError):
        stranger.templates.get("example")


def test_sdk_logs_and_tracks(pl: FakePromptLayer, sdk: promptlayer.PromptLayer) -> None:
    """promptlayer's own `log_request` and `track.*` are understood, on the routes that it uses."""
    pl.publish("example", GREETING)
    times = {"request_start_time": 1.0, "request_end_time": 2.0}
    one = sdk.log_request(**body(**times))["id"]
    assert sdk.track.score(request_id=one, score=60, score_name="tone")
    assert sdk.track.metadata(request_id=one, metadata={"a": "b"})
    assert sdk.track.prompt(request_id=one, prompt_name="example", prompt_input_variables={}, version=1)
    logged = pl.request(one)
    assert (logged.scores, logged.metadata, logged.prompt["version"]) == ({"tone": 60}, {"a": "b"}, 1)


def test_raw_template_is_not_rendered(pl: FakePromptLayer, client: httpx.Client) -> None:
    """The documented GET returns variables unrendered, with the success flag; its version is checked."""
    pl.publish("example", GREETING, metadata={"model": {"provider": "openai", "name": "gpt-4o"}})
    answer = client.get("/prompt-templates/example", params={"version": 1}).json()
    assert (answer["success"], answer["version"], answer["prompt_template"]) == (True, 1, GREETING)
    assert client.get("/prompt-templates/example", params={"version": 0}).status_code == 422
    assert client.get("/prompt-templates/nothing").status_code == 404


def test_rendering_follows_the_server(pl: FakePromptLayer, client: httpx.Client) -> None:
    """Missing variables become empty, JSON stays as it is, Jinja2 names and placeholders are filled."""
    history = [{"role": "assistant", "content": [words("before")]}]
    template = {
        "type": "chat",
        "messages": [
            {"role": "system", "content": [words("{a}-{b}"), words('{"json": 1}')]},
            {"role": "placeholder", "name": "history"},
            {"role": "user", "content": [words("{{ a }}{{ b }}")], "template_format": "jinja2"},
        ],
    }
    pl.publish("example", template)
    answer = client.post("/prompt-templates/example", json={"input_variables": {"a": "x", "history": history}})
    texts = [[b["text"] for b in m["content"]] for m in answer.json()["prompt_template"]["messages"]]
    assert texts == [["x-", '{"json": 1}'], ["before"], ["x"]]
    kept = client.post("/prompt-templates/example", json={}).json()
    assert kept["prompt_template"] == template


def test_published_templates_are_checked(pl: FakePromptLayer, client: httpx.Client) -> None:
    """Neither the wire nor `publish()` puts a malformed template into the registry."""
    sent = {"prompt_template": {"prompt_name": "x"}, "prompt_version": {"prompt_template": {"type": "chat"}}}
    assert client.post("/rest/prompt-templates", json=sent).status_code == 422
    with pytest.raises(ValueError, match="not a prompt blueprint"):
        pl.publish("x", {"type": "chat"})
