"""What a run answered: a snapshot on the app's thread, its blueprint off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

from .._plain import attempt, clean, dumps, peek, text
from .blocks import said
from .faults import finish_fault
from .media import Block
from .messages import Snapshot, message, snap, unknown
from .usage import Usage, find_usage

if TYPE_CHECKING:
    from uuid import UUID

    from langchain_core.outputs import LLMResult

_MODEL = ("model_name", "model", "model_id", "modelId", "model_version")
_FINISH = ("finish_reason", "stop_reason", "stopReason", "finishReason", "done_reason")
_TOLD = ("usage_metadata", "response_metadata", "id")
Told = bytes | tuple[Any, ...]  # what an answer says about itself
_ID = ("id", "response_id", "request_id")


class Result:
    """What a run answered; nothing in it changes with LangChain's own objects.

    Only what can change is copied on the app's thread; what it means is read when first asked for, elsewhere.
    """

    __slots__ = ("_batch_size", "_read", "_run_id", "_told", "candidates")

    def __init__(
        self, candidates: tuple[Snapshot | str, ...], told: Told, run_id: UUID | str | None, batch_size: int
    ) -> None:
        self.candidates = candidates
        self._told = told
        self._run_id = run_id
        self._batch_size = batch_size
        self._read: Reading | None = None

    def without_content(self) -> Result:
        """Return what remains when the words themselves are of no interest."""
        return Result((), self._told, self._run_id, self._batch_size)

    @property
    def reading(self) -> Reading:
        """What the answer says about itself."""
        if self._read is None:
            self._read = attempt(lambda: _reading(self._told, self._run_id, self._batch_size), Reading())
        return self._read

    @property
    def usage(self) -> Usage | None:
        """The tokens that it took."""
        return self.reading.usage

    @property
    def model_name(self) -> str | None:
        """The model that answered."""
        return self.reading.model_name

    @property
    def provider_id(self) -> str | None:
        """The provider's id of the answer."""
        return self.reading.provider_id

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped."""
        return self.reading.finish_reason

    @property
    def cache_hit(self) -> bool:
        """Whether LangChain's cache gave the answer."""
        return self.reading.cache_hit


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an answer says about itself."""

    usage: Usage | None = None
    model_name: str | None = None
    provider_id: str | None = None
    finish_reason: str | None = None
    cache_hit: bool = False


@dataclass(eq=False)
class _Message:
    usage_metadata: Any
    response_metadata: Any
    id: Any


@dataclass(eq=False)
class _Generation:
    message: _Message | None
    generation_info: Any


def snap_result(
    response: LLMResult | object | None, run_id: UUID | str | None = None, *, batch_size: int = 1
) -> Result | None:
    """Return a snapshot of the run's result, None where there is none; never raise. For the app's thread."""
    try:
        own = response.__dict__
        candidates, told = [], []
        simple = not own["llm_output"]
        for one in own["generations"][0]:
            generation = one.__dict__
            answer = generation["message"]
            said = answer.__dict__
            candidates.append(snap(answer))
            usage, metadata, info = said["usage_metadata"], said["response_metadata"], generation["generation_info"]
            simple = simple and not (usage or metadata or info)
            told.append(((usage, metadata, said["id"]), info))
        if simple:  # nothing that can change: encoding takes memory that another thread gives back
            return Result(tuple(candidates), tuple(told), run_id, batch_size)
        return Result(tuple(candidates), dumps((told, own["llm_output"])), run_id, batch_size)
    except Exception:  # noqa: BLE001 -- a completion, or something of an odd shape
        return _snap_odd(response, run_id, batch_size)


def snap_partial(response: LLMResult | object | None, run_id: UUID | str | None = None) -> Result | None:
    """Return a snapshot of what had arrived when a run failed, None if nothing had: its error is no answer."""
    result = snap_result(response, run_id)
    return result if result is not None and any(map(_says_something, result.candidates)) else None


def _says_something(candidate: Snapshot | str) -> bool:
    return bool(candidate if isinstance(candidate, str) else candidate[1] or candidate[3])


def _snap_odd(response: object | None, run_id: UUID | str | None, batch_size: int) -> Result | None:
    if response is None:
        return None
    return attempt(lambda: _result(response, run_id, batch_size), Result((), b"[[],null]", run_id, batch_size))


def output(result: Result | None, kind: Literal["chat", "llm"]) -> Block:
    """Return the blueprint of an answer: all candidates of it; an empty one for a failed call."""
    candidates = result.candidates if result is not None else ()
    if kind == "chat":
        messages = [_assistant(one) for one in candidates]
        return {"type": "chat", "messages": messages, "input_variables": []}
    content: list[Block] = []
    for one in candidates:
        content += [said(one)] if isinstance(one, str) else message(one)["content"]
    return {"type": "completion", "content": content, "input_variables": []}


def _result(response: object, run_id: UUID | str | None, batch_size: int) -> Result:
    generations = peek(response, "generations")
    if not isinstance(generations, list | tuple):
        unknown(f"a result of class {type(response).__name__} has no generations")
    first = generations[0] if isinstance(generations, list | tuple) and generations else ()
    candidates = list(first) if isinstance(first, list | tuple) else [first]
    messages = [peek(one, "message") for one in candidates]
    told = [
        (None if answer is None else [peek(answer, name) for name in _TOLD], peek(one, "generation_info"))
        for one, answer in zip(candidates, messages, strict=True)
    ]
    snapshots = tuple(map(_candidate, candidates, messages))
    return Result(snapshots, dumps([told, peek(response, "llm_output")]), run_id, batch_size)


def _reading(told: Told, run_id: UUID | str | None, batch_size: int) -> Reading:
    if not isinstance(told, bytes):
        return Reading(provider_id=_identity(told[0][0][2]) if told else None)
    rows, llm_output = orjson.loads(told)
    candidates = [_Generation(None if said is None else _Message(*said), info) for said, info in rows]
    messages = [one.message for one in candidates if one.message is not None]
    metadata = [one.response_metadata for one in messages]
    infos = [one.generation_info for one in candidates]
    identity = _identity(messages[0].id) if messages else None
    return Reading(
        usage=find_usage(candidates, llm_output, batch_size),
        model_name=_undoubled(_first([*metadata, llm_output, *infos], _MODEL)),
        provider_id=_first([llm_output, *metadata], _ID) or identity,
        finish_reason=_finish_reason(metadata, infos, llm_output),
        cache_hit=any(_is_cached(one, run_id) for one in messages),
    )


def _identity(given: object) -> str | None:
    """Return the provider's id of a message; LangChain makes one up where there is none."""
    return given if isinstance(given, str) and not given.startswith(("lc_", "run-")) else None


