"""Running small programs as real processes, with an environment that names everything they use."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from pltrack.testing import FakePromptLayer

PREAMBLE = """
import os, sys, time, threading
import pltrack
from langchain_core.language_models.fake_chat_models import FakeListChatModel
model = FakeListChatModel(responses=["four"])
"""


def environment(journal: Path, server: FakePromptLayer | None = None, **more: str) -> dict[str, str]:
    """Return an environment in which a program records to `journal` and delivers to `server`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PLTRACK", "PROMPTLAYER"))}
    kept["PLTRACK_JOURNAL"] = str(journal)
    if server is not None:
        kept |= {"PROMPTLAYER_API_KEY": server.api_key, "PROMPTLAYER_BASE_URL": server.url}
    return kept | more


def start(program: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start a program; its lines can be read from `stdout`."""
    code = PREAMBLE + textwrap.dedent(program)
    return subprocess.Popen(
        [sys.executable, "-c", code], env=env, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(program: str, env: dict[str, str], code: int = 0, timeout: float = 60) -> str:
    """Run a program to its end and return what it printed."""
    process = start(program, env)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == code, err
    return out
