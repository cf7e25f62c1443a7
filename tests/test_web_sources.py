"""`pltrack ui` while there is no journal, or one that cannot be read: it says so in words and goes on when it can."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from browsers import Served, served
from postgres import Server
from programs import environment, run
from sqlalchemy import delete

from pltrack._journal import looking
from pltrack._journal.looking import Onlooker
from pltrack._journal.schema import requests
from pltrack.errors import JournalError

PATHS = ("/", "/requests/x", "/sessions", "/sessions/x", "/charts", "/prompts", "/prompts/x", "/delivery")
Record = Callable[[Path], None]
CALL = 'with pltrack.pl_session("app"): model.invoke("two and two?")\npltrack.flush(10)'


@contextmanager
def client(page: Served) -> Iterator[httpx.Client]:
    """Return somebody who has opened the printed address."""
    with httpx.Client(base_url=page.base, follow_redirects=True, timeout=20) as found:
        found.get("/", params={"token": page.token})
        yield found


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Put a journal in which a program has recorded one call somewhere."""
    original = tmp_path_factory.mktemp("original") / "journal.db"
    run(CALL, environment(original))

    def put(journal: Path) -> None:
        journal.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(original)) as old, closing(sqlite3.connect(journal)) as new:
            old.backup(new)

    return put


def heading(text: str) -> str:
    """Return what a page's first heading says."""
    return text.partition("<h1")[2].partition(">")[2].partition("</h1>")[0]


def test_nothing_was_recorded_yet(tmp_path: Path, record: Record) -> None:
    """Without a journal each view says how to get one and makes none; the first call appears without a new start."""
    journal = tmp_path / "state" / "journal.db"
    with served(journal) as page, client(page) as browser:
        for path in PATHS:
            answer = browser.get(path)
            assert answer.status_code == 200
            assert heading(answer.text).startswith("Nothing was recorded yet in ")
            assert "pl_session" in answer.text
        assert not journal.parent.exists()
        record(journal)
        assert "two and two?" in browser.get("/").text


def test_a_journal_that_goes_and_comes(tmp_path: Path, record: Record) -> None:
    """A journal that is deleted is gone from the page; the one that takes its place is shown."""
    journal = tmp_path / "journal.db"
    record(journal)
    with served(journal) as page, client(page) as browser:
        assert "two and two?" in browser.get("/").text
        for each in tmp_path.glob("journal.db*"):
            each.unlink()
        assert heading(browser.get("/").text).startswith("Nothing was recorded yet")
        record(journal)
        assert "two and two?" in browser.get("/").text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"no database at all" * 400), "file is not a database"),
        (lambda path: sqlite3.connect(path).execute("create table theirs (id)").connection.close(), "another program"),
        (lambda path: path.mkdir(), "journal.db failed: "),
    ],
    ids=["garbage", "another program's", "a folder"],
)
def test_what_is_no_journal(tmp_path: Path, make, words: str) -> None:  # type: ignore[no-untyped-def]
    """What is no journal is named as what it is, and left as it was."""
    journal = tmp_path / "journal.db"
    make(journal)
    before = sorted(tmp_path.iterdir())
    with served(journal) as page, client(page) as browser:
        for path in PATHS:
            answer = browser.get(path)
            assert answer.status_code == 503
            assert heading(answer.text).startswith("This cannot be read now: ")
            assert words in answer.text
            assert "Traceback" not in answer.text
            assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert sorted(tmp_path.iterdir()) == before


def test_a_newer_schema(tmp_path: Path, record: Record) -> None:
    """Another schema's journal is left alone: the page says whose it is, or shows what this version wrote beside it."""
    journal = tmp_path / "journal.db"
    record(journal)
    with closing(sqlite3.connect(journal)) as db, db:
        db.execute("update meta set value = '2' where key = 'schema'")
    with served(journal) as page, client(page) as browser:
        answer = browser.get("/")
        assert answer.status_code == 503
        assert "has schema 2, this pltrack knows 1" in answer.text
        assert [each.name for each in tmp_path.glob("*-v1.db")] == []
        run(CALL, environment(journal))
        assert "two and two?" in browser.get("/").text


