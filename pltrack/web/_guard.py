"""Who may look: this machine's browser, with the token that was printed; nobody may change anything."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_COOKIE = "pltrack_token"
_SAFE_METHODS = {"GET", "HEAD"}
_SAFE_SITES = {"none", "same-origin"}
_HEADERS = {
    # No script runs, nothing is loaded from elsewhere: whatever was recorded stays text.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src data:; media-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, *, token: str, hosts: Iterable[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refusal(request)

        async def guarded(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                given = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *given]}  # type: ignore[misc]
            await send(message)

        await (refused or self._app)(scope, receive, guarded)  # type: ignore[arg-type]

    def _refusal(self, request: Request) -> Response | None:
        # A name of somebody else's that leads here (DNS rebinding) is in the Host header.
        if request.headers.get("host", "") not in self._hosts:
            return PlainTextResponse("This page answers under its own address only.", 421)
        if request.method not in _SAFE_METHODS:
            return PlainTextResponse("Nothing can be changed here.", 405, {"allow": "GET, HEAD"})
        origin = request.headers.get("origin")
        if origin is not None and URL(origin).netloc not in self._hosts:
            return PlainTextResponse("Not from another page.", 403)
        given = request.query_params.get("token")
        if given is not None and self._fits(given):
            return self._welcome(request)
        # A link from elsewhere gets no answer, not even with our cookie.
        if request.headers.get("sec-fetch-site", "none") not in _SAFE_SITES:
            return PlainTextResponse("Not from another page.", 403)
        if not self._fits(request.cookies.get(_cookie(request), "")):
            return PlainTextResponse("Open the address that `pltrack ui` printed: it carries the token.", 403)
        return None

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _welcome(self, request: Request) -> Response:
        """Put the token into a cookie and out of the address, where it would stay in the history."""
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        address = request.url.path + (f"?{urlencode(rest)}" if rest else "")
        answer = RedirectResponse("/" + address.lstrip("/"), 303)
        answer.set_cookie(_cookie(request), self._token, httponly=True, samesite="strict", path="/")
        return answer


def _cookie(request: Request) -> str:
    # Browsers keep cookies by host without the port: two pages on one machine must not take each other's.
    return f"{_COOKIE}_{request.url.port or 80}"
