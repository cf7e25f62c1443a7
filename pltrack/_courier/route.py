"""The way to an address: who is to answer, through which proxy, and what each request says on it."""

from __future__ import annotations

import base64
import urllib.request
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit


class Route(NamedTuple):
    """The way to one address: who is to answer, through which proxy, and what each request says on it."""

    secure: bool
    host: str
    port: int
    proxy: SplitResult | None
    target: str  # what stands before the path
    headers: str

    @classmethod
    def to(cls, url: str) -> Route:
        """Return the way to an address, through the proxy that the environment names for it."""
        parts = urlsplit(url)
        secure, (host, port) = parts.scheme == "https", place(parts)
        netloc = written(host, parts.port)
        target = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        headers = f"Host: {netloc}\r\n{login('Authorization', parts)}"
        proxy = _proxy_of(parts)
        if proxy is not None and not secure:
            target = f"http://{netloc}{target}"
            headers += login("Proxy-Authorization", proxy)
        return cls(secure, host, port, proxy, target, headers)

    def request(self, method: str, path: str, headers: str, body: bytes = b"") -> bytes:
        """Return a request as it goes over the wire; each of the headers ends with a line's end."""
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
        general = "Accept: application/json\r\nAccept-Encoding: gzip\r\nUser-Agent: pltrack\r\n"
        head = f"{method} {self.target}{path} HTTP/1.1\r\n{self.headers}{general}{headers}{length}\r\n"
        return head.encode() + body


def place(parts: SplitResult) -> tuple[str, int]:
    """Return the host and the port of an address."""
    host = parts.hostname or ""
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # its words repeat the text, which may be part of a password
        raise ValueError("the proxy's address cannot be read; in its password / # ? @ are written as %..") from None
    return host if host.isascii() else host.encode("idna").decode(), port


def written(host: str, port: int | None) -> str:
    """Return host and port as requests name them."""
    named = f"[{host}]" if ":" in host else host
    return f"{named}:{port}" if port else named


def _proxy_of(parts: SplitResult) -> SplitResult | None:
    if any(map(urllib.request.proxy_bypass, (parts.hostname or "", parts.netloc.rpartition("@")[2]))):
        return None
    proxies = urllib.request.getproxies()
    if not (told := proxies.get(parts.scheme) or proxies.get("all")):
        return None
    proxy = urlsplit(told if "://" in told else f"http://{told}")
    if proxy.scheme not in ("http", "https"):
        raise ValueError(f"the proxy speaks {proxy.scheme}; expected one that speaks HTTP")
    return proxy


def login(name: str, parts: SplitResult) -> str:
    """Return the header line with the login that an address holds; nothing where it holds none."""
    if parts.username is None:
        return ""
    told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"{name}: Basic {base64.b64encode(told.encode()).decode()}\r\n"
