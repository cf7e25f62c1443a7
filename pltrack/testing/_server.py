"""A PromptLayer to test against: a real HTTP server on loopback, as strict as the documentation allows."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from . import _routes
from ._blueprint_rules import BLUEPRINT
from ._exchange import Call, fault_answer, key_of, parsed, said
from ._faults import Fault
from ._http import Incoming, LoopbackServer, Outgoing
from ._rules import issues
from ._workspace import Logged, RefusedError, Workspace

T = TypeVar("T")

SHOWN_CALLS = 20
BUILT_IN_KEY = "pl_test"


class FakePromptLayer:
    """Be a PromptLayer on 127.0.0.1 for the length of a `with` block (or from `start()` to `stop()`).

    Every key has a workspace of its own. `search_per_minute=10` enforces the real server's limit on request
    search. What was received stays after `stop()`; a second `start()` comes back with it on the same port.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        api_keys: Iterable[str] = (),
        search_per_minute: int | None = None,
    ) -> None:
        keys = sorted(set(api_keys))
        self.api_key = api_key or (keys[0] if keys else BUILT_IN_KEY)
        self._changed = threading.Condition(threading.RLock())
        self._everything: dict[int, Logged] = {}
        self._workspaces: dict[str, Workspace] = {}
        self._keys: set[str] = set()
        self._calls: list[Call] = []
        self._faults: list[tuple[Fault, int]] = []  # with how often each has struck
        self._gates: list[threading.Event] = []
        self._search_per_minute = search_per_minute
        self._searches: dict[str, deque[float]] = {}
        self._server: LoopbackServer | None = None
        self._port = 0
        for key in {self.api_key, *keys}:
            self.accept(key)

    # -- life cycle

    def start(self) -> Self:
        """Listen; returns at once when it already does."""
        if self._server is None:
            self._server = LoopbackServer(self._answer, port=self._port, name="fake-promptlayer")
            self._port = self._server.port
            self._server.start()
        return self

    def stop(self) -> None:
        """Close the port and every connection, silent ones too, and wait for the threads to end."""
        with self._changed:
            server, self._server = self._server, None
        if server is not None:
            self._open_gates()
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL to configure; the server must have been started once."""
        if not self._port:
            raise RuntimeError("FakePromptLayer has no address before start(); use it in a `with` block")
        return f"http://127.0.0.1:{self._port}"

    # -- what came

    @property
    def requests(self) -> tuple[Logged, ...]:
        """Every logged request, of all keys, in the order of their ids."""
        with self._changed:
            return tuple(self._everything.values())

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every HTTP call in the order of its coming, refused and unanswered ones too."""
        with self._changed:
            return tuple(self._calls)

    def request(self, request_id: int) -> Logged:
        """Return the request with this PromptLayer id; LookupError when there is none."""
        with self._changed:
            if request_id in self._everything:
                return self._everything[request_id]
        raise LookupError(f"no request {request_id}; {self._summary()}")

    def by_pltrack_id(self, pltrack_id: str) -> Logged:
        """Return the request with our id; LookupError when none has it, AssertionError when several."""
        found = [logged for logged in self.requests if logged.metadata.get("pltrack_id") == pltrack_id]
        if not found:
            raise LookupError(f"no request with pltrack_id {pltrack_id!r}; {self._summary()}")
        if len(found) > 1:
            ids = ", ".join(str(logged.id) for logged in found)
            raise AssertionError(f"pltrack_id {pltrack_id!r} was logged {len(found)} times: {ids}")
        return found[0]

    def wait_for(self, happened: Callable[[Self], T], timeout: float = 10.0) -> T:
        """Wait until `happened(self)` is true and return it; a LookupError in it means "not yet"."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (result := self._try(happened)):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not within {timeout} s; {self._summary()}")
                self._changed.wait(left)
            return result

    def _try(self, happened: Callable[[Self], T]) -> T | None:
        try:
            return happened(self)
        except LookupError:
            return None

    def _summary(self) -> str:
        with self._changed:
            lines = [
                f"  {call.method} {call.path} -> {call.status or 'no answer'}"
                + (f" {json.dumps(call.answer)[:300]}" if (call.status or 0) >= 400 else "")
                for call in self._calls[-SHOWN_CALLS:]
            ]
            return "\n".join([f"{len(self.requests)} requests, {len(self._calls)} calls came", *lines])

    # -- what it is told

    def accept(self, api_key: str) -> None:
        """Take calls with this key; a new key gets an empty workspace."""
        with self._changed:
            self._keys.add(api_key)
            self._workspaces.setdefault(api_key, Workspace(api_key, self._everything))

    def revoke(self, api_key: str) -> None:
        """Answer 401 to this key from now on; its workspace stays."""
        with self._changed:
            self._keys.discard(api_key)

    def publish(
        self,
        name: str,
        template: Mapping[str, Any],
        *,
        labels: Iterable[str] = (),
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        commit_message: str | None = None,
        api_key: str | None = None,
    ) -> int:
        """Put a prompt blueprint into the registry (of the first key) and return its version."""
        if wrong := issues(BLUEPRINT, template):
            raise ValueError(f"not a prompt blueprint: {wrong[0]['loc']}: {wrong[0]['msg']}")
        with self._changed:
            registry = self._workspaces[api_key or self.api_key].registry
            _, version = registry.publish(
                name, template, labels=labels, tags=tags, metadata=metadata, commit_message=commit_message
            )
            return version.number

    def fail(self, fault: Fault) -> None:
        """Misbehave from now on; of several faults that match a call, the first told strikes."""
        with self._changed:
            self._faults.append((fault, 0))

    def heal(self) -> None:
        """Behave again; calls held by a silent fault are answered, if their client still waits."""
        with self._changed:
            self._faults.clear()
        self._open_gates()

    def _open_gates(self) -> None:
        with self._changed:
            gates, self._gates = self._gates, []
        for gate in gates:
            gate.set()

    # -- the wire

    def _answer(self, incoming: Incoming) -> Outgoing:
        body, readable = parsed(incoming)
        with self._changed:
            position, fault = len(self._calls), self._strike(incoming.path, body)
            # Before the call can be seen: who sees it may heal at once, and nobody would open the gate later.
            gate = self._gate(fault)
            self._calls.append(
                Call(
                    method=incoming.method,
                    path=incoming.path,
                    api_key=key_of(incoming, body),
                    body=body,
                    query=incoming.query,
                    connection=incoming.connection,
                )
            )
            self._changed.notify_all()

        def carry_out() -> Outgoing:
            with self._changed:
                done = self._carry_out(incoming, body, readable)
                self._changed.notify_all()
                return done

        answer = carry_out() if fault is None else self._misbehave(fault, gate, incoming, carry_out)
        with self._changed:
            if not answer.drop:
                call = replace(self._calls[position], status=answer.status, answer=said(answer))
                self._calls[position] = call
            self._changed.notify_all()
        return answer

    def _strike(self, path: str, body: Any) -> Fault | None:
        for position, (fault, struck) in enumerate(self._faults):
            if (fault.times is None or struck < fault.times) and fault.matches(path, body):
                self._faults[position] = (fault, struck + 1)
                return fault
        return None

    def _misbehave(
        self, fault: Fault, gate: threading.Event | None, incoming: Incoming, carry_out: Callable[[], Outgoing]
    ) -> Outgoing:
        done = carry_out() if fault.store else None
        if fault.kind in ("silent", "slow"):
            if gate is not None:
                gate.wait(fault.seconds if fault.kind == "slow" else None)
            if self._server is None or (fault.kind == "silent" and incoming.gone()):
                return Outgoing(drop=True)
            return done or carry_out()
        if fault.kind == "drop":
            return Outgoing(drop=True)
        if fault.kind == "truncated":
            return replace(done or Outgoing.json(200, {"success": True}), cut=True)
        return fault_answer(fault)

    def _gate(self, fault: Fault | None) -> threading.Event | None:
        if fault is None or fault.kind not in ("silent", "slow") or self._server is None:
            return None
        gate = threading.Event()
        self._gates.append(gate)
        return gate

    def _carry_out(self, incoming: Incoming, body: Any, readable: bool) -> Outgoing:
        found = _routes.find(incoming.method, incoming.path)
        if found is None:
            return Outgoing.json(404, {"success": False, "message": f"Not found: {incoming.path}"})
        route, rest = found
        key = key_of(incoming, body if route.sdk else None)
        if key not in self._keys:
            return Outgoing.json(401, {"success": False, "message": "Invalid or missing API key"})
        if incoming.path == _routes.SEARCH and not self._may_search(key):
            return Outgoing.json(429, {"success": False, "message": "Rate limit exceeded. Please retry later."})
        if not readable:
            wrong = {
                "loc": ["body"],
                "msg": "Expected application/json with valid JSON",
                "type": "json_invalid",
            }
            return Outgoing.json(422, {"detail": [wrong]})
        if route.rule is not None and (detail := issues(route.rule, body)):
            return Outgoing.json(422, {"detail": detail})
        asked = _routes.Asked(workspace=self._workspaces[key], body=body, query=incoming.query, rest=rest)
        try:
            return Outgoing.json(*route.carry_out(asked))
        except RefusedError as refusal:
            return Outgoing.json(refusal.status, refusal.body)

    def _may_search(self, key: str) -> bool:
        if self._search_per_minute is None:
            return True
        now, recent = time.monotonic(), self._searches.setdefault(key, deque())
        while recent and recent[0] <= now - 60:
            recent.popleft()
        if len(recent) >= self._search_per_minute:
            return False
        recent.append(now)
        return True
