"""Request handles: what is known of one LLM call, and what can be said about it, now or any day."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _runtime
from ._checks import link_payload, metadata_payload, score_payload
from ._plain import thaw
from ._records import Call, Note, Noted

if TYPE_CHECKING:
    from uuid import UUID

    from ._blueprint.outputs import Result
    from ._blueprint.usage import Usage


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """What the calls of a session (or one call) took; cost is None where no price is known."""

    calls: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    first_token_seconds: float | None = None


@dataclass(slots=True, eq=False)
class Outcome:
    """What a handle keeps of a call that is over: no content, so that a long session stays small."""

    status: str
    error_type: str | None
    error_message: str
    provider: str
    model: str
    linked: bool
    result: Result | None
    started_at: float
    first_token_at: float | None
    ended_at: float

    @classmethod
    def of(cls, call: Call) -> Outcome:
        """Return what is to be kept of a call."""
        from ._blueprint.parameters import model_of

        provider, model = call.named or model_of(thaw(call.parameters), call.langchain_metadata, call.serialized_name)
        return cls(
            call.status,
            call.error_type,
            call.error_message,
            provider,
            model,
            call.link is not None,
            None if call.result is None else call.result.without_content(),
            call.started_at,
            call.first_token_at,
            call.ended_at,
        )

    @property
    def usage(self) -> Usage | None:
        """The tokens that it took."""
        return None if self.result is None else self.result.usage

    @property
    def cache_hit(self) -> bool:
        """Whether LangChain's cache gave the answer."""
        return self.result is not None and self.result.cache_hit


class Request:
    """One LLM call. Its verbs return how many requests they spoke about: 1, or 0 where nothing is tracked."""

    __slots__ = ("__weakref__", "_call", "_destination", "_dropped", "_final", "_id", "_outcome", "_pl_id", "capture")

    def __init__(self, id: str | UUID, *, destination: str = "", capture: str = "full", dropped: bool = False) -> None:
        self._id = id
        self._destination = destination
        self._dropped = dropped
        self._pl_id: int | None = None
        self._final = False
        self._call: Call | None = None  # until `slim`
        self._outcome: Outcome | None = None
        self.capture = capture

    def __repr__(self) -> str:
        return f"<pltrack.Request {self.id} request_id={self._pl_id}>"

    @property
    def id(self) -> str:
        """The id of our own, known at once; store it to score later from anywhere."""
        own = self._id
        if type(own) is not str:  # text only when somebody asks: not on the app's thread
            own = self._id = str(own)
        return own

    @property
    def request_id(self) -> int | None:
        """PromptLayer's id, or None while it is not known; never blocks."""
        return self._pl_id

    @property
    def settled(self) -> bool:
        """Whether PromptLayer has taken it, or refused it for good."""
        return self._final

    @property
    def dropped(self) -> bool:
        """Whether its session was not sampled: it is recorded nowhere."""
        return self._dropped

    @property
    def answered(self) -> bool:
        """Whether the model has answered."""
        return self.outcome is not None and self.outcome.status != "ERROR"

    @property
    def linked(self) -> bool:
        """Whether the request linked itself to the prompt that made it."""
        return self.outcome is not None and self.outcome.linked

    @property
    def model(self) -> str | None:
        """The model that was asked."""
        return None if self.outcome is None else self.outcome.model

    @property
    def status(self) -> str | None:
        """SUCCESS, WARNING or ERROR once the call is over."""
        return None if self.outcome is None else self.outcome.status

    @property
    def destination(self) -> str:
        """The fingerprint of the workspace it goes to; empty without a key."""
        return self._destination

    @property
    def usage(self) -> UsageTotals:
        """Tokens, cost and time of this call."""
        return totals([self])

    @property
    def outcome(self) -> Outcome | None:
        """How the call went, once it is over."""
        self.slim()
        return self._outcome

    def finished(self, call: Call) -> None:
        """Take over what was recorded of the call; for the handler."""
        self._call = call

    def slim(self) -> None:
        """Keep no content any more: the call is in the journal, or nowhere."""
        call = self._call
        if call is not None:
            self._outcome = Outcome.of(call)
            self._call = None

    def renamed(self, id: str) -> None:
        """Take another id of our own; for the writer."""
        self._id = id

    def resolved(self, pl_id: int | None) -> None:
        """Take PromptLayer's id; for the runtime."""
        self._pl_id = pl_id
        self._final = True

    def score(self, score: int, *, name: str | None = None) -> int:
        """Give this request a score from 0 to 100."""
        return self.say(Noted.SCORE, score_payload(score, name))

    def metadata(self, metadata: Mapping[str, Any] | None = None, /, **more: Any) -> int:
        """Add metadata; a key given again replaces its value."""
        return self.say(Noted.METADATA, metadata_payload(metadata, more))

    def link_prompt(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
    ) -> int:
        """Link this request to a version (or label) of a prompt in the registry."""
        return self.say(Noted.PROMPT, link_payload(name, variables, version, label))

    def say(self, kind: Noted, payload: Mapping[str, Any] | None) -> int:
        """Put a checked note into the journal; for the verbs."""
        if self._dropped or payload is None or not _runtime.is_enabled():
            return 0
        self._put(kind, payload)
        return 1

    def _put(self, kind: Noted, payload: Mapping[str, Any]) -> None:
        runtime = _runtime.get()
        destination = self._destination or runtime.fingerprint
        runtime.put(Note(kind=kind, payload=payload, request_id=self.id, destination=destination, capture=self.capture))


