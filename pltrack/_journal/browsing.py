"""Questions that people ask of a journal or hub: pages of requests and sessions, figures over time, prompts.

Every page looks at a bounded number of rows, newest first, and says where to go on: the first page costs the same
with a thousand rows and with a million.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, String, and_, func, literal, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from . import statements as sql
from .reading import Reader
from .schema import bodies, notes, requests, sessions

_LOOKED_AT = 20_000  # rows for one page; fewer where content has to be read
_LOOKED_INTO = 4_000
_CHARTED = 100_000
_AT_ONCE = 50  # with their content


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which requests are asked for; what is empty does not matter."""

    tag: str = ""
    session: str = ""
    user: str = ""
    model: str = ""
    status: str = ""
    state: str = ""
    prompt: str = ""
    text: str = ""
    since: float | None = None
    until: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) not in ("", None)}


class _TextOf(FunctionElement[str]):
    """A body as text."""

    name = "text_of"
    type = String()
    inherit_cache = True


@compiles(_TextOf, "sqlite")
def _text_of_sqlite(element: Any, compiler: Any, **more: Any) -> str:
    return f"cast({compiler.process(element.clauses, **more)} as text)"


@compiles(_TextOf, "postgresql")
def _text_of_postgresql(element: Any, compiler: Any, **more: Any) -> str:
    return f"convert_from({compiler.process(element.clauses, **more)}, 'UTF8')"


class Page(NamedTuple):
    """Rows, newest first, and before which sequence number to go on; None at the end."""

    rows: list[dict[str, Any]]
    older: int | None


