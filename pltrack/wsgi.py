"""A session around each request of a WSGI app: for Flask, Django and all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from . import _runtime
from ._checks import checked_tags
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
        self._join = join_headers
        given = {"name": name, "metadata": metadata, "user": user, "conversation": conversation}
        self._computed = {key: value for key, value in given.items() if callable(value)}
        self._fixed: dict[str, Any] = {"tags": checked_tags("tags", tags)} | {
            key: value for key, value in given.items() if value is not None and key not in self._computed
        }
        Session(**self._fixed)  # what cannot be used is refused now, not in a request

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        session = self._session(environ) or Session(**{"name": DEFAULT_NAME, **self._fixed})
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

    @_runtime.guarded
    def _session(self, environ: Environ) -> Session:
        options = {**self._fixed, **{key: function(environ) for key, function in self._computed.items()}}
        if self._join:
            joined = Session.from_headers(_headers(environ), **options)
            if joined._joined is not None:
                return joined
        return Session(**{"name": DEFAULT_NAME, **options})


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
