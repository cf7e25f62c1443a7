"""Shared by all tests: nothing leaks from one test's settings into the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from pltrack import _runtime

if TYPE_CHECKING:
    from postgres import Server


@pytest.fixture(autouse=True)
def _clean_runtime() -> Iterator[None]:
    """Forget what a test configured."""
    yield
    _runtime.reset()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server."""
    from postgres import server

    with server() as running:
        yield running


@pytest.fixture
def hub_url(postgres: Server) -> str:
    """The address of an empty hub."""
    from pltrack._journal.hub import Hub

    url = postgres.database()
    Hub.upgrade(url)
    return url


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Wait, with a limit, until something holds; for what no event tells of."""

    def wait(holds: Callable[[], object], limit: float = 15.0) -> None:
        deadline, pause = time.monotonic() + limit, threading.Event()
        while not holds():
            assert time.monotonic() < deadline, "it did not come to hold in time"
            pause.wait(0.01)

    return wait
