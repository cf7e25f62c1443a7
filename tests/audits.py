"""An audit of a page in the browser: what somebody who cannot see it, or sees badly, would stumble over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_AUDIT = Path(__file__).with_name("audit.js").read_text()


def faults_of(tab: Any) -> list[str]:
    """Return what is wrong with the page that a tab shows."""
    found: list[str] = tab.evaluate(_AUDIT)
    return found
