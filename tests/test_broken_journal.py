"""The journal broken or homeless: the program does not notice, and everything arrives."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import opened
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from programs import environment, run, start

import pltrack
from pltrack._journal import places
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
    assert [each.levelname for each in caplog.records if "kept in memory" in each.message] == ["ERROR"]


def test_a_lock_held_at_opening_is_waited_for(promptlayer: FakePromptLayer, journal: Path, wait_until: Wait) -> None:
    """A journal that another program holds when it is opened is not given up for memory."""
    with opened(journal, isolation_level=None) as holder:
        holder.execute("pragma journal_mode = wal")
        holder.execute("begin exclusive")
        ours = call("held")
        wait_until(lambda: "locked" in (pltrack.status().last_error or ""))
        holder.execute("rollback")
    wait_until(lambda: arrived(promptlayer) == [ours])
    wait_until(lambda: not pltrack.status().in_memory)


def test_shutdown_ends_in_time_under_a_lock(promptlayer: FakePromptLayer, journal: Path, wait_until: Wait) -> None:
    """A journal that cannot be written does not hold up the end."""
    call("before")
    assert pltrack.flush(10).pending == 0
    with opened(journal, isolation_level=None) as holder:
        holder.execute("begin exclusive")
        call("held")
        wait_until(lambda: pltrack.status().last_error)
        started = time.monotonic()
        pltrack.shutdown(0.5)
        assert time.monotonic() - started < 2.5
        holder.execute("rollback")


QUOTA = """
import logging, resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with pltrack.pl_session() as s:
    model.invoke("before")
pltrack.flush(10)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
with pltrack.pl_session() as t:
    for n in range(30):
        model.invoke("x" * 5000)
