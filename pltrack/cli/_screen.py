"""What reaches the terminal: recorded text is anybody's text, so it is cleaned and never read as markup."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_PIPED_WIDTH = 160  # a table that is read by another program is not folded to a terminal's width
# Escape sequences as a whole: without their first character the rest would stay as litter.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, screen
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and the like
    r"|\x1b[ -/]*[0-~]"
)
_DROPPED = {"Cc", "Cf", "Cs", "Co", "Cn"}
_JOINERS = "\u200c\u200d"  # of scripts and emoji; they cannot reorder or hide text
_LINE_BREAKS = {"\r\n": "\n", "\r": "\n", "\u2028": "\n", "\u2029": "\n", "\t": "    "}


def clean(value: object) -> str:
    """Return text without control characters, escape sequences and direction overrides."""
    text = _ESCAPES.sub("", str(value))
    for found, instead in _LINE_BREAKS.items():
        text = text.replace(found, instead)
    return "".join(char for char in text if char == "\n" or char in _JOINERS or _is_plain(char))


def line(value: object, most: int = 0) -> str:
    """Return cleaned text on one line, cut to `most` characters where that is given."""
    text = " ".join(clean(value).split())
    return text if not most or len(text) <= most else text[: most - 1] + "…"


def words(value: object, style: str = "") -> Text:
    """Return recorded text for a table or panel: cleaned, and never read as markup."""
    from rich.text import Text

    return Text(clean(value), style=style)


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout (or stderr); wide where nobody's terminal sets the width."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """Print JSON in ASCII: what could move the cursor is escaped, and nothing is lost."""
    print(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def complain(text: object) -> None:
    """Say on stderr what is wrong."""
    print(f"pltrack: {line(text)}", file=sys.stderr)


def log_to_stderr() -> None:
    """Let what the library says reach the user as lines without ornament."""
    logger = logging.getLogger("pltrack")
    if not logger.handlers:
        logger.addHandler(_Lines())


class _Lines(logging.StreamHandler[TextIO]):
    """Log lines, cleaned: a server's words are in them."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        return line(record.getMessage())


def _is_plain(char: str) -> bool:
    return (char.isascii() and char.isprintable()) or unicodedata.category(char) not in _DROPPED
