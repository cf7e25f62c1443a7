"""A session around each request of an ASGI app: pure ASGI, for FastAPI, Starlette and all others.

app.add_middleware(pltrack.asgi.SessionMiddleware)

@app.get("/")
async def endpoint(s: Annotated[Session, Depends(pltrack.asgi.session)]): ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from . import _runtime
from ._checks import checked_tags
from ._session import Session, current_session

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

KEY = "pltrack.session"
DEFAULT_NAME = "asgi"


class RequestSession(Session):
    """The session of one request or websocket connection."""


class SessionMiddleware:
    """Run each request (and websocket) in a session that stays open until the app is done with it.

    So bodies that are streamed and background tasks belong to it, sync and async. It is `current_session()`
    and `scope["pltrack.session"]`. Errors of the app pass unchanged.

    Args:
        app: the ASGI app.
        name: of the sessions; "asgi" where nothing is said.
        tags: for every session.
        metadata: for every session, or a function of the connection's scope.
        user: a function of the scope, or the same for all.
        conversation: a function of the scope, or the same for all.
        join_headers: continue the session that the request's headers carry (`Session.headers()`); only where
            the callers can be trusted, or `configure(secret=...)` signs them.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        name: str | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | Callable[[AsgiScope], Mapping[str, Any]] | None = None,
        user: str | Callable[[AsgiScope], str | None] | None = None,
        conversation: str | Callable[[AsgiScope], str | None] | None = None,
        join_headers: bool = False,
    ) -> None:
        self.app = app
        self._join = join_headers
        given = {"name": name, "metadata": metadata, "user": user, "conversation": conversation}
        self._computed = {key: value for key, value in given.items() if callable(value)}
        self._fixed: dict[str, Any] = {"tags": checked_tags("tags", tags)} | {
            key: value for key, value in given.items() if value is not None and key not in self._computed
        }
        Session(**self._fixed)  # what cannot be used is refused now, not in a request

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        session = self._session(scope) or RequestSession(**{"name": DEFAULT_NAME, **self._fixed})
        scope[KEY] = session  # in place, as Starlette does: those around us may read what routers leave there
        async with session:
            await self.app(scope, receive, send)

    @_runtime.guarded
    def _session(self, scope: AsgiScope) -> Session:
        options = {**self._fixed, **{key: function(scope) for key, function in self._computed.items()}}
        if self._join:
            joined = RequestSession.from_headers(scope["headers"], **options)
            if joined._joined is not None:
                return joined
        return RequestSession(**{"name": DEFAULT_NAME, **options})


async def session() -> AsyncIterator[Session]:
    """Yield the request's session, for FastAPI's `Depends`: the middleware's, or else one opened here.

    FastAPI leaves it after the body is sent and background tasks are done.
    """
    current = current_session()
    if isinstance(current, RequestSession):
        yield current
        return
    async with RequestSession(DEFAULT_NAME) as opened:
        yield opened
