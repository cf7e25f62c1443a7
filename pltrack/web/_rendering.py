"""Templates: everything recorded is hostile text; it is cleaned and escaped wherever it comes out."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2

from .._shown import clean, line

_HERE = Path(__file__).parent


def render(template: str, /, **given: Any) -> str:
    """Return a page."""
    return _templates().get_template(f"{template}.html").render(given)


@lru_cache(maxsize=1)
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    found.filters |= {
        "line": line, "iso": _iso, "day": _day, "clock": _clock, "when": _when, "money": money, "seconds": seconds,
        "short": short, "number": _number, "path": _path, "ago": _ago,
    }  # fmt: skip
    found.globals |= {"query": _query}
    return found


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    return clean(value) if type(value) is str else value  # Markup and numbers stay as they are


def _local(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC).astimezone()


def _day(moment: float) -> str:
    return f"{_local(moment):%Y-%m-%d}"


def _clock(moment: float) -> str:
    return f"{_local(moment):%H:%M:%S}"


def _when(moment: float) -> str:
    return f"{_local(moment):%Y-%m-%d %H:%M:%S}"


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def money(cost: float | None) -> str:
    """Return dollars, with as many places as tell something."""
    if cost is None:
        return ""
    return "$0" if cost == 0 else f"${cost:.6f}" if cost < 0.001 else f"${cost:.4f}" if cost < 1 else f"${cost:,.2f}"


def seconds(value: float | None) -> str:
    """Return a time that something took."""
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1000:.0f} ms" if value else "0"
    return f"{value:.1f} s" if value < 100 else _ago(value)


def _ago(value: float) -> str:
    """Return a long time in the two units that tell most."""
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{days} d" * bool(days), f"{hours} h" * bool(hours), f"{minutes} min" * bool(minutes), f"{rest} s"]
    return " ".join([part for part in parts if part][:2])


def short(value: float | None) -> str:
    """Return a count in few characters."""
    if value is None:
        return ""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            scaled = value / (1e3 if name == "k" else unit)
            return f"{scaled:.3g}{name}" if scaled < 1000 else f"{scaled:.0f}{name}"
    return f"{value:,.0f}" if value == int(value) else f"{value:.2g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _path(value: object) -> str:
    return quote(str(value), safe="")


def _query(asked: dict[str, Any], **changes: Any) -> str:
    """Return the address's query with changes; None takes a part away."""
    merged = {key: value for key, value in {**asked, **changes}.items() if value not in (None, "")}
    return f"?{urlencode(merged)}" if merged else "?"
