"""Questions that people ask of a journal or hub: pages of requests and sessions, prompts, what is not delivered.

Every page looks at a bounded number of rows, newest first, and says where to go on: the first page costs the same
with a thousand rows and with a million.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Select, String, and_, func, or_, select, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from . import counting
from . import statements as sql
from .reading import Reader
from .schema import bodies, notes, prompts, requests, sessions

_LOOKED_AT = 20_000  # rows for one page; fewer where content has to be read
_LOOKED_INTO = 4_000
_AT_ONCE = 50  # with their content
_SHORT_BODY = 100_000  # bytes; longer ones are not read for a list
_REASONS_OF = 2_000
_LATE = 3600.0  # seconds by which rows may be out of order


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
    older: Any  # None at the end; before what else to go on
    since: float | None = None  # how far back was looked, where that was not far enough to fill the page


class Browser:
    """Answers them for one store."""

    def __init__(self, store: Reader) -> None:
        self._store = store

    def requests(self, filters: Filters, *, before: int | None = None, limit: int = 50, content: bool = False) -> Page:
        """Return a page of requests, each with its session and its notes; with its `content` where that is short."""
        with self._store._reading() as db:
            one_session = bool(filters.session) and self._is_session(db, filters.session)
            window, oldest, since = self._window(db, filters, before, whole=one_session)
            fits = conditions(filters, one_session=one_session)
            statement = select(requests).where(*window, *fits).order_by(requests.c.seq.desc())
            found = [dict(row) for row in db.execute(statement.limit(limit + 1)).mappings()]
            if len(found) > limit:
                rows, older, since = found[:limit], found[limit - 1]["seq"], None
            else:
                rows, older = found, oldest if self._any_before(db, oldest, filters, since) else None
            self._add_notes(db, rows)
            self._add_sessions(db, rows)
            if content:
                self._add_bodies(db, rows)
        return Page(rows, older, since if older is not None else None)

    def every(self, filters: Filters) -> Iterator[dict[str, Any]]:
        """Yield the requests that there are now, the oldest first, with content, notes and session, a few at a time."""
        with self._store._reading() as db:
            newest = db.scalar(select(func.max(requests.c.seq))) or 0
        after, fits = 0, conditions(filters)
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
        """Return one request by our id or PromptLayer's, with its content, notes, session and neighbours in time."""
        found = next(iter(self._store.rows(1, id)), None)
        if found is not None:
            with self._store._reading() as db:
                beside = select(requests.c.id).limit(1)
                older = beside.where(requests.c.seq < found["seq"]).order_by(requests.c.seq.desc())
                newer = beside.where(requests.c.seq > found["seq"]).order_by(requests.c.seq)
                found |= {"older": db.scalar(older), "newer": db.scalar(newer)}
        return found

    def sessions(
        self, *, user: str = "", tag: str = "", before: tuple[float, str] | None = None, limit: int = 50
    ) -> Page:
        """Return a page of outermost sessions, newest first; `older` is the moment and id to go on from."""
        moment = sessions.c.started_at, sessions.c.id
        newest = select(sessions).order_by(*(column.desc() for column in moment))
        newest = newest.where(sessions.c.user == user) if user else newest.limit(_LOOKED_INTO)
        if before is not None:
            newest = newest.where(tuple_(*moment) < before)
        looked = newest.subquery()
        wanted = select(looked).where(looked.c.id == looked.c.root)
        if tag:
            wanted = wanted.where(looked.c.tags.contains(_as_json(tag, ascii_only=True), autoescape=True))
        with self._store._reading() as db:
            order = looked.c.started_at.desc(), looked.c.id.desc()
            rows = [dict(row) for row in db.execute(wanted.order_by(*order).limit(limit + 1)).mappings()]
            totals = self._totals(db, [row["id"] for row in rows[:limit]])
            last = rows[limit - 1] if len(rows) > limit else None
            if last is None and not user and (edge := self._edge(db, looked)) is not None:
                return Page(_with(rows, totals), edge, edge[0])
        return Page(_with(rows[:limit], totals), last and (last["started_at"], last["id"]))

    def session(self, id: str, limit: int = 1_000) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the sessions nested around and in one, and their first requests in call order."""
        with self._store._reading() as db:
            root = db.scalar(select(sessions.c.root).where(sessions.c.id == id))
            if root is None:
                return [], []
            around = [dict(row) for row in db.execute(_family(root, limit)).mappings()]
            calls = select(requests).where(requests.c.root == root).order_by(requests.c.started_at).limit(limit)
            rows = [dict(row) for row in db.execute(calls).mappings()]
            self._add_notes(db, rows)
            self._add_bodies(db, rows)
            within = requests.c.session_id.in_(select(_inside(id).c.id))
            sums = dict(db.execute(select(*_SUMS).where(within)).mappings().one())
        wanted = sums if sums["calls"] else _NOTHING
        return [{**each, **wanted} if each["id"] == id else each for each in around], rows

    def undelivered(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return what PromptLayer has refused or not taken yet, the newest of each first."""
        with self._store._reading() as db:
            rows = [dict(row) for statement in _open(limit, requests) for row in db.execute(statement).mappings()]
            rows = list({row["seq"]: row for row in rows}.values())
            self._add_notes(db, rows)
            self._add_sessions(db, rows)
            self._add_bodies(db, rows)
        return rows

    def reasons(self) -> list[tuple[str, str, str, int]]:
        """Return why the newest of the requests and notes are not delivered: what, state, reason, how many."""
        found: dict[tuple[str, str, str], int] = {}
        with self._store._reading() as db:
            for table in (requests, notes):
                for statement in _open(_REASONS_OF, table):
                    some = statement.subquery()
                    said = some.c.reason, some.c.state
                    counted = select(*said, func.count()).where(some.c.reason.is_not(None)).group_by(*said)
                    for reason, state, count in db.execute(counted):
                        key = table.name, state, reason
                        found[key] = found.get(key, 0) + count
        return sorted(((*key, count) for key, count in found.items()), key=lambda each: -each[3])

    def destinations(self) -> list[tuple[str, str, int]]:
        """Return how many requests are in which state for which destination: (fingerprint, state, how many)."""
        with self._store._reading() as db:
            known = counting.by_destination(db, [requests])
        return sorted((name, state, n) for name, states in known.items() for state, n in states.items())

    def prompts(self) -> list[tuple[str, int, int]]:
        """Return each prompt that is kept here: its name, how many versions, and the newest one's number."""
        columns = prompts.c.name, func.count(prompts.c.version.distinct()), func.max(prompts.c.version)
        with self._store._reading() as db:
            return [tuple(row) for row in db.execute(select(*columns).group_by(prompts.c.name))]

    def versions(self, name: str) -> dict[int, dict[str, Any]]:
        """Return the versions of a prompt that are kept here, the newest first."""
        wanted = select(prompts.c.version, prompts.c.payload).where(prompts.c.name == name)
        with self._store._reading() as db:
            rows = db.execute(wanted.order_by(prompts.c.version.desc())).all()
        return {row.version: orjson.loads(row.payload) for row in rows}

    # -- parts --------------------------------------------------------------------------------------------

    def _is_session(self, db: Any, id: str) -> bool:
        return db.scalar(select(sessions.c.id).where(sessions.c.id == id)) is not None

    def _window(
        self, db: Any, filters: Filters, before: int | None, *, whole: bool
    ) -> tuple[list[Any], int, float | None]:
        """Return which rows are looked at for a page, the last of them, and when that one ended."""
        earlier = [requests.c.seq < before] if before is not None else []
        if whole:
            return earlier, 0, None
        looked_at = _LOOKED_INTO if filters.text else _LOOKED_AT
        looked = select(requests.c.seq).where(*earlier).order_by(requests.c.seq.desc()).limit(looked_at).subquery()
        oldest = db.scalar(select(func.min(looked.c.seq))) or 0
        since = db.scalar(select(requests.c.ended_at).where(requests.c.seq == oldest))
        return [*earlier, requests.c.seq >= oldest], oldest, since

    def _any_before(self, db: Any, seq: int, filters: Filters, ended_at: float | None) -> bool:
        # Rows are in the order in which their calls ended, but for some that came late.
        if filters.since is not None and ended_at is not None and ended_at < filters.since - _LATE:
            return False
        return db.scalar(select(requests.c.seq).where(requests.c.seq < seq).limit(1)) is not None

    def _edge(self, db: Any, looked: Any) -> tuple[float, str] | None:
        """Return the last session looked at where there may be more after it."""
        if (db.scalar(select(func.count()).select_from(looked)) or 0) < _LOOKED_INTO:
            return None
        last = select(looked.c.started_at, looked.c.id).order_by(looked.c.started_at, looked.c.id)
        return tuple(db.execute(last.limit(1)).one())

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

    def _add_bodies(self, db: Any, rows: Iterable[dict[str, Any]]) -> None:
        by_seq = {row["seq"]: row for row in rows}
        short = func.length(bodies.c.payload) <= _SHORT_BODY
        found = select(bodies.c.seq, bodies.c.payload).where(bodies.c.seq.in_(by_seq), short)
        for seq, payload in db.execute(found) if by_seq else ():
            by_seq[seq]["payload"] = payload

    def _totals(self, db: Any, roots: Sequence[str]) -> dict[str, dict[str, Any]]:
        statement = select(requests.c.root, *_SUMS).where(requests.c.root.in_(roots)).group_by(requests.c.root)
        return {row["root"]: dict(row) for row in db.execute(statement).mappings()} if roots else {}


