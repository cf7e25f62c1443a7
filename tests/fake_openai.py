"""A small OpenAI-compatible server on loopback, for tests and for the demo; no key, no network.

What it does is chosen by the model's name: `err-<status>` answers that status (`err-429-insufficient_quota` with
that code), `tool` calls the first tool offered, `tools` each of them, the last with broken JSON, `cut` breaks a stream
off in the middle, `short` ends one there as if it were whole, `slow` takes a few milliseconds, `json` answers
`{"x": 1}`, `filtered` is stopped by a content filter, `spoken` answers with sound, `flex` and `priority` are served in
that tier; any other name answers "Hello there". A message that says "use the tool" makes any model call it.
"""

import itertools
import json
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from pltrack.testing._http import Incoming, LoopbackServer, Outgoing

WORDS = ("Hel", "lo ", "there")
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
SPOKEN_USAGE = {
    **USAGE,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 5},
}
RESPONSES_USAGE = {
    "input_tokens": 11,
    "output_tokens": 7,
    "total_tokens": 18,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 2},
}
ERROR_TYPES = {401: "invalid_request_error", 429: "rate_limit_exceeded", 400: "invalid_request_error"}
SLOW_SECONDS = 0.003
CUT_AFTER = 3

Json = dict[str, Any]


class Asked(NamedTuple):
    """One call that the server got."""

    path: str
    body: Json
    headers: dict[str, str]


class FakeOpenAI:
    """Serve `/v1/chat/completions`, `/v1/completions` and `/v1/responses` for the length of a `with` block."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self._numbers = itertools.count(1)
        self._server: LoopbackServer | None = None

    @property
    def url(self) -> str:
        """The base URL to give to a client; ends in `/v1`."""
        if self._server is None:
            raise RuntimeError("FakeOpenAI has no address outside its `with` block")
        return f"http://127.0.0.1:{self._server.port}/v1"

    def start(self) -> Self:
        if self._server is None:
            self._server = LoopbackServer(self._answer, name="fake-openai")
            self._server.start()
        return self

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(self, incoming: Incoming) -> Outgoing:
        body: Json = json.loads(incoming.raw or b"{}")
        self.requests.append(Asked(incoming.path, body, dict(incoming.headers)))
        model = str(body.get("model", ""))
        if model == "slow":
            time.sleep(SLOW_SECONDS)
        if model.startswith("err-"):
            status, _, code = model.removeprefix("err-").partition("-")
            return _error(int(status), code)
        makers = {"/v1/chat/completions": _chat, "/v1/completions": _completion, "/v1/responses": _response}
        maker = makers.get(incoming.path)
        if maker is None:
            return _error(404)
        made = maker(body, next(self._numbers))
        if isinstance(made, dict):
            return Outgoing.json(200, made, {"x-request-id": made["id"]})
        chunks = _events(made, model)
        return Outgoing(content_type="text/event-stream", chunks=chunks, cut=model == "cut")


def _error(status: int, code: str = "") -> Outgoing:
    message = {"message": f"told to answer {status}", "type": ERROR_TYPES.get(status, "server_error")}
    headers = {"retry-after-ms": "1", "set-cookie": "session=cookie-secret"}
    return Outgoing.json(status, {"error": {**message, "param": None, "code": code or None}}, headers)


def _events(chunks: Iterator[Json], model: str) -> Iterator[bytes]:
    for position, chunk in enumerate(chunks):
        if model in ("cut", "short") and position == CUT_AFTER:
            return
        if model == "slow":
            time.sleep(SLOW_SECONDS)
        yield f"data: {json.dumps(chunk)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def _tool_calls(body: Json) -> list[Json]:
    """Call the tools that the model's name asks for."""
    if body["model"] != "tools":
        call = _tool_call(body)
        return [call] if call else []
    names = [tool["function"]["name"] for tool in body.get("tools") or []]
    given = ["{}"] * (len(names) - 1) + ["{oops"]
    return [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(zip(names, given, strict=True), 1)
    ]


