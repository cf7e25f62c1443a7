"""What a million rows in the journal cost: each step of a row's life beside the same step on a small journal.

Usage for every step alone: python benchmarks/rows.py [most rows, default 1000000] [kind ...]
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rig import Team
from table import Goal, Row

from pltrack._journal.schema import requests
from pltrack._journal.store import Delivered, Store

ROUNDS = 30
GROUP = 50
HERE, ME = "a-destination", "me"
# What the rows that are there already are: nothing of it may cost what is done with the new ones.
KINDS = {
    "delivered": {"state": "delivered", "destination": HERE, "owner": "other", "note": "delivered"},
    "no key": {"state": "pending", "destination": "", "owner": ME, "note": "waiting"},
    "other destination": {"state": "pending", "destination": "elsewhere", "owner": "other", "note": "pending"},
    "backlog": {"state": "pending", "destination": HERE, "owner": ME, "note": "pending"},
}
COLUMNS = (
    "id", "session_id", "root", "owner", "destination", "state", "due_at", "pl_id", "kind", "provider", "model",
    "status", "started_at", "ended_at", "app", "attempts", "uncertain", "linked", "cache_hit", "tags",
)  # fmt: skip
REQUESTS = f"""
with recursive n(i) as (select 1 union all select i + 1 from n where i < :rows)
insert into requests ({", ".join(COLUMNS)})
select printf('%032x', i), printf('s%031x', i / 4), printf('s%031x', i / 4), :owner, :destination, :state,
  :now + 900 - :rows + i, case when :state = 'delivered' then i end, 'chat', 'openai', 'gpt-5', 'SUCCESS',
  :now - :rows + i, :now - :rows + i + 1, 'app', 0, 0, 0, 0, '[]' from n
"""
BODIES = "insert into bodies select seq, zeroblob(300) from requests"
NOTES = """
insert into notes (id, request_id, pl_id, kind, payload, owner, destination, state, due_at, attempts, created_at)
select 'note-' || id, id, seq, 'score', '{"score": 90}', owner, destination, :note, due_at, 0, ended_at
from requests where seq % 10 = 0
"""
COUNTS = [
    f"insert into counts select '{table}', destination, state, count(*) from {table} group by destination, state"
    for table in ("requests", "notes")
]


HOT = ("write", "claim", "mark delivered")


def measure(_: Team, quick: bool) -> list[Row]:
    """Measure what every delivered call needs, with few rows and with many, in turns."""
    most, rows = 100_000 if quick else 1_000_000, []
    for kind in ("delivered", "backlog"):
        small, large = (sum(taken[name] for name in HOT) for taken in compared([1_000, most], kind))
        words = {"pltrack": f"{large / small:.2f} x ({large:.1f} ms for {GROUP})"}
        what = f"write, claim and mark with {most:,} rows ({kind}), by 1,000"
        rows.append(Row(what, "x", {"pltrack": large / small}, Goal(1.5), words=words))
    return rows


def main() -> None:
    """Print, for each kind of journal and each step, the cost at each size as a ratio to the smallest."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    sizes = [size for size in (1_000, 100_000, 1_000_000) if size < most] + [most]
    for kind in sys.argv[2:] or KINDS:
        print(f"\n{kind}: milliseconds per step with {', '.join(map(str, sizes))} rows, and the last by the first")
        measured = compared(sizes, kind)
        for step in measured[0]:
            values = [each[step] for each in measured]
            print(f"  {step:24} {'  '.join(f'{value:9.3f}' for value in values)}   x {values[-1] / values[0]:.2f}")


def compared(sizes: list[int], kind: str) -> list[dict[str, float]]:
    """Return what each step takes on journals of these sizes, in milliseconds: medians of many turns."""
    taken: list[dict[str, list[float]]] = [{} for _ in sizes]
    with tempfile.TemporaryDirectory(prefix="pltrack-bench-") as folder:
        stores = [build(Path(folder) / f"{size}.db", size, KINDS[kind]) for size in sizes]
        for number in range(ROUNDS):
            for store, found in zip(stores, taken, strict=True):
                gc.collect()
                for name, step in steps(store, number):
                    started = time.thread_time()  # without what other programs of a busy machine take
                    step()
                    found.setdefault(name, []).append((time.thread_time() - started) * 1000)
        for store in stores:
            store.close()
    return [{name: statistics.median(values) for name, values in found.items()} for found in taken]


def build(path: Path, rows: int, kind: dict[str, str]) -> Store:
    """Make a journal with so many rows of one kind, a tenth of them with a note."""
    Store.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        values = {**kind, "rows": rows, "now": time.time() - 1000}
        db.execute("pragma synchronous = off")
        db.execute("begin")
        for statement in (REQUESTS, BODIES, NOTES, *COUNTS):
            db.execute(statement, values)
        db.execute("commit")
        db.execute("pragma wal_checkpoint(truncate)")
    return Store.open(path)


def steps(store: Store, number: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Take one group of requests through its life."""
    now = time.time()
    rows = [new_row(f"new-{number}-{each}", now) for each in range(GROUP)]
    notes = [new_note(row["id"], now) for row in rows[:5]]
    claimed: list[Any] = []
    yield "write", lambda: store.write([], rows, notes, [f"root-{number}"])
    yield "next due", lambda: store.next_due([HERE], ME, 5.0)
    yield "claim", lambda: claimed.extend(store.claim([HERE], ME, GROUP, 5.0))
    yield "mark delivered", lambda: store.delivered([Delivered(row, row.seq) for row in claimed])
    yield "claim notes", lambda: store.claim_notes([HERE], ME, GROUP, 5.0)
    yield "expire", store.expire
    yield "marks", store.marks
    yield "hurry", lambda: store.hurry(owner=ME, destination=HERE)
    yield "unsettled", lambda: store.unsettled(ME, store.marks(), [HERE])
    yield "progress", lambda: store.progress(ME, store.marks(), store.marks())
    yield "status", store.totals
    yield "ls", lambda: store.rows(20)
    yield "show", lambda: store.rows(1, "new-0-0")


def new_row(own_id: str, now: float) -> dict[str, Any]:
    """Return a request as the writer makes it."""
    return {
        **{column.name: None for column in requests.columns},
        **{"kind": "chat", "provider": "openai", "model": "gpt-5", "status": "SUCCESS", "app": "app", "tags": "[]"},
        **dict.fromkeys(("attempts", "uncertain", "linked", "cache_hit"), 0),
        **dict.fromkeys(("id", "session_id", "root"), own_id),
        **{"owner": ME, "destination": HERE, "state": "pending", "payload": b"x" * 300},
        **{"due_at": now - 2000, "started_at": now - 1, "ended_at": now},
    }


def new_note(request_id: str, now: float) -> dict[str, Any]:
    """Return a score as the writer makes it."""
    return {
        **{"id": f"note-{request_id}", "request_id": request_id, "pl_id": None, "session_id": None, "kind": "score"},
        **{"payload": '{"score": 90}', "owner": ME, "destination": HERE, "due_at": now, "created_at": now},
    }


if __name__ == "__main__":
    main()
