"""The prompt registry: what the journal has, what PromptLayer is asked for, what serves when it does not answer."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from . import _runtime, _sdk
from ._journal.prompts import LOCAL, NEWEST, PromptStore
from ._settings import Destination
from .errors import JournalError, PromptError, PromptNotFoundError

log = logging.getLogger("pltrack")
Payload = dict[str, Any]
_LONGEST = 10.0  # seconds that a fetch may go on behind a caller who gave up earlier: it still fills the journal
_PAUSE = 5.0  # seconds after a failed refresh before the next one


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A prompt that was asked for; `special` parameters make the answer one that is not kept."""

    to: Destination
    name: str
    version: int | None = None
    label: str | None = None
    special: Mapping[str, Any] = field(default_factory=dict)
    max_age: float = 60.0
    timeout: float = 5.0

    @property
    def pointer(self) -> str:
        """The label to follow where no version is given."""
        return self.label or NEWEST

    @property
    def params(self) -> dict[str, Any]:
        """What PromptLayer is asked."""
        named = {"version": self.version, "label": self.label}
        return {key: value for key, value in named.items() if value is not None} | dict(self.special)

    def __str__(self) -> str:
        which = f" version {self.version}" if self.version else f" label {self.label!r}" if self.label else ""
        return f"the prompt {self.name!r}{which}"


def get(wanted: Wanted) -> Payload:
    """Return a prompt as the SDK would, unrendered; block for `timeout` seconds at most."""
    found = _begin(wanted)
    if not isinstance(found, Future):
        return found
    try:
        return _sdk.result(found, wanted.timeout)
    except PromptError as error:
        return _instead(wanted, error)


async def aget(wanted: Wanted) -> Payload:
    """Do what `get` does without blocking the event loop, and without a thread while PromptLayer is asked."""
    found = await asyncio.to_thread(_begin, wanted)
    if not isinstance(found, Future):
        return found
    try:
        return await _sdk.awaited(found, wanted.timeout)
    except PromptError as error:
        return await asyncio.to_thread(_instead, wanted, error)


# -- decisions ------------------------------------------------------------------------------------------------


def _begin(wanted: Wanted) -> Payload | Future[Payload]:
    """Return what serves at once, or what PromptLayer is being asked."""
    kept = None
    if not wanted.special:
        with _forgiving(wanted):
            kept = _kept(wanted)
    if not wanted.to.api_key:
        local = kept if kept is not None else _kept(wanted)
        if local is None:
            raise PromptNotFoundError(f"{wanted} is not in the local registry (there is no PromptLayer key)")
        return _rendered(wanted, local)
    return kept if kept is not None else _fetch(wanted)


def _kept(wanted: Wanted) -> Payload | None:
    store, here = prompts_of(wanted.to), wanted.to.fingerprint
    if store is None:
        return None
    if wanted.version is not None:
        return store.version(here, wanted.name, wanted.version)
    found = store.label(here, wanted.name, wanted.pointer)
    if found is None:
        return None
    if here != LOCAL:
        if not found.fetched_at or not wanted.max_age:
            return None
        if not 0 <= time.time() - found.fetched_at < wanted.max_age:
            _refresh(wanted)
    return found.payload


def _fetch(wanted: Wanted) -> Future[Payload]:
    async def job() -> Payload:
        payload = await _sdk.fetch(wanted.to, wanted.name, wanted.params)
        if not wanted.special:
            with _forgiving(wanted):
                _keep(wanted, payload)
        return payload

    limit = max(wanted.timeout, _LONGEST)
    if wanted.special:
        return _sdk.submit(job, limit)
    return _sdk.share((wanted.to, wanted.name, wanted.version, wanted.label), job, limit)


def _keep(wanted: Wanted, payload: Payload) -> None:
    store = prompts_of(wanted.to)
    if store is not None:
        label = wanted.pointer if wanted.version is None else None
        store.keep(wanted.to.fingerprint, wanted.name, payload, label, time.time())


def _instead(wanted: Wanted, error: PromptError) -> Payload:
    """Return what was ever fetched, unless PromptLayer says that there is no such prompt."""
    if isinstance(error, PromptNotFoundError):
        raise PromptNotFoundError(f"{wanted} was not found: {error}") from error
    known: Payload | None = None
    with _forgiving(wanted):
        known = _ever_kept(wanted)
    if known is None:
        raise PromptError(f"{wanted} could not be fetched, and it never was before: {error}") from error
    _say(wanted, error)
    return _rendered(wanted, known)


