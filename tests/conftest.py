"""Shared by all tests: nothing leaks from one test's settings into the next."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pltrack import _runtime

if TYPE_CHECKING:
    from postgres import Server

_failed: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what failed."""
    if report.failed and report.nodeid not in _failed:
        _failed.append(report.nodeid)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Tell .ci/run, where it asks for that, which tests failed in a run that was otherwise in order."""
    asked = os.environ.get("FAILED_TESTS")
    if asked and exitstatus == pytest.ExitCode.TESTS_FAILED and "PYTEST_XDIST_WORKER" not in os.environ:
        Path(asked).write_text("".join(f"{each}\n" for each in _failed))


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

    def wait(holds: Callable[[], object], limit: float = 30.0) -> None:
        deadline, pause = time.monotonic() + limit, threading.Event()
        while not holds():
            assert time.monotonic() < deadline, "it did not come to hold in time"
            pause.wait(0.01)

    return wait
