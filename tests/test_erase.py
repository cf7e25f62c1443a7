"""What was erased is nowhere any more: rows, bytes in every file of the journal, the queue, and the courier's hands."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from programs import environment, run, start

import pltrack
from pltrack import PromptLayerCallbackHandler
from pltrack.testing import FakePromptLayer, Fault

MODEL = FakeListChatModel(responses=["four"])
WORD = "marzipan-7341"  # what must be gone
Wait = Callable[[Callable[[], object]], None]


@pytest.fixture
def journal(promptlayer: FakePromptLayer, tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def ask(text: str = WORD, **options: Any) -> pltrack.Session:
    """Make one tracked call."""
    with pltrack.pl_session(**options) as session:
        MODEL.invoke(text)
    return session


def traces(journal: Path, word: str = WORD) -> list[str]:
    """Return the files in which the word still is, whatever they are."""
    return [each.name for each in journal.parent.rglob("*") if each.is_file() and word.encode() in each.read_bytes()]


def rows(journal: Path, statement: str) -> list[tuple[Any, ...]]:
    """Ask the file itself."""
    with closing(sqlite3.connect(journal)) as db, db:
        return db.execute(statement).fetchall()


def test_a_user_is_erased_with_everything_said(promptlayer: FakePromptLayer, journal: Path) -> None:
    """Requests, content, notes, variables and sessions of a user go from all files; PromptLayer's ids are told."""
    with pltrack.pl_session(WORD, user="u-7", metadata={"who": WORD}, tags=[WORD]) as session:
        MODEL.invoke(WORD)
        session.metadata(more=WORD)
        session.link_prompt("unknown", {"product": WORD}, version=1)
        with pltrack.pl_session("inner"):
            MODEL.invoke(WORD)
    other = ask("something else", user="u-8")
    assert pltrack.flush(10).pending == 0
    assert traces(journal)
    erased = pltrack.erase(user="u-7")
    assert traces(journal) == []
    assert (erased.requests, erased.sessions, erased.left, erased.in_flight) == (2, 2, "", 0)
    assert erased.notes >= 2
    assert set(erased.promptlayer_ids) == {logged.id for logged in promptlayer.requests} - set(other.request_ids)
    assert rows(journal, "select id from requests") == [(other.ids[0],)]
    assert rows(journal, "select id from sessions") == [(other.id,)]
    assert not rows(journal, "select * from notes")
    assert pltrack.status().delivered == 1


def test_a_session_is_erased_with_those_in_it(promptlayer: FakePromptLayer, journal: Path) -> None:
    """By session: it and what is nested in it, delivered or not; the same session goes on to record."""
    pltrack.configure(delivery="off")
    other = ask("something else")
    with pltrack.pl_session("outer") as session:
        MODEL.invoke(WORD)
        with pltrack.pl_session("inner"):
            MODEL.invoke(WORD)
        erased = pltrack.erase(session=session.id)
        assert (erased.requests, erased.promptlayer_ids) == (2, ())
        MODEL.invoke("a later one")
    pltrack.flush(10)
    assert traces(journal) == []
    assert {own_id for (own_id,) in rows(journal, "select id from requests")} == {other.ids[0], session.ids[-1]}


@pytest.mark.parametrize("by", ["our id", "PromptLayer's id", "its digits"])
def test_one_request_is_erased(promptlayer: FakePromptLayer, journal: Path, by: str) -> None:
    """By request: our id, PromptLayer's, or that as text; its neighbour in the session stays."""
    with pltrack.pl_session() as session:
        MODEL.invoke(WORD)
        MODEL.invoke("something else")
    session.requests[0].metadata(more=WORD)
    assert pltrack.flush(10).pending == 0
    pl_id = promptlayer.by_pltrack_id(session.ids[0]).id
    pltrack.request(pl_id).metadata(by_their_id=WORD)
    assert pltrack.flush(10).pending == 0
    wanted: dict[str, str | int] = {"our id": session.ids[0], "PromptLayer's id": pl_id, "its digits": str(pl_id)}
    erased = pltrack.erase(request=wanted[by])
    assert (erased.requests, erased.promptlayer_ids) == (1, (pl_id,))
    assert traces(journal) == []
    assert rows(journal, "select id from requests") == [(session.ids[1],)]
    assert not rows(journal, "select * from notes")
    assert rows(journal, "select id from sessions") == [(session.id,)]


