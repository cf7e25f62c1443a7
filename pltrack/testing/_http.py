"""A small HTTP/1.1 server on loopback: keep-alive, a named thread per connection, a stop that leaves nothing.

It knows nothing of PromptLayer: it is handed a function from `Incoming` to `Outgoing`.
"""

import json
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

POLL_SECONDS = 0.02
JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One call as it came over the wire; `path` is unquoted and carries no query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    raw: bytes
    connection: int
    gone: Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """The answer to one call: at once or in chunks, whole or cut short, or none at all."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    chunks: Iterable[bytes] | None = None
    cut: bool = False
    drop: bool = False

    @classmethod
    def json(cls, status: int, body: Any, headers: Mapping[str, str] | None = None) -> Self:
        return cls(status=status, body=json.dumps(body).encode(), headers=headers or {})


class Handler(BaseHTTPRequestHandler):
    """Speak HTTP on one connection for as long as the client likes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one packet
    server: "LoopbackServer"

    def serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or "Transfer-Encoding" in self.headers:
            self._send(Outgoing.json(411, {"success": False, "message": "Content-Length is required"}))
            self.close_connection = True
            return
        url = urlsplit(self.path)
        incoming = Incoming(
            method=self.command,
            path=unquote(url.path),
            query=dict(parse_qsl(url.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            raw=self.rfile.read(int(length)),
            connection=self.server.number_of(self.connection),
            gone=self._gone,
        )
        self._send(self.server.answer(incoming))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - the base class looks for these

    def _gone(self) -> bool:
        """Say whether the client hung up."""
        try:
            if not select.select([self.connection], [], [], 0)[0]:
                return False
            return not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _send(self, answer: Outgoing) -> None:
        if answer.drop:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunks is None:
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
            self.close_connection = self.close_connection or answer.cut
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in answer.chunks:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        self.close_connection = self.close_connection or answer.cut
        if not answer.cut:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: who wants to know asks the server for its calls."""


class LoopbackServer(HTTPServer):
    """Listen on 127.0.0.1 from `start()` to `stop()`, which closes every socket and joins every thread."""

    request_queue_size = 128

    def __init__(self, answer: Callable[[Incoming], Outgoing], *, port: int = 0, name: str = "loopback") -> None:
        self.answer = answer
        self._name = name
        self._lock = threading.Lock()
        self._open: dict[socket.socket, tuple[int, threading.Thread]] = {}
        self._count = 0
        self._stopping = False
        super().__init__(("127.0.0.1", port), Handler)
        self._accepting = threading.Thread(
            target=self.serve_forever, args=(POLL_SECONDS,), name=f"{name}-accept", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def start(self) -> None:
        self._accepting.start()

    def stop(self) -> None:
        """Hang up on everybody, whatever they are in the middle of, and wait until all threads have ended."""
        self.shutdown()
        self.server_close()
        self._accepting.join(JOIN_SECONDS)
        with self._lock:
            self._stopping = True
            still_open = list(self._open.items())
        for connection, _ in still_open:
            _hang_up(connection)
        for _, (_, thread) in still_open:
            thread.join(JOIN_SECONDS)

    def number_of(self, connection: socket.socket) -> int:
        """Return the connection's number, counted from 1 in the order of their coming."""
        with self._lock:
            return self._open[connection][0] if connection in self._open else 0

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._count += 1
            thread = threading.Thread(
                target=self._converse,
                args=(request, client_address),
                name=f"{self._name}-{self._count}",
                daemon=True,
            )
            self._open[request] = (self._count, thread)
        thread.start()

    def _converse(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 - the edge of a thread; handle_error says what it was
            self.handle_error(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that hung up; a fault of our own is printed."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it had ended by itself
