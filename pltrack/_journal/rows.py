"""From what was recorded to the rows that are stored: the only way into the journal, through redaction."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, Self

import orjson

from .. import _loading
from .._blueprint import faults, messages, outputs, parameters, usage
from .._plain import plain, text, thaw
from .._records import Call, Note, Scope, State
from .._redact import Redactor
from .._shortening import fitting

# Tags that LangChain makes for itself; they would drown the ones that people set.
_INNER_TAG = re.compile(r"^(seq:step|map:key|retry:attempt|condition|graph:step|branch)\b")
_TAG_LENGTH = 512
_DECODER = json.JSONDecoder()
_KEY_LENGTH = 1024
_MESSAGE_LENGTH = 1024


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
    capture: str = "full"
    send_price: bool = False
    max_body: int = 4_194_304

    def request(self, call: Call) -> dict[str, Any]:
        """Return the row of a call."""
        result = call.result
        used = result.usage if result is not None else None
        asked = _Asked.of(call)
        cost = self._cost(call, asked)
        capture = self._strictest(call.scope.capture if call.scope else "full")
        body = self._body(call, asked, cost)
        payload = self._payload(call, body, capture)
        provider, model = self.redactor.names(payload, (asked.provider, asked.model))
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
            "provider": provider,
            "model": model,
            "status": body["status"],
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
            "tags": _tags_of(payload),
            "prompt_name": call.link and call.link.name,
            "prompt_version": call.link and call.link.version,
            "payload": payload,
            "local_link": self._local_link(call, capture),
        }

    def _strictest(self, capture: str) -> str:
        return "metadata" if "metadata" in (capture, self.capture) else "full"

    def _payload(self, call: Call, body: dict[str, Any], capture: str) -> bytes:
        cleaned = self.redactor.clean(body, capture, partial(_ids, call))
        # Cut after the secrets are out: half of one would not be known for what it is.
        whole = orjson.dumps(_cut(orjson.loads(cleaned))) if _is_long(body) else cleaned
        return fitting(whole, self.max_body)

    def _local_link(self, call: Call, capture: str) -> str | None:
        if call.link is None or not call.link.local:
            return None
        return self.redactor.clean(plain(call.link.payload()), capture).decode()

    def note(self, note: Note) -> dict[str, Any]:
        """Return the row of a note; a note about a session is told apart by its `session_id`."""
        return {
            "id": note.id,
            "request_id": note.request_id,
            "pl_id": note.pl_id,
            "session_id": note.session_id,
            "kind": note.kind.value,
            "payload": self._stored(dict(note.payload), self._strictest(note.capture)).decode(),
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
        with _loading.MODULES:  # the first price loads the tables
            at = datetime.fromtimestamp(call.started_at, UTC)
            return usage.price(asked.provider, asked.model, result.usage, at)

    def _body(self, call: Call, asked: _Asked, cost: float | None) -> dict[str, Any]:
        result = call.result
        used = None if result is None or result.cache_hit else result.usage
        options, tools, choice = parameters.parameters(asked.given, asked.about, asked.provider)
        interface = _api_type(call, asked)
        body: dict[str, Any] = {
            "tags": _tags(call),  # the first: see `_tags_of`
            "provider": asked.provider,
            "model": asked.model,
            "input": _input(call, tools, choice),
            "output": outputs.output(result, call.kind),
            "request_start_time": _iso(call.started_at),
            "request_end_time": _iso(call.ended_at),
            "parameters": options,
            "metadata": _metadata(call, asked.about),
            "input_tokens": (used and used.input_tokens) or 0,
            "output_tokens": (used and used.output_tokens) or 0,
            "function_name": call.serialized_name,
            "api_type": interface,
            **_status(call, interface),
        }
        if self.send_price and cost is not None:
            body["price"] = cost
        if call.link is not None and not call.link.local and call.link.version is not None:
            body["prompt_name"] = call.link.name
            body["prompt_version_number"] = call.link.version
            body["prompt_input_variables"] = plain(dict(call.link.variables))
        return body


_TELLS_WHY = "chat-completions"  # the interface whose streams end with a finish reason, unless they were cut


def _input(call: Call, tools: Any, choice: Any) -> dict[str, Any]:
    if call.kind == "chat":
        return messages.chat_prompt(call.inputs, tools, choice)
    return messages.completion_prompt([str(text) for text in call.inputs])


def _status(call: Call, interface: str | None) -> dict[str, Any]:
    status, kind, words = call.status, call.error_type, call.error_message
    cut = None
    if call.result is not None:
        streamed = call.first_token_at is not None
        cut = faults.finish_fault(call.result.finish_reason, expected=streamed and interface == _TELLS_WHY)
    if status == "SUCCESS" and cut is not None:
        status, kind, words = cut
    if status == "SUCCESS":
        return {"status": status}
    return {"status": status, "error_type": kind, "error_message": words}


def _tags_of(payload: bytes) -> str:
    """Return the tags as they may be stored: what redaction left of them, without reading the whole body again."""
    start = len('{"tags":')
    _, end = _DECODER.raw_decode(text := payload.decode(), start)
    return text[start:end]


def _api_type(call: Call, asked: _Asked) -> str | None:
    """Return which interface answered; of a failed call nobody knows."""
    answered = call.result is not None and call.status != "ERROR"
    return parameters.api_type(asked.provider, call.kind, call.result.provider_id) if answered else None


def _tags(call: Call) -> list[str]:
    ours = (*(call.scope.tags if call.scope else ()), *call.tags)
    theirs = (tag for tag in call.langchain_tags if not _INNER_TAG.match(tag))
    return list(dict.fromkeys(tag for tag in (*ours, *theirs) if tag))


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
    return found


def _ids(call: Call) -> set[str]:
    """Return the ids by which the record is found again; people may have chosen that of the session."""
    known = {call.handle.id, str(call.run_id), str(call.parent_run_id)}
    return known | {call.scope.id} if call.scope is not None else known


def _is_long(body: dict[str, Any]) -> bool:
    return (
        len(body.get("error_message") or "") > _MESSAGE_LENGTH
        or max(map(len, body["tags"]), default=0) > _TAG_LENGTH
        or max(map(len, body["metadata"]), default=0) > _KEY_LENGTH
    )


def _cut(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("error_message"):
        body["error_message"] = body["error_message"][:_MESSAGE_LENGTH]
    body["tags"] = list(dict.fromkeys(tag[:_TAG_LENGTH] for tag in body["tags"]))
    body["metadata"] = {key[:_KEY_LENGTH]: value for key, value in body["metadata"].items()}
    return body


def _langchain_metadata(given: dict[str, Any]) -> dict[str, str]:
    """Keep the scalars that people (and LangGraph) put there, not LangChain's own description of the model."""
    return {
        name: value if type(value) is str else text(value)
        for key, value in given.items()
        if isinstance(value, str | int | float | bool) and not (name := text(key)).startswith(("ls_", "__"))
    }


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
