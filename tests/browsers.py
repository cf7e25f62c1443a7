"""A real Chromium that looks at `pltrack ui`, and notes whatever must not happen while it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from programs import environment

HERE = Path(__file__).parent
SCREENSHOTS = HERE.parent / "build" / "screenshots"
VIEWS = ("/", "/sessions", "/charts", "/charts?by=model", "/prompts", "/prompts/shop-answer", "/delivery")
PHONE = {"width": 375, "height": 740}
DESK = {"width": 1280, "height": 860}


class Served(NamedTuple):
    """A page that is served: where, and with which token."""

    base: str
    token: str
    env: dict[str, str]

    @property
    def address(self) -> str:
        """What `pltrack ui` printed."""
        return f"{self.base}/?token={self.token}"


@contextmanager
def served(journal: Path, **more: str) -> Iterator[Served]:
    """Run `pltrack ui` over a journal (or a hub), as a process of its own."""
    env = environment(journal, **more)
    command = [sys.executable, "-m", "pltrack", "ui"]
    process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    address = next(line.strip() for line in process.stdout if "token=" in line)
    try:
        yield Served(address.partition("/?")[0], address.partition("token=")[2], env)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def recorded(journal: Path, hub: str = "") -> list[str]:
    """Record a day in a shop, by a process of its own; return ids of requests worth looking at."""
    command = [sys.executable, str(HERE / "shop.py"), str(journal), *filter(None, [hub])]
    done = subprocess.run(command, env=environment(journal), text=True, capture_output=True, timeout=60, check=True)
    return done.stdout.split()


def program() -> str | None:
    """Return where Chromium is."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium, or skip (fail, where one is needed)."""
    path = program()
    if path is None:
        reason = "there is no Chromium here: apt-get install chromium"
        if os.environ.get("PLTRACK_NEEDS_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox of its own: as root, and in containers, Chromium has none.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--force-color-profile=srgb"])
        yield browser
        browser.close()


class Look:
    """A tab that is open on the page; `faults` is what went wrong in it."""

    def __init__(self, tab: Any, at: Served) -> None:
        self.tab, self.at = tab, at
        self.faults: list[str] = []
        tab.on("console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        tab.on("popup", lambda _: self.faults.append("popup"))
        tab.on("request", self._asked)
        tab.on("response", self._answered)
        tab.goto(at.address)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((f"{self.at.base}/", "data:")):
            self.faults.append(f"asked for {request.url}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status} for {response.url}")

    def go(self, path: str) -> Any:
        """Open another of the pages; return the tab."""
        answer = self.tab.goto(self.at.base + path)
        assert answer is None or answer.status == 200, path
        return self.tab

    def shoot(self, name: str) -> None:
        """Keep what is to be seen, for who looks at a run of the tests later."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=SCREENSHOTS / f"{name}.png")


@contextmanager
def looking(browser: Any, at: Served, **options: Any) -> Iterator[Look]:
    """Open a tab of its own; whatever must not happen fails the test at its end."""
    context = browser.new_context(viewport=options.pop("viewport", DESK), **options)
    context.set_default_timeout(10_000)
    try:
        look = Look(context.new_page(), at)
        yield look
        assert look.faults == []
    finally:
        context.close()
