"""What the tests of journals in trouble share: a call that takes no time, and what became of it."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def opened(path: Path | str, **options: Any) -> Iterator[sqlite3.Connection]:
    """Open a journal beside the program, in a transaction that is committed; closed afterwards."""
    with closing(sqlite3.connect(path, **options)) as db, db:
        yield db


def in_file(path: Path, what: str = "count(*)", table: str = "requests") -> object:
    """Ask another connection about the file."""
    with opened(path) as db:
        try:
            return db.execute(f"select {what} from {table}").fetchone()[0]
        except sqlite3.OperationalError:  # it has no tables yet
            return None


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
