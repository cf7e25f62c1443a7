"""The old guide's `promptlayer.track`: what can be said about a request, by PromptLayer's id or by ours.

Each function checks its arguments, puts the word into the journal and returns True; none waits for the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._request import request


def score(request_id: int | str, score: int, score_name: str | None = None, *, name: str | None = None) -> bool:
    """Give a request a score from 0 to 100; `name` is another word for `score_name`."""
    if name is not None and score_name is not None and name != score_name:
        raise ValueError("name, score_name: they mean the same, give one of them")
    request(request_id).score(score, name=name if score_name is None else score_name)
    return True


def metadata(request_id: int | str, metadata: Mapping[str, Any]) -> bool:
    """Add metadata to a request; a key given again replaces its value."""
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata: expected a mapping of names to values, got {type(metadata).__name__}")
    request(request_id).metadata(metadata)
    return True


def prompt(
    request_id: int | str,
    prompt_name: str,
    prompt_input_variables: Mapping[str, Any] | None = None,
    version: int | None = None,
    label: str | None = None,
) -> bool:
    """Link a request to a version (or label) of a prompt in the registry; neither means the newest version."""
    request(request_id).link_prompt(prompt_name, prompt_input_variables, version=version, label=label)
    return True