class Browser:
    """Answers them for one store."""

    def __init__(self, store: Reader) -> None:
        self._store = store

    def requests(self, filters: Filters, *, before: int | None = None, limit: int = 50) -> Page:
        """Return a page of requests, each with its session's name and its notes."""
        looked_at = _LOOKED_INTO if filters.text else _LOOKED_AT
        looked = select(requests.c.seq).order_by(requests.c.seq.desc()).limit(looked_at)
        if before is not None:
            looked = looked.where(requests.c.seq < before)
        window = looked.subquery()
        with self._store._reading() as db:
            newest, oldest = db.execute(select(func.max(window.c.seq), func.min(window.c.seq))).one()
            if newest is None:
                return Page([], None)
            range_ = requests.c.seq.between(oldest, newest)
            statement = select(requests).where(range_, *_conditions(filters)).order_by(requests.c.seq.desc())
            found = [dict(row) for row in db.execute(statement.limit(limit + 1)).mappings()]
            if len(found) > limit:
                rows, older = found[:limit], found[limit - 1]["seq"]
            else:
                rows, older = found, oldest if self._any_before(db, oldest) else None
            self._add_notes(db, rows)
            self._add_sessions(db, rows)
        return Page(rows, older)

    def every(self, filters: Filters) -> Iterator[dict[str, Any]]:
        """Yield the requests that there are now, the oldest first, with content, notes and session, a few at a time."""
        with self._store._reading() as db:
            newest = db.scalar(select(func.max(requests.c.seq))) or 0
        after, fits = 0, _conditions(filters)
        while after < newest:
            window = select(requests.c.seq).where(requests.c.seq > after).order_by(requests.c.seq).limit(_LOOKED_INTO)
            with self._store._reading() as db:
                upto = min(db.scalar(select(func.max(window.subquery().c.seq))) or newest, newest)
                range_ = requests.c.seq > after, requests.c.seq <= upto
                fitting = db.scalars(select(requests.c.seq).where(*range_, *fits).order_by(requests.c.seq)).all()
            for start in range(0, len(fitting), _AT_ONCE):
                yield from self._whole(fitting[start : start + _AT_ONCE])
            after = upto

    def last_note(self, kind: str, about: str) -> dict[str, Any] | None:
        """Return what was said last, of its kind, about a request: our id or PromptLayer's."""
        mine = notes.c.pl_id == int(about) if about.isdigit() else notes.c.request_id == about
        statement = select(notes).where(mine, notes.c.kind == kind).order_by(notes.c.seq.desc()).limit(1)
        with self._store._reading() as db:
            return next((dict(row) for row in db.execute(statement).mappings()), None)

    def request(self, id: str) -> dict[str, Any] | None:
        """Return one request by our id or PromptLayer's, with its content, notes and session."""
        return next(iter(self._store.rows(1, id)), None)

    def sessions(self, *, before: str | None = None, limit: int = 50) -> Page:
        """Return a page of outermost sessions, newest first; ids sort by time unless people chose them."""
        roots = select(sessions).where(sessions.c.id == sessions.c.root)
        if before is not None:
            edge = select(sessions.c.started_at).where(sessions.c.id == before).scalar_subquery()
            roots = roots.where(sessions.c.started_at < edge)
        with self._store._reading() as db:
            statement = roots.order_by(sessions.c.started_at.desc()).limit(limit + 1)
            rows = [dict(row) for row in db.execute(statement).mappings()]
            totals = self._totals(db, [row["id"] for row in rows[:limit]])
        for row in rows:
            row |= totals.get(row["id"], {"calls": 0, "errors": 0, "tokens": 0, "cost": None, "seconds": 0.0})
        return Page(rows[:limit], 1 if len(rows) > limit else None)

    def session(self, id: str, limit: int = 1_000) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the sessions nested around and in one, and their requests in call order."""
        with self._store._reading() as db:
            root = db.scalar(select(sessions.c.root).where(sessions.c.id == id))
            if root is None:
                return [], []
            family = select(sessions).where(sessions.c.root == root).order_by(sessions.c.started_at).limit(limit)
            around = [dict(row) for row in db.execute(family).mappings()]
            calls = select(requests).where(requests.c.root == root).order_by(requests.c.started_at).limit(limit)
            rows = [dict(row) for row in db.execute(calls).mappings()]
            self._add_notes(db, rows)
        return around, rows

    def figures(self, filters: Filters) -> list[dict[str, Any]]:
        """Return the facts of the newest requests that fit, without content, oldest first: for charts."""
        columns = tuple(
            requests.c[name] for name in (
                "seq", "id", "model", "status", "started_at", "ended_at", "first_token_at", "input_tokens",
                "output_tokens", "cost", "tags", "prompt_name", "prompt_version",
            )
        )  # fmt: skip
        newest = select(requests.c.seq).order_by(requests.c.seq.desc()).limit(_CHARTED).subquery()
        with self._store._reading() as db:
            oldest = db.scalar(select(func.min(newest.c.seq)))
            if oldest is None:
                return []
            statement = select(*columns).where(requests.c.seq >= oldest, *_conditions(filters))
            return [dict(row) for row in db.execute(statement.order_by(requests.c.seq)).mappings()]

    def scores(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the scores given to requests."""
        with self._store._reading() as db:
            found: list[dict[str, Any]] = []
            for start in range(0, len(ids), 500):
                wanted = notes.c.request_id.in_(ids[start : start + 500])
                statement = select(notes.c.request_id, notes.c.payload).where(wanted, notes.c.kind == "score")
                found += [dict(row) for row in db.execute(statement.order_by(notes.c.seq)).mappings()]
        return found

    def undelivered(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return what PromptLayer has refused or not taken yet, with its words, newest first."""
        with self._store._reading() as db:
            rows: list[dict[str, Any]] = []
            for state in (literal("failed"), sql.SENDING, sql.PENDING):
                statement = select(requests).where(requests.c.state == state).order_by(requests.c.seq.desc())
                rows += [dict(row) for row in db.execute(statement.limit(limit)).mappings()]
        return rows

    # -- parts --------------------------------------------------------------------------------------------

    def _any_before(self, db: Any, seq: int) -> bool:
        return db.scalar(select(requests.c.seq).where(requests.c.seq < seq).limit(1)) is not None

    def _whole(self, seqs: Sequence[int]) -> list[dict[str, Any]]:
        there = select(requests, bodies.c.payload).outerjoin(bodies, bodies.c.seq == requests.c.seq)
        with self._store._reading() as db:
            found = db.execute(there.where(requests.c.seq.in_(seqs)).order_by(requests.c.seq)).mappings()
            rows = [dict(row) for row in found]
            self._add_notes(db, rows)
            self._add_sessions(db, rows)
        return rows

    def _add_notes(self, db: Any, rows: Iterable[dict[str, Any]]) -> None:
        by_id = {row["id"]: row for row in rows}
        for row in by_id.values():
            row["notes"] = []
        if by_id:
            said = select(notes).where(notes.c.request_id.in_(by_id)).order_by(notes.c.seq)
            for note in db.execute(said).mappings():
                by_id[note["request_id"]]["notes"].append(dict(note))

    def _add_sessions(self, db: Any, rows: Iterable[dict[str, Any]]) -> None:
        wanted = {row["session_id"] for row in rows if row["session_id"]}
        found = db.execute(select(sessions).where(sessions.c.id.in_(wanted))).mappings() if wanted else ()
        known = {row["id"]: dict(row) for row in found}
        for row in rows:
            row["session"] = known.get(row["session_id"])

    def _totals(self, db: Any, roots: Sequence[str]) -> dict[str, dict[str, Any]]:
        statement = (
            select(
                requests.c.root,
                func.count().label("calls"),
                func.count().filter(requests.c.status == "ERROR").label("errors"),
                func.sum(func.coalesce(requests.c.input_tokens, 0) + func.coalesce(requests.c.output_tokens, 0)).label(
                    "tokens"
                ),
                func.sum(requests.c.cost).label("cost"),
                (func.max(requests.c.ended_at) - func.min(requests.c.started_at)).label("seconds"),
            )
            .where(requests.c.root.in_(roots))
            .group_by(requests.c.root)
        )
        return {row["root"]: dict(row) for row in db.execute(statement).mappings()} if roots else {}


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    given: Mapping[str, Any] = filters.given
    found: list[ColumnElement[bool]] = [
        getattr(requests.c, name) == given[name] for name in ("status", "state") if name in given
    ]
    if filters.model:
        whole = requests.c.model == filters.model
        of_class = requests.c.model.endswith(
            f".{filters.model}", autoescape=True
        )  # as it is shown, without its package
        found.append(or_(whole, of_class) if filters.model[0].isupper() else whole)
    if filters.session:
        named = select(sessions.c.id).where(or_(sessions.c.name == filters.session, sessions.c.id == filters.session))
        found.append(or_(requests.c.session_id.in_(named), requests.c.root.in_(named)))
    if filters.user:
        found.append(requests.c.session_id.in_(select(sessions.c.id).where(sessions.c.user == filters.user)))
    if filters.tag:
        found.append(requests.c.tags.contains(_as_json(filters.tag), autoescape=True))
    if filters.prompt:
        found.append(_prompt(filters.prompt))
    if filters.since is not None:
        found.append(requests.c.started_at >= filters.since)
    if filters.until is not None:
        found.append(requests.c.started_at < filters.until)
    if filters.text:
        words = _as_json(filters.text)[1:-1]  # as it stands in the body
        holds = _TextOf(bodies.c.payload).icontains(words, autoescape=True)
        found.append(select(bodies.c.seq).where(bodies.c.seq == requests.c.seq, holds).exists())
    return found


def _as_json(tag: str) -> str:
    return orjson.dumps(tag).decode()


def _prompt(wanted: str) -> ColumnElement[bool]:
    name, at, version = wanted.rpartition("@")
    if at and version.isdigit():
        return and_(requests.c.prompt_name == name, requests.c.prompt_version == int(version))
    return requests.c.prompt_name == wanted
