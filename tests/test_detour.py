"""The file cannot be written for a while: records go through memory, arrive, and are in the file in the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journals import MODEL, arrived, errors, in_file, track_one
from programs import environment, start

import pltrack
from pltrack.testing import FakePromptLayer, Fault

WaitUntil = Callable[[Callable[[], object]], None]
HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
db.execute("begin immediate")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file as another program does that writes for long."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield
    finally:
        holder.communicate("\n")


# -- locked -------------------------------------------------------------------------------------------------


def test_a_locked_file_is_not_waited_for(
    promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """While another program holds the file calls and scores arrive from memory; then the file has them, sent once."""
    first = track_one()
    assert pltrack.flush(10).pending == 0
    with locked(journal):
        second = track_one()
        second.score(70)
        flushed = pltrack.flush(10)
        assert (flushed.delivered, flushed.pending, flushed.failed, flushed.lost) == (2, 0, 0, 0)
        assert arrived(promptlayer) == [*first.ids, *second.ids]
        assert second.requests[0].request_id
        status = pltrack.status()
        assert (status.in_memory, status.delivered, status.pending, status.lost) == (True, 3, 0, 0)
        assert "locked" in str(status.last_error)
    wait_until(lambda: not pltrack.status().in_memory)
    wait_until(lambda: in_file(journal, "sum(state = 'delivered')") == 2)
    assert in_file(journal, "state", "notes") == "delivered"
    status = pltrack.status()
    assert (status.last_error, status.delivered, status.pending, status.lost) == (None, 3, 0, 0)
    assert pltrack.flush(10).pending == 0
    assert len(promptlayer.requests) == 2
    assert promptlayer.by_pltrack_id(second.ids[0]).scores == {"default": 70}
    (said,) = errors(caplog)
    assert "locked" in said


@pytest.mark.slow
def test_a_lock_of_more_than_ten_seconds(promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil) -> None:
    """However long it is held, each call arrives within moments, and status() answers at once."""
    track_one()
    pltrack.flush(10)
    ids: list[str] = []
    with locked(journal):
        began = time.monotonic()
        while time.monotonic() - began < 12:
            ids.append(track_one().ids[0])
            wait_until(lambda: len(promptlayer.requests) == len(ids) + 1)
            asked = time.monotonic()
            pltrack.status()
            assert time.monotonic() - asked < 1
    wait_until(lambda: in_file(journal, "sum(state = 'delivered')") == len(ids) + 1)
    assert arrived(promptlayer)[1:] == ids
    assert pltrack.status().lost == 0


def test_status_answers_at_once_under_a_lock(
    promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil
) -> None:
    """Whatever waits for the file, whoever asks how it stands does not, from the first moment of a lock on."""
    track_one()
    pltrack.flush(10)
    assert pltrack.status().delivered == 1  # known from now on
    with locked(journal):
        track_one()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            asked = time.monotonic()
            status = pltrack.status()
            assert time.monotonic() - asked < 1
            assert status.delivered >= 1 or "numbers are old" in str(status.last_error)
        assert (status.delivered, status.pending, "locked" in str(status.last_error)) == (2, 0, True)


def test_what_was_sent_before_the_lock_is_not_sent_twice(
    promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil
) -> None:
    """An answer that cannot be written down is told at once, and kept in mind: its row goes out once."""
    promptlayer.fail(Fault.slow(1.5, path="/log-request"))
    session = track_one()
    wait_until(lambda: in_file(journal, "max(state)") == "sending")
    with locked(journal):
        promptlayer.heal()
        track_one()
        wait_until(lambda: session.requests[0].request_id)
        wait_until(lambda: pltrack.status().in_memory)
    wait_until(lambda: in_file(journal, "sum(state = 'delivered')") == 2)
    assert pltrack.flush(10).pending == 0
    assert sorted(arrived(promptlayer)).count(session.ids[0]) == 1
    assert len(promptlayer.requests) == 2


def test_what_is_said_under_a_lock_about_earlier_calls(
    promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil
) -> None:
    """Scores of requests and of whole sessions, begun before the lock, reach each call from before and during it."""
    with pltrack.pl_session("outer") as outer:
        MODEL.invoke("one")
        with pltrack.pl_session("inner"):
            MODEL.invoke("two")
            assert pltrack.flush(10).pending == 0
            with locked(journal):
                MODEL.invoke("three")
                outer.requests[0].score(10, name="alone")
                pltrack.session(outer.id).score(90, name="all")
                wait_until(lambda: sum(len(each.scores) for each in promptlayer.requests) == 4)
                assert pltrack.status().in_memory
            wait_until(lambda: not pltrack.status().in_memory)
        MODEL.invoke("after the score")
    wait_until(lambda: pltrack.flush(1).pending == 0)
    assert in_file(journal, "group_concat(distinct state)", "notes") == "delivered"
    scores = [promptlayer.by_pltrack_id(each).scores for each in outer.ids]
    assert scores == [{"alone": 10, "all": 90}, {"all": 90}, {"all": 90}, {}]


def test_scores_keep_their_order_around_a_lock(
    promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil
) -> None:
    """A score from before the lock that is still in the file goes out first, whatever is said during the lock."""
    session = track_one()
    assert pltrack.flush(10).pending == 0
    promptlayer.fail(Fault(status=503, path="/rest/track-score"))
    session.score(1)
    wait_until(lambda: in_file(journal, "max(attempts)", "notes") == 1)
    with locked(journal):
        session.score(2)
        wait_until(lambda: pltrack.status().in_memory and pltrack.status().pending == 2)
        promptlayer.heal()
        track_one()
        wait_until(lambda: len(promptlayer.requests) == 2)
        assert promptlayer.by_pltrack_id(session.ids[0]).scores == {}
    wait_until(lambda: pltrack.flush(1).pending == 0)
    assert promptlayer.by_pltrack_id(session.ids[0]).scores == {"default": 2}


def test_a_score_during_a_lock_of_a_call_that_was_out(
    promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil
) -> None:
    """A call that is under way when the file serves again follows later, and takes what was said of it along."""
    track_one()
    pltrack.flush(10)
    promptlayer.fail(Fault.slow(60, path="/log-request"))
    with locked(journal):
        session = track_one()
        wait_until(lambda: len([each for each in promptlayer.calls if each.path == "/log-request"]) == 2)
    wait_until(lambda: not pltrack.status().in_memory)
    session.score(55)
    wait_until(lambda: in_file(journal, "count(*)", "notes") == 1)
    promptlayer.heal()
    wait_until(lambda: in_file(journal, "sum(state = 'delivered')") == 2)
    wait_until(lambda: pltrack.flush(1).pending == 0)
    assert promptlayer.by_pltrack_id(session.ids[0]).scores == {"default": 55}
    assert len(promptlayer.requests) == 2


def test_what_waits_in_memory_goes_out_from_the_file(
    promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil
) -> None:
    """With the server away as well, records of the locked time are moved to the file and arrive once from there."""
    track_one()
    pltrack.flush(10)
    promptlayer.fail(Fault(status=503, path="/log-request"))
    with locked(journal):
        ids = [track_one().ids[0] for _ in range(20)]
        wait_until(lambda: pltrack.status().pending == 20 and pltrack.status().in_memory)
    wait_until(lambda: in_file(journal) == 21)
    promptlayer.heal()
    wait_until(lambda: pltrack.flush(2).pending == 0)
    assert sorted(arrived(promptlayer)[1:]) == sorted(ids)
    assert pltrack.status().lost == 0


LEAVING = """
with pltrack.pl_session() as s:
    model.invoke("before")
