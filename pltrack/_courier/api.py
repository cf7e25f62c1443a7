"""One exchange with PromptLayer over pooled keep-alive connections. No retries, no decisions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import email.utils
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult

from .._settings import Destination, unkeyed

_BODY_MOST = 64_000_000  # the answer repeats what was sent


_NOT_SENT = (
    aiohttp.ClientConnectorError,  # the name, the port or TLS
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


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
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # each destination has its workers
                keepalive_timeout=30,
                resolver=_Resolver(),
                use_dns_cache=True,
                ttl_dns_cache=300,
            ),
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._proxies: dict[str, str | None] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def _proxy(self, base_url: str) -> str | None:
        # Asked once for each destination: aiohttp's own `trust_env` reads ~/.netrc in a thread for every request.
        if base_url not in self._proxies:
            self._proxies[base_url] = _proxy_of(base_url)
        return self._proxies[base_url]

    async def post(self, to: Destination, path: str, body: bytes, timeout: float) -> Answer:
        """Send a JSON body and return the answer, whatever happens, `timeout` seconds later at the latest."""
        headers = {"X-API-KEY": to.api_key, "Content-Type": "application/json"}
        try:
            async with self._session.post(
                f"{to.base_url}{path}",
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy(to.base_url),
                timeout=_limits(timeout),
            ) as response:
                raw = await _read(response.content)
                told = _decoded(to.without_key(raw))
                return Answer(response.status, told, _retry_after(response.headers) if response.status >= 300 else None)
        except _NOT_SENT as error:
            return Answer(error=_words(error))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Answer(error=_words(error), maybe_arrived=True)

    async def get(self, to: Destination, path: str, timeout: float) -> Answer:
        """Ask for something and return the answer with the server's time, `timeout` seconds later at the latest."""
        headers = {"X-API-KEY": to.api_key} if to.api_key else {}
        limits = aiohttp.ClientTimeout(total=timeout)
        proxy = self._proxy(to.base_url)
        try:
            async with self._session.get(
                f"{to.base_url}{path}", headers=headers, allow_redirects=False, proxy=proxy, timeout=limits
            ) as response:
                raw = await _read(response.content)
                return Answer(
                    response.status, _decoded(to.without_key(raw)), date=_moment(response.headers.get("Date"))
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Answer(error=_words(error))


def _moment(told: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(told or "").timestamp()
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=16)
def _limits(timeout: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=timeout, connect=min(timeout / 2, 5.0))


def _proxy_of(base_url: str) -> str | None:
    parts = urllib.parse.urlsplit(base_url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


async def _read(content: aiohttp.StreamReader) -> bytes:
    raw = bytearray()
    async for chunk in content.iter_any():
        raw += chunk
        if len(raw) > _BODY_MOST:
            break
    return bytes(raw)


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw[:500].decode("utf-8", "replace")


def _words(error: BaseException) -> str:
    return unkeyed(f"{type(error).__name__}: {error}"[:500]) if str(error) else type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


class _Resolver(AbstractResolver):
    """Looks names up on a daemon thread each: a name server that does not answer must not hold up the exit."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._looked_up(host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]

    async def _looked_up(self, host: str, port: int, family: int) -> list[Any]:
        answer: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()

        def look() -> None:
            answer.set_running_or_notify_cancel()
            try:
                answer.set_result(socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM))
            except OSError as error:
                answer.set_exception(error)
            except UnicodeError as error:  # a name that cannot be one
                answer.set_exception(OSError(str(error)))

        try:
            threading.Thread(target=look, name="pltrack-names", daemon=True).start()
        except RuntimeError:  # the interpreter ends, and starts no more threads
            look()
        return await asyncio.wrap_future(answer)

    async def close(self) -> None:
        """Nothing is held."""