def test_a_locked_journal(tmp_path: Path, record: Record) -> None:
    """A writer does not keep the page from reading; a file that is locked against everybody is said to be."""
    journal = tmp_path / "journal.db"
    record(journal)
    with served(journal) as page, client(page) as browser, closing(sqlite3.connect(journal)) as db:
        db.execute("begin immediate")
        assert "two and two?" in browser.get("/").text
        db.execute("rollback")
        db.execute("pragma locking_mode = exclusive")
        db.execute("begin exclusive")
        answer = browser.get("/")
        assert (answer.status_code, "locked" in heading(answer.text)) == (503, True)
        db.close()
        assert "two and two?" in browser.get("/").text


def test_looking_changes_nothing(tmp_path: Path, record: Record) -> None:
    """Every view of a journal that nobody has open, and that nobody may write, leaves its bytes as they were."""
    journal = tmp_path / "journal.db"
    record(journal)
    journal.chmod(0o400)
    before = hashlib.sha256(journal.read_bytes()).hexdigest()
    with served(journal) as page, client(page) as browser:
        assert [browser.get(path).status_code for path in PATHS] == [200, 404, 200, 404, 200, 200, 404, 200]
    assert hashlib.sha256(journal.read_bytes()).hexdigest() == before


def test_nothing_can_be_written_through_it(tmp_path: Path, record: Record, hub_url: str) -> None:
    """What the page reads through refuses to write: the file's connection, and the hub's transactions."""
    journal = tmp_path / "journal.db"
    record(journal)
    hub = looking.hub(hub_url)
    with closing(hub):
        for store in (Onlooker.open(journal), hub):
            assert store is not None
            with pytest.raises(JournalError, match=r"read-?only"), store._writing() as db:
                db.execute(delete(requests))


def test_a_hub_that_goes_and_comes(postgres: Server, hub_url: str, tmp_path: Path) -> None:
    """While the hub is away each view says so; when it is back, it is shown again."""
    with served(tmp_path / "none.db", PLTRACK_HUB=hub_url) as page, client(page) as browser:
        assert browser.get("/").status_code == 200
        postgres.stop()
        try:
            answer = browser.get("/")
            assert (answer.status_code, "Traceback" in answer.text) == (503, False)
        finally:
            postgres.start()
        codes = [browser.get(path).status_code for path in ("/", *PATHS)]
        assert codes[1:] == [200, 404, 200, 404, 200, 200, 404, 200]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """A port that somebody else has is a line on stderr, not a traceback."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        command = [sys.executable, "-m", "pltrack", "ui", "--port", str(taken.getsockname()[1])]
        env = environment(tmp_path / "journal.db")
        done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("pltrack: cannot listen on 127.0.0.1, port ")
    assert len(done.stderr.splitlines()) == 1


def test_control_c_ends_it_in_order(tmp_path: Path) -> None:
    """Ctrl-C is how it ends: exit code 0, nothing on stderr."""
    command = [sys.executable, "-m", "pltrack", "ui"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment(tmp_path / "journal.db"), text=True, **pipes)  # type: ignore[call-overload]
    address = next(line.strip() for line in process.stdout if "token=" in line)
    assert httpx.get(address).status_code == 303
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == 0


def test_a_browser_is_opened(tmp_path: Path) -> None:
    """`--open` starts the user's browser, one that runs in the terminal until it is left, too; it gets the page."""
    seen, program = tmp_path / "seen", tmp_path / "browser"
    look = (
        f"import httpx, sys; t = httpx.get(sys.argv[1], timeout=20).status_code; open({str(seen)!r}, 'w').write(str(t))"
    )
    program.write_text(f'#!{sys.executable}\n{look}\nprint("left", flush=True)\n')
    program.chmod(0o700)
    env = environment(tmp_path / "journal.db", BROWSER=str(program))
    with subprocess.Popen(
        [sys.executable, "-m", "pltrack", "ui", "--open"], env=env, text=True, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert any(line == "left\n" for line in process.stdout)
        process.terminate()
    assert seen.read_text() == "303"


def test_two_pages_at_once(tmp_path: Path) -> None:
    """Two pages on one machine do not take each other's cookie."""
    with (
        served(tmp_path / "a.db") as one,
        served(tmp_path / "b.db") as two,
        httpx.Client(follow_redirects=True) as browser,
    ):
        for page in (one, two):
            assert "a.db" in browser.get(one.address).text
            assert browser.get(page.address).status_code == 200
        assert [browser.get(page.base).status_code for page in (one, two)] == [200, 200]
