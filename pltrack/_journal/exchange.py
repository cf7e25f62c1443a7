"""What a journal does with a hub: batches go out under a lease, what became of them comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from . import statements as sql
from .reading import Outcome, Reader
from .schema import sessions


class Batch(NamedTuple):
    """What is handed over to the hub at once."""

    sessions: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    notes: list[dict[str, Any]]
    full: bool  # there may be more


class Exchange(Reader):
    """The journal as the way to the hub uses it."""

    def outgoing(self, owner: str, limit: int, patience: float) -> Batch:
        """Take a batch for the hub under a lease: requests, and notes when no request is left behind."""
        asked = {"me": owner, "patience": patience, "most": limit}
        with self._writing() as db:
            rows = [dict(row) for row in db.execute(sql.OUTGOING_REQUESTS, asked).mappings()]
            payloads = dict(db.execute(sql.BODIES, {"seqs": [row["seq"] for row in rows]}).all()) if rows else {}
            for row in rows:
                row["payload"] = payloads.get(row["seq"], b"{}")
            full = len(rows) >= limit
            said = [] if full else [dict(row) for row in db.execute(sql.OUTGOING_NOTES, asked).mappings()]
            roots = {row["root"] for row in rows if row["root"]}
            known = db.execute(select(sessions).where(sessions.c.root.in_(roots))).mappings() if roots else ()
            around = [dict(row) for row in known]
        in_order = sorted(rows, key=_seq), sorted(said, key=_seq)
        return Batch(around, *in_order, full or len(said) >= limit)

    def handed_over(self, batch: Batch) -> None:
        """Write down that the hub has a batch."""
        self._mark(sql.HANDED_OVER, batch)

    def put_back(self, batch: Batch) -> None:
        """Free a batch that the hub did not get."""
        self._mark(sql.PUT_BACK, batch)

    def _mark(self, statements: Sequence[Any], batch: Batch) -> None:
        with self._writing() as db:
            for statement, rows in zip(statements, (batch.requests, batch.notes), strict=True):
                if rows:
                    db.execute(statement, [{"a_seq": row["seq"]} for row in rows])

    def brought_back(self, outcomes: Sequence[Outcome]) -> None:
        """Write down what the hub knows of requests that were handed over."""
        rows = [{"an_id": o.id, "new_state": o.state, "new_id": o.pl_id, "why": o.reason} for o in outcomes]
        if rows:
            with self._writing() as db:
                db.execute(sql.BROUGHT_BACK, rows)


def _seq(row: Mapping[str, Any]) -> int:
    return int(row["seq"])