def _tool_call(body: Json) -> Json | None:
    """Call the first tool offered, unless its result has come back already."""
    tools, messages = body.get("tools") or [], body.get("messages") or [{}]
    wanted = body["model"] == "tool" or "use the tool" in str(messages[-1].get("content")).lower()
    if not tools or not wanted or messages[-1].get("role") == "tool":
        return None
    function = tools[0]["function"]
    arguments = {name: 1 for name in function.get("parameters", {}).get("properties", {})}
    call = {"name": function["name"], "arguments": json.dumps(arguments)}
    return {"id": "call_1", "type": "function", "function": call}


def _chat(body: Json, number: int) -> Json | Iterator[Json]:
    base = {
        "id": f"chatcmpl-{number}",
        "created": 1,
        "model": f"{body['model']}-2024-01-01",
        "system_fingerprint": "fp_1",
    }
    model = body["model"]
    if model in ("flex", "priority"):
        base["service_tier"] = model
    if body.get("stream"):
        return _chat_chunks(base | {"object": "chat.completion.chunk"}, body, _tool_call(body))
    calls = _tool_calls(body)
    spoken: Json = {"content": '{"x": 1}' if model == "json" else "".join(WORDS)}
    if model == "spoken":
        spoken = {"content": None, "audio": {"id": "audio_1", "data": "QQ==", "expires_at": 1, "transcript": "Hello"}}
    if calls:
        spoken = {"content": None, "tool_calls": calls}
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "refusal": None, **spoken},
            "finish_reason": "content_filter" if model == "filtered" else "tool_calls" if calls else "stop",
            "logprobs": None,
        }
        for index in range(body.get("n") or 1)
    ]
    used = SPOKEN_USAGE if model == "spoken" else USAGE
    return base | {"object": "chat.completion", "choices": choices, "usage": used}


def _response(body: Json, number: int) -> Json:
    """Answer as the Responses API: reasoning, a web search, and text that cites what was found."""
    cited = {"type": "url_citation", "url": "http://x", "title": "X", "start_index": 0, "end_index": 5}
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": [cited]}
    output = [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "thinking"}]},
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]},
    ]
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "model": f"{body['model']}-2024-01-01",
        "status": "completed",
        "output": output,
        "usage": RESPONSES_USAGE,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
    }


def _chat_chunks(base: Json, body: Json, call: Json | None) -> Iterator[Json]:
    deltas: list[Json] = [{"content": word} for word in WORDS]
    if call:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        opened = call | {"index": 0, "function": {"name": name, "arguments": ""}}
        deltas = [
            {"tool_calls": [opened]},
            {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]},
        ]
    told_usage = (body.get("stream_options") or {}).get("include_usage")
    silent = {"usage": None} if told_usage else {}
    for index in range(body.get("n") or 1):
        for delta in ({"role": "assistant", "content": ""}, *deltas):
            yield base | silent | {"choices": [_choice(index, delta)]}
        yield base | silent | {"choices": [_choice(index, {}, "tool_calls" if call else "stop")]}
    if told_usage:
        yield base | {"choices": [], "usage": USAGE}


def _choice(index: int, delta: Json, finish: str | None = None) -> Json:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}


def _completion(body: Json, number: int) -> Json | Iterator[Json]:
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    base = {
        "id": f"cmpl-{number}",
        "object": "text_completion",
        "created": 1,
        "model": f"{body['model']}-2024-01-01",
    }
    if body.get("stream"):
        return _completion_chunks(base, body)
    choices = [
        {"index": index, "text": "".join(WORDS), "finish_reason": "stop", "logprobs": None}
        for index in range(len(prompts) * (body.get("n") or 1))
    ]
    return base | {"choices": choices, "usage": USAGE}


def _completion_chunks(base: Json, body: Json) -> Iterator[Json]:
    for index in range(body.get("n") or 1):
        for word in WORDS:
            yield base | {"choices": [{"index": index, "text": word, "finish_reason": None, "logprobs": None}]}
        yield base | {"choices": [{"index": index, "text": "", "finish_reason": "stop", "logprobs": None}]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield base | {"choices": [], "usage": USAGE}
