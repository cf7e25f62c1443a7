"""What many calls come to: in all, by part of the time, and by model, tag and prompt version."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import NamedTuple

import orjson

from .._journal.charting import Fact, Facts
from .._shown import line

KINDS = ("model", "tag", "prompt version")
_SHOWN = 20
_NAME = 120
OTHERS = "others"


class Period(NamedTuple):
    """A time in equal parts, the last of which is now."""

    name: str
    parts: int
    width: float  # seconds

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.parts * self.width

    def start(self) -> float:
        """Return when it began: parts begin at full hours and days of this machine's clock."""
        now = datetime.now(UTC).astimezone()
        offset = now.utcoffset()
        shift = offset.total_seconds() if offset else 0.0
        return (math.floor((time.time() + shift) / self.width) + 1 - self.parts) * self.width - shift

    def label(self, moment: float) -> str:
        """Return how a part's beginning is written."""
        form = "%H:%M" if self.seconds <= 86400 else "%d %b %H:%M" if self.width < 86400 else "%d %b"
        return f"{datetime.fromtimestamp(moment, UTC).astimezone():{form}}"


PERIODS = {
    each.name: each
    for each in (
        Period("hour", 60, 60.0),
        Period("day", 48, 1800.0),
        Period("week", 56, 10800.0),
        Period("month", 30, 86400.0),
    )
}


class Sum:
    """What some calls come to; each fact stands for `weight` of them."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls = 0
        self.errors = 0
        self.input = 0
        self.output = 0
        self.cost: float | None = None
        self.last = 0.0
        self.scores: list[float] = []
        self._seconds: list[float] = []

    def add(self, fact: Fact, scores: Iterable[float], weight: int) -> None:
        """Take a fact in."""
        self.calls += weight
        self.errors += weight if fact.status == "ERROR" else 0
        self.input += weight * (fact.input_tokens or 0)
        self.output += weight * (fact.output_tokens or 0)
        if fact.cost is not None:
            self.cost = (self.cost or 0.0) + weight * fact.cost
        self.last = max(self.last, fact.started_at)
        self._seconds.append(fact.ended_at - fact.started_at)
        self.scores += scores

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input + self.output

    @property
    def score(self) -> float | None:
        """The mean of all scores."""
        return fmean(self.scores) if self.scores else None

    @property
    def p50(self) -> float | None:
        """Half of the calls took no longer."""
        return self._percentile(0.5)

    @property
    def p95(self) -> float | None:
        """All but one of twenty calls took no longer."""
        return self._percentile(0.95)

    def _percentile(self, share: float) -> float | None:
        self._seconds.sort()
        return max(0.0, self._seconds[math.ceil(share * len(self._seconds)) - 1]) if self._seconds else None


class Figures:
    """The sums of a period."""

    def __init__(self, facts: Facts, period: Period, start: float, split: str = "") -> None:
        self.period, self.start, self.every = period, start, facts.every
        self.total = Sum()
        self.parts: dict[str, list[Sum]] = {}
        self._groups: dict[str, dict[str, Sum]] = {kind: {} for kind in KINDS}
        self._tags: dict[str, list[str]] = {}
        largest = self._largest(facts, split) if split else []
        self.split = [*largest, OTHERS] if split else [""]
        for fact in facts.rows:
            self._take(fact, facts.scores.get(fact.id, {}).values(), split, largest)

    @property
    def groups(self) -> dict[str, list[Sum]]:
        """The sums of each model, tag and prompt version, the largest first."""
        return {
            kind: sorted(found.values(), key=lambda each: (-each.calls, each.name))[:_SHOWN]
            for kind, found in self._groups.items()
            if found
        }

    def moments(self) -> list[float]:
        """Return when each part began."""
        return [self.start + number * self.period.width for number in range(self.period.parts)]

    def rows(self) -> list[tuple[float, Sum]]:
        """Return the parts in which anything was called, where the figures are not split."""
        return [
            (moment, each) for moment, each in zip(self.moments(), self.parts.get("", []), strict=False) if each.calls
        ]

    def _take(self, fact: Fact, scores: Iterable[float], split: str, largest: Sequence[str]) -> None:
        place = int((fact.started_at - self.start) / self.period.width)
        if not 0 <= place < self.period.parts:
            return
        scores = tuple(scores)
        self.total.add(fact, scores, self.every)
        for kind in KINDS:
            for name in self._names(fact, kind):
                group = self._groups[kind].get(name)
                if group is None:
                    group = self._groups[kind][name] = Sum(line(name, _NAME))
                group.add(fact, scores, self.every)
        names = {name if name in largest else OTHERS for name in self._names(fact, split)} if split else {""}
        for name in names or {OTHERS}:
            if name not in self.parts:
                self.parts[name] = [Sum() for _ in range(self.period.parts)]
            self.parts[name][place].add(fact, scores, self.every)

    def _largest(self, facts: Facts, split: str, most: int = 5) -> list[str]:
        found: defaultdict[str, int] = defaultdict(int)
        for fact in facts.rows:
            for name in self._names(fact, split):
                found[name] += 1
        return sorted(found, key=lambda name: (-found[name], name))[:most]

    def _names(self, fact: Fact, kind: str) -> Sequence[str]:
        if kind == "model":
            return (fact.model,)
        if kind == "tag":
            known = self._tags.get(fact.tags)
            if known is None:
                known = self._tags[fact.tags] = [str(tag) for tag in orjson.loads(fact.tags)]
            return known
        return (f"{fact.prompt_name}@{fact.prompt_version or '?'}",) if fact.prompt_name else ()


def by_version(facts: Facts) -> dict[str, dict[int | None, Sum]]:
    """Return the sums of each prompt's versions."""
    found: defaultdict[str, dict[int | None, Sum]] = defaultdict(dict)
    for fact in facts.rows:
        if fact.prompt_name:
            versions = found[fact.prompt_name]
            if fact.prompt_version not in versions:
                versions[fact.prompt_version] = Sum()
            versions[fact.prompt_version].add(fact, facts.scores.get(fact.id, {}).values(), facts.every)
    return dict(found)
