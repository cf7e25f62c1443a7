"""The journal's file is gone, replaced or out of reach: what it still owed is not lost, memory has bounds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import arrived, errors, in_file, track_one
from programs import environment, run, start

import pltrack
from pltrack import _runtime
from pltrack.testing import FakePromptLayer, Fault

WaitUntil = Callable[[Callable[[], object]], None]


@pytest.mark.parametrize("gone", [("", "-wal", "-shm"), ("",), ("-wal",)], ids=["all", "file", "wal"])
def test_a_file_that_is_deleted_while_open(
    promptlayer: FakePromptLayer,
    tmp_path: Path,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
    gone: tuple[str, ...],
) -> None:
    """What was only in the deleted file and not delivered is in the new one, and goes out once."""
    journal = tmp_path / "journal.db"
    promptlayer.fail(Fault(status=503, path="/log-request"))
    before = [track_one().ids[0] for _ in range(5)]
    wait_until(lambda: in_file(journal) == 5)
    for tail in gone:
        (tmp_path / f"journal.db{tail}").unlink()
    after = track_one().ids[0]
    promptlayer.heal()
    wait_until(lambda: not pltrack.flush(2).pending)
    assert sorted(arrived(promptlayer)) == sorted([*before, after])
    assert in_file(journal) == 6
    status = pltrack.status()
    assert (status.in_memory, status.lost) == (False, 0)
    assert len([each for each in errors(caplog) if "deleted or replaced" in each]) == (gone != ("-wal",))


def test_a_file_that_is_replaced_while_open(
    promptlayer: FakePromptLayer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Another journal in its place is used from then on, and takes in what the old one still owed."""
    journal, other = tmp_path / "journal.db", tmp_path / "other" / "journal.db"
    promptlayer.fail(Fault(status=503, path="/log-request"))
    theirs = run(
        "for _ in range(3):\n    with pltrack.pl_session() as s:\n        model.invoke('hi')\n    print(s.ids[0])",
        environment(other, promptlayer, PLTRACK_DELIVERY="external"),
    ).split()
    ours = [track_one().ids[0] for _ in range(5)]
    wait_until(lambda: in_file(journal) == 5)
    for tail in ("-wal", "-shm"):
        (tmp_path / f"journal.db{tail}").unlink()
    other.rename(journal)
    ours.append(track_one().ids[0])
    promptlayer.heal()
    wait_until(lambda: not pltrack.flush(2).pending and len(promptlayer.requests) >= 9)
    assert sorted(arrived(promptlayer)) == sorted([*ours, *theirs])
    assert in_file(journal) == 9


FUSE = """
import ctypes
os.makedirs(os.environ["POINT"])
point = os.environ["POINT"].encode()
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"me@server:", point, b"fuse.sshfs", 0, options):
    print("refused")
    sys.exit()
try:
    with pltrack.pl_session() as s:
        model.invoke("hi")
    left = pltrack.flush(15).pending
    status = pltrack.status()
    print(left, status.in_memory, "fuse.sshfs" in status.last_error)
    pltrack.shutdown(2)
finally:
    libc.umount2(point, 2)
"""


def test_a_network_file_system_is_not_used(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """On a mounted file system of another machine, which does not even answer, nothing is touched nor waited for."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("this machine does not allow mounts")
    point = tmp_path / "remote"
    out = run(FUSE, environment(point / "journal.db", promptlayer, POINT=str(point))).strip()
    if out == "refused":
        pytest.skip("this machine does not allow such a mount")
    assert out == "0 True True"
    assert len(promptlayer.requests) == 1


def test_memory_is_bounded_and_says_what_it_lost(
    promptlayer: FakePromptLayer, tmp_path: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """With no file and no server the oldest records go once `max_pending` is reached, counted and said."""
    promptlayer.fail(Fault(status=503, path="/"))
    (tmp_path / "file").write_text("")
    pltrack.configure(journal=tmp_path / "file" / "journal.db", max_pending=50)
    for _ in range(30):
        for _ in range(4):
            track_one()
        pltrack.flush(0.2 if _ == 29 else 0.0)
        wait_until(lambda: not len(_runtime.get().lane.writer))
    status = pltrack.status()
    assert status.pending <= 50
    assert status.lost == 120 - status.pending
    assert [each for each in errors(caplog) if "lost" in each]


def test_delivered_records_make_room_in_memory(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """With no file but a server nothing is lost, however much passes through memory."""
    (tmp_path / "file").write_text("")
    pltrack.configure(journal=tmp_path / "file" / "journal.db", max_pending=50)
    ids = []
    for _ in range(10):
        ids += [track_one().ids[0] for _ in range(10)]
        assert pltrack.flush(10).pending == 0
    assert sorted(arrived(promptlayer)) == sorted(ids)
    assert pltrack.status().lost == 0


def test_what_memory_could_not_hand_on_is_said_at_exit(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """A program that ends with undelivered records in memory ends in time and says how many are gone."""
    promptlayer.fail(Fault.silent(path="/"))
    (tmp_path / "file").write_text("")
    process = start(
        """
        with pltrack.pl_session() as s:
            model.invoke("hi")
        print(time.time(), flush=True)
        """,
        environment(tmp_path / "file" / "journal.db", promptlayer),
    )
    out, err = process.communicate(timeout=30)
    assert time.time() - float(out) < 5
    assert "1 record(s) were lost" in err
