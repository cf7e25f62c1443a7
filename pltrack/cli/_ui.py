"""`pltrack ui`: the local page, served on this machine."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import webbrowser
from contextlib import suppress

from .. import _runtime
from ..errors import PltrackError
from ._screen import complain


def run(*, host: str, port: int, browser: bool) -> int:
    """Serve until Ctrl-C; return the exit code."""
    try:
        import uvicorn

        from ..web._app import Site, create
        from ..web._source import Source
    except ImportError as error:
        raise PltrackError(f"the local page needs {error.name}: pip install 'pltrack[ui]'") from None
    runtime = _runtime.get()
    source = Source(runtime.lane.path, hub=runtime.settings.hub, hub_shown=runtime.settings.hub_shown)
    listening = _listen(host, port)
    if not _is_loopback(host):
        complain(f"{host} can be reached from other machines: whoever has the address below can read everything")
    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    token = secrets.token_urlsafe(24)
    app = create(Site(source), token=token, hosts=_names(shown, port))
    address = f"http://{shown}:{port}/?token={token}"
    print(f"pltrack shows {source.place} at\n\n    {address}\n\nCtrl-C ends it.", flush=True)
    if browser:  # beside the server: a browser in the terminal returns when it is left, and wants pages before
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True, name="pltrack-browser").start()
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and says so once more
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise PltrackError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None
    # asyncio does so only for sockets that it makes itself; without it each page would wait 40 ms for a packet.
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def _names(shown: str, port: int) -> list[str]:
    names = {shown, "localhost", "127.0.0.1", "[::1]"} if _is_loopback(shown.strip("[]")) else {shown}
    return [f"{name}:{port}" for name in names]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
