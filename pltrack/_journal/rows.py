"""From what was recorded to the rows that are stored: the only way into the journal, through redaction."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import orjson

from .. import _loading
from .._blueprint import faults, messages, outputs, parameters, usage
from .._plain import plain, thaw
from .._records import Call, Note, Scope, State
from .._redact import Redactor
from .._shortening import fitting

# Tags that LangChain makes for itself; they would drown the ones that people set.
_INNER_TAG = re.compile(r"^(seq:step|map:key|retry:attempt|condition|graph:step|branch)\b")
_TAG_LENGTH = 512
_KEY_LENGTH = 1024


class _Asked(NamedTuple):
    """What a model was asked with, and which one that was."""

    given: dict[str, Any]
    about: dict[str, Any]
    provider: str
    model: str

    @classmethod
    def of(cls, call: Call) -> Self:
        given, about = thaw(call.parameters), call.langchain_metadata
        call.named = parameters.model_of(given, about, call.serialized_name)
        return cls(given, about, *call.named)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns records into rows under the settings that held when they were made."""

    owner: str
    app: str
    linger: float
    redactor: Redactor
    send_price: bool = False
    max_body: int = 4_194_304

    def request(self, call: Call) -> dict[str, Any]:
        """Return the row of a call."""
        result = call.result
        used = result.usage if result is not None else None
        asked = _Asked.of(call)
        cost = self._cost(call, asked)
        capture = call.scope.capture if call.scope else "full"
        return {
            "id": call.handle.id,
            "session_id": call.scope.id if call.scope else None,
            "root": call.scope.root if call.scope else None,
            "owner": self.owner,
            "app": self.app,
            "destination": call.destination,
            "state": State.PENDING.value,
            "due_at": call.ended_at + self.linger,
            "attempts": 0,
            "uncertain": 0,
            "kind": call.kind,
            "provider": asked.provider,
            "model": asked.model,
            "status": call.status,
            "linked": int(call.link is not None),
            "started_at": call.started_at,
            "ended_at": call.ended_at,
            "first_token_at": call.first_token_at,
            "input_tokens": used and used.input_tokens,
            "output_tokens": used and used.output_tokens,
            "cached_tokens": used and used.cached_tokens,
            "reasoning_tokens": used and used.reasoning_tokens,
            "cost": cost,
            "cache_hit": int(bool(result and result.cache_hit)),
            "payload": self._stored(self._body(call, asked, cost), capture),
            "local_link": _local_link(call),
        }

    def note(self, note: Note) -> dict[str, Any]:
        """Return the row of a note; a note about a session is told apart by its `session_id`."""
        return {
            "request_id": note.request_id,
            "pl_id": note.pl_id,
            "session_id": note.session_id,
            "kind": note.kind.value,
            "payload": self._stored(dict(note.payload), note.capture).decode(),
            "owner": self.owner,
            "destination": note.destination,
            "due_at": note.created_at,
            "created_at": note.created_at,
        }

    def session(self, scope: Scope) -> dict[str, Any]:
        """Return the row of a session."""
        said = orjson.loads(
            self._stored(
                {
                    "name": scope.name,
                    "user": scope.user,
                    "conversation": scope.conversation,
                    "tags": list(scope.tags),
                    "metadata": dict(scope.metadata),
                },
                "full",
            )
        )
        return {
            **said,
            "id": scope.id,
            "root": scope.root,
            "parent": scope.parent,
            "tags": json.dumps(said["tags"]),
            "metadata": json.dumps(said["metadata"]),
            "app": self.app,
            "started_at": scope.started_at,
        }

    def _stored(self, body: dict[str, Any], capture: str) -> bytes:
        return fitting(self.redactor.clean(body, capture), self.max_body)

    def _cost(self, call: Call, asked: _Asked) -> float | None:
        result = call.result
        if result is None or result.usage is None:
            return None
        if result.cache_hit:
            return 0.0
        with _loading.LOCK:  # the first price loads the tables
            at = datetime.fromtimestamp(call.started_at, UTC)
            return usage.price(asked.provider, asked.model, result.usage, at)

    def _body(self, call: Call, asked: _Asked, cost: float | None) -> dict[str, Any]:
        result = call.result
        used = None if result is None or result.cache_hit else result.usage
        options, tools, choice = parameters.parameters(asked.given, asked.about, asked.provider)
        body: dict[str, Any] = {
            "provider": asked.provider,
            "model": asked.model,
            "input": _input(call, tools, choice),
            "output": outputs.output(result, call.kind),
            "request_start_time": _iso(call.started_at),
            "request_end_time": _iso(call.ended_at),
            "parameters": options,
            "tags": _tags(call),
            "metadata": _metadata(call, asked.about),
            "input_tokens": (used and used.input_tokens) or 0,
            "output_tokens": (used and used.output_tokens) or 0,
            "function_name": call.serialized_name,
            "api_type": parameters.api_type(asked.provider, call.kind, result.provider_id if result else None),
            **_status(call),
        }
        if self.send_price and cost is not None:
            body["price"] = cost
        if call.link is not None and not call.link.local and call.link.version is not None:
            body["prompt_name"] = call.link.name
            body["prompt_version_number"] = call.link.version
            body["prompt_input_variables"] = plain(dict(call.link.variables))
        return body


