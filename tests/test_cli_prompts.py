"""`pltrack prompts`: the registry from a shell, PromptLayer's and the local one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import cli, on_terminal, settings

from pltrack.testing import FakePromptLayer, Fault

HOSTILE = "\x1b[31m\u202e[bold]"


def chat(*texts: str) -> dict[str, Any]:
    """Return a blueprint with a message for each text, and a place for earlier ones."""
    said = [{"role": "user", "content": [{"type": "text", "text": each}]} for each in texts]
    return {"type": "chat", "messages": [*said, {"role": "placeholder", "name": "history"}]}


@pytest.fixture(params=["local", "promptlayer"])
def env(request: pytest.FixtureRequest, tmp_path: Path, promptlayer: FakePromptLayer) -> dict[str, str]:
    """Without a key and with one."""
    return settings(tmp_path / "journal.db", promptlayer if request.param == "promptlayer" else None)


def test_a_prompts_life(env: dict[str, str], tmp_path: Path) -> None:
    """Publish, list, get, change, compare: the same with a key and without one."""
    file = tmp_path / "prompt.json"
    assert "no prompts" in cli("prompts", "ls", env=env).out
    cli("prompts", "get", "greet", env=env, code=1)
    file.write_text(json.dumps(chat("Hello {name},", f"how are you? {HOSTILE}")))
    assert "version 1" in cli("prompts", "publish", "greet", str(file), "--label", "prod", env=env).out
    changed = json.dumps(chat("Hi {name},", f"how are you? {HOSTILE}"))
    assert "version 2" in cli("prompts", "publish", "greet", "-", "-m", "shorter", env=env, given=changed).out
    assert "greet version 2" in cli("prompts", "ls", env=env).out
    assert [each["prompt_name"] for each in json.loads(cli("prompts", "ls", "--json", env=env).out)] == ["greet"]
    assert "Hi {name}," in cli("prompts", "get", "greet", env=env).out
    text = cli("prompts", "get", "greet", "--label", "prod", env=env).out
    for shown in ("version 1", "Hello {name},", "[user]", "[placeholder history]", "[bold]"):
        assert shown in text
    assert not set(text) & {"\x1b", "\u202e"}
    again = cli("prompts", "get", "greet", "--version", "1", "--json", env=env).out
    assert "version 3" in cli("prompts", "publish", "greet", "-", env=env, given=again).out
    diff = cli("prompts", "diff", "greet", "prod", "2", env=env, code=1).out
    assert "\n-Hello {name},\n+Hi {name},\n" in diff
    assert diff.startswith("--- greet version 1\n+++ greet version 2\n")
    assert cli("prompts", "diff", "greet", "1", "3", env=env).out == ""
    assert "greet" in cli("prompts", "diff", "greet", "1", "9", env=env, code=2).err
    assert "\x1b[31m-Hello" in on_terminal("prompts", "diff", "greet", "1", "2", env=env, columns=40, code=1)


def test_a_file_that_is_no_prompt(env: dict[str, str], tmp_path: Path) -> None:
    """Exit code 2 and the file's name; nothing is published."""
    for text in ("", "[1]", '{"type": "poem"}', '"only a text'):
        (tmp_path / "wrong.json").write_text(text)
        assert "wrong.json" in cli("prompts", "publish", "greet", str(tmp_path / "wrong.json"), env=env, code=2).err
    assert "none.json" in cli("prompts", "publish", "greet", str(tmp_path / "none.json"), env=env, code=2).err
    assert "no prompts" in cli("prompts", "ls", env=env).out


def test_many_prompts(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """All of them are listed, however many pages that takes."""
    for number in range(61):
        promptlayer.publish(f"prompt-{number:02}", chat("hi"))
    env = settings(tmp_path / "journal.db", promptlayer)
    assert len(json.loads(cli("prompts", "ls", "--json", env=env).out)) == 61


def test_promptlayer_refuses(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """Exit code 1 with its words, no list that looks empty."""
    promptlayer.fail(Fault(status=500, body={"message": "on fire"}))
    env = settings(tmp_path / "journal.db", promptlayer)
    told = cli("prompts", "ls", env=env, code=1)
    assert "on fire" in told.err
    assert told.out == ""


def test_looking_makes_no_journal(tmp_path: Path) -> None:
    """Without a key and without a journal there are no prompts, and no file is made."""
    env = settings(tmp_path / "journal.db")
    cli("prompts", "ls", env=env)
    cli("prompts", "get", "greet", env=env, code=1)
    assert list(tmp_path.iterdir()) == []