pltrack.flush(10)
print("ready", flush=True)
sys.stdin.readline()
with pltrack.pl_session() as s:
    model.invoke("held")
print(s.ids[0], time.time(), flush=True)
"""


@pytest.mark.parametrize("server", ["well", "away"])
def test_an_end_under_a_lock(promptlayer: FakePromptLayer, tmp_path: Path, server: str) -> None:
    """A program that ends while the file is locked ends in time: its calls have arrived, or are said to be lost."""
    journal = tmp_path / "own" / "journal.db"
    process = start(LEAVING, environment(journal, promptlayer))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if server == "away":
        promptlayer.fail(Fault.silent(path="/"))
    with locked(journal):
        out, err = process.communicate("\n", timeout=30)
        own_id, ended = out.split()
        assert time.time() - float(ended) < 5
    assert process.returncode == 0
    if server == "well":
        assert own_id in arrived(promptlayer), err
        assert "lost" not in err
    else:
        assert "1 record(s) were lost" in err


def test_a_lock_with_nobody_who_delivers(promptlayer: FakePromptLayer, journal: Path, wait_until: WaitUntil) -> None:
    """Where another program delivers, records of the locked time are in the file for it afterwards."""
    pltrack.configure(delivery="external")
    track_one()
    pltrack.flush(10)
    with locked(journal):
        late = track_one()
        wait_until(lambda: pltrack.status().in_memory and pltrack.status().pending == 2)
    wait_until(lambda: in_file(journal, "sum(state = 'pending')") == 2)
    assert in_file(journal, "max(id)") == late.ids[0]
    assert pltrack.status().lost == 0


FORKING = """
with pltrack.pl_session() as s:
    model.invoke("before")
