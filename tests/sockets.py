"""Servers that speak what a test wants, byte by byte."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def raw_server(converse: Callable[[socket.socket], None], listener: socket.socket | None = None) -> Iterator[int]:
    """Accept connections and hand each to `converse`, on a thread of its own; yields the port."""
    listener = listener or socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            converse(connection)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_head(connection: socket.socket) -> str:
    """Read one HTTP request and return what stands before its body; empty at the end."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65_536) or b"\r\n\r\n"
    head, _, body = head.partition(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) if b"ontent-" in head else 0
    while len(body) < size:
        body += connection.recv(65_536)
    return head.decode()


def read_request(connection: socket.socket) -> str:
    """Read one HTTP request and return its path; empty at the end."""
    head = read_head(connection)
    return head.split(" ")[1] if head else ""


def tls_server(place: Path, name: str) -> ssl.SSLContext:
    """Return what makes a server prove its name to whoever trusts `cert.pem` in that place."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=pltrack -keyout key.pem -out cert.pem -addext"
    subprocess.run([*made.split(), f"subjectAltName={name}"], cwd=place, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    return context
