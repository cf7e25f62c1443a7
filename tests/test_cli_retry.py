"""`pltrack retry`: what was refused is sent again once somebody has mended the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import cli, settings
from journals import opened
from programs import run

from pltrack.testing import FakePromptLayer, Fault

TWO = """
for question in ("one", "two"):
    with pltrack.pl_session() as s:
        model.invoke(question)
        s.score(90)
        s.metadata(plan="pro")
pltrack.flush(20)
"""

EXPIRE = """
import pathlib
from pltrack._journal.store import Store
Store.open(pathlib.Path(os.environ["PLTRACK_JOURNAL"])).expire()
"""


def refuse(server: FakePromptLayer, words: str = "no such thing", **more: Any) -> None:
    server.fail(Fault(status=422, body={"message": words}, **more))


def entries(env: dict[str, str]) -> list[dict[str, Any]]:
    return list(json.loads(cli("ls", "--json", env=env).out))


def notes(env: dict[str, str], id: str) -> list[str]:
    return [note["state"] for note in json.loads(cli("show", id, "--json", env=env).out)["notes"]]


@pytest.fixture
def env(tmp_path: Path, promptlayer: FakePromptLayer) -> dict[str, str]:
    """The environment of a journal with two refused requests, with a score and metadata each."""
    found = settings(tmp_path / "journal.db", promptlayer, PLTRACK_FOLD="metadata")
    refuse(promptlayer, path="/log-request")
    run(TWO, found)
    promptlayer.heal()
    assert [each["delivery"]["state"] for each in entries(found)] == ["failed", "failed"]
    return found


def test_all_of_it(env: dict[str, str], promptlayer: FakePromptLayer) -> None:
    """Requests and what was said about them wait again, and are delivered once, in order."""
    assert promptlayer.requests == ()
    assert "2 request(s) and 4 note(s)" in cli("retry", "--all", env=env).out
    assert [each["delivery"]["state"] for each in entries(env)] == ["pending", "pending"]
    assert "6 delivered, 0 refused, 0 left" in cli("sync", env=env).out
    assert [each.scores for each in promptlayer.requests] == [{"default": 90}] * 2
    assert [each.metadata["plan"] for each in promptlayer.requests] == ["pro"] * 2
    assert "refused" in cli("retry", "--all", env=env, code=1).err
    assert json.loads(cli("status", "--json", env=env).out)["failed"] == 0


def test_one_of_them(env: dict[str, str], promptlayer: FakePromptLayer) -> None:
    """By the end of an id; the other one stays refused."""
    two, one = entries(env)
    assert "1 request(s) and 2 note(s)" in cli("retry", one["id"][-8:], env=env).out
    assert "3 delivered" in cli("sync", env=env).out
    (logged,) = promptlayer.requests
    assert logged.metadata["pltrack_id"] == one["id"]
    assert [each["delivery"]["state"] for each in entries(env)] == ["failed", "delivered"]
    assert "nothing about" in cli("retry", one["id"], env=env, code=1).err
    assert notes(env, two["id"]) == ["failed", "failed"]


def test_by_the_words_of_the_refusal(env: dict[str, str]) -> None:
    """--reason takes those in whose refusal it stands, whatever its case; its wildcards are none."""
    cli("retry", "--all", "--reason", "429", env=env, code=1)
    cli("retry", "--all", "--reason", "no%thing", env=env, code=1)
    assert "2 request(s)" in cli("retry", "--all", "--reason", "NO SUCH", env=env).out


def test_a_note_alone(tmp_path: Path, promptlayer: FakePromptLayer) -> None:
    """A refused score of a delivered request is sent again by PromptLayer's id, and nothing else is."""
    env = settings(tmp_path / "journal.db", promptlayer)
    refuse(promptlayer, path="/rest/track-score")
    run(
        "with pltrack.pl_session() as s:\n    model.invoke('hi')\npltrack.flush(20)\ns.score(70)\npltrack.flush(20)",
        env,
    )
    promptlayer.heal()
    (logged,) = promptlayer.requests
    assert logged.scores == {}
    assert "0 request(s) and 1 note(s)" in cli("retry", str(logged.id), env=env).out
    assert "1 delivered" in cli("sync", env=env).out
    assert promptlayer.request(logged.id).scores == {"default": 70}
    assert len(promptlayer.requests) == 1


def test_a_link_that_was_refused_inside_its_request(tmp_path: Path, promptlayer: FakePromptLayer) -> None:
    """It was part of the call, so it has no id of its own: it takes its request's."""
    env = settings(tmp_path / "journal.db", promptlayer)
    run(
        "with pltrack.pl_session() as s:\n    model.invoke('hi')\n    s.link_prompt('late', version=1)\n"
        "pltrack.flush(20)",
        env,
    )
    (logged,) = promptlayer.requests
    assert logged.prompt is None
    assert notes(env, "last") == ["failed"]
    promptlayer.publish("late", {"type": "completion", "content": [{"type": "text", "text": "hi"}]})
    assert "0 request(s) and 1 note(s)" in cli("retry", "--all", env=env).out
    assert "1 delivered" in cli("sync", env=env).out
    linked = promptlayer.request(logged.id).prompt
    assert linked is not None
    assert (linked["name"], linked["version"]) == ("late", 1)


def test_a_note_that_was_given_up(tmp_path: Path, promptlayer: FakePromptLayer) -> None:
    """One about an unknown request, failed after 24 hours, waits and is counted as an orphan, not given up anew."""
    journal = tmp_path / "journal.db"
    env = settings(journal, promptlayer, PLTRACK_DELIVERY="external")
    run("pltrack.request('nobody-knows-this-request-of-another-machine').score(1)\npltrack.shutdown(1)", env)
    with opened(journal) as db:
        db.execute("update notes set created_at = created_at - 90000")
    run(EXPIRE, env)
    before = json.loads(cli("status", "--json", env=env).out)
    assert (before["failed"], before["orphans"]) == (1, 0)
    assert "1 note(s)" in cli("retry", "--all", env=env).out
    run(EXPIRE, env)
    after = json.loads(cli("status", "--json", env=env).out)
    assert (after["failed"], after["orphans"], after["rows"]["notes"]) == (0, 1, {"waiting": 1})


def test_what_has_no_content_any_more(env: dict[str, str]) -> None:
    """It cannot be sent again: that is said, and it stays refused."""
    with opened(env["PLTRACK_JOURNAL"]) as db:
        db.execute("delete from bodies")
    assert "2 request(s) cannot be sent again" in cli("retry", "--all", env=env, code=1).err
    assert [each["delivery"]["state"] for each in entries(env)] == ["failed", "failed"]


def test_what_was_held_back(tmp_path: Path, promptlayer: FakePromptLayer) -> None:
    """With on_unknown="hold" a retry is the user's word that it is to be sent again."""
    env = settings(tmp_path / "journal.db", promptlayer, PLTRACK_ON_UNKNOWN="hold")
    promptlayer.fail(Fault.drop(times=1))
    run("with pltrack.pl_session():\n    model.invoke('hi')\npltrack.flush(20)", env)
    assert "held back" in entries(env)[0]["delivery"]["reason"]
    cli("retry", entries(env)[0]["id"], env=env)
    assert "1 delivered" in cli("sync", env=env).out
    assert len(promptlayer.requests) == 1


def test_it_must_be_said_what(env: dict[str, str]) -> None:
    """Neither ids nor --all, or both: exit code 2."""
    cli("retry", env=env, code=2)
    cli("retry", "last", "--all", env=env, code=2)
