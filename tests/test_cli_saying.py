"""`pltrack metadata` and `link`: like `score`, said from a shell about any request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import cli, settings
from programs import run

from pltrack.testing import FakePromptLayer, Fault

CALL = "with pltrack.pl_session():\n    model.invoke('hi')\npltrack.flush(20)"


@pytest.fixture
def env(tmp_path: Path, promptlayer: FakePromptLayer) -> dict[str, str]:
    """The environment of a journal with one delivered request."""
    found = settings(tmp_path / "journal.db", promptlayer)
    run(CALL, found)
    return found


def test_metadata_and_links_are_delivered(env: dict[str, str], promptlayer: FakePromptLayer) -> None:
    """They are at PromptLayer before the command ends; by our id's end, PromptLayer's id, or `last`."""
    promptlayer.publish("greet", {"type": "completion", "content": [{"type": "text", "text": "hi"}]}, labels=["prod"])
    (logged,) = promptlayer.requests
    assert cli("metadata", "last", "plan=pro", "equation=a=b", "empty=", env=env).out == "Delivered.\n"
    known = promptlayer.request(logged.id).metadata
    assert (known["plan"], known["equation"], known["empty"]) == ("pro", "a=b", "")
    assert cli("link", str(logged.id), "greet", "--label", "prod", env=env).out == "Delivered.\n"
    linked = promptlayer.request(logged.id).prompt
    assert linked is not None
    assert linked["name"] == "greet"
    shown = json.loads(cli("show", "last", "--json", env=env).out)
    assert shown["metadata"]["plan"] == "pro"


def test_what_promptlayer_refuses(env: dict[str, str]) -> None:
    """A link to a prompt that is not there: exit code 1 with PromptLayer's words."""
    assert "the link was refused: 400" in cli("link", "last", "nowhere", "--version", "1", env=env, code=1).err


def test_a_request_that_only_promptlayer_knows(
    env: dict[str, str], promptlayer: FakePromptLayer, tmp_path: Path
) -> None:
    """By PromptLayer's id, from a machine that has never seen it; the outcome is told, not guessed."""
    (logged,) = promptlayer.requests
    elsewhere = settings(tmp_path / "elsewhere.db", promptlayer)
    assert cli("metadata", str(logged.id), "plan=pro", env=elsewhere).out == "Delivered.\n"
    assert cli("score", str(logged.id), "70", env=elsewhere).out == "Delivered.\n"
    assert promptlayer.request(logged.id).scores == {"default": 70}
    promptlayer.fail(Fault(status=404, body={"message": "no such request"}))
    assert "no such request" in cli("score", "123456", "70", env=elsewhere, code=1).err


@pytest.mark.parametrize(
    "wrong",
    [
        "metadata last plan",
        "metadata last =pro",
        "metadata last",
        "link last greet --version 1 --label prod",
        "link last greet --version 0",
        "score last 101",
        "score last many",
    ],
)
def test_what_cannot_be_said(env: dict[str, str], wrong: str) -> None:
    """Exit code 2, before anything is written down."""
    cli(*wrong.split(), env=env, code=2)
    assert json.loads(cli("show", "last", "--json", env=env).out)["notes"] == []


def test_an_unknown_request(env: dict[str, str]) -> None:
    """Exit code 1; nothing is said by accident."""
    assert "there is no request abcd" in cli("metadata", "abcd", "plan=pro", env=env, code=1).err
    assert "there is no request abcd" in cli("link", "abcd", "greet", "--version", "1", env=env, code=1).err
