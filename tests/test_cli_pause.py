"""`pltrack pause` and `resume`: a flag in the journal, or hub, that the couriers of every process obey."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from programs import environment, run, start

from pltrack.testing import FakePromptLayer, Fault

Until = Callable[[Callable[[], object], float], None]

ASKED = """
import dataclasses, json, logging
for line in sys.stdin:
    with pltrack.pl_session() as s:
        model.invoke(line.strip())
    began = time.perf_counter()
    left = pltrack.flush(30).pending
    took, ids = time.perf_counter() - began, s.request_ids
    status = pltrack.status()
    print(json.dumps([left, took, ids, status.paused_reason, status.paused_since is not None]), flush=True)
"""
PAUSED = "paused by `pltrack pause`"


def cli(*arguments: str, env: dict[str, str], code: int = 0) -> str:
    """Run the command to its end; return what it said."""
    done = subprocess.run([sys.executable, "-m", "pltrack", *arguments], env=env, text=True, capture_output=True)
    assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def status(env: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "pltrack", "status", "--json"], env=env, text=True, capture_output=True, check=True
    )
    return dict(json.loads(done.stdout))


@contextmanager
def running(program: str, env: dict[str, str]) -> Iterator[Callable[[str], Any]]:
    """Run a program that answers each line it is given with one of JSON; return a function that asks it."""
    process = start(program, env)
    assert process.stdin is not None
    assert process.stdout is not None
    into, out = process.stdin, process.stdout

    def ask(line: str) -> Any:
        into.write(line + "\n")
        into.flush()
        return json.loads(out.readline())

    try:
        yield ask
    finally:
        process.communicate(timeout=30)


def test_couriers_of_other_processes_obey(promptlayer: FakePromptLayer, tmp_path: Path, wait_until: Until) -> None:
    """Programs record on and send nothing; `flush` and `request_ids` come back at once; `resume` lets all of it go."""
    env = environment(tmp_path / "journal.db", promptlayer, PLTRACK_EXIT_TIMEOUT="0")
    with running(ASKED, env) as old:
        assert old("first")[0] == 0
        assert "paused" in cli("pause", env=env)
        wait_until(lambda: old("noticing")[0], 10)  # what is recorded until its courier looks is delivered
        before = len(promptlayer.requests)
        with running(ASKED, env) as new:
            for ask in (old, new):
                left, took, ids, reason, since = ask("recorded")
                assert left
                assert took < 5
                assert ids == []
                assert (reason, since) == (PAUSED, True)
        assert len(promptlayer.requests) == before
        known = status(env)
        assert known["paused_reason"] == PAUSED
        assert (datetime.now(UTC) - datetime.fromisoformat(known["paused_since"])).total_seconds() < 60
        assert "resume" in cli("status", env=env)
        assert "was paused already" in cli("pause", env=env)
        assert "goes on" in cli("resume", env=env)
        promptlayer.wait_for(lambda server: len(server.requests) >= before + 3, 30)
        assert old("last")[0] == 0
    assert status(env)["paused_since"] is None
    assert "was not paused" in cli("resume", env=env)


def test_what_was_claimed_goes_back(promptlayer: FakePromptLayer, tmp_path: Path, wait_until: Until) -> None:
    """Rows that a courier holds while it is busy with others are not sent after the pause."""
    env = environment(tmp_path / "journal.db", promptlayer, PLTRACK_CONCURRENCY="1", PLTRACK_LINGER="0")
    promptlayer.fail(Fault.silent())
    program = """
    with pltrack.pl_session():
        for n in range(8):
            model.invoke(str(n))
    pltrack.flush(0)
    print("recorded", flush=True)
    sys.stdin.readline()
    """
    process = start(program, env)
    assert process.stdout is not None
    assert process.stdout.readline() == "recorded\n"
    promptlayer.wait_for(lambda server: len(server.calls) == 1)
    wait_until(lambda: status(env)["rows"]["requests"].get("sending", 0) == 8, 10)
    cli("pause", env=env)
    assert process.stderr is not None
    assert "paused by hand" in process.stderr.readline()
    promptlayer.heal()
    wait_until(lambda: status(env)["rows"]["requests"].get("pending", 0) == 7, 15)
    assert len(promptlayer.requests) == 1
    cli("resume", env=env)
    promptlayer.wait_for(lambda server: len(server.requests) == 8, 30)
    process.communicate("\n", timeout=30)


def test_sync_obeys(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """A paused journal is not delivered by `sync` either: exit code 1, and how to go on."""
    env = environment(tmp_path / "journal.db", promptlayer)
    run(
        "with pltrack.pl_session():\n    model.invoke('hi')\npltrack.shutdown(0)",
        env | {"PLTRACK_DELIVERY": "external"},
    )
    cli("pause", env=env)
    assert "pltrack resume" in cli("sync", env=env, code=1)
    assert promptlayer.calls == ()
    cli("resume", env=env)
    assert "1 delivered" in cli("sync", env=env)


def test_pausing_before_anything_was_recorded(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """The flag can be set before the first program runs: it makes the journal."""
    env = environment(tmp_path / "journal.db", promptlayer, PLTRACK_EXIT_TIMEOUT="0")
    cli("pause", env=env)
    run("with pltrack.pl_session():\n    model.invoke('hi')\nassert pltrack.flush(20).pending == 1", env)
    assert promptlayer.calls == ()


@pytest.mark.slow
def test_workers_of_a_hub_obey(
    promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path, wait_until: Until
) -> None:  # fmt: skip
    """With a hub the flag is the hub's: programs hand over on, workers on other machines stop and go on."""
    env = environment(tmp_path / "app.db", promptlayer, PLTRACK_HUB=hub_url)
    call = "with pltrack.pl_session():\n    model.invoke('hi')\nassert pltrack.flush(20).pending == 0"
    command = [sys.executable, "-m", "pltrack", "sync", "--watch"]
    worker = subprocess.Popen(
        command, env=env | {"PLTRACK_JOURNAL": str(tmp_path / "worker.db")}, stderr=subprocess.PIPE, text=True
    )
    assert worker.stderr is not None
    try:
        run(call, env)
        promptlayer.wait_for(lambda server: len(server.requests) == 1, 30)
        cli("pause", env=env)
        assert "paused" in worker.stderr.readline()
        run(call, env)
        run(call, env)
        assert status(env)["hub_rows"]["requests"]["pending"] == 2
        assert status(env)["paused_since"]
        assert len(promptlayer.requests) == 1
        cli("resume", env=env)
        promptlayer.wait_for(lambda server: len(server.requests) == 3, 30)
    finally:
        worker.terminate()
        worker.communicate(timeout=20)
