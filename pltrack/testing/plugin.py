"""The pytest plugin of pltrack: a test run has a journal of its own and sends nothing, unless a test asks.

It leaves `os.environ` alone. The fixtures:

- `promptlayer`: a started `FakePromptLayer`, and pltrack delivering to it from a fresh journal.
- `pltrack_journal`: the path of a fresh journal; nothing is delivered.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ._server import FakePromptLayer

DIRECTORY = pytest.StashKey[Path]()
SHUTDOWN_SECONDS = 5.0


def pytest_configure(config: pytest.Config) -> None:
    """Give the run its journal before anything of it can record."""
    from pltrack import _runtime

    directory = Path(tempfile.mkdtemp(prefix="pltrack-pytest-"))
    config.stash[DIRECTORY] = directory
    _runtime.set_defaults(journal=directory / "journal.db", delivery="off")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the run's journal and take it away."""
    directory = config.stash.get(DIRECTORY, None)
    if directory is not None:
        _forget_configuration()
        shutil.rmtree(directory, ignore_errors=True)


def _forget_configuration() -> None:
    from pltrack import _runtime

    _runtime.shutdown(SHUTDOWN_SECONDS)
    _runtime.reset()  # keeps the run's defaults


@pytest.fixture
def promptlayer(tmp_path: Path) -> Iterator[FakePromptLayer]:
    """Start a fake PromptLayer and have pltrack deliver to it, from a fresh journal."""
    from pltrack import _runtime

    with FakePromptLayer() as server:
        _runtime.configure(
            api_key=server.api_key,
            base_url=server.url,
            journal=tmp_path / "journal.db",
            delivery="background",
        )
        try:
            yield server
        finally:
            server.heal()  # or shutdown would wait for a server that was told to be silent
            _forget_configuration()


@pytest.fixture
def pltrack_journal(tmp_path: Path) -> Iterator[Path]:
    """Give pltrack a fresh journal, deliver nothing, and return the journal's path."""
    from pltrack import _runtime

    path = tmp_path / "journal.db"
    _runtime.configure(journal=path, delivery="off")
    try:
        yield path
    finally:
        _forget_configuration()
