"""Figures over time, drawn by pygal: what of its drawing stands in the page, without its script and its looks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup

from .._shown import line
from ._figures import Figures, Sum
from ._rendering import money, seconds, short

_WIDTH, _HEIGHT = 560, 200
_LONG = re.compile(r"(\d\.\d)\d+")
_KEPT = {"g", "rect", "path", "text", "circle", "svg"}
_Value = Callable[[Sum], float | None]


class _Kind(NamedTuple):
    """What a chart shows: of all calls together, and of groups beside each other."""

    title: str
    of_all: dict[str, _Value]
    of_group: _Value
    form: Callable[[float], str]
    split_title: str = ""
    summed: bool = True  # bars on each other; else lines
    whole: bool = False  # there are no parts of one


class Chart(NamedTuple):
    """A chart as the page shows it."""

    title: str
    drawn: Markup | None  # None: nothing to draw
    series: list[tuple[str, str]]  # the names in the order of their colours, and what each comes to
    words: str  # the same for who does not see it


def _score(value: float) -> str:
    return f"{value:.0f}"


_KINDS = (
    _Kind("Calls", {"calls": lambda each: each.calls}, lambda each: each.calls, short, whole=True),
    _Kind("Errors", {"errors": lambda each: each.errors}, lambda each: each.errors, short, whole=True),
    _Kind(
        "Latency", {"p50": lambda each: each.p50, "p95": lambda each: each.p95}, lambda each: each.p95, seconds,
        "Latency, p95", summed=False,
    ),
    _Kind(
        "Tokens", {"input": lambda each: each.input, "output": lambda each: each.output},
        lambda each: each.tokens, short, whole=True,
    ),
    _Kind("Cost", {"cost": lambda each: each.cost}, lambda each: each.cost, money),
    _Kind("Mean score", {"score": lambda each: each.score}, lambda each: each.score, _score, summed=False),
)  # fmt: skip


def charts(figures: Figures) -> list[Chart]:
    """Return all charts of a period."""
    return [_chart(kind, figures) for kind in _KINDS]


def _chart(kind: _Kind, figures: Figures) -> Chart:
    split = figures.split != [""]
    title = (kind.split_title or kind.title) if split else kind.title
    if split:
        lines = {name: (figures.parts[name], kind.of_group) for name in figures.split if name in figures.parts}
    else:
        lines = {name: (figures.parts.get("", []), value) for name, value in kind.of_all.items()}
    drawn = {name: [value(each) if each.calls else None for each in parts] for name, (parts, value) in lines.items()}
    series = [(line(name, 60), _whole(kind, values)) for name, values in drawn.items()]
    if not split:
        series = [(name, _told(kind, value(figures.total))) for name, value in kind.of_all.items()]
    if not any(value for values in drawn.values() for value in values):
        return Chart(title, None, [], "")
    words = f"{title} over the last {figures.period.name}: " + ", ".join(f"{name} {value}" for name, value in series)
    labels = [figures.period.label(moment) for moment in figures.moments()]
    return Chart(title, _drawing(kind, labels, drawn, words), series, words)


def _whole(kind: _Kind, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return _told(kind, sum(known)) if known and kind.summed else ""


def _told(kind: _Kind, value: float | None) -> str:
    return "" if value is None else kind.form(value)


def _drawing(kind: _Kind, labels: Sequence[str], series: dict[str, list[float | None]], words: str) -> Markup:
    import pygal
    from pygal.style import Style

    style = Style(label_font_size=11, major_label_font_size=11, font_family="sans-serif")
    chart = (pygal.StackedBar if kind.summed else pygal.Line)(
        js=(), style=style, width=_WIDTH, height=_HEIGHT, dots_size=2.5, x_label_rotation=0, truncate_label=-1,
        x_labels_major_every=max(1, len(labels) // 5), show_minor_x_labels=False, show_legend=False, margin=4,
        include_x_axis=True, value_formatter=lambda value: kind.form(value or 0.0),
    )  # fmt: skip
    chart.x_labels = labels
    chart.y_labels = _steps(kind, series)
    for name, values in series.items():
        chart.add(name, values)
    tree = ElementTree.fromstring(chart.render())
    _tidy(tree)
    tree.tag = "svg"
    tree.attrib.clear()
    tree.attrib.update({"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "class": "chart", "role": "img", "aria-label": words})
    # Safe: written by a serialiser that escapes; of what was recorded only cleaned names are in it.
    return Markup(ElementTree.tostring(tree, encoding="unicode"))


def _steps(kind: _Kind, series: dict[str, list[float | None]]) -> list[float]:
    """Return round values for the scale, from nothing to above the largest."""
    columns = [[value or 0.0 for value in column] for column in zip(*series.values(), strict=True)]
    largest = max(sum(column) if kind.summed else max(column) for column in columns)
    rough = largest / 3
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * each for each in (1, 2, 5, 10) if size * each >= rough)
    if kind.whole:
        step = max(1.0, step)
    return [step * number for number in range(math.ceil(largest / step) + 1)]


def _tidy(element: ElementTree.Element) -> None:
    """Take out looks, scripts and settings for them; what a script would show on hovering becomes a title."""
    told: dict[str | None, str] = {}
    for each in list(element):
        each.tag = each.tag.rpartition("}")[2]  # in a page, no namespace is named
        if each.tag == "desc":
            told[each.get("class")] = each.text or ""
        if each.tag not in _KEPT or each.get("class") == "title":
            element.remove(each)
        else:
            _tidy(each)
    element.attrib.pop("style", None)
    element.attrib.update({name: _LONG.sub(r"\1", value) for name, value in element.attrib.items()})
    if "value" in told:
        title = ElementTree.SubElement(element, "title")
        title.text = f"{told.get('x_label', '')}: {told['value']}".removeprefix(": ")
