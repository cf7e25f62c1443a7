"""A server on loopback that accepts whatever is sent to it, at once; a process of its own, so that it costs nobody.

Usage: python benchmarks/sink.py [ports] [seconds before each answer]

Prints its ports. `GET /count` on a port tells how many calls and bytes came there, and over how many connections;
after `GET /silence` nothing is answered there any more.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

_ids = 0
_came: Counter[tuple[int, str]] = Counter()
_silent: set[int] = set()


class Sink(asyncio.Protocol):
    """One connection: HTTP/1.1 with keep-alive, bodies with a length or in chunks."""

    pause = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""
        self.port: int = transport.get_extra_info("sockname")[1]
        _came[self.port, "connections"] += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            taken = _end_of_body(head, self.buffer, end + 4)
            if taken is None:
                if b"expect: 100-continue" in head:
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self.buffer = self.buffer[taken:]
            self._answer(head, taken)

    def _answer(self, head: bytes, size: int) -> None:
        global _ids
        if self.port in _silent:
            return
        if head.startswith(b"get /silence "):
            _silent.add(self.port)
            body = b"{}"
        elif head.startswith(b"get /count "):
            body = json.dumps({what: _came[self.port, what] for what in ("calls", "bytes", "connections")}).encode()
        else:
            _ids += 1
            _came[self.port, "calls"] += head.startswith(b"post")
            _came[self.port, "bytes"] += size
            body = b'{"id": %d, "request_id": %d, "success": true}' % (_ids, _ids)
        status = b"201 Created" if b"/log-request" in head else b"200 OK"  # the SDK takes nothing else
        start = b"HTTP/1.1 " + status + b"\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        if self.pause:
            asyncio.get_running_loop().call_later(self.pause, self.transport.write, start + body)
        else:
            self.transport.write(start + body)


def _end_of_body(head: bytes, buffer: bytes, start: int) -> int | None:
    if b"transfer-encoding: chunked" in head:
        while (line := buffer.find(b"\r\n", start)) >= 0:
            size = int(buffer[start:line].split(b";")[0], 16)
            start = line + 2 + size + 2
            if not size:
                return start if start <= len(buffer) else None
        return None
    length = head.partition(b"content-length:")[2].split(b"\r\n")[0].strip()
    end = start + int(length or 0)
    return end if end <= len(buffer) else None


async def main(ports: int) -> None:
    """Listen until killed, or until whoever started us is gone."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Sink, "127.0.0.1", 0) for _ in range(ports)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    Sink.pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
