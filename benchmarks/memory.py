"""What 100,000 tracked calls leave in memory: first in a session each, then in one long session held open.

A session has to keep a handle for each of its calls (its ids and verbs need them): that is what the second figure is.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from rig import Team, environment
from table import Goal, Row

import pltrack

MODEL = FakeListChatModel(responses=["The capital of France is Paris, as everybody knows."])
WARM_UP = 3_000
SLICE = 1_000


def measure(_: Team, quick: bool) -> list[Row]:
    """Measure each way in a process of its own, so that neither finds what the other left."""
    calls = 10_000 if quick else 100_000
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(calls), way], stdout=subprocess.PIPE, text=True, env=environment()
        )
        for way in ("a session each", "one session")
    ]
    each, one = (json.loads(process.communicate()[0]) for process in started)
    return [
        Row(f"memory after {calls:,} calls in a session each, all over", "MB", {"pltrack": each["after"]}, Goal(10.0)),
        Row(f"memory of a session that holds {calls:,} calls", "MB", {"pltrack": one["held"]}),
        Row("what the allocator keeps of it when it is over", "MB", {"pltrack": one["after"]}),
    ]


def main(calls: int, way: str) -> None:
    """Print how many MB more the process has after so many calls."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="pltrack-bench-") as folder:
        pltrack.configure(journal=Path(folder) / "journal.db", delivery="off", api_key="pl_bench")
        sessions(WARM_UP)
        before = resident()
        if way == "one session":
            with pltrack.pl_session():
                ask(calls)
                found["held"] = resident() - before
        else:
            sessions(calls)
        found["after"] = resident() - before
        pltrack.shutdown(10)
    print(json.dumps({name: grown / 1e6 for name, grown in found.items()}))


def sessions(calls: int) -> None:
    """Make calls, each in a session of its own."""
    for number in range(calls):
        with pltrack.pl_session():
            MODEL.invoke("What is the capital of France?")
        if number % SLICE == 0:
            pltrack.flush(60)  # or the queue is what is measured


def ask(calls: int) -> None:
    """Make calls in the session around."""
    for number in range(calls):
        MODEL.invoke("What is the capital of France?")
        if number % SLICE == 0:
            pltrack.flush(60)


def resident() -> int:
    """Return how much memory this process has when all is written, in bytes."""
    pltrack.flush(60)
    gc.collect()
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
