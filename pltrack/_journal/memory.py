"""The journal in memory: the whole of it where there is no file, else what the file cannot take just now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import select

from .._records import State
from ..errors import JournalError
from .inserting import requests_of
from .reading import Reader
from .schema import notes, requests, sessions
from .store import Store


class Memory(Store):
    """Lives as long as this process; the file beside it may not be written, but perhaps read."""

    @property
    def knows_all(self) -> bool:  # type: ignore[override]
        """Tell whether there is no file: what is not here may be there, with earlier notes that come first."""
        return self.beside() is None

    def write(
        self,
        session_rows: Sequence[Mapping[str, Any]],
        request_rows: Sequence[dict[str, Any]],
        note_rows: Sequence[Mapping[str, Any]],
        ended_roots: Sequence[str] = (),
    ) -> dict[str, str]:
        """Put a group of records here, with what the file knows of their sessions."""
        file = self.beside()
        if file is not None and not self.forwards:
            with suppress(JournalError):
                started = {row["id"] for row in session_rows}
                roots = {row["root"] for row in request_rows if row["root"]} - started
                session_rows = [*_around(file, roots - self._known(roots)), *session_rows]
                note_rows = _addressed(file, [*note_rows, *_about(file, note_rows)])
        return super().write(session_rows, request_rows, note_rows, ended_roots)

    def _known(self, ids: set[str]) -> set[str]:
        with self._reading() as db:
            return set(db.scalars(select(sessions.c.id).where(sessions.c.id.in_(ids))))


def _around(file: Reader, roots: set[str]) -> list[dict[str, Any]]:
    """Return whole trees of sessions."""
    if not roots:
        return []
    with file._reading() as db:
        return [dict(row) for row in db.execute(select(sessions).where(sessions.c.root.in_(roots))).mappings()]


def _about(file: Reader, note_rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what is said of whole sessions as notes about their requests in the file, which it is to get later."""
    found: list[dict[str, Any]] = []
    for row in note_rows:
        if row["session_id"] is not None:
            with file._reading() as db:
                ids = requests_of(db, row["session_id"], row["kind"])
            found += [{**row, "session_id": None, "request_id": each, "id": f"{row['id']}/{each}"} for each in ids]
    return found


def _addressed(file: Reader, note_rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Let notes go to requests that the file knows as delivered, unless an earlier note is still to come from there."""
    ids = {row["request_id"] for row in note_rows if row["request_id"] and row["pl_id"] is None}
    if not ids:
        return list(note_rows)
    settled = notes.c.state.in_([State.DELIVERED, State.FAILED])
    earlier = select(notes.c.seq).where(notes.c.request_id == requests.c.id, ~settled).exists()
    columns = requests.c.id, requests.c.pl_id, requests.c.destination
    there = select(*columns).where(requests.c.id.in_(ids), requests.c.state == State.DELIVERED, ~earlier)
    with file._reading() as db:
        known = {row.id: {"pl_id": row.pl_id, "destination": row.destination} for row in db.execute(there)}
    return [{**row, **known.get(row["request_id"], {})} for row in note_rows]
