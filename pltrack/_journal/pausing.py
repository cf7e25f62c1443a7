"""A flag in the journal, or hub, that every courier obeys: while it is there, nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Float, String, cast, delete, select

from ..errors import JournalError
from . import statements as sql
from .schema import meta

if TYPE_CHECKING:
    from .exchange import Exchange
    from .reading import Reader

_KEY = "paused"


def since(db: Connection) -> float | None:
    """Return when delivery was paused, in seconds; None while it goes on."""
    return db.scalar(_SINCE)


def look(store: Reader) -> float | None:
    """Return when delivery was paused; None while it goes on. The journal's file says so for what is beside it."""
    asked = store.beside()
    try:
        with (asked or store)._reading() as db:
            return since(db)
    except JournalError:
        if asked is None:
            raise
        return None  # nobody can tell


def pause(store: Exchange) -> float | None:
    """Pause delivery; return since when it was paused already."""
    with store._writing() as db:
        earlier = since(db)
        if earlier is None:
            db.execute(meta.insert().values(key=_KEY, value=cast(sql.NOW, String)))
    return earlier


def resume(store: Exchange) -> float | None:
    """Let delivery go on; return since when it was paused, None where it was not."""
    with store._writing() as db:
        earlier = since(db)
        db.execute(delete(meta).where(meta.c.key == _KEY))
    return earlier


_SINCE = select(cast(meta.c.value, Float)).where(meta.c.key == _KEY)
