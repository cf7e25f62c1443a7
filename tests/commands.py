"""Running the `pltrack` command as a real process, piped or on a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import NamedTuple

from programs import environment

from pltrack.testing import FakePromptLayer

COMMAND = [sys.executable, "-m", "pltrack"]


class Said(NamedTuple):
    """What a command said."""

    out: str
    err: str


def settings(journal: Path, server: FakePromptLayer | None = None, **more: str) -> dict[str, str]:
    """Return an environment without a terminal's settings, with UTF-8."""
    found = environment(journal, server, PYTHONUTF8="1", **more)
    return {key: value for key, value in found.items() if key not in {"FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES"}}


def cli(*arguments: str, env: dict[str, str], code: int = 0, given: str = "") -> Said:
    """Run the command to its end, piped; return what it said."""
    done = subprocess.run(
        [*COMMAND, *arguments], env=env, input=given, text=True, capture_output=True, timeout=90, encoding="utf-8"
    )
    assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return Said(done.stdout, done.stderr)


def on_terminal(*arguments: str, env: dict[str, str], columns: int, code: int = 0) -> str:
    """Run the command to its end on a terminal of that width; return what reached the screen."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *arguments], env=env | {"TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        told = bytearray()
        try:
            while more := os.read(ours, 65536):
                told += more
        except OSError:
            pass  # Linux says so that the other end is closed
        assert process.wait(60) == code, told.decode()
    finally:
        os.close(ours)
    return told.decode().replace("\r\n", "\n")
