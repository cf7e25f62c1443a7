"""Checks of what users say: at the call, naming the argument, what came and what is allowed."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex, cast

from ._plain import attempt, plain, text

_NAME_MOST = 512
_KEY_MOST = 1024


def score_payload(score: object, name: object = None) -> dict[str, Any]:
    """Check a score and its name."""
    if isinstance(score, bool | float) or not hasattr(type(score), "__index__"):
        raise TypeError(f"score: expected a whole number from 0 to 100, got {_shown(score)}")
    number = operator.index(cast("SupportsIndex", score))
    if not 0 <= number <= 100:
        raise ValueError(f"score: expected a whole number from 0 to 100, got {number}")
    return {"score": number} | ({} if name is None else {"name": checked_name("name", name)})


def metadata_payload(metadata: object, more: Mapping[str, Any]) -> dict[str, Any] | None:
    """Check metadata and turn its values to text; None when there is nothing left to say."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata: expected a mapping of names to values, got {_shown(metadata)}")
    said = checked_metadata("metadata", {**(metadata or {}), **more})
    return {"metadata": said} if said else None


def checked_metadata(argument: str, values: Mapping[Any, Any]) -> dict[str, str]:
    """Return metadata as text by text; None drops a key, containers are refused."""
    said: dict[str, str] = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise TypeError(f"{argument}: keys are text, got {_shown(key)}")
        if not 0 < len(key) <= _KEY_MOST:
            raise ValueError(f"{argument}: a key has 1 to {_KEY_MOST} characters, got {len(key)}")
        if _is_container(value):
            raise TypeError(f"{argument}[{key!r}]: expected a single value, got {type(value).__name__}")
        if value is not None:
            said[key] = value if type(value) is str else text(value)
    return said


def _is_container(value: object) -> bool:
    # By its type: `isinstance` asks the value itself, which may raise.
    kinds = (Mapping, list, tuple, set, frozenset, bytes, bytearray)
    return type(value) is not str and attempt(lambda: issubclass(type(value), kinds), False)


def link_payload(name: object, variables: object, version: object, label: object) -> dict[str, Any]:
    """Check a prompt link."""
    payload: dict[str, Any] = {"prompt_name": checked_name("name", name)}
    if variables is not None and not isinstance(variables, Mapping):
        raise TypeError(f"variables: expected a mapping of names to values, got {_shown(variables)}")
    payload["prompt_input_variables"] = plain(dict(variables or {}))
    if version is not None and label is not None:
        raise ValueError("version, label: give one of them, not both")
    if version is not None:
        payload["version"] = checked_version(version)
    if label is not None:
        payload["label"] = checked_name("label", label)
    return payload


def checked_version(version: object) -> int:
    """Check the version number of a prompt."""
    if isinstance(version, bool | float) or not hasattr(version, "__index__"):
        raise TypeError(f"version: expected a whole number from 1, got {_shown(version)}")
    number = operator.index(version)
    if number < 1:
        raise ValueError(f"version: expected a whole number from 1, got {number}")
    return number


def checked_name(argument: str, name: object) -> str:
    """Check a name of 1 to 512 characters."""
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected text, got {_shown(name)}")
    if not 0 < len(name) <= _NAME_MOST:
        raise ValueError(f"{argument}: expected 1 to {_NAME_MOST} characters, got {len(name)}")
    return name


def _shown(value: object) -> str:
    shown = repr(value) if isinstance(value, str | int | float | bool | type(None)) else ""
    return f"{type(value).__name__} {shown[:60]}".rstrip()


def checked_tags(argument: str, tags: object) -> tuple[str, ...]:
    """Check tags: several texts, never one text that would be taken for its letters."""
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise TypeError(f"{argument}: expected several tags such as ['prod'], got {type(tags).__name__}")
    found = tuple(tags)
    for tag in found:
        checked_name(f"{argument}[...]", tag)
    return found


def checked_text(argument: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected text, got {type(value).__name__}")
    return value


def checked_seconds(value: object) -> float:
    """Return a time to wait."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"timeout: expected seconds >= 0, got {value!r}")
    return float(value)
