"""What the middlewares for ASGI and WSGI share: the sessions of requests, from fixed values and functions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from . import _runtime
from ._checks import checked_tags
from ._session import Session

Carrier = TypeVar("Carrier")  # what a server says of a request: a scope, an environ
Kind = TypeVar("Kind", bound=Session)


class RequestSessions(Generic[Carrier, Kind]):
    """Makes the session of each request; what cannot be used is refused at once, not in a request."""

    def __init__(
        self,
        kind: type[Kind],
        default_name: str,
        headers: Callable[[Carrier], Any] | None,
        *,
        tags: Iterable[str],
        **given: Any,
    ) -> None:
        self._kind, self._headers = kind, headers
        self._computed = {key: value for key, value in given.items() if callable(value)}
        self._fixed: dict[str, Any] = {"tags": checked_tags("tags", tags)} | {
            key: value for key, value in given.items() if value is not None and key not in self._computed
        }
        self._default = {"name": default_name}
        Session(**self._fixed)

    def of(self, carrier: Carrier) -> Kind:
        """Return a session for this request; functions that fail cost what they would have said."""
        return self._made(carrier) or self._kind(**{**self._default, **self._fixed})

    @_runtime.guarded
    def _made(self, carrier: Carrier) -> Kind:
        options = {**self._fixed, **{key: function(carrier) for key, function in self._computed.items()}}
        if self._headers is not None:
            joined = self._kind.from_headers(self._headers(carrier), **options)
            if joined._joined is not None:
                return joined
        return self._kind(**{**self._default, **options})
