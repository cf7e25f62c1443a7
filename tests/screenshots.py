"""Make docs/screenshots: one of each view, on a day in a shop; the list of requests in the dark and on a phone, too.

Usage: python tests/screenshots.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from browsers import PHONE, chromium, looking, recorded, served

FOLDER = Path(__file__).parent.parent / "docs" / "screenshots"
WIDE = {"width": 1280, "height": 720}
MOST = 150_000


def main() -> None:
    """Record, look, and keep what is seen."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.db"
        ids = recorded(journal)
        with served(journal) as page, chromium() as browser:
            for scheme, viewport, ending in (("light", WIDE, ""), ("dark", WIDE, "-dark"), ("light", PHONE, "-phone")):
                with looking(browser, page, color_scheme=scheme, viewport=viewport) as look:
                    session = look.tab.locator('a[href^="/sessions/"]:has-text("visit")').first.get_attribute("href")
                    views = {"requests": "/", "request": f"/requests/{ids[0]}", "charts": "/charts?by=model"}
                    if not ending:
                        views |= {"sessions": "/sessions", "session": session, "delivery": "/delivery"}
                        views |= {"prompts": "/prompts", "prompt": "/prompts/shop-answer"}
                    for name, path in views.items():
                        keep(look.go(path), FOLDER / f"{name}{ending}.png")


def keep(tab: Any, path: Path) -> None:
    """Keep what a tab shows, without the folder that the journal happens to be in."""
    tab.evaluate("document.querySelector('.place').textContent = '~/.local/state/pltrack/journal.db'")
    tab.screenshot(path=path)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")
    assert path.stat().st_size <= MOST


if __name__ == "__main__":
    main()
