"""What reaches the terminal: recorded text is anybody's text, so it is cleaned and never read as markup."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from .._shown import clean, line

__all__ = ["clean", "complain", "console", "line", "log_to_stderr", "print_json", "words"]

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_PIPED_WIDTH = 160  # a table that is read by another program is not folded to a terminal's width


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
