"""One exchange with PromptLayer over pooled keep-alive connections. No retries, no decisions."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult

from .._settings import Destination, unkeyed

_BODY_MOST = 1_000_000


class Answer(NamedTuple):
    """What came back: a status with its body, or why nothing did."""

    status: int = 0
    body: Any = None
    retry_after: float | None = None
    error: str = ""
    maybe_arrived: bool = False  # no answer, but the body had gone out

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

    def __init__(self, timeout: float, concurrency: int) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=concurrency,
                keepalive_timeout=30,
                resolver=_Resolver(),
                use_dns_cache=True,
                ttl_dns_cache=300,
            ),
            timeout=aiohttp.ClientTimeout(total=timeout, connect=min(timeout, 5.0)),
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

    async def post(self, to: Destination, path: str, body: bytes) -> Answer:
        """Send a JSON body and return the answer, whatever happens."""
        headers = {"X-API-KEY": to.api_key, "Content-Type": "application/json"}
        try:
            async with self._session.post(
                f"{to.base_url}{path}",
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy(to.base_url),
            ) as response:
                raw = await response.content.read(_BODY_MOST)
                if not response.content.at_eof():
                    await response.read()
                retry_after = _retry_after(response.headers)
                return Answer(response.status, _decoded(to.without_key(raw)), retry_after)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            return Answer(error=_words(error))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Answer(error=_words(error), maybe_arrived=True)


def _proxy_of(base_url: str) -> str | None:
    parts = urllib.parse.urlsplit(base_url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw[:500].decode("utf-8", "replace")


def _words(error: BaseException) -> str:
    return unkeyed(f"{type(error).__name__}: {error}"[:500]) if str(error) else type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


class _Resolver(AbstractResolver):
    """Looks names up on the loop's helper threads, and by itself once the interpreter refuses those at exit."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        except RuntimeError:  # "cannot schedule new futures after shutdown"
            found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
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

    async def close(self) -> None:
        """Nothing is held."""
