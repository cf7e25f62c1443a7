"""Where the pages' rows come from: looked up anew for each page, as a journal may come, go or be replaced meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .._journal import looking
from ..errors import JournalError

if TYPE_CHECKING:
    from .._journal.hub import Hub
    from .._journal.reading import Reader


class NothingYetError(JournalError):
    """Nothing was recorded yet; looking does not make a journal."""


class Source:
    """A journal's file, or a hub."""

    def __init__(self, path: Path, *, hub: str = "", hub_shown: str = "") -> None:
        self.place = hub_shown or str(path)  # for people
        self._path = path
        self._url = hub
        self._hub: Hub | None = None
        self._lock = threading.Lock()

    def store(self) -> Reader:
        """Return what can be read now; raise NothingYetError or another JournalError that says why not."""
        if self._url:
            with self._lock:
                if self._hub is None:
                    self._hub = looking.hub(self._url)
                return self._hub
        found = looking.Onlooker.open(self._path)
        if found is None:
            raise NothingYetError(f"Nothing was recorded yet in {self.place}.")
        return found
