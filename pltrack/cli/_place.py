"""The journal that the commands speak about; with PLTRACK_HUB, the hub."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from .._entries import Entry
    from .._journal.store import Store


def check_settings() -> None:
    """Raise SettingError for an environment variable that cannot be used."""
    from .. import _runtime

    _runtime.configure()


def name() -> str:
    """Return what the place is called, for people."""
    from .. import _runtime

    runtime = _runtime.get()
    return runtime.settings.hub_shown or str(runtime.lane.path)


def journal() -> Store | None:
    """Return this machine's journal, None where there is none yet: looking does not make one."""
    from .. import _runtime

    check_settings()
    lane = _runtime.get().lane
    if not lane.path.exists():
        return None
    from .._journal.store import Store as Journal

    Journal.open(lane.path).close()  # what cannot be read is said; to set it aside is for programs that write
    store = lane.store()
    if lane.in_memory:
        raise typer.Exit(1)  # why was logged
    return store


def hub() -> Store | None:
    """Return the hub, None where there is none."""
    from .. import _runtime

    check_settings()
    url = _runtime.get().settings.hub
    return _hub(url) if url else None


@functools.cache
def _hub(url: str) -> Store:
    from .._journal.hub import Hub

    return Hub.open(url)


def store() -> Store | None:
    """Return where records are looked for: the hub, else the journal, None where there is none yet."""
    return hub() or journal()


def found(wanted: str) -> Entry | None:
    """Return a request by our id or its end, PromptLayer's id, or `last`."""
    from .. import _entries

    there = store()
    return None if there is None else _entries.find(there, wanted)
