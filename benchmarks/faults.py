"""What is lost and what is doubled when processes are killed, and how long an exit takes that can deliver nothing.

Usage: python benchmarks/faults.py [kills]

A process that records and delivers is killed with SIGKILL at a random moment, again and again; each next one finds the
journal as the one before left it. A call counts as promised when it had ended 50 ms before the last sign of life of a
process that had opened its journal: a busy machine may give it no time before the kill. In the end one `pltrack sync`
delivers the rest. Two things are faster than in life: leases of a killed process are ended at once instead of after a
minute, and what may have arrived is looked up without a pause.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from pltrack.testing import FakePromptLayer, Fault

HURRIED = """
import os, random, sys, threading, time
from pltrack._courier import loop, search
search.EVERY, search.PATIENCE = 0.02, (0.05, 0.05)
"""
# Forks a process for each line it is told, so that a kill does not cost the loading of all libraries.
NURSERY = (
    HURRIED
    + """
import pltrack
from langchain_core.language_models.fake_chat_models import FakeListChatModel
model = FakeListChatModel(responses=["four"])

def live():
    with pltrack.pl_session():
        model.invoke("first")
    pltrack.flush(5)  # from now on the journal is open
    while True:
        with pltrack.pl_session() as s:
            model.invoke("What comes after 1,2,3?")
            s.score(50)
        os.write(1, f"call {s.ids[0]} {time.monotonic()}\\n".encode())
        time.sleep(random.uniform(0, 0.02))

with pltrack.pl_session():  # load everything; children have threads and connections of their own
    model.invoke("warm")
pltrack.flush(10)
pltrack.shutdown(5)
os.write(1, b"ready\\n")
for _ in sys.stdin:
    pid = os.fork()
    if pid == 0:
        live()
    os.write(1, f"born {pid}\\n".encode())
    os.waitpid(pid, 0)
    os.write(1, b"dead\\n")
"""
)
SYNC = HURRIED + "from pltrack.cli import main; sys.argv = ['pltrack', 'sync', '--timeout', '120']; main()"
FIFTY = """
import time, pltrack
from langchain_core.language_models.fake_chat_models import FakeListChatModel
model = FakeListChatModel(responses=["four"])
for _ in range(50):
    with pltrack.pl_session():
        model.invoke("What comes after 1,2,3?")
print(time.time(), flush=True)
"""
PROMISE = 0.05
EXIT_GOAL = 2.5


def environment(journal: Path, server: FakePromptLayer) -> dict[str, str]:
    """Return the environment of a program that records to `journal` and delivers to `server`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PLTRACK", "PROMPTLAYER"))}
    ours = {"PLTRACK_JOURNAL": str(journal), "PROMPTLAYER_API_KEY": server.api_key, "PROMPTLAYER_BASE_URL": server.url}
    return kept | ours


def sync(journal: Path, server: FakePromptLayer) -> None:
    """Deliver what is left."""
    done = subprocess.run(
        [sys.executable, "-c", SYNC], env=environment(journal, server), capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)


def end_leases(journal: Path) -> None:
    """Do to the journal what a minute does."""
    with sqlite3.connect(journal, timeout=30) as db:
        for table in ("requests", "notes"):
            db.execute(
                f"update {table} set lease_until = lease_until - 60, due_at = due_at - 60 where state != 'delivered'"
            )
    db.close()


def killed_once(nursery: subprocess.Popen[str], after: float) -> list[str]:
    """Let a process live for a while; return the ids of the calls that it could rely on when it was killed."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write("\n")
    nursery.stdin.flush()
    ended: list[tuple[str, float]] = []
    for line in nursery.stdout:
        kind, *words = line.split()
        if kind == "call":
            ended.append((words[0], float(words[1])))
        elif kind == "born":
            time.sleep(after)
            os.kill(int(words[0]), signal.SIGKILL)
        elif kind == "dead":
            break
    return [our_id for our_id, at in ended if at <= ended[-1][1] - PROMISE]


def kills(count: int, folder: Path) -> dict[str, object]:
    """Kill `count` processes; return how many promised calls were lost and how many arrived twice."""
    journal = folder / "kills.db"
    promised: list[str] = []
    with FakePromptLayer() as server:
        command = [sys.executable, "-c", NURSERY]
        nursery = subprocess.Popen(
            command, env=environment(journal, server), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert nursery.stdout is not None
        assert nursery.stdout.readline() == "ready\n"
        for _ in range(count):
            promised += killed_once(nursery, random.uniform(0.02, 0.6))
            end_leases(journal)
        nursery.communicate()
        in_mid_send = _count(journal, "uncertain > 0 or state = 'sending'")
        sync(journal, server)
        arrived = Counter(logged.metadata["pltrack_id"] for logged in server.requests)
        left = _count(journal, "state != 'delivered'")
    return {
        "kills": count,
        "promised": len(promised),
        "lost": sum(our_id not in arrived for our_id in promised),
        "doubled": sum(times > 1 for times in arrived.values()),
        "arrived": len(arrived),
        "left for the last sync to look up": in_mid_send,
        "left": left,
    }


def _count(journal: Path, condition: str) -> int:
    with sqlite3.connect(journal, timeout=30) as db:
        return int(db.execute(f"select count(*) from requests where {condition}").fetchone()[0])


def silent_exit(folder: Path, name: str) -> dict[str, float]:
    """Return how long a program with 50 undelivered calls takes to end while the server is silent, and what is lost."""
    journal = folder / f"{name}.db"
    with FakePromptLayer() as server:
        server.fail(Fault.silent(path="/"))
        program = subprocess.run(
            [sys.executable, "-c", FIFTY], env=environment(journal, server), capture_output=True, text=True, check=True
        )
        took = time.time() - float(program.stdout)
        server.heal()
        sync(journal, server)
        arrived = Counter(logged.metadata["pltrack_id"] for logged in server.requests)
    return {"seconds": took, "lost": 50 - len(arrived), "doubled": sum(times > 1 for times in arrived.values())}


def main(count: int) -> int:
    """Measure, print, and return 1 when a goal was missed."""
    with tempfile.TemporaryDirectory() as folder:
        killed = kills(count, Path(folder))
        exits = [silent_exit(Path(folder), f"exit-{n}") for n in range(3)]
    ended: dict[str, float] = {
        "seconds": round(statistics.median(each["seconds"] for each in exits), 2),
        "lost": sum(each["lost"] for each in exits),
        "doubled": sum(each["doubled"] for each in exits),
    }
    print(f"calls lost in {count} kills (of {killed['promised']} promised, goal 0)      {killed['lost']:8}")
    print(f"calls doubled in {count} kills (goal 0)                     {killed['doubled']:8}")
    print(f"exit, 50 undelivered, server silent (goal {EXIT_GOAL:g} s)      {ended['seconds']:8} s")
    print(f"calls lost and doubled in 3 exits (goal 0 and 0)    {ended['lost']:4} {ended['doubled']:4}")
    print(json.dumps({"kills": killed, "exit": ended}))
    bad = killed["lost"], killed["doubled"], killed["left"], ended["lost"], ended["doubled"]
    return int(any(bad) or ended["seconds"] > EXIT_GOAL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