def _candidate(generation: object, answer: object) -> Snapshot | str:
    if answer is not None:
        return snap(answer)
    words = peek(generation, "text")
    return words if type(words) is str else text(words if words is not None else generation)


def _is_cached(answer: object, run_id: UUID | str | None) -> bool:
    """Return whether LangChain's cache gave the answer: it marks it with a cost of 0.

    A message of this very run is not from the cache, whatever its provider charges. The id of another run
    proves nothing: fake models hand out the same message again and again.
    """
    usage = peek(answer, "usage_metadata")
    if not isinstance(usage, dict) or usage.get("total_cost") != 0:
        return False
    identity = peek(answer, "id")
    own = run_id is not None and isinstance(identity, str) and identity.startswith(f"lc_run--{run_id}")
    return not own


def _assistant(candidate: Snapshot | str) -> Block:
    if isinstance(candidate, str):
        return {"role": "assistant", "content": [said(candidate)] if candidate else []}
    found = message(candidate)
    if found["role"] == "user" and "name" in found:  # a free role: it was the model who spoke
        found["role"] = "assistant"
    return found


def _finish_reason(told: Sequence[Any], infos: Sequence[Any], llm_output: Any) -> str | None:
    """Return why the model stopped; of several candidates the one that is not whole."""
    reasons: list[str] = []
    for holder in (*told, *infos, llm_output):
        found = _undoubled(_first([holder], _FINISH)) or _incomplete(holder)
        if found:
            reasons.append(found)
    return next((one for one in reasons if finish_fault(one)), reasons[0] if reasons else None)


def _incomplete(holder: Any) -> str | None:
    """Return the reason of OpenAI's Responses API, which has no finish reason but a status."""
    if not isinstance(holder, dict) or holder.get("status") != "incomplete":
        return None
    return _first([holder.get("incomplete_details")], ("reason",)) or "incomplete"


def _first(holders: Sequence[Any], names: Sequence[str]) -> str | None:
    """Return the first of the fields, in the first of the mappings, that says something."""
    for holder in holders:
        if not holder or not isinstance(holder, dict):
            continue
        for name in names:
            value = holder.get(name)
            if value is not None and value != "":
                return clean(value) if type(value) is str else text(value)
    return None


def _undoubled(words: str | None) -> str | None:
    """Return "stop" for "stopstop": LangChain joins the strings of several streamed candidates."""
    if words is None or len(words) < 6:
        return words
    for times in range(2, 9):
        size, rest = divmod(len(words), times)
        if not rest and size >= 3 and words == words[:size] * times:
            return words[:size]
    return words
