"""The journal in memory: the whole of it where there is no file, else what the file cannot take just now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import select

from ..errors import JournalError
from .inserting import requests_of
from .reading import Reader
from .schema import sessions
from .store import Store


class Memory(Store):
    """Lives as long as this process; the file beside it may not be written, but perhaps read."""

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
                note_rows = [*note_rows, *_about(file, note_rows)]
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
