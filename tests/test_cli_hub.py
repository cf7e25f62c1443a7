"""The commands with PLTRACK_HUB set: they speak about the hub, from any machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import cli, settings
from programs import run

from pltrack.testing import FakePromptLayer, Fault

CALL = """
with pltrack.pl_session("checkout", tags=["prod"], user="u-7") as s:
    model.invoke("What comes after 1,2,3?")
    s.score(80, name="tone")
assert pltrack.flush(20).pending == 0
print(s.ids[0])
"""


@pytest.fixture
def app(tmp_path: Path, promptlayer: FakePromptLayer, hub_url: str) -> dict[str, str]:
    """The environment of a program that hands over to the hub."""
    return settings(tmp_path / "app.db", promptlayer, PLTRACK_HUB=hub_url)


@pytest.fixture
def desk(tmp_path: Path, promptlayer: FakePromptLayer, hub_url: str) -> dict[str, str]:
    """The environment of somebody on another machine."""
    return settings(tmp_path / "desk.db", promptlayer, PLTRACK_HUB=hub_url)


def test_looking_at_the_hub(app: dict[str, str], desk: dict[str, str], tmp_path: Path) -> None:
    """What programs elsewhere have recorded is listed, shown, exported and counted; no local journal is made."""
    ours = run(CALL, app).strip()
    for filters in ((), ("--tag", "prod"), ("--text", "after 1"), ("--user", "u-7"), ("--session", "checkout")):
        (entry,) = json.loads(cli("ls", "--json", *filters, env=desk).out)
        assert entry["id"] == ours
    assert json.loads(cli("ls", "--json", "--tag", "none", env=desk).out) == []
    assert "four" in cli("show", ours[-8:], env=desk).out
    assert json.loads(cli("export", env=desk).out)["scores"] == {"tone": 80}
    found = json.loads(cli("status", "--json", env=desk).out)
    assert found["hub_rows"] == {"requests": {"pending": 1}, "notes": {"waiting": 1}}
    assert 'place="hub",kind="requests",state="pending"} 1' in cli("status", "--prometheus", env=desk).out
    assert "1 pending" in cli("status", env=desk).out
    cli("status", "--max-age", "0", env=desk, code=2)
    assert not (tmp_path / "desk.db").exists()
    assert [
        each["delivery"]["state"] for each in json.loads(cli("ls", "--json", env=app | {"PLTRACK_HUB": ""}).out)
    ] == ["forwarded"]


def test_speaking_about_the_hubs_requests(
    app: dict[str, str], desk: dict[str, str], promptlayer: FakePromptLayer
) -> None:
    """Scores and metadata by the end of an id go to the hub, and from there to PromptLayer."""
    ours = run(CALL, app).strip()
    assert "Handed over to the hub" in cli("score", ours[-8:], "70", env=desk).out
    assert "Handed over to the hub" in cli("metadata", "last", "plan=pro", env=desk).out
    cli("sync", env=desk)
    (logged,) = promptlayer.requests
    assert (logged.scores, logged.metadata["plan"]) == ({"default": 70, "tone": 80}, "pro")


def test_sending_again_what_the_hubs_workers_were_refused(
    app: dict[str, str], desk: dict[str, str], promptlayer: FakePromptLayer
) -> None:
    """The hub's rows wait again, with what was said about them; a copy that the program knows of follows."""
    promptlayer.fail(Fault(status=422, path="/log-request", body={"message": "no such thing"}))
    run(CALL, app)
    cli("sync", env=desk, code=1)
    assert json.loads(cli("ls", "--json", env=desk).out)[0]["delivery"]["state"] == "failed"
    promptlayer.heal()
    assert "1 request(s) and 1 note(s)" in cli("retry", "last", env=app).out
    cli("sync", env=desk)
    (logged,) = promptlayer.requests
    assert logged.scores == {"tone": 80}
    assert cli("doctor", str(Path(desk["PLTRACK_JOURNAL"]).parent), "--json", env=desk).out.count('"ok": false') == 0


def test_erasing_is_the_journals(app: dict[str, str]) -> None:
    """`erase` says that the hub has its rows still, with exit code 1: nobody believes that all is gone."""
    ours = run(CALL, app).strip()
    told = cli("erase", "--request", ours, "--yes", env=app, code=1)
    assert "Erased 1 request(s)" in told.out
    assert "nothing was erased at the hub" in told.err
    assert [each["id"] for each in json.loads(cli("ls", "--json", env=app).out)] == [ours]


def test_pausing_at_the_hub(app: dict[str, str], desk: dict[str, str], promptlayer: FakePromptLayer) -> None:
    """Whoever pauses does it for all machines: programs hand over, `sync` delivers nothing anywhere."""
    cli("pause", env=desk)
    run(CALL, app)
    assert "pltrack resume" in cli("sync", env=app, code=1).err
    assert promptlayer.calls == ()
    assert json.loads(cli("status", "--json", env=app).out)["paused_since"]
    cli("resume", env=desk)
    assert "2 delivered" in cli("sync", env=app).out


def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    """Exit code 1, its address without the password, and the remedy for one without tables."""
    env = settings(tmp_path / "journal.db", PLTRACK_HUB="postgresql://me:secret@127.0.0.1:1/none")
    for command in ("ls", "status", "pause", "export"):
        told = cli(command, env=env, code=1).err
        assert "127.0.0.1:1" in told
        assert "secret" not in told
    (hub,) = [
        each for each in json.loads(cli("doctor", "--json", env=env, code=1).out)["checks"] if each["name"] == "hub"
    ]
    assert not hub["ok"]
    assert "hub upgrade" in hub["remedy"]
