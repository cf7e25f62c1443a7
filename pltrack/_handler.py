"""LangChain's events to records: one record per run, however many of our handlers see it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from langchain_core.callbacks.base import BaseCallbackHandler

from . import _runtime
from ._blueprint import faults, messages, outputs, parameters
from ._blueprint.arrived import Arrived, says
from ._callbacks import IdCallback
from ._links import link_of
from ._records import Call, Kind, new_id
from ._request import Request
from ._runs import Key, Owner, Run
from ._runtime import guarded

_LIVE_MOST = 10_000
_STALE_AFTER = 3600.0
_GRACE = 1.0
_LOOK_EVERY = 60.0
_USED_MOST = 4_096
_NO_END = "abandoned: LangChain reports no end for this one"


# Keyed by run id, never by context tokens: ends come in other contexts and threads than their starts.
_live: dict[Key, Run] = {}
# Ids given lately, and before that: a run id that a user gives twice is two requests.
_used, _used_before = set[Key](), set[Key]()
_by_task: weakref.WeakKeyDictionary[asyncio.Task[Any], dict[Key, Run]] = weakref.WeakKeyDictionary()
_looked_at = 0.0


class Handler(BaseCallbackHandler):
    """The handler that LangChain sees. No I/O: it takes snapshots and puts them on a queue.

    Identity equality and always true, as LangChain compares and tests handlers; no `__getattr__`, as that
    would make every call a stream.
    """

    raise_error = False
    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True

    def __init__(
        self,
        owner: Owner | None = None,
        tags: tuple[str, ...] = (),
        on_id: Callable[[Any], Any] | None = None,
    ) -> None:
        self.owner = owner
        self.tags = tags
        self.on_id = on_id
        self.open = False  # of a session's entry: whether its block is still open
        self.stray = False  # of a session's entry: closed, but still current where it was entered
        self.outer: Handler | None = None  # of a session's entry: what was current before it
        self.token: Any = None  # of a session's entry: tells whether it is left in the context it was entered in

    def __repr__(self) -> str:
        return f"<pltrack handler of {self.owner!r}>" if self.owner else "<pltrack handler>"

    def is_in(self, other: Handler) -> bool:
        """Tell whether this session's entry is `other` or was made inside it."""
        entry: Handler | None = self
        while entry is not None:
            if entry is other:
                return True
            entry = entry.outer
        return False

    @property
    def run_inline(self) -> bool:  # type: ignore[override]
        """Inline, so that async programs pay no thread hop, except where that would starve another handler.

        `AsyncCallbackManager.on_llm_start` calls only the inline handlers as soon as there is one
        (langchain#39633): asked from there, this answers like the others in the list do.
        """
        frame = sys._getframe(1)
        if frame.f_code.co_name == "<listcomp>" and frame.f_back is not None:
            frame = frame.f_back
        if frame.f_code.co_name != "on_llm_start":
            return True
        others = getattr(frame.f_locals.get("self"), "handlers", ())
        return any(each.run_inline for each in others if not isinstance(each, Handler))

    # -- events -------------------------------------------------------------------------------------------

    @guarded
    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **event: Any) -> None:
        """A chat model was called."""
        self._start("chat", messages, serialized, run_id, event)

    @guarded
    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **event: Any) -> None:
        """A completion model was called."""
        self._start("llm", prompts, serialized, run_id, event)

    @guarded
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **event: Any) -> None:
        """A piece of a stream arrived; only when the first one did is of interest."""
        live = _live.get(_key(run_id))
        if live is not None and live.call.first_token_at is None:
            live.streams = True
            if token or _has_content(event.get("chunk")):
                live.call.first_token_at = time.time()

    @guarded
    def on_stream_event(self, event: Any, *, run_id: UUID, **_: Any) -> None:
        """A piece of a stream of protocol events arrived; LangChain keeps none of it for a stream that is cut short."""
        live = _live.get(_key(run_id))
        if live is None or live.seen[0] is not self:
            return
        if live.arrived is None:
            live.arrived, live.streams = Arrived(), True
            _watch_id(live)  # an abandoned one gets no end
        piece = live.arrived.take(event)
        if live.call.first_token_at is None and says(piece):
            live.call.first_token_at = time.time()

    @guarded
    def on_llm_end(self, response: Any, *, run_id: UUID, **event: Any) -> None:
        """A model answered."""
        live = _live.pop(_key(run_id), None)
        if live is not None:
            try:
                live.call.result = outputs.snap_result(response, run_id, batch_size=live.batch)
            finally:  # an answer that we cannot read is still a call
                _finish(live)

    @guarded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **event: Any) -> None:
        """A model failed, or whoever read its stream went away."""
        live = _live.pop(_key(run_id), None)
        if live is not None:
            call = live.call
            try:
                call.status, call.error_type, call.error_message = faults.fault(error)
                if live.arrived is None and event.get("response") is not None:
                    call.result = outputs.snap_partial(event["response"], run_id)
            finally:
                _finish(live)

    # -- a start ------------------------------------------------------------------------------------------

    def _start(self, kind: Kind, inputs: Any, serialized: Any, run_id: UUID, event: dict[str, Any]) -> None:
        if not _runtime.is_enabled():
            return
        reached: Handler | None = self
        while reached is not None and reached.stray:
            reached = reached.outer
        if reached is None:
            return
        live = _live.get(_key(run_id))
        if live is not None and self in live.seen:
            if inputs and inputs[0] is live.given:
                return  # the same event once more: a user's list has this handler twice
            close_unfinished([live], "the same run id was started again")
            live = None
        if live is None:
            live = _begin(kind, inputs, serialized, run_id, event)
        live.seen.append(self)
        reached._join(live)

    def _join(self, live: Run) -> None:
        """Add what this handler knows: its session if that is the innermost, its tags, who wants the id."""
        if self.tags:
            live.call.tags += tuple(tag for tag in self.tags if tag not in live.call.tags)
        if self.on_id is not None:
            loop = asyncio._get_running_loop()
            live.callbacks.append(IdCallback(self.on_id, contextvars.copy_context(), loop))
        if self.owner is None:
            return
        around = live.entry
        if around is None or not (around.is_in(self) or around.owner.is_within(self.owner)):
            self._own(live, self.owner)
        entry: Handler | None = self
        while entry is not None:
            if entry.owner is not None and (entry is self or entry.open):
                entry.owner.gather(live.handle)
            entry = entry.outer

    def _own(self, live: Run, owner: Owner) -> None:
        live.entry, live.owner = self, owner
        scope = live.call.scope = owner.scope
        live.call.destination = scope.destination
        handle = live.handle
        handle._destination, handle.capture, handle._dropped = scope.destination, scope.capture, not owner.sampled


