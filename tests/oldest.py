"""What the oldest versions that pyproject.toml allows do not have yet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from langchain_core.language_models import BaseChatModel


def _source(module: str) -> str:
    found = find_spec(module)
    return Path(found.origin).read_text() if found is not None and found.origin else ""


V3 = hasattr(BaseChatModel, "stream_events")
needs_v3 = pytest.mark.skipif(not V3, reason="this langchain-core has no streams of protocol events")
asks_first = pytest.mark.skipif(not V3, reason="this langchain-core lets a prompt answer `message + prompt`: it links")
needs_source = pytest.mark.skipif(
    "lc_source" not in _source("langchain.agents.middleware.summarization"),
    reason="this langchain does not mark what its middleware asks for",
)
needs_lifecycle = pytest.mark.skipif(
    find_spec("langgraph.callbacks") is None, reason="this langgraph tells nobody of interrupts"
)
