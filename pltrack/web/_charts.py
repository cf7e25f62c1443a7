"""Figures over time and by group, drawn as images by pygal."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import fmean, median
from typing import Any, NamedTuple
from xml.etree import ElementTree

from .._shown import line

_BUCKETS = 48
_Figures = Sequence[dict[str, Any]]
_Series = dict[str, Callable[[_Figures], float | None]]


def _p95(rows: _Figures) -> float | None:
    times = sorted(_seconds(row) for row in rows)
    return times[math.ceil(0.95 * len(times)) - 1] if times else None


def _p50(rows: _Figures) -> float | None:
    return median(_seconds(row) for row in rows) if rows else None


def _score(rows: _Figures) -> float | None:
    found = [score for row in rows for score in row.get("scores", ())]
    return fmean(found) if found else None


def _sum(name: str) -> Callable[[_Figures], float | None]:
    return lambda rows: sum(row[name] or 0 for row in rows)


_CHARTS: dict[str, tuple[str, _Series]] = {
    "calls": ("Calls", {"calls": len}),
    "errors": ("Errors", {"errors": lambda rows: sum(row["status"] == "ERROR" for row in rows)}),
    "latency": ("Latency in seconds", {"p50": _p50, "p95": _p95}),
    "tokens": ("Tokens", {"input": _sum("input_tokens"), "output": _sum("output_tokens")}),
    "cost": ("Cost in US dollars", {"cost": _sum("cost")}),
    "scores": ("Mean score", {"score": _score}),
}
_LINES = {"latency", "scores"}  # of the others the parts add up
NAMES = {name: title for name, (title, _) in _CHARTS.items()}


class Group(NamedTuple):
    """What the calls of one model, tag or prompt version came to."""

    name: str
    calls: int
    errors: int
    p50: float | None
    p95: float | None
    tokens: float
    cost: float | None
    score: float | None


def draw(name: str, figures: _Figures, since: float, seconds: float) -> bytes:
    """Return a chart of the time from `since` on."""
    import pygal
    from pygal.style import Style

    title, series = _CHARTS[name]
    width = seconds / _BUCKETS
    buckets: list[list[dict[str, Any]]] = [[] for _ in range(_BUCKETS)]
    for row in figures:
        place = int((row["started_at"] - since) / width)
        if 0 <= place < _BUCKETS:
            buckets[place].append(row)
    style = Style(
        background="transparent", plot_background="transparent", opacity=".9", font_family="sans-serif",
        colors=("#2f6fb7", "#c8553d"), major_guide_stroke_dasharray="0", guide_stroke_dasharray="0",
        guide_stroke_color="#d0d7de", major_guide_stroke_color="#d0d7de", foreground="#57606a",
    )  # fmt: skip
    kind = pygal.Line if name in _LINES else pygal.StackedBar
    chart = kind(
        js=(), style=style, width=640, height=260, dots_size=2.5, x_label_rotation=0, title=title, truncate_label=-1,
        x_labels_major_every=12, show_minor_x_labels=False, show_legend=len(series) > 1, min_scale=4, max_scale=6,
        legend_at_bottom=True, include_x_axis=True, no_data_text="nothing in this time",
    )  # fmt: skip
    form = "%H:%M" if seconds <= 86400 else "%m-%d"
    chart.x_labels = [f"{datetime.fromtimestamp(since + n * width, UTC).astimezone():{form}}" for n in range(_BUCKETS)]
    for label, of in series.items():
        chart.add(label, [of(bucket) if bucket else None for bucket in buckets])
    tree = chart.render_tree()
    for holder in tree.iter():  # pygal's settings for a script that is not there
        for script in [each for each in holder if str(each.tag).endswith("script")]:
            holder.remove(script)
    drawn: bytes = ElementTree.tostring(tree, encoding="utf-8", xml_declaration=True)
    return drawn


def groups(figures: _Figures) -> dict[str, list[Group]]:
    """Return the figures by model, by tag and by prompt version, the largest first."""
    import orjson

    by: dict[str, defaultdict[str, list[dict[str, Any]]]] = {
        "model": defaultdict(list), "tag": defaultdict(list), "prompt version": defaultdict(list)
    }  # fmt: skip
    for row in figures:
        by["model"][row["model"]].append(row)
        for tag in orjson.loads(row["tags"]):
            by["tag"][tag].append(row)
        if row["prompt_name"]:
            by["prompt version"][f"{row['prompt_name']}@{row['prompt_version'] or '?'}"].append(row)
    return {kind: sorted(map(_group, found.items()), key=_size)[:20] for kind, found in by.items() if found}


def prompts(figures: _Figures) -> dict[str, dict[int | None, Group]]:
    """Return the figures of each prompt's versions."""
    found: defaultdict[str, defaultdict[int | None, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in figures:
        if row["prompt_name"]:
            found[row["prompt_name"]][row["prompt_version"]].append(row)
    return {
        name: {version: _group((str(version), rows)) for version, rows in versions.items()}
        for name, versions in found.items()
    }


def _group(item: tuple[str, list[dict[str, Any]]]) -> Group:
    name, rows = item
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    tokens = sum((row["input_tokens"] or 0) + (row["output_tokens"] or 0) for row in rows)
    errors = sum(row["status"] == "ERROR" for row in rows)
    cost = sum(costs) if costs else None
    return Group(line(name, 120), len(rows), errors, _p50(rows), _p95(rows), tokens, cost, _score(rows))


def _size(group: Group) -> tuple[int, str]:
    return -group.calls, group.name


def _seconds(row: dict[str, Any]) -> float:
    return max(0.0, float(row["ended_at"] - row["started_at"]))
