"""Several versions of pltrack over one journal: a rolling deploy, forth and back, and a schema that breaks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import opened
from programs import environment, run, start

from pltrack.testing import FakePromptLayer

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
RECORD = """
with pltrack.pl_session() as s:
    for _ in range(5):
        model.invoke("What comes after 1,2,3?")
    s.score(90, name="tone")
print(pltrack.__file__, flush=True)
print(*s.ids, flush=True)
"""
SYNC = "from pltrack.cli import main; sys.argv = ['pltrack', 'sync', '--timeout', '30']; main()"
# What a later minor version does: a column, an index and a table more, and all of them in use.
ADDITIONS = {
    "pltrack/_journal/schema.py": [
        (
            'Column("local_link", String),',
            'Column("region", String, index=True),\n    Column("zone", String, nullable=False, server_default="z"),\n'
            '    Column("local_link", String),',
        ),
        (
            "prompts = Table(",
            'extra = Table("extra", tables, Column("key", String, primary_key=True))\nprompts = Table(',
        ),
    ],
    "pltrack/_journal/statements.py": [('"local_link",', '"local_link", "region", "zone",')],
    "pltrack/_journal/rows.py": [('"local_link": ', '"region": "eu", "zone": "a",\n            "local_link": ')],
}
BREAKING = {"pltrack/_journal/schema.py": [("\nVERSION = 1\n", "\nVERSION = 2\n")]}
Edits = dict[str, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build a wheel of this tree, edited as asked, and return a folder that it is installed in."""

    def built(*edits: Edits) -> Path:
        folder = tmp_path_factory.mktemp("version")
        tree = folder / "tree"
        shutil.copytree(ROOT / "pltrack", tree / "pltrack", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tree / name)
        for file, changes in (pair for each in edits for pair in each.items()):
            text = (tree / file).read_text()
            for before, after in changes:
                assert before in text
                text = text.replace(before, after)
            (tree / file).write_text(text)
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(build, cwd=tree, check=True, capture_output=True, timeout=60)
        (wheel,) = folder.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(folder / "target")
        return folder / "target"

    return built


@pytest.fixture(scope="module")
def older(version: Callable[..., Path]) -> Path:
    return version()


@pytest.fixture(scope="module")
def newer(version: Callable[..., Path]) -> Path:
    return version(ADDITIONS)


@pytest.fixture(scope="module")
def breaking(version: Callable[..., Path]) -> Path:
    return version(ADDITIONS, BREAKING)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def installed(target: Path, journal: Path, server: FakePromptLayer, **more: str) -> dict[str, str]:
    """Return an environment in which this version is the one that is imported."""
    return environment(journal, server, PYTHONPATH=str(target), PYTHONSAFEPATH="1", **more)


def recorded(target: Path, journal: Path, server: FakePromptLayer, **more: str) -> list[str]:
    """Run a program of this version; return the ids of its requests."""
    where, ids = run(RECORD, installed(target, journal, server, **more)).splitlines()
    assert where.startswith(str(target))
    return ids.split()


def columns(journal: Path) -> set[str]:
    with opened(journal) as db:
        return {row[1] for row in db.execute("pragma table_info(requests)")}


def schema(journal: Path) -> str:
    with opened(journal) as db:
        return str(db.execute("select value from meta where key = 'schema'").fetchone()[0])


def arrived(server: FakePromptLayer, ids: list[str]) -> None:
    """Check that these requests, and no others, came once each, with their scores."""
    assert sorted(logged.metadata["pltrack_id"] for logged in server.requests) == sorted(ids)
    assert {logged.scores.get("tone") for logged in server.requests} == {90}


def test_forth_and_back(promptlayer: FakePromptLayer, journal: Path, older: Path, newer: Path) -> None:
    """Programs of an older and a newer minor version write and deliver one file in turns."""
    ids: list[str] = []
    for target in (older, newer, older, newer):
        ids += recorded(target, journal, promptlayer)
        assert ("region" in columns(journal)) == (target is newer or len(ids) > 5)
    arrived(promptlayer, ids)
    assert [file.name for file in journal.parent.glob("*.db")] == ["journal.db"]


