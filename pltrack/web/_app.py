"""The pages and where they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .._journal.browsing import Browser, Filters
from .._journal.prompts import PromptStore
from ..errors import JournalError
from . import _charts, _shapes
from ._guard import Guard
from ._rendering import render

if TYPE_CHECKING:
    from .._journal.store import Store
    from .._status import Status

_HERE = Path(__file__).parent
_PERIODS = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "month": 30 * 86400.0}


class Site:
    """The pages over one journal or hub."""

    def __init__(self, store: Callable[[], Store], status: Callable[[], Status], place: str) -> None:
        self._open = store
        self._status = status
        self.place = place

    def routes(self) -> list[Route | Mount]:
        """Return the addresses."""
        pages = {
            "/": self.requests,
            "/requests/{id}": self.request,
            "/sessions": self.sessions,
            "/sessions/{id}": self.session,
            "/charts": self.charts,
            "/charts/{name}.svg": self.chart,
            "/prompts": self.prompts,
            "/prompts/{name:path}": self.prompt,
            "/delivery": self.delivery,
        }
        static = Mount("/static", StaticFiles(directory=_HERE / "static"))
        return [*(Route(path, page, methods=["GET", "HEAD"]) for path, page in pages.items()), static]

    def requests(self, request: Request) -> Response:
        """The list of requests."""
        filters = _filters(request.query_params)
        page = Browser(self._open()).requests(filters, before=_number(request.query_params.get("before")))
        entries = [_shapes.row(each) for each in page.rows]
        return self._page(request, "requests", entries=entries, older=page.older, filters=filters)

    def request(self, request: Request) -> Response:
        """One request."""
        found = Browser(self._open()).request(request.path_params["id"])
        if found is None:
            return self.problem(request, 404, "There is no such request here.")
        return self._page(request, "request", entry=_shapes.whole(found))

    def sessions(self, request: Request) -> Response:
        """The list of sessions."""
        page = Browser(self._open()).sessions(before=request.query_params.get("before"))
        rows = [_shapes.session_row(each) for each in page.rows]
        return self._page(request, "sessions", sessions=rows, older=page.older and page.rows[-1]["id"])

    def session(self, request: Request) -> Response:
        """One session with the ones around and in it."""
        family, calls = Browser(self._open()).session(request.path_params["id"])
        if not family:
            return self.problem(request, 404, "There is no such session here.")
        entries = [_shapes.row(each) for each in calls]
        tree = _shapes.tree(family, calls)
        return self._page(request, "session", wanted=request.path_params["id"], tree=tree, entries=entries)

    def charts(self, request: Request) -> Response:
        """Figures over time."""
        period, filters = _period(request)
        figures = Browser(self._open()).figures(filters)
        groups = _charts.groups(self._scored(figures))
        query = request.url.query
        return self._page(
            request, "charts", names=_charts.NAMES, groups=groups, period=period, query=query, filters=filters
        )

    def chart(self, request: Request) -> Response:
        """One chart as an image."""
        name = request.path_params["name"]
        if name not in _charts.NAMES:
            return self.problem(request, 404, "There is no such chart.")
        period, filters = _period(request)
        figures = Browser(self._open()).figures(filters)
        if name == "scores":
            figures = self._scored(figures)
        since = filters.since or time.time()
        drawn = _charts.draw(name, figures, since, _PERIODS[period])
        # An image is a document of its own: pygal puts its look into a style element.
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return Response(drawn, media_type="image/svg+xml", headers={"content-security-policy": policy})

    def prompts(self, request: Request) -> Response:
        """The prompts that calls were linked to, and those of the local registry."""
        store = self._open()
        figures = self._scored(Browser(store).figures(Filters()))
        used = _charts.prompts(figures)
        return self._page(request, "prompts", prompts=_shapes.prompts(PromptStore(store).all_known(), used))

    def prompt(self, request: Request) -> Response:
        """One prompt: its versions, what they scored, and how they differ."""
        store, name = self._open(), request.path_params["name"]
        versions = PromptStore(store).versions(name)
        used = _charts.prompts(self._scored(Browser(store).figures(Filters(prompt=name))))
        if not versions and name not in used:
            return self.problem(request, 404, "There is no such prompt here.")
        old, new = (_number(request.query_params.get(key)) for key in ("old", "new"))
        shown = _shapes.prompt(versions, used.get(name, {}), old, new)
        return self._page(request, "prompt", name=name, prompt=shown)

    def delivery(self, request: Request) -> Response:
        """What has not reached PromptLayer, and why."""
        store = self._open()
        rows = [_shapes.row(each) for each in Browser(store).undelivered()]
        return self._page(request, "delivery", status=self._status(), totals=store.totals(), entries=rows)

    def problem(self, request: Request, status: int, words: str) -> Response:
        """A page that says what is wrong."""
        return self._page(request, "problem", status, words=words)

    def _page(self, request: Request, template: str, status_code: int = 200, /, **more: Any) -> Response:
        query = {key: value for key, value in request.query_params.items() if key not in {"before", "token"}}
        return HTMLResponse(render(template, place=self.place, path=request.url.path, asked=query, **more), status_code)

    def _scored(self, figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
        scores = Browser(self._open()).scores([each["id"] for each in figures])
        return _shapes.with_scores(figures, scores)


def create(site: Site, *, token: str, hosts: Iterable[str]) -> Starlette:
    """Return the application."""

    def broken(request: Request, error: Exception) -> Response:
        return site.problem(request, 503, str(error))

    def missing(request: Request, _: Exception) -> Response:
        return site.problem(request, 404, "There is no such page.")

    return Starlette(
        routes=site.routes(),
        middleware=[Middleware(Guard, token=token, hosts=tuple(hosts))],
        exception_handlers={JournalError: broken, 404: missing},
    )


def _filters(asked: Mapping[str, str], **more: Any) -> Filters:
    names = ("tag", "session", "user", "model", "status", "state", "prompt", "text")
    given = {name: asked.get(name, "").strip() for name in names}
    period = _PERIODS.get(asked.get("since", ""))
    since = None if period is None else time.time() - period
    return Filters(**{**given, "since": since, **more})


def _period(request: Request) -> tuple[str, Filters]:
    period = request.query_params.get("since", "")
    period = period if period in _PERIODS else "day"
    return period, _filters(request.query_params, since=time.time() - _PERIODS[period])


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and len(text) < 19 else None
