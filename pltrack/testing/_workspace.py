"""What a fake PromptLayer keeps for one API key: requests, and what was said about them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ._registry import Prompt, Registry, Version

FIRST_ID = 1001
LOG_SCORE_NAME = "default"
"""Under this name PromptLayer files a score without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A request as PromptLayer knows it now, with everything said about it since."""

    id: int
    body: dict[str, Any]
    api_key: str
    scores: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    prompt: dict[str, Any] | None = None
    received_at: float
    """Seconds since the epoch."""


class RefusedError(Exception):
    """The server answers no: with this status and these words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"success": False, "message": message}


class Workspace:
    """Hold the requests and prompts of one key. Not thread-safe: its owner holds the lock.

    `everything` is shared by all workspaces, in the order of the ids; each sees only what came under its key.
    """

    def __init__(self, api_key: str, everything: dict[int, Logged]) -> None:
        self.api_key = api_key
        self.registry = Registry()
        self._everything = everything

    @property
    def requests(self) -> tuple[Logged, ...]:
        return tuple(each for each in self._everything.values() if each.api_key == self.api_key)

    def get(self, request_id: Any, *, status: int = 400) -> Logged:
        """Return the request with this id, an int or its digits."""
        known = self._everything.get(int(request_id)) if str(request_id).isdecimal() else None
        if known is None or known.api_key != self.api_key:
            raise RefusedError(status, f"Request {request_id} was not found in this workspace")
        return known

    def log(self, body: dict[str, Any]) -> Logged:
        """Record a request; unknown prompts refuse it as a whole."""
        named = body.get("prompt_name") or body.get("prompt_id")
        variables = body.get("prompt_input_variables") or {}
        link = self._link(named, body.get("prompt_version_number"), None, variables, 404) if named else None
        score = body.get("score") or 0
        logged = Logged(
            id=FIRST_ID + len(self._everything),
            body=body,
            api_key=self.api_key,
            scores={LOG_SCORE_NAME: score} if score else {},
            metadata=dict(body.get("metadata") or {}),
            tags=list(body.get("tags") or []),
            prompt=link,
            received_at=time.time(),
        )
        self._put(logged)
        return logged

    def score(self, request_id: Any, score: int, name: str | None) -> None:
        logged = self.get(request_id)
        self._put(replace(logged, scores={**logged.scores, name or LOG_SCORE_NAME: score}))

    def metadata(self, request_id: Any, metadata: Mapping[str, str]) -> None:
        logged = self.get(request_id)
        self._put(replace(logged, metadata={**logged.metadata, **metadata}))

    def link_prompt(
        self,
        request_id: Any,
        name: str,
        version: int | str | None,
        label: str | None,
        variables: dict[str, Any],
    ) -> None:
        if version is not None and label is not None:
            raise RefusedError(400, "Give a version or a label, not both")
        number = None if version is None else int(version) if str(version).isdecimal() else 0
        logged = self.get(request_id)
        self._put(replace(logged, prompt=self._link(name, number, label, variables, 400)))

    def _put(self, logged: Logged) -> None:
        self._everything[logged.id] = logged

    def _link(
        self, name: str | int, number: int | None, label: str | None, variables: dict[str, Any], status: int
    ) -> dict[str, Any]:
        prompt, version = self.template(name, number, label, status=status)
        return {"name": prompt.name, "version": version.number, "label": label, "variables": dict(variables)}

    def template(
        self, name: str | int, number: int | None = None, label: str | None = None, *, status: int = 404
    ) -> tuple[Prompt, Version]:
        found = self.registry.find(name, number, label)
        if found is None:
            wanted = f"label {label!r}" if label is not None else f"version {number}" if number else "a version"
            raise RefusedError(status, f"Prompt template {name!r} with {wanted} was not found")
        return found


def seconds(moment: Any) -> float:
    """Return a wire time, ISO 8601 or seconds, as seconds since the epoch."""
    return datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else float(moment)