def _inside(session: str) -> Any:
    """Return the ids of a session and of those nested in it, level by level: by the index on parents."""
    inside = select(sessions.c.id).where(sessions.c.id == session).cte("inside", recursive=True)
    return inside.union(select(sessions.c.id).where(sessions.c.parent == inside.c.id))


def _family(root: str, limit: int) -> Select[Any]:
    family = select(sessions).where(sessions.c.id.in_(select(_inside(root).c.id)))
    return family.order_by(sessions.c.id != root, sessions.c.started_at).limit(limit)


_TOKENS = func.coalesce(requests.c.input_tokens, 0) + func.coalesce(requests.c.output_tokens, 0)
_SUMS = (
    func.count().label("calls"),
    func.count().filter(requests.c.status == "ERROR").label("errors"),
    func.sum(_TOKENS).label("tokens"),
    func.sum(requests.c.cost).label("cost"),
    (func.max(requests.c.ended_at) - func.min(requests.c.started_at)).label("seconds"),
)
_NOTHING = {"calls": 0, "errors": 0, "tokens": 0, "cost": None, "seconds": 0.0}


def _with(rows: list[dict[str, Any]], totals: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, **totals.get(row["root"], _NOTHING)} for row in rows]


def _open(limit: int, table: Any) -> list[Select[Any]]:
    """Return the newest rows of each state that is not at its end, each by an index of its own."""
    moment = requests.c.ended_at if table is requests else notes.c.created_at
    newest = select(table).order_by(moment.desc()).limit(limit)
    states = (sql.SENDING, sql.PENDING) if table is requests else (sql.WAITING,)
    failed = [newest.where(table.c.state == sql.FAILED_STATE, table.c.content == kept) for kept in (1, 0)]
    return [*failed, *(newest.where(table.c.state == state) for state in states)]


