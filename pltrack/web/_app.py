"""The pages and where they are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from .._entries import entry_of
from .._journal.browsing import Browser, Filters
from .._journal.charting import Facts, facts
from ..errors import JournalError
from . import _charts, _figures, _prompts, _shapes
from ._figures import PERIODS, Figures, Period
from ._guard import Guard
from ._rendering import render
from ._source import NothingYetError, Source

_HERE = Path(__file__).parent
_FILTERS = ("text", "tag", "model", "status", "user", "session", "prompt", "state")
_CALLS_IN_TIMELINE = 200
_LOOKED_FOR_PROMPTS = 10_000


class Site:
    """The pages over one journal or hub."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def routes(self) -> list[Route | Mount]:
        """Return the addresses."""
        pages = {
            "/": self.requests,
            "/requests/{id}.json": self.record,
            "/requests/{id}": self.request,
            "/sessions": self.sessions,
            "/sessions/{id:path}": self.session,
            "/charts": self.charts,
            "/prompts": self.prompts,
            "/prompts/{name:path}": self.prompt,
            "/delivery": self.delivery,
        }
        static = Mount("/static", StaticFiles(directory=_HERE / "static"))
        return [*(Route(path, page, methods=["GET", "HEAD"]) for path, page in pages.items()), static]

    def requests(self, request: Request) -> Response:
        """The list of requests."""
        browser, filters = self._browser(), _filters(request.query_params)
        before = _number(request.query_params.get("before"))
        page = browser.requests(filters, before=before, content=True)
        named = browser.request(filters.text) if filters.text and before is None else None
        entries = [_shapes.row(each) for each in page.rows]
        return self._page(request, "requests", entries=entries, page=page, named=named, periods=PERIODS)

    def request(self, request: Request) -> Response:
        """One request."""
        found = self._browser().request(request.path_params["id"])
        if found is None:
            return self.problem(request, 404, "There is no such request here.")
        return self._page(request, "request", entry=_shapes.whole(found))

    def record(self, request: Request) -> Response:
        """One request as `pltrack show --json` prints it."""
        found = self._browser().request(request.path_params["id"])
        if found is None:
            return self.problem(request, 404, "There is no such request here.")
        text = json.dumps(entry_of(found).full(), indent=2, default=str)  # in ASCII: nothing in it can reorder it
        return Response(text, media_type="application/json")

    def sessions(self, request: Request) -> Response:
        """The list of sessions."""
        asked = request.query_params
        user, tag, (moment, _, last) = (
            asked.get("user", ""),
            asked.get("tag", ""),
            asked.get("before", "").partition(" "),
        )
        before = (_moment(moment), last) if last else None
        page = self._browser().sessions(user=user.strip(), tag=tag.strip(), before=before)
        rows = [_shapes.session_row(each) for each in page.rows]
        return self._page(request, "sessions", sessions=rows, page=page)

    def session(self, request: Request) -> Response:
        """One session with the ones around and in it."""
        wanted = request.path_params["id"]
        family, calls = self._browser().session(wanted)
        if not family:
            return self.problem(request, 404, "There is no such session here.")
        session = _shapes.session_row(next(each for each in family if each["id"] == wanted))
        shown = [_shapes.row(each) for each in calls[:_CALLS_IN_TIMELINE]]
        return self._page(
            request, "session", session=session, tree=_shapes.tree(family, shown), shown=len(shown),
            cut=len(calls) > len(shown),
        )  # fmt: skip

    def charts(self, request: Request) -> Response:
        """Figures over time."""
        period, start, found = self._facts(request, "day")
        split = request.query_params.get("by", "")
        split = split if split in _figures.KINDS else ""
        figures = Figures(found, period, start, split)
        return self._page(
            request, "charts", charts=_charts.charts(figures), figures=figures, split=split, kinds=_figures.KINDS,
            periods=PERIODS,
        )  # fmt: skip

    def prompts(self, request: Request) -> Response:
        """The prompts that calls were linked to, and those that are kept here."""
        period, _, found = self._facts(request, "month", most=_LOOKED_FOR_PROMPTS)
        known = _prompts.overview(self._browser().prompts(), _figures.by_version(found))
        return self._page(request, "prompts", prompts=known, period=period, every=found.every, periods=PERIODS)

    def prompt(self, request: Request) -> Response:
        """One prompt: its versions, what they scored, and how they differ."""
        name = request.path_params["name"]
        versions = self._browser().versions(name)
        period, _, found = self._facts(request, "month", prompt=name)
        used = _figures.by_version(found).get(name, {})
        if not versions and not used:
            return self.problem(
                request, 404, f"There is no such prompt here, nor a call with it in the last {period.name}."
            )
        old, new = (_number(request.query_params.get(key)) for key in ("old", "new"))
        shown = _prompts.whole(versions, used, old, new)
        return self._page(request, "prompt", name=name, prompt=shown, period=period, every=found.every, periods=PERIODS)

    def delivery(self, request: Request) -> Response:
        """What has not reached PromptLayer, and why."""
        browser = self._browser()
        rows = [_shapes.row(each) for each in browser.undelivered()]
        return self._page(
            request, "delivery", totals=self._source.store().totals(), destinations=browser.destinations(),
            reasons=browser.reasons(), entries=rows,
        )  # fmt: skip

    def problem(self, request: Request, status: int, words: str, remedy: str = "") -> Response:
        """A page that says what is wrong."""
        return self._page(request, "problem", status, words=words, remedy=remedy, status=status)

    def _browser(self) -> Browser:
        return Browser(self._source.store())

    def _facts(self, request: Request, usual: str, most: int | None = None, **more: str) -> tuple[Period, float, Facts]:
        given = request.query_params
        period = PERIODS.get(given.get("since", ""), PERIODS[usual])
        start = period.start()
        asked: dict[str, Any] = {name: given.get(name, "").strip() for name in ("model", "tag", "prompt")}
        filters = Filters(**{**asked, **more}, since=start)
        limit = {} if most is None else {"most": most}
        return period, start, facts(self._source.store(), filters, **limit)

    def _page(self, request: Request, template: str, status_code: int = 200, /, **more: Any) -> Response:
        asked = {key: value for key, value in request.query_params.items() if key not in {"before", "token"} and value}
        about = {"place": self._source.place, "path": request.url.path, "now": time.time()}
        given = {**about, "asked": asked, "paged": "before" in request.query_params}
        return HTMLResponse(render(template, **given, **more), status_code)


def create(site: Site, *, token: str, hosts: Iterable[str]) -> ASGIApp:
    """Return the application."""

    def nothing(request: Request, error: Exception) -> Response:
        return site.problem(request, 200, str(error), "record")

    def unreadable(request: Request, error: Exception) -> Response:
        return site.problem(request, 503, f"This cannot be read now: {error}", "doctor")

    def missing(request: Request, _: Exception) -> Response:
        return site.problem(request, 404, "There is no such page.")

    def broken(request: Request, error: Exception) -> Response:
        return site.problem(request, 500, f"This page failed: {type(error).__name__}. The terminal says more.")

    handlers = {NothingYetError: nothing, JournalError: unreadable, 404: missing, 500: broken}
    # Around everything, the answer to an error of our own included.
    return Guard(Starlette(routes=site.routes(), exception_handlers=handlers), token=token, hosts=hosts)


def _filters(asked: Mapping[str, str]) -> Filters:
    given: dict[str, Any] = {name: asked.get(name, "").strip() for name in _FILTERS}
    period = PERIODS.get(asked.get("since", ""))
    return Filters(**given, since=None if period is None else time.time() - period.seconds)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
