"""A pytest plugin that holds a session open around every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import pltrack


@pytest.fixture(autouse=True)
def _held_session() -> Iterator[None]:
    """Hold it open; the plugin of pltrack gives the run a journal of its own and lets nothing out."""
    with pltrack.pl_session("LangChain's own tests"):
        yield
