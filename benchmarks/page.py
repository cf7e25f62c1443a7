"""What a look at the page costs while the journal grows: `pltrack ui` as a process, asked over loopback.

Usage: python benchmarks/page.py [most rows, default 1000000]

Prints, per view and filter, milliseconds of the whole answer: the quickest of several looks, as others use the machine,
too, and the first one, when nothing of the journal is in SQLite's memory. The rows are spread over the last 30 days.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import httpx

from pltrack._journal.store import Store

LOOKS = 7
DAYS = 30 * 86400.0
SESSION = "s%031x"
BODY = {
    "tags": ["prod"],
    "input": {
        "type": "chat",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "You sell kitchen things. " * 8}]},
            {"role": "user", "content": [{"type": "text", "text": "What does the visitor look for? " * 4}]},
        ],
    },
    "output": {"type": "chat", "messages": [{"role": "assistant", "content": [{"type": "text", "text": "kettle #"}]}]},
    "metadata": {"plan": "pro"},
}
REQUESTS = """
with recursive n(i) as (select 1 union all select i + 1 from n where i < :rows)
insert into requests (id, session_id, root, owner, app, destination, state, due_at, attempts, uncertain, pl_id, kind,
  provider, model, status, linked, started_at, ended_at, input_tokens, output_tokens, cost, cache_hit, tags,
  prompt_name, prompt_version)
select printf('%032x', i * 2654435761), printf('s%031x', i / 4), printf('s%031x', i / 4), 'me', 'app', 'here',
  case when i % 1000 = 0 then 'failed' when i > :rows - 20 then 'pending' else 'delivered' end, :now, 1, 0, i, 'chat',
  'openai', 'gpt-5-' || (i % 7), case when i % 50 = 0 then 'ERROR' else 'SUCCESS' end, i % 4 = 0,
  :now - :span + i * :span / :rows, :now - :span + i * :span / :rows + 0.2 + (i * 37 % 23) / 10.0, 100 + i % 900,
  i % 200, 0.0001 * (i % 17), 0, '["prod","t' || (i % 97) || '"]',
  case when i % 4 = 0 then 'shop-' || (i % 3) end, case when i % 4 = 0 then 1 + i % 2 end
from n
"""
OTHERS = (
    "insert into bodies select seq, cast(replace(:body, '#', seq) as blob) from requests",
    """insert into sessions (id, root, name, user, started_at, tags, metadata, app)
    select distinct session_id, session_id, 'visit', 'u-' || (seq % 1000), started_at, '[]', '{}', ''
    from requests where seq % 4 = 0""",
    """insert into notes (id, request_id, pl_id, kind, payload, owner, destination, state, due_at, attempts, created_at)
    select id || 'n', id, seq, 'score', '{"score": ' || (seq % 100) || '}', owner, destination, 'delivered', due_at, 0,
    ended_at from requests where seq % 10 = 0""",
    "insert into counts select 'requests', destination, state, count(*) from requests group by destination, state",
    "insert into counts select 'notes', destination, state, count(*) from notes group by destination, state",
)


def main() -> None:
    """Print a table: views down, sizes across."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size < most] + [most]
    measured = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "journal.db"
            build(journal, size)
            measured.append(measure(journal, size))
    print("| milliseconds: quickest (first look) | " + " | ".join(f"{size:,} rows" for size in sizes) + " |")
    print("|---|" + "---:|" * len(sizes))
    for view in measured[0]:
        figures = " | ".join(f"{best:.0f} ({first:.0f})" for best, first in (each[view] for each in measured))
        print(f"| {view} | {figures} |")


def build(path: Path, rows: int) -> None:
    """Make a journal of so many rows."""
    Store.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        values = {"rows": rows, "now": time.time(), "span": DAYS, "body": json.dumps(BODY)}
        db.execute("pragma synchronous = off")
        db.execute("begin")
        for statement in (REQUESTS, *OTHERS):
            db.execute(statement, values)
        db.execute("commit")
        db.execute("pragma wal_checkpoint(truncate)")


def measure(journal: Path, rows: int) -> dict[str, tuple[float, float]]:
    """Return what each view takes: at its quickest, and at the first look."""
    env = {**os.environ, "PLTRACK_JOURNAL": str(journal)}
    command = [sys.executable, "-m", "pltrack", "ui"]
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address = next(line.strip() for line in process.stdout if "token=" in line)
        with httpx.Client(follow_redirects=True, timeout=60) as client:
            client.get(address.replace("/?", "/static/style.css?"))
            base = address.partition("/?")[0]
            found = {name: timed(client, base + path) for name, path in views(rows).items()}
        process.terminate()
    return found


def views(rows: int) -> dict[str, str]:
    """Return what is looked at."""
    middle = rows // 2
    return {
        "requests, first page": "/",
        "requests, from the middle": f"/?before={middle}",
        "requests by tag": "/?tag=t5",
        "requests by tag, found nowhere": "/?tag=nowhere",
        "requests by model": "/?model=gpt-5-3",
        "requests by status": "/?status=ERROR",
        "requests by user": "/?user=u-4",
        "requests by prompt version": "/?prompt=shop-1%402",
        "requests by text": "/?text=kettle",
        "requests by text, found nowhere": "/?text=nowhere",
        "one request": f"/requests/{middle}",
        "sessions": "/sessions",
        "one session": "/sessions/" + SESSION % (middle // 4),
        "charts of a day": "/charts",
        "charts of a month": "/charts?since=month",
        "charts of a month, by model": "/charts?since=month&by=model",
        "charts of a month, one tag": "/charts?since=month&tag=t5",
        "prompts": "/prompts",
        "one prompt": "/prompts/shop-1",
        "delivery": "/delivery",
    }


def timed(client: httpx.Client, address: str) -> tuple[float, float]:
    """Look several times."""
    taken = []
    for _ in range(LOOKS):
        started = time.perf_counter()
        answer = client.get(address)
        taken.append((time.perf_counter() - started) * 1000)
        assert answer.status_code == 200, address
    return min(taken), taken[0]


if __name__ == "__main__":
    main()