class _NullRequest(Request):
    """What `s.last` is when nothing was gathered: everything can be said, nothing happens."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<pltrack.Request none>"

    def say(self, kind: Noted, payload: Mapping[str, Any] | None) -> int:
        return 0


class _ByPromptLayerId(Request):
    """A request known by PromptLayer's id only."""

    __slots__ = ()

    def __init__(self, pl_id: int) -> None:
        super().__init__(str(pl_id))
        self.resolved(pl_id)

    def _put(self, kind: Noted, payload: Mapping[str, Any]) -> None:
        runtime = _runtime.get()
        runtime.put(Note(kind=kind, payload=payload, pl_id=self._pl_id, destination=runtime.fingerprint))


NO_REQUEST = _NullRequest("")


def request(id: str | int) -> Request:
    """Return a handle for a request of any process, by our id (text) or by PromptLayer's (a number)."""
    if isinstance(id, Request):
        return id
    if not isinstance(id, str) and not isinstance(id, bool):
        try:
            id = operator.index(id)
        except TypeError:
            id = str(id) if type(id).__name__ == "UUID" else id
    if isinstance(id, bool) or not isinstance(id, str | int) or not str(id).strip():
        raise TypeError(f"id: expected our id (text) or PromptLayer's (a number), got {id!r}")
    if isinstance(id, int) or id.strip().isdigit():
        return _ByPromptLayerId(_positive(int(id)))
    runtime = _runtime.get()
    known = runtime.known_handle(id)
    handle = known if isinstance(known, Request) else Request(id, dropped=runtime.health.is_left_out(id))
    if handle is not known:
        runtime.watch(id, handle)
    if runtime.settings.enabled and not (handle.settled or handle.outcome or handle.dropped):
        runtime.refresh([id])
    return handle


def _positive(number: int) -> int:
    if number <= 0:
        raise ValueError(f"id: PromptLayer's ids are positive numbers, got {number}")
    return number


def totals(requests: list[Request]) -> UsageTotals:
    """Add up what requests took; first-token time is the first request's that streamed."""
    done = [each.outcome for each in requests if each.outcome is not None]
    used = [each.usage for each in done if each.usage is not None]
    costs = [cost for each in done if (cost := _cost(each)) is not None]
    firsts = [each.first_token_at - each.started_at for each in done if each.first_token_at is not None]
    return UsageTotals(
        calls=len(requests),
        errors=sum(each.status == "ERROR" for each in done),
        input_tokens=sum(each.input_tokens or 0 for each in used),
        output_tokens=sum(each.output_tokens or 0 for each in used),
        cost=sum(costs) if costs else None,
        seconds=sum(max(0.0, each.ended_at - each.started_at) for each in done),
        first_token_seconds=firsts[0] if firsts else None,
    )


def _cost(outcome: Outcome) -> float | None:
    if outcome.usage is None:
        return None
    if outcome.cache_hit:
        return 0.0
    from ._blueprint.usage import price

    return price(outcome.provider, outcome.model, outcome.usage)


def chosen(requests: tuple[Request, ...], on: object) -> Iterable[Request]:
    """Return the requests that a verb's `on=` speaks of."""
    if on == "all":
        return requests
    if on == "last":
        return requests[-1:]
    if callable(on):
        return [each for each in requests if on(each)]
    raise ValueError(f"on: expected 'all', 'last' or a function of a Request, got {on!r}")
