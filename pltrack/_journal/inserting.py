"""From rows to the journal: requests with their bodies, notes about them, ids that are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, String, Table, cast, literal, select
from sqlalchemy.dialects.sqlite import insert

from .._records import new_id
from . import counting
from . import statements as sql
from .exchange import Exchange
from .schema import bodies, notes, requests, sessions


class Inserting(Exchange):
    """The journal as the writer uses it."""

    def write(
        self,
        session_rows: Sequence[Mapping[str, Any]],
        request_rows: Sequence[dict[str, Any]],
        note_rows: Sequence[Mapping[str, Any]],
        ended_roots: Sequence[str] = (),
    ) -> dict[str, str]:
        """Put a group of records on disk in one commit; return the new ids of those whose id was taken."""
        renamed: dict[str, str] = {}
        with self._writing() as db:
            # Only what has notes in it needs to be looked at again to be counted.
            since = counting.marks(db) if note_rows or counting.any_orphans(db) else None
            if session_rows:
                self._put(db, sessions, session_rows)
            if request_rows:
                request_rows, renamed = self._insert_requests(db, request_rows)
            if note_rows:
                self._insert_notes(db, note_rows)
            if since is not None:
                counting.inserted(db, since)
            elif request_rows:
                counting.inserted_requests(db, request_rows)
            if ended_roots:
                db.execute(sql.HURRY_ROOTS, [{"a_root": root} for root in ended_roots])
        return renamed

    def _insert_requests(
        self, db: Connection, rows: Sequence[dict[str, Any]]
    ) -> tuple[Sequence[dict[str, Any]], dict[str, str]]:
        """Insert requests with their bodies; return them, and the new ids of those whose id another request has."""
        for seq, row in zip(self._next_seqs(db, len(rows)), rows, strict=True):
            row["seq"] = seq
        renamed: dict[str, str] = {}
        if self._put(db, requests, rows) != len(rows):
            taken = _refused(db, rows)
            rows = [row for row in rows if row["id"] not in taken or not _is_same(row, taken[row["id"]])]
            again = [row for row in rows if row["id"] in taken]
            renamed = {row["id"]: _give_new_id(row) for row in again}
            if again:
                self._put(db, requests, again)
        if rows:
            self._put(db, bodies, rows)
        return rows, renamed

    def _insert_notes(self, db: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        expanded: list[Mapping[str, Any]] = []
        for row in rows:
            if row["session_id"] is None or self.forwards:
                expanded.append(row)
            else:
                ids = requests_of(db, row["session_id"], row["kind"])
                expanded.extend({**row, "request_id": each, "id": f"{row['id']}/{each}"} for each in ids)
        if expanded:
            self._hold(db, [row["request_id"] for row in expanded if row["request_id"]])
            statement = self._insert(notes).values(**sql.NOTE_VALUES).on_conflict_do_nothing(index_elements=["id"])
            db.execute(statement, expanded)
            if links := [_link(row) for row in expanded if row["kind"] == "prompt"]:
                db.execute(sql.LINKED_BY_HAND, links)

    # -- what SQLite and PostgreSQL do in different ways ---------------------------------------------------

    _insert: Callable[[Any], Any] = staticmethod(insert)
    forwards = False  # whether a hub gets what is written here

    def _put(self, db: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert rows, leaving out those that are there; return how many were not."""
        text = sql.DRIVER_INSERTS.get(table.name)
        if text is not None:
            return db.exec_driver_sql(text, list(rows)).rowcount
        return db.execute(insert(table).on_conflict_do_nothing(), list(rows)).rowcount

    def _next_seqs(self, db: Connection, count: int) -> Iterable[int]:
        last = int(db.exec_driver_sql(sql.LAST_SEQ).scalar_one())  # nobody else writes in this transaction
        return range(last + 1, last + count + 1)

    def _hold(self, db: Connection, ids: Sequence[str]) -> None:
        """Keep requests from changing until the notes about them are in: here nobody else writes anyway."""


def _refused(db: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the rows that have the ids of those that were not inserted."""
    seqs = {row["seq"] for row in rows}
    known: list[Any] = []
    for start in range(0, len(rows), 500):
        ids = [row["id"] for row in rows[start : start + 500]]
        columns = (requests.c.id, requests.c.seq, requests.c.owner, requests.c.started_at)
        known += db.execute(select(*columns).where(requests.c.id.in_(ids))).all()
    return {row.id: row for row in known if row.seq not in seqs}


def _is_same(row: Mapping[str, Any], known: Any) -> bool:
    """Tell whether a row was put here before: a batch whose answer got lost is forwarded again."""
    return bool(known.owner == row["owner"] and known.started_at == row["started_at"])


def _link(note: Mapping[str, Any]) -> dict[str, Any]:
    said = orjson.loads(note["payload"])
    return {"an_id": note["request_id"], "prompt": said.get("prompt_name"), "version": said.get("version")}


def _give_new_id(row: dict[str, Any]) -> str:
    body = orjson.loads(row["payload"])
    row["id"] = body["metadata"]["pltrack_id"] = new_id()
    row["payload"] = orjson.dumps(body)
    return str(row["id"])


def requests_of(db: Connection, session_id: str, kind: str) -> list[str]:
    """Return the ids of the requests of a session and the sessions nested in it that `kind` may speak about."""
    tree = select(cast(literal(session_id), String).label("id")).cte("tree", recursive=True)
    tree = tree.union(select(sessions.c.id).where(sessions.c.parent == tree.c.id))
    statement = select(requests.c.id).where(requests.c.session_id.in_(select(tree.c.id)))
    if kind != "metadata":
        statement = statement.where(requests.c.status != "ERROR")
    if kind == "prompt":
        statement = statement.where(requests.c.linked == 0)
    return list(db.scalars(statement.order_by(requests.c.seq)))
