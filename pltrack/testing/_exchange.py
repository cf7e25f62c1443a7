"""One call to the fake server: what is kept of it, how its body is read, what a fault answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._faults import Fault
from ._http import Incoming, Outgoing


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP call as it came; `status` and `answer` stay None when it was not answered (yet)."""

    method: str
    path: str
    api_key: str | None
    body: Any
    status: int | None = None
    answer: Any = None
    query: Mapping[str, str]
    connection: int
    """The number of the connection it came over, counted from 1."""


def fault_answer(fault: Fault) -> Outgoing:
    """Return what a fault says in place of PromptLayer."""
    if fault.kind == "garbage":
        page = b"<html><body>Welcome to the hotel network</body></html>"
        return Outgoing(status=fault.status, body=page, content_type="text/html", headers=fault.headers)
    if isinstance(fault.body, str | bytes):
        raw = fault.body.encode() if isinstance(fault.body, str) else fault.body
        return Outgoing(status=fault.status, body=raw, content_type="text/plain", headers=fault.headers)
    said = {"success": False, "message": f"told to answer {fault.status}"} if fault.body is None else fault.body
    return Outgoing.json(fault.status, said, fault.headers)


def parsed(incoming: Incoming) -> tuple[Any, bool]:
    """Return the JSON body and whether it could be read; no body is None."""
    if not incoming.raw:
        return None, True
    try:
        body = json.loads(incoming.raw, parse_constant=_refuse_constant)
    except ValueError:
        return None, False
    return body, incoming.headers.get("content-type", "").startswith("application/json")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def key_of(incoming: Incoming, body: Any) -> str | None:
    """Return the key from the header, else from the body."""
    inside = body.get("api_key") if isinstance(body, dict) else None
    return incoming.headers.get("x-api-key") or (inside if isinstance(inside, str) else None)


def said(answer: Outgoing) -> Any:
    """Return what an answer says: JSON, or its text."""
    try:
        return json.loads(answer.body)
    except ValueError:
        return answer.body.decode(errors="replace")
