"""Notes about requests that the journal does not know: they wait, are counted, find their request, or fail."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pytest
from journals import opened
from programs import environment, run

import pltrack
from pltrack.testing import FakePromptLayer, Fault

SYNC = (
    "from pltrack.cli import main; sys.stderr = sys.stdout; sys.argv = ['pltrack', 'sync', '--timeout', '30']; main()"
)
SEARCH = "/api/public/v2/requests/search"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def row(journal: Path) -> dict[str, Any]:
    """Return the journal's only note."""
    with opened(journal) as db:
        db.row_factory = sqlite3.Row
        (found,) = db.execute("select * from notes")
        return dict(found)


def aged(journal: Path, hours: float) -> None:
    """Let the journal's notes be older: the database's clock is nobody's to set."""
    with opened(journal) as db:
        db.execute("update notes set created_at = created_at - ?, due_at = due_at - ?", [hours * 3600] * 2)


def elsewhere(server: FakePromptLayer, tmp_path: Path) -> str:
    """Record and deliver a request on another machine, that is, from another journal; return its id."""
    program = "with pltrack.pl_session() as s: model.invoke('hi')\nprint(s.ids[0])"
    return run(program, environment(tmp_path / "other" / "journal.db", server)).strip()


def test_a_note_waits_for_its_request(promptlayer: FakePromptLayer) -> None:
    """A note that comes before its request waits, is counted as an orphan, and goes out with the request."""
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    own = uuid.uuid4()
    pltrack.request(str(own)).score(77)
    assert pltrack.flush(5).pending == 1
    assert pltrack.status().orphans == 1
    with pltrack.pl_session():
        FakeListChatModel(responses=["x"]).invoke("hi", config={"run_id": own})
    assert pltrack.flush(10).pending == 0
    assert pltrack.status().orphans == 0
    assert promptlayer.by_pltrack_id(str(own)).scores == {"default": 77}
    assert SEARCH not in [call.path for call in promptlayer.calls]


def test_a_note_without_a_key_waits_too(pltrack_journal: Path) -> None:
    """Nothing is delivered, and still the note is there and counted."""
    pltrack.request("some-replicas-id").metadata(a="b")
    pltrack.flush(5)
    assert pltrack.status().orphans == 1
    assert row(pltrack_journal)["state"] == "waiting"


@pytest.mark.slow
def test_another_machines_request_is_searched_for(promptlayer: FakePromptLayer, tmp_path: Path, journal: Path) -> None:
    """`pltrack sync` asks PromptLayer for the request and delivers the notes about it."""
    theirs = elsewhere(promptlayer, tmp_path)
    env = environment(journal, promptlayer)
    run(f"r = pltrack.request('{theirs}'); r.score(66); r.metadata(late='yes'); r.score(5, name='tone')", env)
    assert promptlayer.by_pltrack_id(theirs).scores == {}
    run(SYNC, env)
    assert promptlayer.by_pltrack_id(theirs).scores == {"default": 66, "tone": 5}
    assert promptlayer.by_pltrack_id(theirs).metadata["late"] == "yes"
    assert [call.path for call in promptlayer.calls].count(SEARCH) == 1


@pytest.mark.slow
def test_a_program_searches_in_the_background(promptlayer: FakePromptLayer, tmp_path: Path, journal: Path) -> None:
    """A program that goes on running finds it by itself some seconds later, without a call of its own."""
    theirs = elsewhere(promptlayer, tmp_path)
    handle = pltrack.request(theirs)
    handle.score(66)
    pltrack.flush(5)
    aged(journal, 0.01)
    promptlayer.wait_for(lambda server: server.by_pltrack_id(theirs).scores == {"default": 66}, 15)
    assert handle.request_id == promptlayer.by_pltrack_id(theirs).id


@pytest.mark.slow
def test_a_search_that_finds_nothing_is_not_made_again_at_once(promptlayer: FakePromptLayer, journal: Path) -> None:
    """What was not found is asked for again later, by whichever process: ten searches a minute are allowed."""
    env = environment(journal, promptlayer)
    run("pltrack.request('nobody-knows-it').score(66)", env)
    said = run(SYNC, env, 1)
    assert "1 note(s) are about requests that this journal does not know" in said
    run(SYNC, env, 1)
    assert [call.path for call in promptlayer.calls].count(SEARCH) == 1
    aged(journal, 0.1)
    run(SYNC, env, 1)
    assert [call.path for call in promptlayer.calls].count(SEARCH) == 2
    assert (row(journal)["state"], row(journal)["attempts"]) == ("waiting", 2)


@pytest.mark.slow
def test_a_note_whose_request_is_here_is_no_orphan(promptlayer: FakePromptLayer, journal: Path) -> None:
    """While its request waits to be delivered, nobody is asked for it."""
    env = environment(journal, promptlayer)
    promptlayer.fail(Fault(status=500, path="/log-request", times=None))
    program = "with pltrack.pl_session() as s:\n    model.invoke('hi')\n    s.score(66, name='tone')"
    run(program, environment(journal, promptlayer, PLTRACK_DELIVERY="external"))
    aged(journal, 0.1)
    run(SYNC.replace("'30'", "'2'"), env, 1)
    assert row(journal)["state"] == "waiting"
    assert SEARCH not in [call.path for call in promptlayer.calls]


@pytest.mark.slow
def test_the_search_limit_stops_nothing(tmp_path: Path, journal: Path) -> None:
    """A 429 for the search leaves the note waiting, and requests go out as ever."""
    with FakePromptLayer(search_per_minute=0) as server:
        env = environment(journal, server)
        run("pltrack.request('nobody-knows-it').score(66)\nwith pltrack.pl_session(): model.invoke('hi')", env)
        run(SYNC, env, 1)
        assert [call.status for call in server.calls if call.path == SEARCH] == [429]
        assert len(server.requests) == 1
        assert row(journal)["state"] == "waiting"


@pytest.mark.slow
def test_an_orphan_is_given_up_after_a_day(promptlayer: FakePromptLayer, journal: Path) -> None:
    """24 hours later the note fails, with that as its reason; a minute before it still waits."""
    env = environment(journal, promptlayer)
    run("pltrack.request('nobody-knows-it').score(66)", env)
    aged(journal, 23.9)
    run(SYNC, env, 1)
    assert row(journal)["state"] == "waiting"
    aged(journal, 0.2)
    run(SYNC, env, 1)
    assert (row(journal)["state"], row(journal)["reason"]) == (
        "failed",
        "no request with this id was recorded here within 24 hours",
    )
