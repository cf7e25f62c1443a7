"""Workers and their sink, asked in turns: what is compared is measured in the same seconds, and medians are taken."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
Figures = dict[str, float]


def environment() -> dict[str, str]:
    """Return an environment that holds no settings of whoever runs this, and the same hashes for all."""
    ours = ("PLTRACK", "PROMPTLAYER", "LANGCHAIN", "LANGSMITH", "LANGFUSE", "OTEL")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {"PYTHONHASHSEED": "0"}


class Sinks:
    """Loopback ports that accept everything, served by one process of its own."""

    def __init__(self, ports: int, pause: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / "sink.py", str(ports), str(pause)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.urls = [f"http://127.0.0.1:{port}" for port in self._process.stdout.readline().split()]

    @staticmethod
    def came(url: str) -> dict[str, int]:
        """Return how many calls and bytes came to this address, over how many connections."""
        with urllib.request.urlopen(f"{url}/count", timeout=10) as answer:
            return dict(json.load(answer))

    @staticmethod
    def silence(url: str) -> None:
        """Answer nothing at this address from now on."""
        urllib.request.urlopen(f"{url}/silence", timeout=10).close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Worker:
    """A process that runs one way of tracking."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name, self.url = name, url
        self.errors = (folder / f"{name}-{time.time_ns()}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", name, url, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment(),
        )  # fmt: skip

    def told(self, case: str, **arguments: Any) -> None:
        """Set it to work."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([case, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for what it found; raises TimeoutError, and RuntimeError when it has ended."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            raise TimeoutError(f"no answer within {timeout:g} s")
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else "it ended and said nothing")
        return dict(json.loads(line))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


class Team:
    """A worker for each way that is installed, and the sink that each has to itself."""

    def __init__(self, names: Iterable[str]) -> None:
        self.notes: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="pltrack-bench-")
        self.folder = Path(self._folder.name)
        wanted = list(names)
        self.sinks = Sinks(len(wanted))
        self.workers: dict[str, Worker] = {}
        for name, url in zip(wanted, self.sinks.urls, strict=True):
            self._start(name, url)
        for name in list(self.workers):
            self._await(name)

    def _await(self, name: str) -> None:
        worker = self.workers[name]
        said = worker.answer()
        why = said.get("error", "")
        if not why and name != "no-op" and not Sinks.came(worker.url)["calls"]:
            why = "it delivered nothing to the sink"
        if why:
            self.notes.append(f"{name} is not in the table: {why}")
            self.workers.pop(name).close()

    def _start(self, name: str, url: str) -> None:
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        self.workers[name] = Worker(name, url, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()
        self.sinks.close()
        self._folder.cleanup()

    def rounds(self, count: int, case: str, names: Sequence[str] = (), **arguments: Any) -> dict[str, Figures]:
        """Ask each in turn, `count` times; return the median of every figure. One that hangs is started anew."""
        found: dict[str, list[Figures]] = {}
        for _ in range(count):
            for name, worker in list(self.workers.items()):
                if names and name not in names:
                    continue
                try:
                    worker.told(case, **arguments)
                    found.setdefault(name, []).append(worker.answer())
                except (TimeoutError, RuntimeError, OSError) as error:
                    self.notes.append(f"{name} had to be started anew in `{case}`: {error}")
                    worker.close()
                    self._start(name, worker.url)
                    self._await(name)
        return {name: medians(each) for name, each in found.items() if each}


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure over rounds."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
