"""The journal broken or homeless: the program does not notice, and everything arrives."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from programs import environment, run, start

import pltrack
from pltrack.testing import FakePromptLayer

Wait = Callable[[Callable[[], object]], None]
model = FakeListChatModel(responses=["four"])


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def call(text: str) -> str:
    with pltrack.pl_session() as s:
        model.invoke(text)
    return s.ids[0]


def arrived(server: FakePromptLayer) -> list[str]:
    return sorted(each.metadata["pltrack_id"] for each in server.requests)


def aside(journal: Path) -> list[Path]:
    return sorted(each for each in journal.parent.glob("*.broken-*") if not each.name.endswith(("-wal", "-shm")))


def test_a_lock_held_for_long_loses_nothing(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    """While another program holds the lock calls go on, flush comes back in time, status says why; then all arrives."""
    first = call("before")
    assert pltrack.flush(10).pending == 0
    holder = sqlite3.connect(journal, isolation_level=None)
    holder.execute("begin exclusive")
    ids = [first, *(call(f"call {n}") for n in range(5))]
    started = time.monotonic()
    assert pltrack.flush(0.2).pending > 0
    assert time.monotonic() - started < 1.0
    wait_until(lambda: "locked" in (pltrack.status().last_error or ""))
    holder.execute("rollback")
    holder.close()
    wait_until(lambda: arrived(promptlayer) == sorted(ids))
    assert pltrack.status().lost == 0
    assert [each.levelname for each in caplog.records if "wait in memory" in each.message] == ["ERROR"]


def test_a_lock_held_at_opening_is_waited_for(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait
) -> None:
    """A journal that another program holds when it is opened is not given up for memory."""
    with sqlite3.connect(journal, isolation_level=None) as holder:
        holder.execute("pragma journal_mode = wal")
        holder.execute("begin exclusive")
        ours = call("held")
        wait_until(lambda: "locked" in (pltrack.status().last_error or ""))
        holder.execute("rollback")
    wait_until(lambda: arrived(promptlayer) == [ours])
    assert not pltrack.status().in_memory


def test_shutdown_ends_in_time_under_a_lock(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait
) -> None:
    """A journal that cannot be written does not hold up the end."""
    call("before")
    assert pltrack.flush(10).pending == 0
    with sqlite3.connect(journal, isolation_level=None) as holder:
        holder.execute("begin exclusive")
        call("held")
        wait_until(lambda: pltrack.status().last_error)
        started = time.monotonic()
        pltrack.shutdown(0.5)
        assert time.monotonic() - started < 2.5
        holder.execute("rollback")
