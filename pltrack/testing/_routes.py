"""PromptLayer's endpoints: from a checked call to what the workspace does and what the server says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _rules
from ._registry import as_json, render
from ._search import page, search
from ._shapes import Check
from ._workspace import RefusedError, Workspace, detail, row


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call that may be carried out: its key is known and its body follows the rules."""

    workspace: Workspace
    body: Any
    query: Mapping[str, str]
    rest: str
    """What follows the route's path: a prompt's name, a request's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint. `sdk`: the key may also be in the body, as in the calls of PromptLayer's own SDK."""

    carry_out: Callable[[Asked], tuple[int, Any]]
    rule: Check | None = None
    sdk: bool = False


def log_request(asked: Asked) -> tuple[int, Any]:
    logged = asked.workspace.log(asked.body)
    linked = logged.prompt
    return 201, row(logged, asked.workspace.template(linked["name"], linked["version"]) if linked else None)


def track_score(asked: Asked) -> tuple[int, Any]:
    body = asked.body
    asked.workspace.score(body["request_id"], body["score"], body.get("name"))
    return 200, {"success": True, "message": "Score tracked successfully"}


def track_metadata(asked: Asked) -> tuple[int, Any]:
    asked.workspace.metadata(asked.body["request_id"], asked.body["metadata"])
    return 200, {"success": True, "message": "Metadata tracked successfully"}


def track_prompt(asked: Asked) -> tuple[int, Any]:
    body = asked.body
    variables = body.get("prompt_input_variables") or {}
    asked.workspace.link_prompt(
        body["request_id"], body["prompt_name"], body.get("version"), body.get("label"), variables
    )
    return 200, {"success": True, "message": "Prompt tracked successfully"}


def briefly(carry_out: Callable[[Asked], tuple[int, Any]]) -> Callable[[Asked], tuple[int, Any]]:
    """Answer as the SDK's old routes do: `{"success": true}` and nothing else."""

    def carried_out(asked: Asked) -> tuple[int, Any]:
        return carry_out(asked)[0], {"success": True}

    return carried_out


def get_template(asked: Asked) -> tuple[int, Any]:
    body = asked.body or {}
    prompt, version = asked.workspace.template(asked.rest, body.get("version"), body.get("label"))
    answer = as_json(prompt, version)
    variables = body.get("input_variables")
    if variables is not None and not body.get("skip_input_variable_rendering"):
        answer["prompt_template"] = render(answer["prompt_template"], variables)
    return 200, answer


def get_raw_template(asked: Asked) -> tuple[int, Any]:
    number = _number(asked.query, "version")
    prompt, version = asked.workspace.template(asked.rest, number, asked.query.get("label"))
    return 200, as_json(prompt, version) | {"success": True, "created_at": version.created_at}


def list_templates(asked: Asked) -> tuple[int, Any]:
    found = asked.workspace.registry.all(label=asked.query.get("label"), name=asked.query.get("name"))
    items = [as_json(*match) | {"external_ids": [], "is_snippet": False} for match in found]
    answer = page(items, _number(asked.query, "page"), _number(asked.query, "per_page"))
    del answer["per_page"]
    return 200, answer


def publish_template(asked: Asked) -> tuple[int, Any]:
    base, content = asked.body["prompt_template"], asked.body["prompt_version"]
    labels = asked.body.get("release_labels")
    prompt, version = asked.workspace.registry.publish(
        base["prompt_name"],
        content["prompt_template"],
        tags=base.get("tags") or (),
        labels=labels or (),
        metadata=content.get("metadata"),
        commit_message=content.get("commit_message"),
    )
    return 201, {
        "id": prompt.id,
        "prompt_name": prompt.name,
        "prompt_version_id": version.id,
        "version_number": version.number,
        "tags": list(prompt.tags),
        "release_labels": labels,
        "prompt_template": version.template,
        "metadata": version.metadata,
        "commit_message": version.commit_message,
        "external_ids": asked.body.get("external_ids") or [],
    }


def search_requests(asked: Asked) -> tuple[int, Any]:
    return 200, search(asked.workspace.requests, asked.body)


def get_request(asked: Asked) -> tuple[int, Any]:
    return 200, detail(asked.workspace.get(asked.rest, status=404))


def _number(query: Mapping[str, str], name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise RefusedError(422, f"{name} must be a positive integer, not {value!r}")
    return int(value)


SEARCH = "/api/public/v2/requests/search"
EXACT: dict[tuple[str, str], Route] = {
    ("POST", "/log-request"): Route(carry_out=log_request, rule=_rules.log_request),
    ("POST", "/rest/track-score"): Route(carry_out=track_score, rule=_rules.track_score(sdk=False)),
    ("POST", "/rest/track-metadata"): Route(carry_out=track_metadata, rule=_rules.track_metadata(sdk=False)),
    ("POST", "/rest/track-prompt"): Route(carry_out=track_prompt, rule=_rules.track_prompt(sdk=False)),
    ("POST", "/library-track-score"): Route(
        carry_out=briefly(track_score), rule=_rules.track_score(sdk=True), sdk=True
    ),
    ("POST", "/library-track-metadata"): Route(
        carry_out=briefly(track_metadata), rule=_rules.track_metadata(sdk=True), sdk=True
    ),
    ("POST", "/library-track-prompt"): Route(
        carry_out=briefly(track_prompt), rule=_rules.track_prompt(sdk=True), sdk=True
    ),
    ("GET", "/prompt-templates"): Route(carry_out=list_templates),
    ("POST", "/rest/prompt-templates"): Route(carry_out=publish_template, rule=_rules.PUBLISH_TEMPLATE),
    ("POST", SEARCH): Route(carry_out=search_requests, rule=_rules.SEARCH),
}
NAMED: dict[tuple[str, str], Route] = {
    ("POST", "/prompt-templates/"): Route(carry_out=get_template, rule=_rules.GET_TEMPLATE, sdk=True),
    ("GET", "/prompt-templates/"): Route(carry_out=get_raw_template),
    ("GET", "/api/public/v2/requests/"): Route(carry_out=get_request),
}


def find(method: str, path: str) -> tuple[Route, str] | None:
    """Return the route of a call and the rest of its path."""
    if route := EXACT.get((method, path)):
        return route, ""
    for (wanted, prefix), route in NAMED.items():
        if method == wanted and path.startswith(prefix) and len(path) > len(prefix):
            return route, path.removeprefix(prefix)
    return None