@pytest.mark.parametrize(("writer", "sender"), [("older", "newer"), ("newer", "older")])
def test_each_delivers_what_the_other_left(
    promptlayer: FakePromptLayer, journal: Path, request: pytest.FixtureRequest, writer: str, sender: str
) -> None:
    """What one version recorded and did not send, the other one delivers: after a deploy, and after a rollback."""
    one, other = request.getfixturevalue(writer), request.getfixturevalue(sender)
    ids = recorded(one, journal, promptlayer, PLTRACK_DELIVERY="external")
    ids += recorded(other, journal, promptlayer, PLTRACK_DELIVERY="external")
    run(SYNC, installed(other, journal, promptlayer))
    arrived(promptlayer, ids)


def test_both_at_once(promptlayer: FakePromptLayer, journal: Path, older: Path, newer: Path) -> None:
    """A program that runs when a newer one adds its columns goes on writing and delivering; so does the newer."""
    program = RECORD + "for line in sys.stdin:\n    with pltrack.pl_session() as s:\n        model.invoke('more')\n"
    program += "        s.score(90, name='tone')\n    pltrack.flush(20)\n    print(*s.ids, flush=True)"
    processes = [start(program, installed(each, journal, promptlayer)) for each in (older, newer)]
    ids: list[str] = []
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
        ids += process.stdout.readline().split()
    for _ in range(10):
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            ids += process.stdout.readline().split()
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    arrived(promptlayer, ids)


def test_a_breaking_schema_has_a_file_beside(
    promptlayer: FakePromptLayer, journal: Path, older: Path, breaking: Path
) -> None:
    """The newer program writes a file of its own, and delivers the older one's backlog as well as its own."""
    ids = recorded(older, journal, promptlayer, PLTRACK_DELIVERY="external")
    ids += recorded(breaking, journal, promptlayer, PLTRACK_DELIVERY="external")
    ids += recorded(older, journal, promptlayer, PLTRACK_DELIVERY="external")
    beside = journal.with_name("journal-v2.db")
    assert (schema(journal), schema(beside)) == ("1", "2")
    run(SYNC, installed(breaking, journal, promptlayer))
    arrived(promptlayer, ids)
    ids += recorded(older, journal, promptlayer)
    arrived(promptlayer, ids)


def test_a_program_drains_older_files_while_it_runs(
    promptlayer: FakePromptLayer, journal: Path, older: Path, breaking: Path
) -> None:
    """The older program is gone for good: the next one of a breaking schema delivers its backlog in the background."""
    left = recorded(older, journal, promptlayer, PLTRACK_DELIVERY="external")
    process = start(RECORD + "sys.stdin.readline()", installed(breaking, journal, promptlayer))
    assert process.stdout is not None
    process.stdout.readline()
    own = process.stdout.readline().split()
    promptlayer.wait_for(lambda server: sum(logged.scores.get("tone") == 90 for logged in server.requests) == 10, 30)
    process.communicate("", timeout=60)
    arrived(promptlayer, left + own)


def test_a_rollback_from_a_breaking_schema(
    promptlayer: FakePromptLayer, journal: Path, older: Path, breaking: Path
) -> None:
    """An older program finds a newer one's file: it writes beside it, delivers, and leaves the other alone."""
    ids = recorded(breaking, journal, promptlayer, PLTRACK_DELIVERY="external")
    before = journal.read_bytes()
    own = recorded(older, journal, promptlayer)
    arrived(promptlayer, own)
    assert (schema(journal), schema(journal.with_name("journal-v1.db"))) == ("2", "1")
    assert journal.read_bytes() == before
    last = recorded(older, journal, promptlayer, PLTRACK_DELIVERY="external")
    run(SYNC, installed(breaking, journal, promptlayer))
    arrived(promptlayer, ids + own + last)


@pytest.mark.parametrize("schema", ["7", "no number"])
def test_a_file_of_a_schema_from_the_future(
    promptlayer: FakePromptLayer, journal: Path, older: Path, schema: str
) -> None:
    """Whatever the file says of itself, this version leaves it as it is and loses nothing."""
    recorded(older, journal, promptlayer)
    with opened(journal) as db:
        db.execute("update meta set value = ? where key = 'schema'", [schema])
    ids = recorded(older, journal, promptlayer)
    assert {logged.metadata["pltrack_id"] for logged in promptlayer.requests} >= set(ids)
    assert journal.with_name("journal-v1.db").exists()
