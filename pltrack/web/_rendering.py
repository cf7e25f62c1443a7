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
    found.filters |= {"line": line, "when": _when, "iso": _iso, "money": _money, "seconds": _seconds, "path": _path}
    found.globals |= {"query": _query}
    return found


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    return clean(value) if type(value) is str else value  # Markup and numbers stay as they are


def _when(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _money(cost: float | None) -> str:
    return "" if cost is None else f"${cost:.6f}" if cost < 0.01 else f"${cost:.2f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _path(value: object) -> str:
    return quote(str(value), safe="")


def _query(asked: dict[str, Any], **changes: Any) -> str:
    """Return the address's query with changes; None takes a part away."""
    merged = {key: value for key, value in {**asked, **changes}.items() if value not in (None, "")}
    return f"?{urlencode(merged)}" if merged else "?"
