"""Erasing from a journal's files: the rows, and every byte that deleting rows leaves behind."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, literal, or_, select, true

from ..errors import JournalError
from . import clearing
from . import statements as sql
from .schema import notes, requests, sessions
from .store import Store

_ROWS = 200
_PAUSE = 0.05


class Wanted(NamedTuple):
    """What is to be erased: all that is given must hold."""

    user: str | None = None
    session: str | None = None
    request: str | None = None
    pl_id: int | None = None
    before: float | None = None


class Found(NamedTuple):
    """What there is of it."""

    requests: int
    notes: int
    sessions: int
    pl_ids: tuple[int, ...]


def look(store: Store, wanted: Wanted) -> Found:
    """Count what would be erased."""
    with store._reading() as db:
        return _found(db, _requests(db, wanted), wanted)


def erase(store: Store, wanted: Wanted, *, held: bool) -> Found:
    """Remove the rows, those that a courier holds only with `held`; small transactions, so that others can write."""
    with store._reading() as db:
        seqs = _requests(db, wanted)
    done = Found(0, 0, 0, ())
    for start in range(0, len(seqs), _ROWS):
        with store._writing() as db:
            some = seqs[start : start + _ROWS]
            if not held:
                free = requests.c.seq.in_(some), requests.c.state != sql.SENDING
                some = list(db.scalars(select(requests.c.seq).where(*free)))
            done = _sum(done, _found(db, some, wanted, of_sessions=False))
            pl_ids = db.scalars(select(requests.c.pl_id).where(requests.c.seq.in_(some), requests.c.pl_id.is_not(None)))
            db.execute(delete(notes).where(notes.c.pl_id.in_(pl_ids.all())))
            clearing.remove(db, some)
    with store._writing() as db:
        loose = db.execute(delete(notes).where(_loose_notes(wanted))).rowcount
        gone = 0
        while count := clearing.empty_sessions(db, _sessions(wanted), _ROWS):
            gone += count
    return _sum(done, Found(0, loose, gone, ()))


def held(store: Store, wanted: Wanted) -> list[int]:
    """Return the sequence numbers of what a courier holds of it."""
    with store._reading() as db:
        seqs = _requests(db, wanted)
        return [
            seq
            for start in range(0, len(seqs), _ROWS)
            for seq in db.scalars(
                select(requests.c.seq).where(
                    requests.c.seq.in_(seqs[start : start + _ROWS]), requests.c.state == sql.SENDING
                )
            )
        ]


def scrub(store: Store, deadline: float) -> str:
    """Leave no trace of deleted rows in the file and its WAL; say what stands in the way, if anything does.

    Deleted bytes are overwritten, but the file keeps old copies of rows that once were moved from page to page.
    """
    while True:
        with suppress(JournalError):
            clearing.rewrite(store)
            if clearing.checkpoint(store, truncate=True):
                return ""
        if time.monotonic() >= deadline:
            return (
                "another process is reading or writing the journal: deleted bytes may be in its files until it has "
                "ended; erase again then"
            )
        Event().wait(_PAUSE)


def set_aside(path: Path) -> list[Path]:
    """Return the files that were set aside because they could not be used as this journal."""
    return sorted(each for each in path.parent.glob(f"{path.name}.broken-*") if each.is_file())


def erase_set_aside(path: Path, wanted: Wanted, deadline: float) -> Found | None:
    """Erase from a file that was set aside; None where it cannot be read, and so had to be removed as a whole."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            sound = db.execute("pragma quick_check(1)").fetchone() == ("ok",)
        if sound:
            store = Store.open(path)
            with closing(store):
                found = erase(store, wanted, held=True)
                if not scrub(store, deadline):
                    return found
    except (sqlite3.Error, JournalError):
        pass
    with path.open("r+b") as file:
        left = path.stat().st_size
        while left > 0:
            left -= file.write(b"\0" * min(left, 1_048_576))
    path.unlink()
    return None


def _sum(one: Found, other: Found) -> Found:
    return Found(
        one.requests + other.requests,
        one.notes + other.notes,
        one.sessions + other.sessions,
        (*one.pl_ids, *other.pl_ids),
    )


def _found(db: Connection, seqs: Sequence[int], wanted: Wanted, *, of_sessions: bool = True) -> Found:
    ids: list[str] = []
    pl_ids: list[int] = []
    said = 0
    for start in range(0, len(seqs), _ROWS):
        some = seqs[start : start + _ROWS]
        rows = db.execute(select(requests.c.id, requests.c.pl_id).where(requests.c.seq.in_(some))).all()
        ids += [row.id for row in rows]
        pl_ids += [row.pl_id for row in rows if row.pl_id is not None]
        about = or_(
            notes.c.request_id.in_([row.id for row in rows]),
            and_(notes.c.request_id.is_(None), notes.c.pl_id.in_([row.pl_id for row in rows if row.pl_id])),
        )
        said += len(db.execute(select(notes.c.seq).where(about)).all())
    named = len(db.execute(select(sessions.c.id).where(_sessions(wanted))).all()) if of_sessions else 0
    if of_sessions:
        said += len(db.execute(select(notes.c.seq).where(_loose_notes(wanted), notes.c.request_id.not_in(ids))).all())
    return Found(len(ids), said, named, tuple(pl_ids))


def _requests(db: Connection, wanted: Wanted) -> list[int]:
    which: list[ColumnElement[bool]] = [true()]
    if wanted.request is not None:
        which.append(requests.c.id == wanted.request)
    if wanted.pl_id is not None:
        which.append(requests.c.pl_id == wanted.pl_id)
    if wanted.before is not None:
        which.append(requests.c.started_at < wanted.before)
    if wanted.user is not None or wanted.session is not None:
        which.append(requests.c.session_id.in_(select(sessions.c.id).where(_of_user(wanted), _within(wanted))))
        if wanted.session is not None and wanted.user is None:  # its row may be gone, or not be there yet
            which[-1] = or_(which[-1], requests.c.session_id == wanted.session)
    return list(db.scalars(select(requests.c.seq).where(*which).order_by(requests.c.seq)))


def _sessions(wanted: Wanted) -> ColumnElement[bool]:
    if wanted.user is None and wanted.session is None and wanted.before is None:
        return sessions.c.id.is_(None)
    if wanted.request is not None or wanted.pl_id is not None:
        return sessions.c.id.is_(None)
    early = true() if wanted.before is None else sessions.c.started_at < wanted.before
    return and_(_of_user(wanted), _within(wanted), early)


def _of_user(wanted: Wanted) -> ColumnElement[bool]:
    return true() if wanted.user is None else sessions.c.user == wanted.user


def _within(wanted: Wanted) -> ColumnElement[bool]:
    if wanted.session is None:
        return true()
    tree = select(literal(wanted.session).label("id")).cte("tree", recursive=True)
    tree = tree.union(select(sessions.c.id).where(sessions.c.parent == tree.c.id))
    return sessions.c.id.in_(select(tree.c.id))


def _loose_notes(wanted: Wanted) -> ColumnElement[bool]:
    """Return which notes go by themselves: their request is not here."""
    if wanted.user is not None or wanted.session is not None:
        return notes.c.seq.is_(None)
    early = true() if wanted.before is None else notes.c.created_at < wanted.before
    gone = ~select(requests.c.seq).where(requests.c.id == notes.c.request_id).exists()
    which = [early, or_(notes.c.request_id.is_(None), gone)]
    if wanted.request is not None:
        which.append(notes.c.request_id == wanted.request)
    if wanted.pl_id is not None:
        which.append(notes.c.pl_id == wanted.pl_id)
    return and_(*which)
