"""The facts of many requests, for charts: those of a time, found by the indexes on when calls ended.

Of more than can be drawn at once a part is taken, chosen by chance, and it is said of how many each one stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, func, literal, literal_column, select

from . import statements as sql
from .browsing import Filters, conditions
from .reading import Reader
from .schema import notes, requests

_MOST = 30_000
_SCATTER, _RANGE = 40_503, 65_536  # a place within each step, by chance: nothing that comes every third row is favoured
_ENDED = ("delivered", "forwarded", "failed")
_FIRST = 200  # rows of each state; those that came late are among them


class Fact(NamedTuple):
    """What charts show of one request."""

    id: str
    model: str
    status: str
    started_at: float
    ended_at: float
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    tags: str
    prompt_name: str | None
    prompt_version: int | None


class Facts(NamedTuple):
    """Facts of a time, with the scores by their ids; each of them stands for `every` requests."""

    rows: list[Fact]
    scores: Mapping[str, Mapping[str, float]]
    every: int = 1


_COLUMNS = tuple(requests.c[name] for name in Fact._fields)


def facts(store: Reader, filters: Filters, *, most: int = _MOST) -> Facts:
    """Return the facts of the requests that fit."""
    since = filters.since or 0.0
    with store._reading() as db:
        first, last = _range(db, since)
        count = last - first + 1
        every = 1 if count <= 2 * most else -(-count // most)
        whole = requests.c.seq.between(first, last)
        chosen = whole if every == 1 else requests.c.seq.in_(_by_chance(first, last, every))
        fit = [chosen, requests.c.started_at >= since, *conditions(replace(filters, since=None))]
        rows = [Fact._make(row) for row in db.execute(select(*_COLUMNS).where(*fit))]
        of_these = notes.c.request_id.in_(select(requests.c.id).where(*fit))
        said = select(notes.c.request_id, notes.c.payload).where(of_these, notes.c.kind == "score")
        scores = _scores(db.execute(said.order_by(notes.c.seq)))
    return Facts(rows, scores, every)


def _range(db: Any, since: float) -> tuple[int, int]:
    """Return the first and the last number of what ended since."""
    late = requests.c.ended_at >= since
    states: list[list[ColumnElement[bool]]] = [
        [requests.c.state == literal_column(f"'{state}'"), requests.c.content == kept]
        for state in _ENDED
        for kept in (0, 1)
    ]
    states += [[requests.c.state == state] for state in (sql.PENDING, sql.SENDING)]
    found: list[int] = []
    for state in states:
        first = select(requests.c.seq).where(*state, late).order_by(requests.c.ended_at).limit(_FIRST)
        found += db.scalars(first)
    return min(found, default=0), db.scalar(select(func.max(requests.c.seq))) or 0


def _by_chance(first: int, last: int, every: int) -> Any:
    """Return one number out of each step of `every`."""
    step = select(literal(0).label("n")).cte("step", recursive=True)
    step = step.union_all(select(step.c.n + 1).where(step.c.n < (last - first) // every))
    return select(first + step.c.n * every + (step.c.n * _SCATTER) % _RANGE * every // _RANGE)


def _scores(said: Any) -> dict[str, dict[str, float]]:
    """Return the scores of each request by name: the last of each counts."""
    found: dict[str, dict[str, float]] = {}
    for request_id, payload in said:
        told = orjson.loads(payload)
        if isinstance(score := told.get("score"), int | float):
            found.setdefault(request_id, {})[str(told.get("name", ""))] = score
    return found