def test_what_was_before_a_moment_is_erased(promptlayer: FakePromptLayer, journal: Path) -> None:
    """By time, alone or with a user: both must hold."""
    ask(user="u-7")
    early = ask("something else", user="u-8")
    moment = datetime.now(UTC)
    late = ask("a third one", user="u-7")
    assert pltrack.erase(user="u-7", before=moment).requests == 1
    assert traces(journal) == []
    assert rows(journal, "select id from requests order by seq") == [(early.ids[0],), (late.ids[0],)]
    assert pltrack.erase(before=moment + timedelta(hours=1)).requests == 2
    assert not rows(journal, "select * from requests")
    assert not rows(journal, "select * from sessions")


def test_what_is_still_in_the_queue_is_erased(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A call that ended a moment ago, not yet on disk, goes too, and is never sent."""
    pltrack.configure(linger=60)
    ask("something else")
    with pltrack.pl_session() as outer:
        for _ in range(200):
            MODEL.invoke(WORD)
        erased = pltrack.erase(session=outer.id)
    assert erased.requests == 200
    assert traces(journal) == []
    pltrack.flush(10)
    assert WORD not in str([logged.body for logged in promptlayer.requests])


def test_what_the_courier_holds_is_not_sent(promptlayer: FakePromptLayer, journal: Path) -> None:
    """What was claimed and has not gone out is let go of; what is being sent is waited for, and its id told."""
    pltrack.configure(concurrency=1, journal=journal.with_name("other.db"), http_timeout=30)
    asked, answer = threading.Event(), threading.Event()

    def hold(body: dict[str, Any]) -> bool:
        asked.set()
        answer.wait(30)
        return False

    promptlayer.fail(Fault(status=500, path="/log-request", when=hold))
    with pltrack.pl_session() as session:
        for number in range(10):
            MODEL.invoke(f"{WORD} {number}")
    assert asked.wait(10)
    threading.Timer(0.5, answer.set).start()
    erased = pltrack.erase(session=session.id)
    assert erased.requests == 10
    assert traces(journal) == []
    pltrack.flush(10)
    assert len(promptlayer.requests) == 1
    assert erased.promptlayer_ids == (promptlayer.requests[0].id,)
    assert erased.in_flight == 0


def test_what_may_have_gone_out_is_said(promptlayer: FakePromptLayer, journal: Path) -> None:
    """What is still being sent when the time is up is erased here all the same, and counted as in flight."""
    promptlayer.fail(Fault.silent(path="/log-request"))
    session = ask()
    promptlayer.wait_for(lambda pl: pl.calls)
    erased = pltrack.erase(session=session.id, timeout=1)
    assert (erased.requests, erased.in_flight) == (1, 1)
    assert traces(journal) == []


def test_no_page_keeps_a_copy(promptlayer: FakePromptLayer, journal: Path) -> None:
    """Whatever was written, moved and removed around them before, no byte of the erased rows is left."""
    pltrack.configure(delivery="off")
    chance = random.Random(7)
    handler = PromptLayerCallbackHandler()
    for number in range(600):
        secret = number % 7 == 0
        with pltrack.pl_session(user="u-7" if secret else "u-8") as session:
            text = (WORD if secret else "filler") * chance.choice((1, 5, 30, 200, 700))
            MODEL.invoke(text, config={"callbacks": [handler]})
            session.link_prompt("p", {"product": text[:500]}, version=1)
    pltrack.flush(10)
    for number in chance.sample(range(1, 600), 250):
        if number % 7 != 1:
            with closing(sqlite3.connect(journal)) as db, db:
                for table in ("requests", "bodies"):
                    db.execute(f"delete from {table} where seq = ?", (number,))
    assert pltrack.erase(user="u-7").left == ""
    assert traces(journal) == []


def test_others_that_have_the_file_open(promptlayer: FakePromptLayer, journal: Path) -> None:
    """While another process reads an old state of the file, that is said; once it is done, the bytes go."""
    ask()
    assert pltrack.flush(10).pending == 0
    with closing(sqlite3.connect(journal, isolation_level=None)) as reader:
        reader.execute("begin")
        assert reader.execute("select count(*) from requests").fetchone() == (1,)
        erased = pltrack.erase(before=datetime.now(UTC), timeout=0.3)
        assert erased.requests == 1
        assert "another process" in erased.left
        reader.execute("commit")
    assert pltrack.erase(before=datetime.now(UTC)).left == ""
    assert traces(journal) == []


def test_another_program_works_on_while_it_is_erased(promptlayer: FakePromptLayer, journal: Path) -> None:
    """Erasing works beside a program that records all the time, and loses nothing of that."""
    ask(user="u-7")
    assert pltrack.flush(10).pending == 0
    other = start(
        """
        ids = []
        print("ready", flush=True)
        while not sys.stdin.closed and len(ids) < 300:
            with pltrack.pl_session() as s:
                model.invoke("hi")
            ids += s.ids
            threading.Event().wait(0.005)
        print(len(ids))
        """,
        environment(journal, promptlayer),
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    erased = pltrack.erase(user="u-7")
    assert erased.requests == 1
    assert erased.left == ""
    assert traces(journal) == []
    out, err = other.communicate(timeout=60)
    assert other.returncode == 0, err
    assert out.strip() == "300"
    assert rows(journal, "select count(*) from requests")[0][0] == 300


def test_files_that_were_set_aside(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A journal that was set aside is erased from where it can be read, and removed where it cannot."""
    ask(user="u-7")
    kept = ask("something else", user="u-8")
    assert pltrack.flush(10).pending == 0
    pltrack.shutdown(5)
    readable, broken = (journal.with_name(f"journal.db.broken-{name}") for name in ("1", "2"))
    readable.write_bytes(journal.read_bytes())
    broken.write_bytes(b"SQLite format 3\0 but not really " + journal.read_bytes()[4096:])
    erased = pltrack.erase(user="u-7")
    assert traces(journal) == []
    assert erased.files_removed == (str(broken),)
    assert not broken.exists()
    assert rows(readable, "select id from requests") == [(kept.ids[0],)]
    assert len(erased.promptlayer_ids) == 1


@pytest.mark.parametrize("wanted", [{}, {"user": ""}, {"session": 7}, {"before": "yesterday"}, {"request": True}])
def test_erase_asks_for_something_it_can_use(wanted: dict[str, Any]) -> None:
    """Without anything, or with something that cannot be meant, nothing is erased and the argument is named."""
    with pytest.raises(ValueError, match=next(iter(wanted), "user=, session=, request= or before=")):
        pltrack.erase(**wanted)


def test_the_command_erases(promptlayer: FakePromptLayer, journal: Path) -> None:
    """`pltrack erase` asks first, tells what PromptLayer still has, and prints JSON for programs."""
    for user in ("u-7", "u-8", "u-9"):
        ask(user=user)
    assert pltrack.flush(10).pending == 0
    ids = [logged.id for logged in sorted(promptlayer.requests, key=lambda logged: logged.metadata["user_id"])]
    env = environment(journal, promptlayer)
    command = "from pltrack.cli import main; sys.argv = ['pltrack', 'erase', {}]; main()"
    run(command.format("'--user', 'u-7'"), env, code=1)  # nobody answered
    assert rows(journal, "select count(*) from requests") == [(3,)]
    assert str(ids[0]) in run(command.format("'--user', 'u-7', '--yes'"), env)
    found = json.loads(run(command.format("'--request', 'ID', '-y', '--json'".replace("ID", str(ids[1]))), env))
    assert (found["requests"], found["promptlayer_ids"]) == (1, [ids[1]])
    run(command.format("'--yes'"), env, code=2)
    assert "1 request(s)" in run(command.format("'--before', '2999-01-01', '-y'"), env)
    assert traces(journal) == []