def _input(call: Call, tools: Any, choice: Any) -> dict[str, Any]:
    if call.kind == "chat":
        return messages.chat_prompt(call.inputs, tools, choice)
    return messages.completion_prompt([str(text) for text in call.inputs])


def _status(call: Call) -> dict[str, Any]:
    status, kind, words = call.status, call.error_type, call.error_message
    cut = faults.finish_fault(call.result.finish_reason) if call.result is not None else None
    if status == "SUCCESS" and cut is not None:
        status, kind, words = cut
    if status == "SUCCESS":
        return {"status": status}
    return {"status": status, "error_type": kind, "error_message": words[:1024]}


def _tags(call: Call) -> list[str]:
    ours = (*(call.scope.tags if call.scope else ()), *call.tags)
    theirs = (tag for tag in call.langchain_tags if not _INNER_TAG.match(tag))
    return list(dict.fromkeys(tag[:_TAG_LENGTH] for tag in (*ours, *theirs) if tag))


def _metadata(call: Call, about: dict[str, Any]) -> dict[str, str]:
    found = _langchain_metadata(about)
    if call.scope is not None:
        scope = call.scope
        found |= scope.metadata
        found["session_id"] = scope.id
        named = {"session": scope.name, "user_id": scope.user, "conversation_id": scope.conversation}
        found |= {key: value for key, value in named.items() if value}
    found["pltrack_id"] = call.handle.id
    found["_langchain_run_id"] = str(call.run_id)
    if call.parent_run_id:
        found["_langchain_parent_run_id"] = str(call.parent_run_id)
    if call.langchain_tags:
        found["_langchain_tags"] = json.dumps(list(call.langchain_tags))
    if call.first_token_at is not None:
        found["first_token_seconds"] = f"{call.first_token_at - call.started_at:.3f}"
    if call.result is not None and call.result.cache_hit:
        found["cache_hit"] = "true"
    return {key[:_KEY_LENGTH]: value for key, value in found.items()}


def _langchain_metadata(given: dict[str, Any]) -> dict[str, str]:
    """Keep the scalars that people (and LangGraph) put there, not LangChain's own description of the model."""
    return {
        str(key): value if isinstance(value, str) else str(value)
        for key, value in given.items()
        if isinstance(value, str | int | float | bool) and not str(key).startswith(("ls_", "__"))
    }


def _local_link(call: Call) -> str | None:
    if call.link is None or not call.link.local:
        return None
    return json.dumps(plain(call.link.payload()))


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
