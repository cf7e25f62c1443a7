"""kill -9 at every point of write, claim, send, answer and mark: a later process delivers each request exactly once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from journals import opened
from programs import environment, run, start

from pltrack.testing import FakePromptLayer, Fault

# Looking up keeps to 10 searches a minute and is patient; a test need not be.
SYNC = """
from pltrack._courier import search
search.EVERY, search.PATIENCE = 0.2, (0.2, 0.2)
from pltrack.cli import main
sys.argv = ['pltrack', 'sync', '--timeout', '40']
main()
"""
# One function of the child is replaced: it kills the process when it is called for rows, or when it has done its work.
PROGRAM = """
import signal
from pltrack._journal.store import Store

def deadly(name, position, after):
    real = getattr(Store, name)
    def patched(self, *args):
        concerns = lambda rows: bool(rows) and armed.is_set()
        if not after and concerns(args[position]):
            os.kill(os.getpid(), signal.SIGKILL)
        done = real(self, *args)
        if after and concerns(done if position is None else args[position]):
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    setattr(Store, name, patched)

armed = threading.Event()
with pltrack.pl_session("earlier") as earlier:
    model.invoke("earlier")
assert pltrack.flush(20).pending == 0
deadly({point})
armed.set()
with pltrack.pl_session("killed") as s:
    for n in range(5):
        model.invoke(f"call {{n}}")
{more}
threading.Event().wait(30)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def known(journal: Path) -> list[str]:
    with opened(journal) as db:
        return [row[0] for row in db.execute("select id from requests")]


def end_leases(journal: Path) -> None:
    """Do to the journal what a minute does: the leases of the dead are over, and their rows are long due."""
    with opened(journal) as db:
        for table in ("requests", "notes"):
            db.execute(f"update {table} set lease_until = lease_until - 60, due_at = due_at - 60")


def killed(program: str, journal: Path, server: FakePromptLayer) -> None:
    process = start(program, environment(journal, server))
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err


def assert_each_once(server: FakePromptLayer, journal: Path) -> None:
    got = Counter(logged.metadata["pltrack_id"] for logged in server.requests)
    assert got == Counter(known(journal))
    with opened(journal) as db:
        held = dict(db.execute("select id, pl_id from requests where state = 'delivered'"))
    assert held == {logged.metadata["pltrack_id"]: logged.id for logged in server.requests}


@pytest.mark.parametrize(
    ("point", "on_disk"),
    [
        pytest.param('"write", 1, True', range(2, 7), id="after the commit of the write"),
        pytest.param('"claim", None, True', range(6, 7), id="after the claim"),
        pytest.param('"delivered", 0, False', range(6, 7), id="after the answer, before the mark"),
        pytest.param('"delivered", 0, True', range(6, 7), id="after the mark"),
    ],
)
def test_a_kill_loses_and_doubles_nothing(
    promptlayer: FakePromptLayer, journal: Path, point: str, on_disk: range
) -> None:
    """Whatever was on disk when the process was killed arrives exactly once, and the journal knows its id."""
    killed(PROGRAM.format(point=point, more=""), journal, promptlayer)
    assert len(known(journal)) in on_disk
    end_leases(journal)
    run(SYNC, environment(journal, promptlayer))
    assert_each_once(promptlayer, journal)


def test_a_kill_before_the_write_leaves_nothing_half_done(promptlayer: FakePromptLayer, journal: Path) -> None:
    """What was not on disk is gone, and only that: the journal is whole and what was there before is delivered once."""
    killed(PROGRAM.format(point='"write", 1, False', more=""), journal, promptlayer)
    assert len(known(journal)) == 1
    run(SYNC, environment(journal, promptlayer))
    assert_each_once(promptlayer, journal)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize("later", ["sync", pytest.param("another program", marks=pytest.mark.slow)])
def test_a_kill_in_mid_send(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Callable[..., None], stored: bool, later: str
) -> None:
    """The body had gone out: whether PromptLayer has it or not is found out, and each request is there once."""
    promptlayer.fail(Fault.silent(path="/log-request", when=lambda body: "call" in str(body["input"]), store=stored))
    process = start(PROGRAM.format(point='"adopt", 0, False', more=""), environment(journal, promptlayer))
    promptlayer.wait_for(lambda pl: len(pl.calls) == 6, timeout=30)
    process.kill()
    process.communicate()
    promptlayer.heal()
    assert len(known(journal)) == 6
    end_leases(journal)
    if later == "sync":
        run(SYNC, environment(journal, promptlayer))
    else:
        other = start(
            SYNC.partition("from pltrack.cli")[0]
            + "with pltrack.pl_session():\n    model.invoke('of my own')\nsys.stdin.readline()",
            environment(journal, promptlayer),
        )
        wait_until(lambda: settled(journal) == 7, 30)
        other.communicate("\n", timeout=30)
    assert_each_once(promptlayer, journal)


