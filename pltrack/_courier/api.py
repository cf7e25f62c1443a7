"""One exchange with PromptLayer over pooled keep-alive connections. No retries, no decisions."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from .._settings import Destination, unkeyed
from .route import Route
from .wire import Connections, Response

_CONNECT_MOST = 5.0


class Answer(NamedTuple):
    """What came back: a status with its body, or why nothing did."""

    status: int = 0
    body: Any = None
    retry_after: float | None = None
    error: str = ""
    maybe_arrived: bool = False  # no answer, but the body had gone out
    date: float | None = None  # the server's clock; asked for by `get` only

    @property
    def words(self) -> str:
        """Return the server's own words, or what went wrong on the way."""
        if self.error:
            return self.error
        said = self.body
        if isinstance(said, Mapping):
            said = said.get("message") or said.get("error") or said.get("detail") or said
        text = said if isinstance(said, str) else orjson.dumps(said).decode()
        return f"{self.status} {text}"[:1000]


class Api:
    """PromptLayer's REST paths, spoken by one event loop."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._routes: dict[str, Route] = {}

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    async def post(self, to: Destination, path: str, body: bytes, timeout: float) -> Answer:
        """Send a JSON body and return the answer, whatever happens, `timeout` seconds later at the latest."""
        headers = f"X-API-KEY: {to.api_key}\r\nContent-Type: application/json\r\n"
        answer = await self._asked(to, lambda route: route.request("POST", path, headers, body), timeout)
        if isinstance(answer, Answer):
            return answer
        later = _retry_after(answer.headers.get(b"retry-after", b"")) if answer.status >= 300 else None
        return Answer(answer.status, _decoded(to.without_key(answer.body)), later)

    async def get(self, to: Destination, path: str, timeout: float) -> Answer:
        """Ask for something and return the answer with the server's time, `timeout` seconds later at the latest."""
        headers = f"X-API-KEY: {to.api_key}\r\n" if to.api_key else ""
        answer = await self._asked(to, lambda route: route.request("GET", path, headers), timeout)
        if isinstance(answer, Answer):
            return answer
        date = _moment(answer.headers.get(b"date", b"").decode("latin-1"))
        return Answer(answer.status, _decoded(to.without_key(answer.body)), date=date)

    async def _asked(self, to: Destination, request: Callable[[Route], bytes], timeout: float) -> Response | Answer:
        sent = False
        try:
            if (route := self._routes.get(to.base_url)) is None:
                route = self._routes[to.base_url] = Route.to(to.base_url)
            async with asyncio.timeout(timeout):
                if (connection := self._connections.idle(route)) is None:
                    most = min(timeout / 2, _CONNECT_MOST)
                    async with asyncio.timeout(most):
                        connection = await self._connections.connect(route, most)
                sent = True
                answer = await connection.exchange(request(route))
            self._connections.keep(route, connection)
            return answer
        except TimeoutError as error:
            words = str(error) or f"no {'answer' if sent else 'connection'} in time"
            return Answer(error=f"TimeoutError: {words}", maybe_arrived=sent)
        except (OSError, ValueError) as error:
            return Answer(error=_words(error), maybe_arrived=sent)


def _moment(told: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(told or "").timestamp()
    except (ValueError, OverflowError):
        return None


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw[:500].decode("utf-8", "replace")


def _words(error: BaseException) -> str:
    return unkeyed(f"{type(error).__name__}: {error}"[:500]) if str(error) else type(error).__name__


def _retry_after(told: bytes) -> float | None:
    value = told.decode("latin-1").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