def _rendered(wanted: Wanted, payload: Payload) -> Payload:
    """Fill in what PromptLayer would have filled in."""
    variables = wanted.special.get("input_variables")
    if variables is None:
        return payload
    from promptlayer.template_cache import render_response

    rendered: Payload = render_response(payload, dict(variables))
    return rendered


def _ever_kept(wanted: Wanted) -> Payload | None:
    store, here = prompts_of(wanted.to), wanted.to.fingerprint
    if store is None:
        return None
    if wanted.version is not None:
        return store.version(here, wanted.name, wanted.version)
    found = store.label(here, wanted.name, wanted.pointer)
    if found is not None:
        return found.payload
    return store.newest(here, wanted.name) if wanted.label is None else None


# -- refreshing behind ----------------------------------------------------------------------------------------

_lock = threading.Lock()
_failed: dict[tuple[object, ...], tuple[float, str]] = {}  # when a refresh failed last, and its words


def _refresh(wanted: Wanted) -> None:
    """Ask again for what a label points at, behind the caller's back."""
    last = _failed.get(_key(wanted))
    if last is None or time.monotonic() - last[0] > _PAUSE:
        _fetch(wanted).add_done_callback(lambda done: _refreshed(wanted, done.exception()))


def _refreshed(wanted: Wanted, error: BaseException | None) -> None:
    if error is None:
        _failed.pop(_key(wanted), None)
    elif isinstance(error, PromptNotFoundError):
        with _forgiving(wanted):  # asked for in earnest the next time, so that the caller hears of it
            store = prompts_of(wanted.to)
            if store is not None:
                store.distrust(wanted.to.fingerprint, wanted.name, [wanted.pointer])
    else:
        _say(wanted, error)


def _say(wanted: Wanted, error: BaseException) -> None:
    """Say once per cause that an old version serves."""
    words = str(error) or type(error).__name__
    with _lock:
        last = _failed.get(_key(wanted))
        if len(_failed) > 1_000:
            _failed.clear()
        _failed[_key(wanted)] = (time.monotonic(), words)
    if last is None or last[1] != words:
        log.warning("pltrack: %s serves as it was last fetched, it could not be refreshed: %s", wanted, words)


def _key(wanted: Wanted) -> tuple[object, ...]:
    return (wanted.to, wanted.name, wanted.version, wanted.label)


# -- publishing and listing -----------------------------------------------------------------------------------


def publish(to: Destination, body: Mapping[str, Any], timeout: float) -> Payload:
    """Publish a version, to PromptLayer or without a key to the local registry."""
    name, labels = body["prompt_name"], body.get("release_labels") or []
    if not to.api_key:
        return _local().publish(name, lambda version: _as_fetched(body, version), labels, time.time())
    future = _sdk.submit(lambda: _sdk.publish(to, body), timeout)
    try:
        answer = _sdk.result(future, timeout)
    except PromptError as error:
        raise type(error)(f"the prompt {name!r} could not be published for certain: {error}") from error
    store = prompts_of(to)
    if store is not None:
        with _forgiving(name):
            store.distrust(to.fingerprint, name, [NEWEST, *labels])
    return answer | {"version": answer.get("version_number", answer.get("version"))}


def all(to: Destination, page: int, per_page: int, label: str | None, timeout: float) -> list[Payload]:
    """Return a page of the prompts, at the version that the label points at."""
    if not to.api_key:
        return _local().all(LOCAL, label or NEWEST, limit=per_page, offset=(page - 1) * per_page)
    future = _sdk.submit(lambda: _sdk.list_all(to, page, per_page, label), timeout)
    return _sdk.result(future, timeout)


def _as_fetched(body: Mapping[str, Any], version: int) -> Payload:
    return {
        "id": None,
        "prompt_name": body["prompt_name"],
        "version": version,
        "prompt_template": body["prompt_template"],
        "tags": body.get("tags") or [],
        "release_labels": body.get("release_labels") or [],
        "commit_message": body.get("commit_message"),
        "metadata": body.get("metadata"),
        "llm_kwargs": None,
        "snippets": [],
    }


# -- the journal ----------------------------------------------------------------------------------------------


def prompts_of(to: Destination) -> PromptStore | None:
    """Return where prompts are kept; nowhere while pltrack is disabled, except the local registry."""
    return _local() if _runtime.is_enabled() or not to.api_key else None


def _local() -> PromptStore:
    return PromptStore(_runtime.get().lane.store())


@contextmanager
def _forgiving(what: object) -> Iterator[None]:
    """Let a journal that cannot be used cost the cache only."""
    try:
        yield
    except JournalError as error:
        _runtime.get().fault(f"the cache of {what}", error)
