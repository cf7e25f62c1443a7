"""One table of what was measured: a row for each question, a column for each way."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

COLUMNS = ("no-op", "pltrack", "SDK by hand", "LangSmith", "Langfuse", "OpenInference")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_PACKAGES = ("langchain-core", "promptlayer", "langsmith", "langfuse", "openinference-instrumentation-langchain")


@dataclass(frozen=True)
class Goal:
    """What pltrack has to reach: at most (or at least) so much, of the value itself or of its ratio to another way."""

    limit: float
    over: str = ""
    at_least: bool = False

    def is_met(self, values: Mapping[str, float]) -> bool | None:
        """Tell whether it was reached; None where it was not measured."""
        if "pltrack" not in values or (self.over and not values.get(self.over)):
            return None
        reached = values["pltrack"] / (values[self.over] if self.over else 1)
        return reached >= self.limit if self.at_least else reached <= self.limit


@dataclass(frozen=True)
class Row:
    """One question: what each way costs, in which unit, beside whom."""

    what: str
    unit: str
    values: Mapping[str, float]
    goal: Goal | None = None
    base: str = ""  # ratios to this way are shown
    words: Mapping[str, str] = field(default_factory=dict)  # instead of a value

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None where there is none."""
        return None if self.goal is None else self.goal.is_met(self.values)

    def cells(self) -> list[str]:
        """Return the row as texts."""
        goal = ""
        if self.goal is not None:
            of = f" x {self.goal.over}" if self.goal.over else f" {self.unit}"
            goal = f"{'>=' if self.goal.at_least else '<='} {self.goal.limit:g}{of}"
        met = {None: "", True: "yes", False: "**no**"}[self.met]
        return [self.what, *map(self._cell, COLUMNS), goal, met]

    def _cell(self, way: str) -> str:
        if way in self.words or way not in self.values:
            return self.words.get(way, "")
        value = self.values[way]
        shown = f"{_short(value)} {self.unit}"
        base = self.values.get(self.base, 0.0)
        return f"{shown} ({_short(value / base)} x)" if base > 0 and way != self.base else shown


def _short(value: float) -> str:
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table, its columns aligned."""
    head = ["what", *COLUMNS, "goal for pltrack", "met"]
    cells = [head, *(row.cells() for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def circumstances() -> str:
    """Return where and with what it was measured."""
    installed = []
    for name in _PACKAGES:
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    today = datetime.datetime.now(tz=datetime.UTC).date()
    where = f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    return f"{today}, {where}; {', '.join(installed)}."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows for a program to read."""
    return [{**asdict(row), "met": row.met} for row in rows]


def written_into(document: str, text: str) -> str:
    """Return `document` with `text` in place of what stood between the marks."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"
