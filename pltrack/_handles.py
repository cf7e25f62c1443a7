"""Sessions of other processes, by id: handles to speak about them, not scopes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from . import _runtime
from ._checks import checked_name, link_payload, metadata_payload, score_payload
from ._records import Note, Noted


class SessionHandle:
    """A session of any process, by its id: what is said holds for the requests that the journal knows then."""

    def __init__(self, id: str) -> None:
        self.id = checked_name("id", id)

    def __repr__(self) -> str:
        return f"<pltrack.SessionHandle {self.id}>"

    def __enter__(self) -> Self:
        raise TypeError("pltrack.session(id) speaks about an earlier session; did you mean pl_session(id=...)?")

    def __exit__(self, *_: object) -> None:
        """Never reached."""

    __aenter__ = __enter__
    __aexit__ = __exit__

    def score(self, score: int, *, name: str | None = None) -> None:
        """Score its answered requests."""
        self._say(Noted.SCORE, score_payload(score, name))

    def metadata(self, metadata: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Add metadata to its requests."""
        self._say(Noted.METADATA, metadata_payload(metadata, more))

    def link_prompt(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
    ) -> None:
        """Link its answered requests that did not link themselves."""
        self._say(Noted.PROMPT, link_payload(name, variables, version, label))

    def _say(self, kind: Noted, payload: Mapping[str, Any] | None) -> None:
        if payload is not None and _runtime.is_enabled():
            runtime = _runtime.get()
            runtime.put(Note(kind=kind, payload=payload, session_id=self.id, destination=runtime.fingerprint))


def session(id: str) -> SessionHandle:
    """Return a handle for a session of any process by its id."""
    return SessionHandle(id)
