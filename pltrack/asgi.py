"""A session around each request of an ASGI app: pure ASGI, for FastAPI, Starlette and all others.

app.add_middleware(pltrack.asgi.SessionMiddleware)

@app.get("/")
async def endpoint(s: Annotated[Session, Depends(pltrack.asgi.session)]): ...
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from . import _runtime
from ._requests import RequestSessions
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
    and `scope["pltrack.session"]`. Errors of the app pass unchanged. When the server's lifespan ends, what was
    recorded is delivered, within `exit_timeout`.

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
        self._sessions: RequestSessions[AsgiScope, RequestSession] = RequestSessions(
            RequestSession, DEFAULT_NAME, operator.itemgetter("headers") if join_headers else None,
            tags=tags, name=name, metadata=metadata, user=user, conversation=conversation,
        )  # fmt: skip

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, _delivering(send) if scope["type"] == "lifespan" else send)
            return
        session = self._sessions.of(scope)
        scope[KEY] = session  # in place, as Starlette does: those around us may read what routers leave there
        async with session:
            await self.app(scope, receive, send)


def _delivering(send: Send) -> Send:
    """Deliver before the server hears that the app has ended: one that a signal ends runs no exit handlers."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"].startswith("lifespan.shutdown."):
            await asyncio.to_thread(_deliver)
        await send(message)

    return sending


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


@_runtime.guarded
def _deliver() -> None:
    """Deliver for at most `exit_timeout` seconds, before a server ends; calls in flight go on."""
    runtime = _runtime.get()
    runtime.flush(runtime.settings.exit_timeout)
