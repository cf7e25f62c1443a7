"""What the tests of journals in trouble share: a call that takes no time, and what became of it."""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])


def track_one(text: str = "What comes after 1,2,3?") -> pltrack.Session:
    """Make one tracked call, which takes no time, and return its session."""
    began = time.monotonic()
    with pltrack.pl_session() as session:
        MODEL.invoke(text)
    assert time.monotonic() - began < 1
    return session


def arrived(server: FakePromptLayer) -> list[str]:
    """Return our ids of what PromptLayer got, in order."""
    return [logged.metadata["pltrack_id"] for logged in server.requests]


def in_file(path: Path, what: str = "count(*)", table: str = "requests") -> object:
    """Ask another connection about the file."""
    db = sqlite3.connect(path)
    try:
        return db.execute(f"select {what} from {table}").fetchone()[0]
    except sqlite3.OperationalError:  # it has no tables yet
        return None
    finally:
        db.close()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
