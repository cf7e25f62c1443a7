"""Counting what a piece of work does, so that what it costs is known without a clock."""

from __future__ import annotations

import gc
import sqlite3
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import pltrack

PACKAGE = str(Path(pltrack.__file__).parent)
Work = Callable[[], object]


@contextmanager
def alone() -> Iterator[None]:
    """Give other threads no turn while this one works, and let the collector wait."""
    before, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(1000)
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        if collects:
            gc.enable()


def instructions(work: Work) -> int:
    """Return how many bytecode instructions of this thread `work` costs in pltrack and in all that pltrack calls."""
    counted = depth = 0

    def step(_: FrameType, event: str, __: Any) -> Any:
        nonlocal counted, depth
        if event == "opcode":
            counted += 1
        elif event == "return":
            depth -= 1
        return step

    def entered(frame: FrameType, _: str, __: Any) -> Any:
        nonlocal depth
        if not depth and not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        depth += 1
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    before = sys.gettrace()
    with alone():
        sys.settrace(entered)
        try:
            work()
        finally:
            sys.settrace(before)
    return counted


def peak_bytes(work: Work) -> int:
    """Return how much memory `work` takes at its peak beyond what was there before, returned or not."""
    with alone():
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            work()
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()


def blocks_kept(work: Work) -> int:
    """Return how many blocks of memory are in use after `work` that were not before."""
    gc.collect()
    before = sys.getallocatedblocks()
    work()
    gc.collect()
    return sys.getallocatedblocks() - before


class Statements(list[str]):
    """Every SQL statement that connections made from now on run, row by row, in capitals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        connect = sqlite3.connect

        def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection = connect(*args, **kwargs)
            connection.set_trace_callback(lambda text: self.append(" ".join(text.split())[:60].upper()))
            return connection

        monkeypatch.setattr(sqlite3, "connect", traced)

    def count(self, *kinds: str) -> int:
        """Return how many began with one of these words."""
        return sum(each.startswith(kinds) for each in self)

    def commits(self, *kinds: str) -> int:
        """Return how many transactions held a statement that began with one of these words."""
        transactions = "\n".join(self).split("\nCOMMIT")
        return sum(any(line.startswith(kinds) for line in each.splitlines()) for each in transactions)


def threads_started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of each thread of ours that is started from now on."""
    started: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        if thread.name.startswith("pltrack-"):
            started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return started
