"""A session around each request of a WSGI app: for Flask, Django and all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ._requests import RequestSessions
from ._session import Session

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

KEY = "pltrack.session"
DEFAULT_NAME = "wsgi"
_PREFIX = "HTTP_"


class SessionMiddleware:
    """Run each request in a session that stays open until the server closes the body.

    It is `current_session()` in the app and while its body is produced, and `environ["pltrack.session"]`.
    Errors of the app pass unchanged.

    Args:
        app: the WSGI app.
        name: of the sessions; "wsgi" where nothing is said.
        tags: for every session.
        metadata: for every session, or a function of the request's environ.
        user: a function of the environ, or the same for all.
        conversation: a function of the environ, or the same for all.
        join_headers: continue the session that the request's headers carry (`Session.headers()`); only where
            the callers can be trusted, or `configure(secret=...)` signs them.
    """

    def __init__(
        self,
        app: WsgiApp,
        *,
        name: str | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | Callable[[Environ], Mapping[str, Any]] | None = None,
        user: str | Callable[[Environ], str | None] | None = None,
        conversation: str | Callable[[Environ], str | None] | None = None,
        join_headers: bool = False,
    ) -> None:
        self.app = app
        self._sessions: RequestSessions[Environ, Session] = RequestSessions(
            Session, DEFAULT_NAME, _headers if join_headers else None,
            tags=tags, name=name, metadata=metadata, user=user, conversation=conversation,
        )  # fmt: skip

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        session = self._sessions.of(environ)
        environ[KEY] = session
        try:
            with session.attach():
                body = self.app(environ, start_response)
        except BaseException:
            session.end()
            raise
        if _is_ready(body, environ):
            session.end()
            return body
        return _Body(body, session)


class _Body:
    """A body each of whose steps runs attached to the request's session."""

    def __init__(self, body: Iterable[bytes], session: Session) -> None:
        self._body = body
        self._session = session
        self._steps: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._session.attach():
            if self._steps is None:
                self._steps = iter(self._body)
            return next(self._steps)

    def close(self) -> None:
        """Close the app's body, and with it the session."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                with self._session.attach():
                    close()
        finally:
            self._session.end()


def _is_ready(body: Iterable[bytes], environ: Environ) -> bool:
    """Tell whether nothing of the app runs any more: servers know the length of a list, and send files their way."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper))


def _headers(environ: Environ) -> dict[str, str]:
    return {
        key.removeprefix(_PREFIX).replace("_", "-"): value for key, value in environ.items() if key.startswith(_PREFIX)
    }
