"""Looking up addresses: each on a daemon thread, as a name server that does not answer must not hold up the exit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import encodings.idna  # noqa: F401 -- `getaddrinfo` would load it on our thread, where no fork waits for it
import socket
import threading
import time
from typing import Any

_KEPT = 300.0
Address = tuple[Any, ...]  # family, kind, protocol, name, socket address: as `getaddrinfo` gives them
_Found = concurrent.futures.Future[list[Address]]


class Names:
    """What look-ups found, for a while; who asks for what is being looked up waits for the same answer."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, _Found]] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Return where a host can be reached, the best first; raise OSError when nobody knows."""
        until, found = self._known.get((host, port), (0.0, None))
        if found is None or time.monotonic() > until:
            found = _looked_up(host, port)
            self._known[host, port] = time.monotonic() + _KEPT, found
        try:
            return await asyncio.wrap_future(found)
        except OSError as error:
            self.forget(host, port)
            raise OSError(f"DNS does not know {host}: {error.strerror or error}") from error

    def forget(self, host: str, port: int) -> None:
        """Look it up anew next time."""
        self._known.pop((host, port), None)


def _looked_up(host: str, port: int) -> _Found:
    answer: _Found = concurrent.futures.Future()
    answer.set_running_or_notify_cancel()

    def look() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answer.set_exception(error)
        except UnicodeError as error:  # a name that cannot be one
            answer.set_exception(OSError(str(error)))

    try:
        threading.Thread(target=look, name="pltrack-names", daemon=True).start()
    except RuntimeError:  # the interpreter ends, and starts no more threads
        look()
    return answer