def conditions(filters: Filters, *, one_session: bool = False) -> list[ColumnElement[bool]]:
    """Return what must hold of a request for it to fit; `one_session`: the session is an id, not a name."""
    given: Mapping[str, Any] = filters.given
    found: list[ColumnElement[bool]] = [
        getattr(requests.c, name) == given[name] for name in ("status", "state") if name in given
    ]
    if filters.model:  # a class goes by its name, as it is shown, without its package
        whole = requests.c.model == filters.model
        of_class = requests.c.model.endswith(f".{filters.model}", autoescape=True)
        found.append(or_(whole, of_class) if filters.model[0].isupper() else whole)
    if one_session:  # found by an index
        found.append(or_(requests.c.session_id == filters.session, requests.c.root == filters.session))
    elif filters.session:
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


def _as_json(tag: str, *, ascii_only: bool = False) -> str:
    # Sessions' tags were written by the standard library's module, requests' by orjson.
    return json.dumps(tag) if ascii_only else orjson.dumps(tag).decode()


def _prompt(wanted: str) -> ColumnElement[bool]:
    name, at, version = wanted.rpartition("@")
    if at and version.isdigit():
        return and_(requests.c.prompt_name == name, requests.c.prompt_version == int(version))
    return requests.c.prompt_name == wanted
