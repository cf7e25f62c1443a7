"""Whether two processes that share a journal slow each other."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from rig import Figures, Sinks, Team, Worker
from table import Goal, Row


def measure(_: Team, quick: bool) -> list[Row]:
    """Let two work at once, on one journal and on two, in turns: the machine's own share is the same in both."""
    rounds, calls = (3, 300) if quick else (7, 600)
    sinks = Sinks(1)
    with tempfile.TemporaryDirectory(prefix="pltrack-bench-") as place:
        folders = {name: Path(place) / name for name in ("shared", "one", "other")}
        for folder in folders.values():
            folder.mkdir()
        pairs = {
            "shared": [Worker("pltrack", sinks.urls[0], folders["shared"]) for _ in range(2)],
            "own": [Worker("pltrack", sinks.urls[0], folders[name]) for name in ("one", "other")],
        }
        try:
            for worker in (worker for pair in pairs.values() for worker in pair):
                worker.answer()
            found = [{name: _at_once(pair, calls) for name, pair in pairs.items()} for _ in range(rounds)]
        finally:
            for worker in (worker for pair in pairs.values() for worker in pair):
                worker.close()
            sinks.close()
    return [
        _row("two processes on one journal, by two on their own: caller's thread", found, "caller"),
        _row("the same: CPU with delivery", found, "cpu"),
    ]


def _at_once(pair: list[Worker], calls: int) -> Figures:
    for worker in pair:
        worker.told("call", calls=calls, messages=8, around=100)
    both = [worker.answer() for worker in pair]
    return {name: statistics.fmean(each[name] for each in both) for name in both[0]}


def _row(what: str, found: list[dict[str, Figures]], figure: str) -> Row:
    ratio = statistics.median(each["shared"][figure] / each["own"][figure] for each in found)
    return Row(what, "x", {"pltrack": ratio}, Goal(1.2))
