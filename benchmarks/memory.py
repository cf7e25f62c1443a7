"""What 100,000 tracked calls leave in memory: first in a session each, then in one long session held open.

Usage: python benchmarks/memory.py [calls]

A session has to keep a handle for each of its calls (its ids and verbs need them): that is what the second figure is.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
from pathlib import Path

from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack

MODEL = FakeListChatModel(responses=["The capital of France is Paris, as everybody knows."])
WARM_UP = 3_000
SLICE = 1_000


def main() -> None:
    """Measure each way in a process of its own, so that neither finds what the other left."""
    calls = sys.argv[1] if len(sys.argv) > 1 else "100000"
    for way in ("sessions", "one session"):
        subprocess.run([sys.executable, __file__, calls, way], check=True)


def measure(calls: int, way: str) -> None:
    """Print how much more memory the process has after so many calls."""
    with tempfile.TemporaryDirectory() as folder:
        pltrack.configure(journal=Path(folder) / "journal.db", delivery="off", api_key="pl_x")
        sessions(WARM_UP)
        before = resident()
        if way == "sessions":
            sessions(calls)
        else:
            with pltrack.pl_session():
                ask(calls)
                report(calls, way, before)
        report(calls, f"after {way}", before)
        pltrack.shutdown(10)


def report(calls: int, way: str, before: int) -> None:
    pltrack.flush(60)
    gc.collect()
    grown = resident() - before
    print(f"{calls} calls, {way}: {grown / 1e6:.1f} MB more, {grown / calls:.0f} bytes a call", flush=True)


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
    """Return how much memory this process has, in bytes."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(int(sys.argv[1]), sys.argv[2])
    else:
        main()
