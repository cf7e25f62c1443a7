"""No place for a journal, or a damaged one left behind: other users, read-only systems, torn logs, newer files."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import arrived, opened
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from programs import PREAMBLE, environment, run, start

import pltrack
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
SYNC = "from pltrack.cli import main; sys.argv = ['pltrack', 'sync', '--timeout', '70']; main()"


def aside(journal: Path) -> list[Path]:
    return [path for path in journal.parent.glob("*.broken-*") if not path.name.endswith(("-wal", "-shm"))]


# -- nobody's home ------------------------------------------------------------------------------------------

# A server of its own: what is started as nobody may not look into the test's folders.
HOMELESS = """
from pltrack.testing import FakePromptLayer
with FakePromptLayer() as server:
    pltrack.configure(api_key=server.api_key, base_url=server.url)
    with pltrack.pl_session() as s:
        model.invoke("hi")
    assert pltrack.flush(15).pending == 0
    status = pltrack.status()
    print(len(server.requests), status.in_memory, status.lost, status.journal, flush=True)
"""


def homeless_environment(**more: str) -> dict[str, str]:
    named = ("PLTRACK", "PROMPT", "HOME", "XDG", "USER", "LOGNAME")
    return {key: value for key, value in os.environ.items() if not key.startswith(named)} | more


def as_nobody(folder: Path, **more: str) -> tuple[list[str], str]:
    """Run a program without a home as a user that nobody knows; return its words, and what it logged."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become a user that nobody knows, with setpriv")
    # It may read everything, or it could not read a Python that is in root's home; it may not write everything.
    able = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    command = ["setpriv", "--reuid=43210", "--regid=43210", "--clear-groups", *able, sys.executable, "-c"]
    env = homeless_environment(TMPDIR=str(folder), **more)
    done = subprocess.run(
        [*command, PREAMBLE + HOMELESS], env=env, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that everybody can reach and write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_user_without_a_home(open_folder: Path) -> None:
    """With no HOME and no entry in the list of users, the journal is in the temporary folder, for that user only."""
    (count, in_memory, lost, journal), said = as_nobody(open_folder)
    assert (count, in_memory, lost) == ("1", "False", "0")
    assert Path(journal).is_relative_to(open_folder)
    assert Path(journal).stat().st_mode & 0o077 == 0
    assert Path(journal).parent.stat().st_mode & 0o077 == 0
    assert "there is no home folder" in said


def test_a_folder_that_cannot_be_written(open_folder: Path) -> None:
    """In a folder without the right to write, calls are delivered from memory, said once."""
    (open_folder / "closed").mkdir(mode=0o555)
    words, said = as_nobody(open_folder, PLTRACK_JOURNAL=str(open_folder / "closed" / "journal.db"))
    assert words[:3] == ["1", "True", "0"]
    assert said.count("kept in memory") == 1


def test_a_file_that_cannot_be_written(open_folder: Path) -> None:
    """A journal that belongs to somebody else is left as it is, and calls are delivered from memory."""
    journal = open_folder / "journal.db"
    run(
        "with pltrack.pl_session() as s:\n    model.invoke('theirs')",
        environment(journal),
    )
    before = journal.read_bytes()
    words, said = as_nobody(open_folder, PLTRACK_JOURNAL=str(journal))
    assert words[:3] == ["1", "True", "0"]
    assert said.count("kept in memory") == 1
    assert journal.read_bytes() == before


def test_nothing_at_all_can_be_written(open_folder: Path) -> None:
    """On a read-only root file system, without a home, calls are delivered from memory."""
    alone = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow mounts of its own")
    program = open_folder / "program.py"
    program.write_text(PREAMBLE + HOMELESS)
    script = f"mount -o remount,bind,ro / 2>/dev/null || exit 77; exec {sys.executable} {program}"
    env = homeless_environment(TMPDIR="/usr")
    done = subprocess.run(
        [*alone, "sh", "-c", script], env=env, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode == 77:
        pytest.skip("the root file system cannot be mounted again here")
    assert done.stdout.split()[:3] == ["1", "True", "0"], done.stderr
    assert done.stderr.count("kept in memory") == 1


# -- damaged ------------------------------------------------------------------------------------------------

LEFT = """
for _ in range(20):
    with pltrack.pl_session() as s:
        model.invoke("x" * 6_000)
    print(s.ids[0])
pltrack.flush(10)
print("ready", flush=True)
sys.stdin.readline()
"""
ONE = "with pltrack.pl_session() as s:\n    model.invoke('hi')\nprint(pltrack.flush(10).pending)\nprint(s.ids[0])"


def left_behind(journal: Path, server: FakePromptLayer, *, killed: bool) -> list[str]:
    """Have a program record and deliver nothing; return the ids of its calls."""
    process = start(LEFT, environment(journal, server, PLTRACK_DELIVERY="external"))
    assert process.stdout is not None
    ids = []
    while (line := process.stdout.readline().strip()) != "ready":
        ids.append(line)
    if killed:
        process.kill()
    process.communicate()
    return ids


def readable(journal: Path) -> set[str]:
    """Return the ids of calls that can still be read whole."""
    found = set()
    with opened(f"{journal.as_uri()}?mode=ro&immutable=1", uri=True) as db:
        for seq in range(1, 21):
            try:
                rows = db.execute(
                    "select r.*, payload from requests r join bodies b on b.seq = r.seq where r.seq = ?", [seq]
                )
                found.update(row[1] for row in rows if json.loads(row[-1]))
            except (sqlite3.DatabaseError, ValueError):
                continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("at", [0.3, 0.7])
def test_a_file_that_is_damaged_in_the_middle(promptlayer: FakePromptLayer, tmp_path: Path, at: float) -> None:
    """What can still be read on both sides of the damage arrives, once each; a file that was given up is kept."""
    journal = tmp_path / "own.db"
    ids = left_behind(journal, promptlayer, killed=False)
    with journal.open("r+b") as file:
        file.seek(int(journal.stat().st_size * at) // 4096 * 4096)
        file.write(b"\xa5" * 3 * 4096)
    left = readable(journal)
    env = environment(journal, promptlayer)
    own = run(ONE, env).split()[-1]
    sync = start(SYNC, env)
    sync.communicate(timeout=90)
    got = arrived(promptlayer)
    assert len(got) == len(set(got))
    assert {own, *left} <= set(got) <= {own, *ids}


@pytest.mark.slow
@pytest.mark.parametrize("torn", ["garbage", "flipped", "truncated", "half"])
def test_a_torn_log_of_a_killed_program(promptlayer: FakePromptLayer, tmp_path: Path, torn: str) -> None:
    """A -wal that a crash left torn costs at most what was in it; the next program records and delivers, once each."""
    journal = tmp_path / "own.db"
    ids = left_behind(journal, promptlayer, killed=True)
    wal = tmp_path / "own.db-wal"
    whole = wal.read_bytes()
    flipped = bytearray(whole)
    for at in range(len(whole) // 2, len(whole), 4096):
        flipped[at] ^= 0x10
    spoilt = {"garbage": b"\x5a" * len(whole), "flipped": bytes(flipped), "truncated": b"", "half": whole[: 4096 * 9]}
    wal.write_bytes(spoilt[torn])
    pending, own = run(ONE, environment(journal, promptlayer)).split()
    assert pending == "0"
    got = arrived(promptlayer)
    assert own in got
    assert set(got) <= {own, *ids}
    assert len(got) == len(set(got))


def test_flush_does_not_call_lost_records_delivered(
    promptlayer: FakePromptLayer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Records that a damaged file took with it are counted as lost, by flush and status, and said."""
    journal = tmp_path / "journal.db"
    pltrack.configure(delivery="external")
    ids = []
    for _ in range(60):
        with pltrack.pl_session() as s:
            MODEL.invoke("y" * 3000)
        ids += s.ids
    assert pltrack.flush(10).pending == 60
    with opened(journal) as other:
        other.execute("pragma wal_checkpoint(truncate)")
    with journal.open("r+b") as file:  # the schema stays, all that follows is gone
        size = file.seek(0, os.SEEK_END)
        file.seek(4096 * 40)
        file.write(b"\xa5" * (size - 4096 * 40))
    with pltrack.pl_session() as s:
        MODEL.invoke("z" * 300_000)
    flushed = pltrack.flush(10)
    status = pltrack.status()
    assert status.lost > 0
    assert (flushed.delivered, flushed.lost) == (0, status.lost)
    assert status.pending + status.lost >= 61
    assert f"{status.lost} record(s) were lost" in caplog.text


# -- of a newer version -------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", ["99", "no number"])
def test_a_newer_file_is_left_as_it_is(
    promptlayer: FakePromptLayer, tmp_path: Path, caplog: pytest.LogCaptureFixture, schema: str
) -> None:
    """A journal of a newer schema is not written to, not a byte; calls go into a file beside it, and arrive."""
    journal = tmp_path / "journal.db"
    with pltrack.pl_session():
        MODEL.invoke("first")
    pltrack.flush(10)
    pltrack.shutdown(5)
    db = sqlite3.connect(journal)
    db.execute("update meta set value = ? where key = 'schema'", [schema])
    db.commit()
    db.close()
    before = journal.read_bytes()
    with pltrack.pl_session() as s:
        MODEL.invoke("second")
    assert pltrack.flush(10).pending == 0
    assert pltrack.status().journal == str(tmp_path / "journal-v1.db")
    pltrack.shutdown(5)
    assert arrived(promptlayer)[1:] == list(s.ids)
    assert journal.read_bytes() == before
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