def stored_time(moment: Any) -> str:
    """Return a wire time as the server repeats it: UTC, without a zone."""
    return datetime.fromtimestamp(seconds(moment), UTC).replace(tzinfo=None).isoformat()


def said_text(blueprint: Mapping[str, Any]) -> str:
    """Return all the text of a blueprint, for the server's previews and its text search."""
    parts = blueprint["messages"] if blueprint["type"] == "chat" else [blueprint]
    blocks = [block for part in parts for block in part.get("content") or []]
    return "\n".join(block["text"] for block in blocks if block["type"] == "text")


def summary(logged: Logged) -> dict[str, Any]:
    """Return the request as a search finds it."""
    body = logged.body
    started, ended = body["request_start_time"], body["request_end_time"]
    return {
        "id": logged.id,
        "engine": body["model"],
        "provider_type": body["provider"],
        "input_tokens": body.get("input_tokens", 0),
        "output_tokens": body.get("output_tokens", 0),
        "price": body.get("price", 0),
        "request_start_time": stored_time(started),
        "request_end_time": stored_time(ended),
        "latency": seconds(ended) - seconds(started),
        "tags_array": list(logged.tags),
        "metadata": [{key: value} for key, value in logged.metadata.items()],
        "scores": [{"name": name, "score": score} for name, score in logged.scores.items()],
    }


def row(logged: Logged, link: tuple[Prompt, Version] | None) -> dict[str, Any]:
    """Return the whole row, as the answer to `POST /log-request` does."""
    body = logged.body
    tokens = body.get("input_tokens", 0) + body.get("output_tokens", 0)
    answer = summary(logged) | {
        "user_id": 1,
        "workspace_id": 1,
        "prompt_id": link[0].id if link else None,
        "prompt_version_number": link[1].number if link else None,
        "prompt_input_variables": body.get("prompt_input_variables", {}),
        "function_name": body.get("function_name", ""),
        "function_args": [],
        "function_kwargs": {"input": body["input"], "parameters": body.get("parameters", {})},
        "request_response": {"output": body["output"]},
        "created_at": stored_time(logged.received_at),
        "score": body.get("score", 0),
        "tokens": tokens,
        "span_id": None,
        "type": "request",
        "is_sharable": False,
        "share_hash": None,
        "share_view_count": 0,
        "is_starred": False,
        "prompt_string": said_text(body["input"]),
        "response_string": said_text(body["output"]),
        "status": body.get("status", "SUCCESS"),
        "error_type": body.get("error_type"),
        "error_message": body.get("error_message"),
        "prompt_version": {
            "prompt_template": link[1].template if link else body["input"],
            "commit_message": link[1].commit_message if link else None,
            "metadata": {"model": _model(body)},
            "provider_base_url_name": None,
            "report_id": None,
            "inference_client_name": None,
        },
    }
    del answer["latency"]
    return answer


def _model(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"provider": body["provider"], "name": body["model"], "parameters": body.get("parameters", {})}


def detail(logged: Logged) -> dict[str, Any]:
    """Return the request as `GET /api/public/v2/requests/{id}` does: input and output in one."""
    body, short = logged.body, summary(logged)
    merged = dict(body["input"])
    if merged["type"] == "chat" and body["output"]["type"] == "chat":
        merged["messages"] = [*merged["messages"], *body["output"]["messages"]]
    return {
        "success": True,
        "request_id": logged.id,
        "prompt_blueprint": {"prompt_template": merged, "metadata": {"model": _model(body)}},
        "provider": body["provider"],
        "model": body["model"],
        "input_tokens": short["input_tokens"],
        "output_tokens": short["output_tokens"],
        "tokens": short["input_tokens"] + short["output_tokens"],
        "price": short["price"],
        "request_start_time": short["request_start_time"],
        "request_end_time": short["request_end_time"],
        "latency_ms": short["latency"] * 1000,
        "trace_id": None,
    }
