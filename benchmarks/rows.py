"""What a million rows in the journal cost: each step of delivery beside the same step on a small journal.

Usage: python benchmarks/rows.py [most rows, default 1000000] [kind ...]
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
    "status", "started_at", "ended_at", "app", "attempts", "uncertain", "linked", "cache_hit",
)  # fmt: skip
REQUESTS = f"""
with recursive n(i) as (select 1 union all select i + 1 from n where i < :rows)
insert into requests ({", ".join(COLUMNS)})
select printf('%032x', i), printf('s%031x', i / 4), printf('s%031x', i / 4), :owner, :destination, :state,
  :now + 900 - :rows + i, case when :state = 'delivered' then i end, 'chat', 'openai', 'gpt-5', 'SUCCESS',
  :now - :rows + i, :now - :rows + i + 1, 'app', 0, 0, 0, 0 from n
"""
BODIES = "insert into bodies select seq, zeroblob(300) from requests"
NOTES = """
insert into notes (request_id, pl_id, kind, payload, owner, destination, state, due_at, attempts, created_at)
select id, seq, 'score', '{"score": 90}', owner, destination, :note, due_at, 0, ended_at
from requests where seq % 10 = 0
"""
COUNTS = [
    f"insert into counts select '{table}', destination, state, count(*) from {table} group by destination, state"
    for table in ("requests", "notes")
]


def main() -> None:
    """Print, for each kind of journal and each step, the cost at each size as a ratio to the smallest."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    sizes = [size for size in (1_000, 100_000, 1_000_000) if size < most] + [most]
    for kind in sys.argv[2:] or KINDS:
        print(f"\n{kind}: milliseconds per step with {', '.join(map(str, sizes))} rows, and the last by the first")
        measured = []
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                measured.append(measure(build(Path(folder) / "journal.db", size, KINDS[kind])))
        for step in measured[0]:
            values = [each[step] for each in measured]
            print(f"  {step:24} {'  '.join(f'{value:9.3f}' for value in values)}   x {values[-1] / values[0]:.2f}")


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


def measure(store: Store) -> dict[str, float]:
    """Return what each step takes, as the median of many, in milliseconds."""
    taken: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for name, step in steps(store, number):
            gc.collect()
            started = time.perf_counter()
            step()
            taken.setdefault(name, []).append((time.perf_counter() - started) * 1000)
    store.close()
    found = {name: statistics.median(values) for name, values in taken.items()}
    hot = ("write", "claim", "mark delivered")
    return {"write + claim + mark": sum(found[name] for name in hot), **found}


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
    texts = {"kind": "chat", "provider": "openai", "model": "gpt-5", "status": "SUCCESS", "app": "app"}
    empty = ("first_token_at", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cost")
    return {
        **texts,
        **dict.fromkeys(empty),
        **dict.fromkeys(("attempts", "uncertain", "linked", "cache_hit"), 0),
        "id": own_id, "session_id": own_id, "root": own_id, "owner": ME, "destination": HERE, "state": "pending",
        "due_at": now - 2000, "started_at": now - 1, "ended_at": now, "local_link": None, "payload": b"x" * 300,
    }  # fmt: skip


def new_note(own_id: str, now: float) -> dict[str, Any]:
    """Return a score as the writer makes it."""
    return {
        "request_id": own_id, "pl_id": None, "session_id": None, "kind": "score", "payload": '{"score": 90}',
        "owner": ME, "destination": HERE, "due_at": now, "created_at": now,
    }  # fmt: skip


if __name__ == "__main__":
    main()
