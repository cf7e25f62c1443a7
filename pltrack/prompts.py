"""The old guide's `promptlayer.prompts`: templates from the registry that link themselves to what they produce.

Pinned versions are fetched once for ever; a label is served from the journal and refreshed behind; what was ever
fetched serves when PromptLayer does not answer. Without a key there is a local registry in the journal.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from . import _registry, _runtime
from ._checks import checked_name, checked_tags, checked_version
from ._plain import plain
from ._session import current_session
from ._settings import Destination
from .errors import PromptError

log = logging.getLogger("pltrack")
_COMMIT_MOST = 72


def get(
    prompt_name: str,
    langchain: bool = True,
    version: int | None = None,
    label: str | None = None,
    *,
    provider: str | None = None,
    model: str | None = None,
    input_variables: Mapping[str, Any] | None = None,
    metadata_filters: Mapping[str, str] | None = None,
    max_age: float = 60.0,
    timeout: float = 5.0,
    fallback: Any = None,
    api_key: str | None = None,
) -> Any:
    """Return a prompt of the registry: a LangChain template, or with `langchain=False` the SDK's dict.

    Args:
        prompt_name: its name.
        langchain: a ChatPromptTemplate or PromptTemplate that links itself to the requests it produces.
        version: this version; fetched once for ever.
        label: the version that this release label points at; neither means the newest.
        provider: what the dict's `llm_kwargs` are made for.
        model: what the dict's `llm_kwargs` are made for.
        input_variables: filled in already: a partial template, or a dict that PromptLayer has rendered.
        metadata_filters: choose among the versions of a dynamic label; asked each time.
        max_age: seconds for which a label is served without asking; older, it is served and refreshed behind.
        timeout: seconds after which PromptLayer counts as silent. Its SDK itself gives up on a connection after
            PROMPTLAYER_HTTP_TIMEOUT (5 s).
        fallback: a template, a text or a blueprint, returned where there would be a PromptError; links nothing.
        api_key: the workspace, where it is not the session's or the configured one.

    Raises PromptNotFoundError when there is no such prompt, PromptError when nothing can be had.
    """
    wanted = _wanted(**_checked(locals()))
    try:
        payload = _registry.get(wanted)
    except PromptError as error:
        return _fallen_back(fallback, langchain, input_variables, wanted, error)
    return _shaped(payload, wanted, langchain, input_variables)


async def aget(
    prompt_name: str,
    langchain: bool = True,
    version: int | None = None,
    label: str | None = None,
    *,
    provider: str | None = None,
    model: str | None = None,
    input_variables: Mapping[str, Any] | None = None,
    metadata_filters: Mapping[str, str] | None = None,
    max_age: float = 60.0,
    timeout: float = 5.0,
    fallback: Any = None,
    api_key: str | None = None,
) -> Any:
    """Do what `get` does without blocking the event loop."""
    wanted = _wanted(**_checked(locals()))
    try:
        payload = await _registry.aget(wanted)
    except PromptError as error:
        return await asyncio.to_thread(_fallen_back, fallback, langchain, input_variables, wanted, error)
    return await asyncio.to_thread(_shaped, payload, wanted, langchain, input_variables)


def publish(
    prompt_name: str,
    prompt_template: Any = None,
    *,
    tags: Iterable[str] | None = None,
    labels: Iterable[str] | None = None,
    commit_message: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    timeout: float = 5.0,
) -> dict[str, Any]:
    """Publish a new version and return what the registry says of it: `prompt_name`, `version` and more.

    Args:
        prompt_name: a new name, or that of a prompt which gets a new version.
        prompt_template: a ChatPromptTemplate or PromptTemplate, a Prompt Blueprint, or a text (a completion).
        tags: the prompt's tags.
        labels: release labels to move to this version.
        commit_message: what changed, in 72 characters.
        metadata: `{"model": {"provider": ..., "name": ..., "parameters": {...}}}`.
        timeout: seconds after which PromptLayer counts as silent; it may have published all the same.
    """
    from . import _drafts

    if commit_message is not None and not isinstance(commit_message, str):
        raise TypeError(f"commit_message: expected text, got {type(commit_message).__name__}")
    if commit_message is not None and len(commit_message) > _COMMIT_MOST:
        raise ValueError(f"commit_message: at most {_COMMIT_MOST} characters, got {len(commit_message)}")
    body: dict[str, Any] = {
        "prompt_name": checked_name("prompt_name", prompt_name),
        "prompt_template": _drafts.blueprint("prompt_template", prompt_template),
        "tags": list(checked_tags("tags", tags or ())),
        "release_labels": list(checked_tags("labels", labels or ())),
        "commit_message": commit_message,
        "metadata": plain(dict(_mapping("metadata", metadata))) if metadata is not None else None,
    }
    sent = {key: value for key, value in body.items() if value is not None and value != []}
    return _registry.publish(_destination(None), sent, _seconds("timeout", timeout, least=1e-3))


def all(page: int = 1, per_page: int = 30, label: str | None = None, timeout: float = 5.0) -> list[dict[str, Any]]:
    """Return a page of the registry's prompts as dicts, at the version that `label` points at or the newest."""
    if label is not None:
        checked_name("label", label)
    for argument, number in (("page", page), ("per_page", per_page)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{argument}: expected a whole number from 1, got {type(number).__name__}")
        if number < 1:
            raise ValueError(f"{argument}: expected a whole number from 1, got {number}")
    seconds = _seconds("timeout", timeout, least=1e-3)
    return _registry.all(_destination(None), page, per_page, label, seconds)


# -- arguments ------------------------------------------------------------------------------------------------


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments of `get` that `_wanted` does not."""
    fallback = given.pop("fallback")
    if not isinstance(given["langchain"], bool):
        raise TypeError(f"langchain: expected True or False, got {given['langchain']!r}; versions are `version=`")
    if not (fallback is None or isinstance(fallback, str | Mapping) or hasattr(fallback, "format_prompt")):
        raise TypeError(f"fallback: expected a template, text or a blueprint, got {type(fallback).__name__}")
    for argument in ("provider", "model", "api_key"):
        if given[argument] is not None and not isinstance(given[argument], str):
            raise TypeError(f"{argument}: expected text, got {type(given[argument]).__name__}")
    for argument in ("input_variables", "metadata_filters"):
        if given[argument] is not None:
            _mapping(argument, given[argument])
    return given


def _wanted(
    *,
    prompt_name: str,
    langchain: bool,
    version: int | None,
    label: str | None,
    max_age: float,
    timeout: float,
    api_key: str | None,
    **special: Any,
) -> _registry.Wanted:
    if version is not None and label is not None:
        raise ValueError("version, label: give one of them, not both")
    asked = ("metadata_filters",) if langchain else tuple(special)
    return _registry.Wanted(
        to=_destination(api_key),
        name=checked_name("prompt_name", prompt_name),
        version=None if version is None else checked_version(version),
        label=None if label is None else checked_name("label", label),
        special={key: plain(special[key]) for key in asked if special[key]},
        max_age=_seconds("max_age", max_age),
        timeout=_seconds("timeout", timeout, least=1e-3),
    )


def _destination(api_key: str | None) -> Destination:
    """Return the workspace: the one named here, else the innermost session's, else the configured one."""
    runtime = _runtime.get()
    settings = runtime.settings
    if api_key is not None and api_key.strip():
        return Destination(settings.base_url, api_key.strip())
    session = current_session()
    of_session = runtime.destinations.get(session.scope.destination) if session is not None else None
    return of_session or settings.destination


def _mapping(argument: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{argument}: expected a mapping, got {type(value).__name__}")
    return value


def _seconds(argument: str, value: object, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{argument}: expected seconds, got {type(value).__name__}")
    if not value >= least:
        raise ValueError(f"{argument}: expected {'seconds >= 0' if not least else 'more than 0 seconds'}, got {value}")
    return float(value)


# -- answers --------------------------------------------------------------------------------------------------


def _shaped(
    payload: dict[str, Any],
    wanted: _registry.Wanted,
    langchain: bool,
    variables: Mapping[str, Any] | None,
) -> Any:
    if not langchain:
        return copy.deepcopy(payload)
    from . import _templates

    name = payload.get("prompt_name") or wanted.name
    origin = _templates.Origin(name=name, version=payload["version"], local=not wanted.to.api_key)
    template = _templates.template(payload["prompt_template"], origin)
    return template.partial(**variables) if variables else template


def _fallen_back(
    fallback: Any,
    langchain: bool,
    variables: Mapping[str, Any] | None,
    wanted: _registry.Wanted,
    error: PromptError,
) -> Any:
    if fallback is None:
        raise error
    log.warning("pltrack: the fallback serves, it links nothing: %s", error)
    from . import _drafts, _templates

    if not langchain:
        if isinstance(fallback, Mapping) and "prompt_template" in fallback:
            return copy.deepcopy(dict(fallback))
        blueprint = _drafts.blueprint("fallback", fallback)
        return {"prompt_name": wanted.name, "version": None, "prompt_template": blueprint}
    if isinstance(fallback, str | Mapping):
        fallback = _templates.template(_drafts.blueprint("fallback", fallback), None)
    return fallback.partial(**variables) if variables else fallback
