"""HTTP/1.1 over kept connections, one exchange at a time on each: all that delivery needs of it, in as few steps."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import zlib
from contextlib import suppress
from typing import NamedTuple

import httptools

from .names import Address, Names
from .route import Route, login, place, written

_KEPT = 30.0  # seconds that a connection may be idle
_NEXT_AFTER = 1.0  # seconds until the next address of a host is tried
_HEAD_MOST = 1_000_000
_BODY_MOST = 64_000_000  # the answer repeats what was sent


class Response(NamedTuple):
    """What came back."""

    status: int
    headers: dict[bytes, bytes]  # names in small letters
    body: bytes


class Connection(asyncio.Protocol):
    """One connection, and the answer that is under way on it."""

    transport: asyncio.Transport
    socket: socket.socket

    def __init__(self, *, opens_tunnel: bool = False) -> None:
        self._opens_tunnel = opens_tunnel
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Response] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._came = 0  # bytes
        self._begun = False  # with an answer whose head is here
        self._kept = False
        self.idle_since = 0.0

    async def exchange(self, request: bytes) -> Response:
        """Send a request and return its answer; after any error the connection is closed."""
        if self.transport.is_closing():
            raise ConnectionResetError("the connection was closed at once")
        self._answer, self._begun, self._came = asyncio.get_running_loop().create_future(), False, 0
        try:
            self.transport.write(request)
            return await self._answer
        except BaseException:
            self.transport.abort()
            raise
        finally:
            self._answer = None

    @property
    def is_free(self) -> bool:
        """Tell whether another exchange may follow."""
        return self._kept and not self.transport.is_closing() and not self.transport.get_write_buffer_size()

    @property
    def is_silent(self) -> bool:
        """Tell whether nothing has come that a busy loop has not read yet: an end, or what was not asked for."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        return False

    # -- what asyncio tells -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take what to write to."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._came += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionError(f"what came is no answer in HTTP/1.1: {error}"))
        if self._came > _HEAD_MOST and not self._begun:
            self._fail(ConnectionError("the head of the answer does not end"))

    def connection_lost(self, error: Exception | None) -> None:
        """An answer may end with its connection."""
        sized = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        if self._begun and not sized and error is None:
            self._done()
        else:
            self._fail(error or ConnectionResetError("the connection was closed before the whole answer had come"))

    # -- what the parser tells ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins."""
        self._headers, self._body, self._begun = {}, bytearray(), False
        if self._answer is None or self._answer.done():  # to nothing that was asked
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of its head."""
        if not self._begun:  # what follows a body says nothing that is of use
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Its head is here; what merely tells to go on is none, and may be all that ever comes."""
        self._begun = self._parser.get_status_code() >= 200
        if self._opens_tunnel and self._begun:
            self._done()

    def on_body(self, body: bytes) -> None:
        """A part of it is here."""
        self._body += body
        if len(self._body) > _BODY_MOST:
            self._done()
            self.transport.abort()

    def on_message_complete(self) -> None:
        """It is here."""
        if self._begun:
            self._kept = self._parser.should_keep_alive()
            self._done()

    def _done(self) -> None:
        if self._answer is not None and not self._answer.done():
            body = bytes(self._body)
            if self._headers.get(b"content-encoding") == b"gzip":
                body = _unzipped(body)
            self._answer.set_result(Response(self._parser.get_status_code(), self._headers, body))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # not to be complained about when whoever waited is gone
        self.transport.abort()


class Connections:
    """The connections of one event loop: those that are idle, and the making of new ones."""

    def __init__(self) -> None:
        self._idle: dict[Route, list[Connection]] = {}
        self._names = Names()
        self._context: ssl.SSLContext | None = None

    def idle(self, route: Route) -> Connection | None:
        """Return one that can be used at once."""
        waiting = self._idle.get(route, ())
        while waiting:
            connection = waiting.pop()
            is_young = time.monotonic() - connection.idle_since < _KEPT
            if connection.is_free and is_young and connection.is_silent:
                return connection
            connection.transport.abort()
        return None

    def keep(self, route: Route, connection: Connection) -> None:
        """Take one back, after an exchange."""
        if connection.is_free:
            connection.idle_since = time.monotonic()
            self._idle.setdefault(route, []).append(connection)
        else:
            connection.transport.abort()  # to close it would wait for whoever does not read what is still to go out

    def close(self) -> None:
        """Close those that are idle."""
        for waiting in self._idle.values():
            for connection in waiting:
                connection.transport.abort()
        self._idle.clear()

    async def connect(self, route: Route, within: float) -> Connection:
        """Return a new one; raise OSError when there can be none. The caller lets it take `within` seconds."""
        if route.proxy is None:
            return await self._opened(route.host, route.port, Connection(), route.secure, within)
        host, port = place(route.proxy)
        tunnel = Connection(opens_tunnel=route.secure)
        await self._opened(host, port, tunnel, route.proxy.scheme == "https", within)
        if not route.secure:
            return tunnel
        to = written(route.host, route.port)
        asked = f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{login('Proxy-Authorization', route.proxy)}\r\n"
        answer = await tunnel.exchange(asked.encode())
        if not 200 <= answer.status < 300:
            tunnel.transport.abort()
            raise ConnectionError(f"the proxy {host}:{port} answered {answer.status}")
        connection = Connection()
        connection.connection_made(tunnel.transport)  # it may be lost before it is secured
        connection.socket = tunnel.socket
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(tunnel.transport, connection, self._tls(), server_hostname=route.host)
        except BaseException:
            tunnel.transport.abort()
            raise
        connection.connection_made(secured or tunnel.transport)
        return connection

    async def _opened(self, host: str, port: int, connection: Connection, secure: bool, within: float) -> Connection:
        where = await self._names.addresses(host, port)
        try:
            connection.socket = reached = await _reached(where, within)
        except BaseException:  # or they are silent, and there is no more time
            self._names.forget(host, port)
            raise
        context, named = (self._tls(), host) if secure else (None, None)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, sock=reached, ssl=context, server_hostname=named)
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context


async def _reached(where: list[Address], within: float) -> socket.socket:
    """Return a socket that is connected to the first address that answers; each has a share of the time."""
    *others, last = where
    share = min(_NEXT_AFTER, within / (len(where) + 1))
    for address in others:
        with suppress(OSError):
            async with asyncio.timeout(share):
                return await _connected(address, where)
    return await _connected(last, where)


async def _connected(address: Address, where: list[Address]) -> socket.socket:
    """Return a socket that is connected to one address, which is the first from then on."""
    family, kind, protocol, _, place = address
    reached = socket.socket(family, kind, protocol)
    try:
        reached.setblocking(False)
        await asyncio.get_running_loop().sock_connect(reached, place)
    except BaseException:
        reached.close()
        raise
    where.remove(address)
    where.insert(0, address)
    return reached


def _unzipped(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _BODY_MOST)
    except zlib.error:
        return body