print(pltrack.flush(20).pending, flush=True)
print(pltrack.status().last_error, pltrack.status().in_memory, pltrack.status().lost, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(*s.ids, *t.ids, flush=True)
for _ in range(1000):
    if not pltrack.status().in_memory: break
    threading.Event().wait(0.01)
print(pltrack.status().in_memory, pltrack.status().lost)
"""


def test_a_full_disk_loses_nothing(promptlayer: FakePromptLayer, journal: Path) -> None:
    """Under a quota that is reached nothing is raised or lost, and with room again everything arrives once."""
    out = run(QUOTA, environment(journal, promptlayer)).splitlines()
    assert out[0] == "0"
    assert out[1].endswith(" True 0")
    assert "None" not in out[1]
    assert arrived(promptlayer) == sorted(out[2].split())
    assert out[3] == "False 0"
    with opened(journal) as db:
        assert db.execute("select count(*) from requests where state = 'delivered'").fetchone() == (31,)


def test_beyond_max_pending_the_newest_are_given_up_and_counted(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait
) -> None:
    """Memory is bounded while nothing can be written: the oldest are kept, the others are counted as lost."""
    pltrack.configure(journal=journal.with_name("other.db"), max_pending=10)
    first = call("before")
    assert pltrack.flush(10).pending == 0
    holder = sqlite3.connect(journal.with_name("other.db"), isolation_level=None)
    holder.execute("begin exclusive")
    ids = [call(f"call {n}") for n in range(30)]
    lost = pltrack.status().lost
    assert lost >= 20
    holder.execute("rollback")
    holder.close()
    wait_until(lambda: pltrack.status().pending == 0)
    got = arrived(promptlayer)
    assert len(got) >= 2
    assert set(got) <= {first, *ids}
    assert first in got
    assert ids[0] in got


def spoil(journal: Path, how: str) -> None:
    match how:
        case "overwritten":
            with journal.open("r+b") as file:
                file.write(b"this is no database at all " * 4000)
            wal = journal.with_name(journal.name + "-wal")
            if wal.exists():
                with wal.open("r+b") as file:
                    file.truncate(0)
        case "deleted":
            for each in journal.parent.glob("journal.db*"):
                each.unlink()
        case "replaced":
            other = journal.with_name("other")
            other.write_bytes(b"somebody else's" * 1000)
            other.rename(journal)
        case "truncated":
            os.truncate(journal, 5000)


@pytest.mark.parametrize("how", ["overwritten", "deleted", "replaced", "truncated"])
def test_a_file_spoilt_while_open_is_replaced(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Spoilt under way: what is recorded from then on arrives once, from here and from the next process."""
    first = call("before")
    assert pltrack.flush(10).pending == 0
    spoil(journal, how)
    ids = [call(f"call {n}") for n in range(5)]
    wait_until(lambda: arrived(promptlayer) == sorted([first, *ids]))
    assert pltrack.status().lost == 0
    assert not pltrack.status().in_memory
    said = [each.message for each in caplog.records if "fresh journal" in each.message]
    if how in ("deleted", "replaced"):  # SQLite goes on from its memory for a while in a file that was written over
        assert len(said) == 1
    assert len(said) <= 1
    pltrack.shutdown(5)
    later = run(TWO, environment(journal, promptlayer)).strip()
    assert arrived(promptlayer) == sorted([first, *ids, later])
    assert len(aside(journal)) <= 1


def test_a_file_that_is_no_database_is_set_aside_at_opening(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    """What was there is kept under another name, byte for byte, and a fresh journal is used."""
    content = b"no database, but long enough for a header " * 100
    journal.write_bytes(content)
    ours = call("first")
    wait_until(lambda: arrived(promptlayer) == [ours])
    assert [each.read_bytes() for each in aside(journal)] == [content]
    assert len([each for each in caplog.records if "fresh journal" in each.message]) == 1


TWO = """
with pltrack.pl_session() as s:
    model.invoke("mine")
pltrack.flush(20)
print(*s.ids)
"""


def test_processes_that_meet_the_same_broken_file_share_the_fresh_one(
    promptlayer: FakePromptLayer, journal: Path
) -> None:
    """One of them sets it aside; nobody sets aside another's fresh file; all that was recorded is in it."""
    journal.write_bytes(b"no database, but long enough for a header " * 100)
    children = [start(TWO, environment(journal, promptlayer)) for _ in range(3)]
    ids = [child.communicate(timeout=60)[0].strip() for child in children]
    assert len(aside(journal)) == 1
    with opened(journal) as db:
        assert sorted(row[0] for row in db.execute("select id from requests")) == sorted(ids)
    assert arrived(promptlayer) == sorted(ids)


MEMORY = """
wanted = os.environ["WANTED"]
with pltrack.pl_session() as first:
    model.invoke("loads what the other user cannot read")
pltrack.flush(20)
if os.environ["DROP"]:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
pltrack.configure(journal=wanted)
with pltrack.pl_session() as s:
    model.invoke("homeless")
print(*first.ids, *s.ids)
print(pltrack.flush(20).pending, pltrack.status().in_memory, pltrack.status().lost)
"""


@pytest.mark.parametrize("place", ["a file in the way", "not ours"])
def test_without_a_place_to_write_records_are_delivered_from_memory(
    promptlayer: FakePromptLayer, tmp_path: Path, place: str
) -> None:
    """A directory that is a file or that belongs to another user: said once, and everything still arrives."""
    home = tmp_path / "home"
    if place == "a file in the way":
        home.write_text("")
    elif os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    else:
        home.mkdir(mode=0o755)
    drop = "yes" if place == "not ours" else ""
    env = environment(tmp_path / "first.db", promptlayer, WANTED=str(home / "journal.db"), DROP=drop)
    process = start(MEMORY, env)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    ids, state = out.splitlines()
    assert state == "0 True 0"
    assert arrived(promptlayer) == sorted(ids.split())
    assert err.count("records are kept in memory") == 1


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw,relatime shared:2 master:3 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/me/local\\040disk rw - xfs /dev/sdb rw
32 22 0:42 / /mnt/win rw - cifs //server/share rw
33 22 0:43 / /mnt/win rw - ext4 /dev/sdc rw
34 22 0:44 / /remote rw - fuse.sshfs me@host: rw
35 22 0:45 / /mnt/ntfs rw - fuseblk /dev/sdb1 rw
a line that nobody understands
"""
KINDS = """
    nfs nfs4 cifs smb3 smb2 smbfs 9p ceph fuse.ceph-fuse lustre gpfs afs beegfs fuse.glusterfs fuse.sshfs fuse.s3fs
    fuse.gcsfuse fuse.rclone vboxsf
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/journal.db", ""),
        ("/home/me/journal.db", "nfs4"),
        ("/home/me/local disk/journal.db", ""),
        ("/homes/journal.db", ""),
        ("/mnt/win/journal.db", ""),
        ("/remote/a/journal.db", "fuse.sshfs"),
        ("/mnt/ntfs/journal.db", ""),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(path: str, kind: str) -> None:
    """The innermost mount decides, of two on one place the later one; escaped names are read."""
    assert places.network(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("kind", KINDS.split())
def test_kinds_of_network_file_systems(kind: str) -> None:
    """Each that shares files between machines is known, on its own and as a program's."""
    assert places.network(Path("/home/me/journal.db"), MOUNTS.replace(" nfs4 ", f" {kind} ")) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuse.lxcfs", "virtiofs", "f2fs"])
def test_kinds_of_local_file_systems(kind: str) -> None:
    """Each that serves one machine is used."""
    assert places.network(Path("/home/me/journal.db"), MOUNTS.replace(" nfs4 ", f" {kind} ")) == ""