pltrack.flush(10)
print("ready", flush=True)
sys.stdin.readline()
with pltrack.pl_session() as s:
    model.invoke("parent")
print(s.ids[0], flush=True)
for _ in range(1000):
    if pltrack.status().in_memory: break
    threading.Event().wait(0.01)
child = os.fork()
with pltrack.pl_session() as s:
    model.invoke("one of two")
print(s.ids[0], pltrack.flush(10).pending, flush=True)
if child:
    os.waitpid(child, 0)
    sys.stdin.readline()
else:
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_under_a_lock(promptlayer: FakePromptLayer, tmp_path: Path, wait_until: WaitUntil) -> None:
    """Parent and child each deliver what is in their own memory, once; the parent moves its part to the file."""
    journal = tmp_path / "own" / "journal.db"
    process = start(FORKING, environment(journal, promptlayer))
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    with locked(journal):
        process.stdin.write("\n")
        process.stdin.flush()
        first = process.stdout.readline().strip()
        both = [process.stdout.readline().split() for _ in range(2)]
        wait_until(lambda: len(promptlayer.requests) == 4)
    assert [pending for _, pending in both] == ["0", "0"]
    wait_until(lambda: in_file(journal, "sum(state = 'delivered')") == 3)
    process.communicate("\n", timeout=30)
    assert sorted(arrived(promptlayer)[1:]) == sorted([first, *(each for each, _ in both)])
    assert len(promptlayer.requests) == 4


# -- full ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("mount"):
        pytest.skip("there is no mount here")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not allow mounts: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        pltrack.shutdown(1)
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_gone_around(
    promptlayer: FakePromptLayer, small_disk: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """On a full disk calls are delivered from memory; when there is room again the file has them all."""
    journal = small_disk / "journal.db"
    pltrack.configure(journal=journal, min_free=0)
    ids = list(track_one().ids)
    assert pltrack.flush(10).pending == 0
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    while not pltrack.status().in_memory:  # some may still find room
        ids += track_one("x" * 40_000).ids
        pltrack.flush(0)
    late = [track_one("x" * 40_000).ids[0] for _ in range(10)]
    wait_until(lambda: set(late) <= set(arrived(promptlayer)))
    status = pltrack.status()
    assert status.in_memory
    assert "full" in str(status.last_error)
    assert (status.delivered + status.pending, status.lost) == (len(ids) + 10, 0)
    (said,) = errors(caplog)
    assert "full" in said
    ballast.unlink()
    wait_until(lambda: not pltrack.status().in_memory)
    wait_until(lambda: in_file(journal, "sum(state = 'delivered')") == len(ids) + 10)
    assert sorted(arrived(promptlayer)) == sorted(ids + late)
    assert len(errors(caplog)) == 1


# -- no place -----------------------------------------------------------------------------------------------


def test_a_folder_that_can_be_written_later(
    promptlayer: FakePromptLayer, tmp_path: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """What stands in the way of the folder is removed while the program runs: then there is a file, with all."""
    way = tmp_path / "way"
    way.write_text("")
    journal = way / "journal.db"
    pltrack.configure(journal=journal)
    promptlayer.fail(Fault(status=503, path="/log-request"))
    ids = [track_one().ids[0] for _ in range(5)]
    wait_until(lambda: pltrack.status().pending == 5)
    assert pltrack.status().in_memory
    way.unlink()
    wait_until(lambda: not pltrack.status().in_memory)
    assert in_file(journal) == 5
    ids += track_one().ids
    promptlayer.heal()
    wait_until(lambda: pltrack.flush(2).pending == 0)
    assert sorted(arrived(promptlayer)) == sorted(ids)
    assert in_file(journal, "sum(state = 'delivered')") == 6
    assert len(errors(caplog)) == 1
    assert pltrack.status().lost == 0
