"""A journal or hub that is only looked at: opened so that nothing can be written, and never made by the look."""

from __future__ import annotations

import sqlite3
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, create_engine, event, inspect, select
from sqlalchemy.pool import NullPool

from ..errors import JournalError
from . import files
from .hub import Hub
from .reading import BUSY_MS, Reader
from .schema import VERSION, meta, requests


class Onlooker(Reader):
    """A journal's file. Each look opens it anew: whatever became of it, what is there now is what is shown."""

    def __init__(self, path: Path) -> None:
        # `mode=ro`: neither this connection nor a mistake of ours can change a byte or make a file.
        address = f"{path.absolute().as_uri()}?mode=ro"

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(
                address, uri=True, timeout=BUSY_MS / 1000, check_same_thread=False, isolation_level=None
            )

        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
        event.listen(engine, "begin", lambda db: db.exec_driver_sql("begin"))
        super().__init__(engine, f"the journal {path}", path)
        self._gate, self._lock = nullcontext(), nullcontext()  # type: ignore[assignment]  # no connection is shared

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Return what this version writes at a path or beside it; None while nothing was recorded there."""
        if not path.exists():
            return None
        found = cls(path)
        schema = found.schema()
        if schema is None or schema == str(VERSION):
            return found if schema else None
        if (ours := files.beside(path)).exists():
            return cls(ours)
        raise JournalError(
            f"the journal {path} has schema {schema}, this pltrack knows {VERSION}: "
            "look with the pltrack of the program that wrote it"
        )

    def schema(self) -> str | None:
        """Return which schema the file has; None for a file that is just being made."""
        with self._reading() as db:
            tables = inspect(db).get_table_names()
            if tables and not {meta.name, requests.name} <= set(tables):
                raise JournalError(f"{self.name} is a database of another program")
            return db.scalar(select(meta.c.value).where(meta.c.key == "schema")) if tables else None


def hub(url: str) -> Hub:
    """Connect to a hub that nothing can be written to."""
    found = Hub.open(url)
    event.listen(found._engine, "begin", _read_only)
    return found


def _read_only(db: Connection) -> Any:
    db.exec_driver_sql("set transaction read only")
