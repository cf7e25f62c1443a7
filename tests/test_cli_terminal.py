"""The commands on real terminals of 80 and of 40 columns, and without one: nothing is cut off, nothing is coloured."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from commands import cli, on_terminal, settings
from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack
from pltrack.testing import FakePromptLayer

STYLES = re.compile(r"\x1b\[[0-9;]*m")
# Escape sequences, a window's title, reversed text, rich's markup, wide characters, and one long word.
HOSTILE = "\x1b[2J\x1b]0;title\x07\u202egnp.exe [red]no markup[/red] 漢字 " + "x" * 300


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with requests of hostile sessions in it."""
    found = tmp_path / "journal.db"
    pltrack.configure(journal=found, delivery="off")
    for name in ("checkout", HOSTILE):
        with pltrack.pl_session(name, tags=[name], user=name, metadata={"k": name}) as session:
            FakeListChatModel(responses=[f"answer {HOSTILE}"]).invoke(f"question {HOSTILE}")
            session.score(90, name=name[:100])
    pltrack.flush(10)
    pltrack.shutdown(1)
    return found


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize(
    "command",
    [("ls",), ("show", "last"), ("status",), ("doctor", "."), ("--help",), ("export", "--help")],
    ids=" ".join,
)
def test_nothing_is_wider_than_the_screen(
    journal: Path, tmp_path: Path, command: tuple[str, ...], columns: int
) -> None:
    """No line is longer than the terminal is wide, so that no terminal breaks it where it likes."""
    env = settings(journal, PROMPTLAYER_BASE_URL="http://127.0.0.1:1")
    told = on_terminal(*command, env=env, columns=columns, code=1 if command[0] == "doctor" else 0)
    plain = STYLES.sub("", told)
    assert plain.strip()
    assert [each for each in plain.splitlines() if width(each) > columns] == []
    assert not set(plain) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize("columns", [80, 40])
def test_a_list_stays_a_list(journal: Path, columns: int) -> None:
    """Ids, states and ends of calls are whole on narrow terminals, too: columns go, or rows become a few lines."""
    told = STYLES.sub("", on_terminal("ls", env=settings(journal), columns=columns))
    ids = re.findall(r"\b[0-9a-f]{8}\b", told)
    assert len(ids) == 2
    assert told.count("SUCCESS") == told.count("no key") == told.count("FakeListChatModel") == 2
    for each in ids:
        assert each in on_terminal("show", each, env=settings(journal), columns=200)


def test_colour_is_for_terminals(journal: Path) -> None:
    """A terminal gets colours unless NO_COLOR says no; a pipe gets none."""
    env = settings(journal)
    assert "\x1b[" in on_terminal("ls", env=env, columns=120)
    assert "\x1b[3" not in on_terminal("ls", env=env | {"NO_COLOR": "1"}, columns=120)
    assert "\x1b" not in cli("ls", env=env).out


def test_a_terminal_without_unicode(journal: Path) -> None:
    """Where the output cannot hold a character, it is shown escaped: no command fails for that."""
    env = {key: value for key, value in settings(journal).items() if key != "PYTHONUTF8"} | {
        "PYTHONIOENCODING": "ascii"
    }
    for command in (["ls"], ["show", "last"], ["status"], ["export", "--csv"]):
        assert cli(*command, env=env).out.isascii()


@pytest.mark.parametrize("columns", [80, 40])
def test_the_progress_of_a_sync(promptlayer: FakePromptLayer, tmp_path: Path, columns: int) -> None:
    """On a terminal a bar shows how far it is, and is gone in the end; piped there is none."""
    pltrack.configure(
        journal=tmp_path / "journal.db", api_key=promptlayer.api_key, base_url=promptlayer.url, delivery="external"
    )
    for number in range(20):
        FakeListChatModel(responses=["x"]).invoke(
            str(number), config={"callbacks": [pltrack.PromptLayerCallbackHandler()]}
        )
    pltrack.shutdown(1)
    told = on_terminal("sync", env=settings(tmp_path / "journal.db", promptlayer), columns=columns)
    assert "/20" in told
    assert "━" in told
    assert "20 delivered, 0 refused, 0 left." in told
    assert "━" not in cli("sync", env=settings(tmp_path / "journal.db", promptlayer)).err