def _begin(kind: Kind, inputs: Any, serialized: Any, run_id: UUID, event: dict[str, Any]) -> Run:
    given = inputs[0] if kind == "chat" and inputs else inputs
    runtime = _runtime.nearby()
    key = _key(run_id)
    handle = Request(_own_id(run_id, key), destination=runtime.fingerprint, capture=runtime.settings.capture)
    started_at = time.time()
    call = Call(
        handle=handle,
        run_id=run_id,
        kind=kind,
        parent_run_id=event.get("parent_run_id"),
        destination=runtime.fingerprint,
        langchain_tags=tuple(event.get("tags") or ()),
        langchain_metadata=parameters.snap_metadata(event.get("metadata")),
        serialized_name=_class_path(serialized),
        inputs=tuple(map(messages.snap, given)) if kind == "chat" else tuple(given),
        parameters=parameters.snap_parameters(event.get("invocation_params")),
        link=link_of(given, kind),
        started_at=started_at,
    )
    live = Run(key, handle, call, inputs[0] if inputs else None)
    live.batch = event.get("batch_size") or (event.get("options") or {}).get("batch_size") or 1
    if live.batch > 1:  # LangChain ends its runs together: each took as long as all of them
        call.langchain_metadata.setdefault("batch_size", live.batch)
    if len(_live) >= _LIVE_MOST:
        close_unfinished(list(_live.values())[: _LIVE_MOST // 10], "too many runs without an end")
    if started_at - _looked_at >= _LOOK_EVERY:
        _close_stale(started_at)
    _live[key] = live
    _watch_task(live)
    return live


def _key(run_id: UUID) -> Key:
    return getattr(run_id, "int", run_id)


def _own_id(run_id: UUID, key: Key) -> UUID | str:
    global _used, _used_before
    if key in _used or key in _used_before:
        return new_id()
    if len(_used) >= _USED_MOST:
        _used, _used_before = set(), _used
    _used.add(key)
    return run_id


def _class_path(serialized: Any) -> str:
    try:
        return ".".join(serialized["id"])
    except Exception:  # noqa: BLE001 -- LangChain gives None, or a mapping without a list of names
        return ""


def _has_content(chunk: Any) -> bool:
    # The text may be empty where a stream begins with a tool call or with reasoning.
    message = getattr(chunk, "message", None)
    return bool(message is not None and (message.content or getattr(message, "tool_call_chunks", None)))


# -- an end ---------------------------------------------------------------------------------------------------


def _finish(live: Run) -> None:
    call = live.call
    call.ended_at = time.time()
    if call.result is None and live.arrived is not None:
        call.result = live.arrived.result()
    if live.task is not None:
        _by_task.get(live.task, {}).pop(live.key, None)
    live.handle.finished(call)
    if live.owner is None or live.owner.sampled:
        _runtime.get().record(call, live.callbacks)
    else:
        live.handle.slim()
        _runtime.get().leave_out(live.handle.id, live.callbacks)


def close_unfinished(lives: Iterable[Run], why: str) -> None:
    """Record runs that will get no end as far as they came, as a warning."""
    for live in lives:
        if _live.pop(live.key, None) is live:
            call = live.call
            call.status, call.error_type = "WARNING", "PROVIDER_PARTIAL_RESPONSE"
            call.error_message = why
            _finish(live)


def close_left(owner: Owner) -> None:
    """Close what a session leaves behind that can get no end any more: called when it is left.

    In this thread that is what a failed `generate()` with several prompts left open. In this task it is what a
    timeout inside it cancelled; streams may still be read, and an end may be one turn of the loop late.
    """
    loop = asyncio._get_running_loop()
    task = None if loop is None else asyncio.current_task()
    here = threading.get_ident()
    mine = [live for live in list(_live.values()) if live.owner is owner and live.task is task]
    close_unfinished(
        [live for live in mine if live.batch > 1 and live.thread == here and task is None],
        "a neighbour in the same batch failed; LangChain reports no end for this one",
    )
    given_up = [live for live in mine if task is not None and not live.streams]
    if loop is not None and given_up:
        loop.call_later(_GRACE, _close_given_up, given_up)
    for live in mine:
        if live.call.kind == "chat" and live.thread == here:
            _watch_id(live)


@guarded
def _close_given_up(lives: list[Run]) -> None:
    close_unfinished([live for live in lives if not live.streams], "cancelled before an answer came")


def _close_stale(now: float) -> None:
    """Close what started long ago and never ended; called once in a while."""
    global _looked_at
    _looked_at = now
    before = now - _STALE_AFTER
    close_unfinished([each for each in list(_live.values()) if each.call.started_at < before], "no end within an hour")


def close_all() -> None:
    """Close what is still open when the process ends."""
    close_unfinished(list(_live.values()), "still running when the program ended")


def _watch_task(live: Run) -> None:
    """Notice when the task of a run is over and LangChain said nothing: a cancelled `ainvoke` gets no end."""
    live.thread = threading.get_ident()
    # Completion models do report a cancelled call, and start in a short task of their own.
    if live.call.kind == "llm" or asyncio._get_running_loop() is None:
        return
    task = asyncio.current_task()
    if task is None:
        return
    live.task = task
    runs = _by_task.get(task)
    if runs is None:
        runs = _by_task[task] = {}
        task.add_done_callback(_task_done)
    runs[live.key] = live


@guarded
def _task_done(task: asyncio.Task[Any]) -> None:
    runs = list(_by_task.pop(task, {}).values())
    why = "cancelled before an answer came" if task.cancelled() else "its task ended without an answer"
    close_unfinished([live for live in runs if not live.streams], why)
    for live in runs:
        live.task = None
        _watch_id(live)  # a stream may be read on in another task


def _watch_id(live: Run) -> None:
    """Notice when LangChain has let go of a run's id: then nobody is left who could report an end.

    What we keep of the id from here on is a copy of it.
    """
    call, own = live.call, live.call.run_id
    if live.watch is None and type(own) is UUID:
        live.watch = weakref.ref(own, functools.partial(_let_go, live.key))
        call.run_id = UUID(int=own.int)
        if live.handle._id is own:
            live.handle._id = call.run_id


@guarded
def _let_go(key: Key, watch: weakref.ref[UUID]) -> None:
    live = _live.get(key)
    if live is None or live.watch is not watch:
        return
    if live.arrived is not None or not live.streams:
        close_unfinished([live], _NO_END)
    elif (loop := asyncio._get_running_loop()) is not None:
        # The collector lets go of ids before it closes generators, and those do tell what had arrived.
        loop.call_later(_GRACE, guarded(close_unfinished), [live], _NO_END)


def _forget() -> None:
    """In a forked child: the runs under way belong to the parent."""
    _live.clear()
    _by_task.clear()


_runtime.after_fork.append(_forget)
_runtime.before_close.append(close_all)
messages.on_unknown.append(lambda what: _runtime.nearby().health.warn(what))
