"""What tracking costs when a program begins and when it ends."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rig import Sinks, Team, Worker, environment
from table import Goal, Row

IMPORTS = {
    "pltrack": "import pltrack",
    "SDK by hand": "import promptlayer",
    "LangSmith": "from langsmith import Client, traceable",
    "Langfuse": "import langfuse, langfuse.langchain",
    "OpenInference": "import openinference.instrumentation.langchain",
}
FIRST = """
import time
from langchain_core.language_models.fake_chat_models import FakeListChatModel
model = FakeListChatModel(responses=["Paris"])
started = time.perf_counter()
{}
print((time.perf_counter() - started) * 1e3)
"""
UNTRACKED = "model.invoke('What is the capital of France?')"
TRACKED = f"import pltrack\nwith pltrack.pl_session(): {UNTRACKED}"
UNDELIVERED = 50
PATIENCE = 12.0


def measure(team: Team, quick: bool) -> list[Row]:
    """Measure imports, the first call, and the end."""
    rounds = 3 if quick else 7
    names = ["no-op", *(name for name in IMPORTS if name in team.workers)]
    times: dict[str, list[float]] = {name: [] for name in names}
    firsts: dict[str, list[float]] = {"no-op": [], "pltrack": []}
    with tempfile.TemporaryDirectory(prefix="pltrack-bench-") as folder:
        env = environment() | {"PLTRACK_JOURNAL": str(Path(folder) / "journal.db"), "PROMPTLAYER_API_KEY": "pl_bench"}
        env["PROMPTLAYER_BASE_URL"] = team.workers["pltrack"].url
        for _ in range(rounds):
            for name in names:
                started = _work_of_children()
                _run(IMPORTS.get(name, "pass"), env)
                times[name].append((_work_of_children() - started) * 1e3)
            for name, code in (("no-op", UNTRACKED), ("pltrack", TRACKED)):
                firsts[name].append(float(_run(FIRST.format(code), env)))
    beyond = {name: statistics.median(each) - statistics.median(times["no-op"]) for name, each in times.items()}
    del beyond["no-op"]
    first = statistics.median(firsts["pltrack"]) - statistics.median(firsts["no-op"])
    return [
        Row("import, CPU beyond bare Python", "ms", beyond, Goal(60.0)),
        Row("import and first call, beyond the first call without", "ms", {"pltrack": first}),
        _exit("exit with 50 calls just made, the server answers", team, silent=False),
        _exit("exit with 50 calls just made, the server is silent", team, silent=True, goal=Goal(2.5)),
    ]


def _work_of_children() -> float:
    """Return the seconds of CPU of all that was started and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(code: str, env: Mapping[str, str]) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True, text=True).stdout


def _exit(what: str, team: Team, *, silent: bool, goal: Goal | None = None) -> Row:
    """Let one program of each way end: all at once where they wait more than they work."""
    names = list(team.workers)
    sinks = Sinks(len(names))
    took: dict[str, float] = {}
    words: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="pltrack-bench-") as place:
        workers = []
        for name, url in zip(names, sinks.urls, strict=True):
            folder = Path(place) / name.replace(" ", "-")
            folder.mkdir()
            workers.append(Worker(name, url, folder))
        for worker in workers:
            worker.answer()
            if silent:
                Sinks.silence(worker.url)
        with ThreadPoolExecutor(len(workers) if silent else 1) as pool:
            ends = list(pool.map(_until_gone, workers))
        for worker, seconds in zip(workers, ends, strict=True):
            if seconds is None:
                words[worker.name] = f"> {PATIENCE:g} s"
            else:
                took[worker.name] = seconds
            worker.close()
    sinks.close()
    return Row(what, "s", took, goal, words=words)


def _until_gone(worker: Worker) -> float | None:
    """Return how long a program took to end, None where it did not."""
    deadline = time.monotonic() + PATIENCE
    worker.told("leave", calls=UNDELIVERED)
    try:
        began = float(worker.answer(PATIENCE)["at"])
        worker.process.wait(max(deadline - time.monotonic(), 0.01))
    except (TimeoutError, subprocess.TimeoutExpired):
        return None
    return max(time.time() - began, 0.0)
