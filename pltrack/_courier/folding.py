"""What goes inside a request's own call, so that four exchanges become one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import orjson

from .._journal.store import ClaimedNote
from .._records import Noted

PATHS = {
    Noted.SCORE: "/rest/track-score",
    Noted.METADATA: "/rest/track-metadata",
    Noted.PROMPT: "/rest/track-prompt",
}
_LINK_FIELDS = ("prompt_name", "prompt_version_number", "prompt_input_variables")


class Folded(NamedTuple):
    """A body to send, and the notes that it carries."""

    body: bytes
    notes: tuple[int, ...]


def fold(payload: bytes, notes: Sequence[ClaimedNote], allowed: Collection[str]) -> Folded:
    """Put into a request's body what it has room for: all metadata, one prompt link, one plain score."""
    if not notes:  # the most frequent case, and parsing costs as much as sending
        return Folded(payload, ())
    body = orjson.loads(payload)
    carried: list[int] = []
    for kind, carry in (("metadata", _metadata), ("prompt", _prompt), ("score", _score)):
        said = [note for note in notes if note.kind == kind]
        if kind in allowed and said:
            carried += carry(body, said)
    return Folded(orjson.dumps(body), tuple(sorted(carried)))


def note_call(note: ClaimedNote) -> tuple[str, bytes]:
    """Return path and body of a note's own call."""
    body = orjson.loads(note.payload) | {"request_id": note.pl_id}
    return PATHS[Noted(note.kind)], orjson.dumps(body)


def is_linked(body: bytes) -> bool:
    """Tell whether a body carries a prompt link."""
    return b'"prompt_name":' in body and bool(orjson.loads(body).get("prompt_name"))


def link_of(body: bytes) -> str:
    """Return the prompt link that a body carries, as a note would say it."""
    found = orjson.loads(body)
    link = {"prompt_name": found["prompt_name"], "prompt_input_variables": found.get("prompt_input_variables") or {}}
    if (version := found.get("prompt_version_number")) is not None:
        link["version"] = version
    return orjson.dumps(link).decode()


def unlinked(body: bytes) -> bytes:
    """Return `body` without its prompt link."""
    return orjson.dumps({key: value for key, value in orjson.loads(body).items() if key not in _LINK_FIELDS})


def _metadata(body: dict[str, Any], notes: Sequence[ClaimedNote]) -> list[int]:
    for note in notes:
        body["metadata"] = {**body.get("metadata", {}), **orjson.loads(note.payload)["metadata"]}
    return [note.seq for note in notes]


def _prompt(body: dict[str, Any], notes: Sequence[ClaimedNote]) -> list[int]:
    # A label has no field in the call, and of several links the last one holds: then each goes by itself, in order.
    link = orjson.loads(notes[0].payload)
    if len(notes) > 1 or "label" in link or "version" not in link:
        return []
    body["prompt_name"] = link["prompt_name"]
    body["prompt_version_number"] = link["version"]
    body["prompt_input_variables"] = link["prompt_input_variables"]
    return [notes[0].seq]


def _score(body: dict[str, Any], notes: Sequence[ClaimedNote]) -> list[int]:
    plain = [note for note in notes if "name" not in orjson.loads(note.payload)]
    # 0 at log time means "no score", and two scores need an order: then each goes by itself.
    if len(plain) != 1 or (score := orjson.loads(plain[0].payload)["score"]) == 0:
        return []
    body["score"] = score
    return [plain[0].seq]