def settled(journal: Path) -> int:
    with opened(journal) as db:
        return int(db.execute("select count(*) from requests where state = 'delivered'").fetchone()[0])


@pytest.mark.parametrize("after", [False, True], ids=["before the mark", "after the mark"])
def test_a_kill_while_notes_are_sent(promptlayer: FakePromptLayer, journal: Path, after: bool) -> None:
    """Scores that were out when the process was killed arrive, the last word is the last one said."""
    say = "earlier.score(10); earlier.score(20); earlier.score(30)"
    killed(PROGRAM.format(point=f'"notes_delivered", 0, {after}', more=say), journal, promptlayer)
    end_leases(journal)
    run(SYNC, environment(journal, promptlayer))
    assert_each_once(promptlayer, journal)
    assert promptlayer.requests[0].scores == {"default": 30}


def stop(pid: int, journal: Path) -> None:
    """Stop a process, but not in the middle of a transaction."""
    for _ in range(100):
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(journal, timeout=0.1)) as db, suppress(sqlite3.OperationalError):
            db.execute("begin immediate")
            return
        os.kill(pid, signal.SIGCONT)
    raise AssertionError("it was always in a transaction")


@pytest.mark.slow
def test_a_process_that_was_stopped_wakes_up_too_late(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Callable[..., None]
) -> None:
    """A process that slept over its lease undoes nothing of what another did meanwhile, and sends nothing twice."""
    program = """
        from pltrack._courier import ledger
        ledger.LEASE = ledger._MARGIN + 5.3  # what is held for 0.3 s gets no exchange
        pltrack.configure(http_timeout=5, exit_timeout=15)  # it is stopped while all eight wait
        with pltrack.pl_session():
            for n in range(40):
                model.invoke(f"call {n}")
        sys.stdin.readline()
    """
    promptlayer.fail(Fault.silent(path="/log-request", store=True))
    process = start(program, environment(journal, promptlayer))
    promptlayer.wait_for(lambda pl: len(pl.requests) == 8, timeout=30)
    stop(process.pid, journal)
    promptlayer.heal()
    end_leases(journal)
    run(SYNC, environment(journal, promptlayer))
    assert_each_once(promptlayer, journal)
    os.kill(process.pid, signal.SIGCONT)
    process.communicate("\n", timeout=30)
    assert process.returncode == 0
    assert_each_once(promptlayer, journal)


@pytest.mark.slow
def test_kills_in_a_row(promptlayer: FakePromptLayer, journal: Path) -> None:
    """Three processes killed one after the other, the last in the middle of finishing the work of those before."""
    for point in ('"write", 1, True', '"claim", None, True', '"delivered", 0, False'):
        killed(PROGRAM.format(point=point, more="").replace("assert pltrack", "pltrack"), journal, promptlayer)
        end_leases(journal)
    interrupted = PROGRAM.format(point='"delivered", 0, False', more="").partition("armed = ")[0]
    killed(
        interrupted + 'armed = threading.Event(); armed.set(); deadly("delivered", 0, False)\n' + SYNC,
        journal,
        promptlayer,
    )
    end_leases(journal)
    run(SYNC, environment(journal, promptlayer))
    assert_each_once(promptlayer, journal)


@pytest.mark.slow
def test_a_killed_sync_is_taken_over(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A `pltrack sync` killed in mid-send leaves nothing behind that the next one does not finish."""
    run(
        "with pltrack.pl_session():\n  [model.invoke(f'{n}') for n in range(20)]",
        environment(journal, promptlayer, PLTRACK_DELIVERY="external"),
    )
    promptlayer.fail(Fault.silent(path="/log-request", store=True))
    process: subprocess.Popen[str] = start(SYNC, environment(journal, promptlayer))
    promptlayer.wait_for(lambda pl: len(pl.requests) == 8, timeout=30)
    process.kill()
    process.communicate()
    promptlayer.heal()
    end_leases(journal)
    run(SYNC, environment(journal, promptlayer))
    assert len(promptlayer.requests) == 20
    assert_each_once(promptlayer, journal)
