"""Bodies that PromptLayer takes, and a call that logs one: shared by the tests of the fake server."""

from typing import Any

import httpx

from pltrack.testing import FakePromptLayer, Logged

SEARCH = "/api/public/v2/requests/search"
GREETING = {
    "type": "chat",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Name a {product} firm"}]}],
}


def said(*blocks: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"type": "chat", "messages": [{"role": role, "content": list(blocks), **more}]}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def body(**changes: Any) -> dict[str, Any]:
    """Return a request that PromptLayer takes."""
    return {
        "provider": "openai",
        "model": "gpt-4o-mini",
        "input": said(words("hi")),
        "output": said(words("hello"), role="assistant"),
        "request_start_time": "2026-11-21T10:00:00Z",
        "request_end_time": 1795255201.5,
        **changes,
    }


def log(client: httpx.Client, **changes: Any) -> int:
    """Log a request and return its id."""
    answer = client.post("/log-request", json=body(**changes))
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def in_call_order(server: FakePromptLayer) -> list[Logged]:
    """Return what a server holds in the order of the calls: several are on their way at once, any may arrive first."""
    return sorted(server.requests, key=lambda logged: str(logged.body["request_start_time"]))
