"""Recorded text is anybody's text: what of it may be shown to people, on a terminal or a page."""

from __future__ import annotations

import re
import unicodedata

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
    text = str(value)
    if text.isprintable():  # most is: nothing of what is dropped below is printable
        return text
    text = _ESCAPES.sub("", text)
    for found, instead in _LINE_BREAKS.items():
        text = text.replace(found, instead)
    return "".join(char for char in text if char == "\n" or char in _JOINERS or _is_plain(char))


def line(value: object, most: int = 0) -> str:
    """Return cleaned text on one line, cut to `most` characters where that is given."""
    text = " ".join(clean(value).split())
    return text if not most or len(text) <= most else text[: most - 1] + "…"


def _is_plain(char: str) -> bool:
    return (char.isascii() and char.isprintable()) or unicodedata.category(char) not in _DROPPED
