"""docs/cli.md and the help of every command: what they say can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pltrack.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "cli.md").read_text()


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that call it."""
    command = get_command(app) if command is None else command
    inside = getattr(command, "commands", None)
    if inside is None:
        yield path, command
    for name, each in (inside or {}).items():
        yield from commands(each, (*path, name))


COMMANDS = dict(commands())


def parse(line: str) -> tuple[str, ...]:
    """Parse a line as the shell and the command would, without running it; return which command it is."""
    words = shlex.split(line.partition("#")[0].partition(" > ")[0])
    assert words.pop(0) == "pltrack"
    command, path = get_command(app), list[str]()
    while hasattr(command, "commands"):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    command.make_context("pltrack", words)
    return tuple(path)


def test_there_are_the_commands_that_were_promised() -> None:
    """The list is what the documents and the changelog speak of."""
    told = "demo status doctor ls show score metadata link sync retry pause resume erase export ui"
    groups = {("prompts", each) for each in ("ls", "get", "publish", "diff")} | {("hub", "upgrade")}
    assert set(COMMANDS) == {(each,) for each in told.split()} | groups


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...]) -> None:
    """Each command's help ends with an example, and the example can be typed."""
    (example,) = re.findall(r"Example: (pltrack .+)", COMMANDS[path].help)
    assert parse(example) == path


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_command_is_in_the_document(path: tuple[str, ...]) -> None:
    """The table has a row with what it does, an example and its exit codes."""
    (row,) = re.findall(rf"^\| `{' '.join(path)}` \| (.+) \|$", DOCUMENT, re.MULTILINE)
    cells = row.split(" | ")
    assert len(cells) == 3
    assert parse(cells[1].strip("`")) == path
    assert re.fullmatch(r"(\d( [^;]+)?; )*\d( [^;]+)?", cells[2]), cells[2]


def test_every_line_of_the_document_can_be_typed() -> None:
    """Options and arguments of all examples, in the README's too, exist."""
    text = DOCUMENT + (ROOT / "README.md").read_text()
    lines = re.findall(r"^ {4}(?:\w+=\S+ )*(pltrack .+)$", text, re.MULTILINE) + re.findall(
        r"`(pltrack [a-z]+ [^`]+)`", text
    )
    assert len(lines) > 10
    for each in lines:
        parse(each)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_what_programs_read_can_be_had_as_json(path: tuple[str, ...]) -> None:
    """What tells of records has --json; what only acts says so by its exit code."""
    options = {option for each in COMMANDS[path].params for option in each.opts}
    acts = {"demo", "score", "metadata", "link", "sync", "retry", "pause", "resume", "ui", "upgrade", "diff", "export"}
    assert ("--json" in options) == (path[-1] not in acts)
    assert path != ("export",) or "--jsonl" in options
