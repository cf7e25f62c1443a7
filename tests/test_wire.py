"""How requests travel: connections that are kept or not, answers of every form, proxies, TLS."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from sockets import raw_server, read_head, tls_server

import pltrack
from pltrack._courier import answers, search, wire
from pltrack._courier.api import Api
from pltrack._settings import Destination

MODEL = FakeListChatModel(responses=["four"])
BODY = b'{"id": 4711}'
WHOLE = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
NONE = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"items":[]}'
WaitUntil = Callable[..., None]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(answers, "_FIRST_WAIT", 0.1)
    monkeypatch.setattr(search, "EVERY", 0.2)
    monkeypatch.setattr(search, "PATIENCE", (0.2, 0.2))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    pltrack.configure(api_key="pl_key", journal=tmp_path / "journal.db", delivery="background")
    yield
    pltrack.shutdown(0.1)


class Server:
    """Answers each request with what it is given, and remembers their heads."""

    def __init__(self, answer: bytes = WHOLE, *, then_close: bool = False) -> None:
        self.heads: list[str] = []
        self.connections = 0
        self._answer, self._then_close = answer, then_close

    def __call__(self, connection: socket.socket) -> None:
        """Converse on one connection."""
        self.connections += 1
        if self._then_close and hasattr(socket, "TCP_CORK"):  # the end comes with the answer, not some time after it
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        while head := read_head(connection):
            self.heads.append(head)
            connection.sendall(NONE if search.PATH in head else self._answer)
            if self._then_close:
                return

    @property
    def paths(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]


def delivered(url: str, calls: int = 1) -> bool:
    """Make calls one after the other and tell whether each got its id."""
    pltrack.configure(base_url=url)
    found = []
    for _ in range(calls):
        with pltrack.pl_session() as session:
            MODEL.invoke("hi")
        found += session.wait(10).values()
    return found == [4711] * calls


def sent_by(server: Server) -> list[str]:
    return [path for path in server.paths if path.endswith("/log-request")]


# -- connections ----------------------------------------------------------------------------------------------


def test_a_connection_is_used_again() -> None:
    """Calls one after the other need one connection."""
    server = Server()
    with raw_server(server) as port:
        assert delivered(f"http://127.0.0.1:{port}", calls=5)
    assert (server.connections, len(server.heads)) == (1, 5)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_connection_that_the_server_ends_is_not_used_again(*, says_so: bool) -> None:
    """With or without a word: the next request goes out on a new one, and nothing is in doubt."""
    server = Server(WHOLE.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) if says_so else WHOLE, then_close=True)
    with raw_server(server) as port:
        assert delivered(f"http://127.0.0.1:{port}", calls=3)
    assert server.paths == ["/log-request"] * 3
    assert server.connections == 3


def test_more_than_was_asked_for_ends_the_connection() -> None:
    """A second answer to one request is never taken for that of the next."""
    server = Server(WHOLE + WHOLE.replace(b"4711", b"6666"))
    with raw_server(server) as port:
        assert delivered(f"http://127.0.0.1:{port}", calls=3)
    assert server.connections == 3


@pytest.mark.parametrize("late", [b"", b"HTTP/1.1 408 Too slow\r\n\r\n", WHOLE.replace(b"4711", b"6666")])
async def test_what_came_while_the_loop_was_busy_is_no_answer(late: bytes) -> None:
    """A connection that ended, or on which something came that nobody asked for, is not used again, if just unread."""
    heads: list[str] = []
    answered, done = threading.Event(), threading.Event()

    def converse(connection: socket.socket) -> None:
        while head := read_head(connection):
            heads.append(head)
            connection.sendall(WHOLE)
            if len(heads) == 1:
                answered.wait(10)
                connection.sendall(late)
                connection.shutdown(socket.SHUT_WR)
                done.set()

    api = Api()
    with raw_server(converse) as port:
        to = Destination(f"http://127.0.0.1:{port}", "pl_key")
        first = await api.post(to, "/log-request", b"{}", 10)
        answered.set()
        assert done.wait(10)  # on the loop
        second = await api.post(to, "/log-request", b"{}", 10)
    api.close()
    assert (first.body, second.body, second.error) == ({"id": 4711}, {"id": 4711}, "")
    assert len(heads) == 2


async def test_what_an_early_answer_makes_needless_is_not_sent() -> None:
    """Whoever refuses a body before it has come may never read on: its connection is not kept open for the rest."""
    answered, drained = threading.Event(), threading.Event()
    came: list[int] = []

    def converse(connection: socket.socket) -> None:
        connection.recv(1_000)
        connection.sendall(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n")
        answered.wait(10)
        with suppress(OSError):
            while part := connection.recv(1_000_000):
                came.append(len(part))
        drained.set()

    api = Api()
    with raw_server(converse) as port:
        answer = await api.post(Destination(f"http://127.0.0.1:{port}", "pl_key"), "/x", bytes(40_000_000), 10)
        answered.set()
        assert await asyncio.to_thread(drained.wait, 10)
    api.close()
    assert answer.status == 413
    assert sum(came) < 35_000_000


@contextmanager
def deaf() -> Iterator[tuple[str, int]]:
    """Yield an address that never answers: nobody fits into its queue any more."""
    with ExitStack() as open_:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = open_.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def found(*places: tuple[str, int]) -> list[object]:
    """Return what a name server says of these addresses."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]


@pytest.mark.parametrize("silent", [False, True])
def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, *, silent: bool) -> None:
    """Of several addresses of a host the first that answers is used, and asked first from then on."""
    monkeypatch.setattr(wire, "_NEXT_AFTER", 0.2)
    server = Server(then_close=True)
    looked_up: list[object] = []
    with raw_server(server) as port, deaf() as mute, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen: it refuses
        dead = mute if silent else closed.getsockname()

        def addresses(host: str, *_: object, **__: object) -> list[object]:
            looked_up.append(host)
            return found(dead, ("127.0.0.1", port))

        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        assert delivered(f"http://promptlayer.test:{port}", calls=2)
    assert looked_up == ["promptlayer.test"]


@pytest.mark.parametrize("mutes", [1, 6])
def test_silent_addresses_leave_time_for_the_one_that_answers(monkeypatch: pytest.MonkeyPatch, mutes: int) -> None:
    """However many there are, and however short the time for an exchange is."""
    pltrack.configure(http_timeout=2)
    with raw_server(Server()) as port, deaf() as mute:
        places = found(*[mute] * mutes, ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        assert delivered(f"http://promptlayer.test:{port}")


def test_a_host_that_moves_away_from_a_silent_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked up again when nothing answers where it was."""
    pltrack.configure(http_timeout=0.5)
    with raw_server(Server()) as port, deaf() as mute:
        moves = iter([found(mute)])
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: next(moves, found(("127.0.0.1", port))))
        assert delivered(f"http://promptlayer.test:{port}")


def test_ipv6() -> None:
    """An address in brackets is one."""
    server = Server()
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with raw_server(server, listener) as port:
        assert delivered(f"http://[::1]:{port}/v1")
    assert server.heads[0].startswith(f"POST /v1/log-request HTTP/1.1\r\nHost: [::1]:{port}\r\n")


def test_a_login_in_the_address() -> None:
    """It travels as a header, as for a browser; a path with blanks is quoted."""
    server = Server()
    with raw_server(server) as port:
        assert delivered(f"http://me:p%40ss@127.0.0.1:{port}/a b")
    assert "\r\nAuthorization: Basic bWU6cEBzcw==\r\n" in server.heads[0]
    assert server.paths == ["/a%20b/log-request"]


# -- answers --------------------------------------------------------------------------------------------------

PACKED = gzip.compress(BODY)
ANSWERS = {
    "in chunks": b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"id\r\n8\r\n\": 4711}\r\n0\r\n\r\n",
    "packed": b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(PACKED), PACKED),
    "after a word to go on": b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
    "in capitals": WHOLE.replace(b"Content-Length", b"CONTENT-LENGTH"),
}  # fmt: skip


@pytest.mark.parametrize("form", ANSWERS)
def test_answers_of_every_form(form: str) -> None:
    """However an answer is written, its id is found, and the connection serves the next request."""
    server = Server(ANSWERS[form])
    with raw_server(server) as port:
        assert delivered(f"http://127.0.0.1:{port}", calls=2)
    assert (server.connections, server.paths) == (1, ["/log-request"] * 2)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_ends_with_its_connection(version: str) -> None:
    """Without a length it is whole when the server closes."""
    server = Server(f"HTTP/{version} 201 Created\r\n\r\n".encode() + BODY, then_close=True)
    with raw_server(server) as port:
        assert delivered(f"http://127.0.0.1:{port}", calls=2)
    assert server.paths == ["/log-request"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        WHOLE[:-4],
        b"HTTP/1.1 101 Up\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 000 What\r\n\r\n" + BODY,
    ],
)
def test_what_is_no_answer_leaves_the_outcome_unknown(answer: bytes, wait_until: WaitUntil) -> None:
    """Nothing, another protocol, half an answer, a word to go on and no more: it is looked for before it goes again."""
    server = Server(answer, then_close=True)
    with raw_server(server) as port:
        pltrack.configure(base_url=f"http://127.0.0.1:{port}")
        with pltrack.pl_session():
            MODEL.invoke("hi")
        wait_until(lambda: search.PATH in server.paths)
    assert server.paths[0] == "/log-request"
    assert server.paths[1] == search.PATH


def test_a_head_without_an_end() -> None:
    """It is not read for as long as an answer may take: what it says is all kept in memory."""
    pltrack.configure(http_timeout=30)

    def converse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" if read_head(connection) else b"")
        while True:
            connection.sendall(b"A: b\r\n" * 10_000)

    with raw_server(converse) as port:
        pltrack.configure(base_url=f"http://127.0.0.1:{port}")
        with pltrack.pl_session() as session:
            MODEL.invoke("hi")
        session.wait(2)
        assert "does not end" in str(pltrack.status().last_error)


def test_the_answer_before_is_not_taken_for_that_of_the_next(
    wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """One without a body keeps its connection open; when that ends before the next answer, there is none."""
    asked: list[str] = []

    def converse(connection: socket.socket) -> None:
        asked.append(read_head(connection))
        if len(asked) == 1:
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            asked.append(read_head(connection))

    with raw_server(converse) as port:
        pltrack.configure(base_url=f"http://127.0.0.1:{port}")
        with pltrack.pl_session():
            MODEL.invoke("hi")
        wait_until(lambda: len(asked) >= 3)
    assert "answered without an id" in caplog.text  # the first
    assert "cannot be looked up" not in caplog.text  # as it would be said of a search that is answered like that


# -- proxies and TLS ------------------------------------------------------------------------------------------


def test_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy is told the whole address, and who we are."""
    server = Server()
    with raw_server(server) as port:
        monkeypatch.setenv("http_proxy", f"http://me:pass@127.0.0.1:{port}")
        assert delivered("http://promptlayer.test:8080/v1")
    assert server.paths == ["http://promptlayer.test:8080/v1/log-request"]
    assert "\r\nHost: promptlayer.test:8080\r\n" in server.heads[0]
    assert "\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n" in server.heads[0]


@pytest.mark.parametrize("named", ["127.0.0.1", "127.0.0.1:PORT", "*"])
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """What no_proxy names is reached without one."""
    server = Server()
    with raw_server(server) as port:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", named.replace("PORT", str(port)))
        assert delivered(f"http://127.0.0.1:{port}")


def test_a_proxy_of_another_kind(monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil) -> None:
    """It is named, and nothing goes out past it."""
    server = Server()
    with raw_server(server) as port:
        monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
        pltrack.configure(base_url=f"http://127.0.0.1:{port}")
        with pltrack.pl_session():
            MODEL.invoke("hi")
        wait_until(lambda: "socks5" in str(pltrack.status().last_error))
    assert (pltrack.status().pending, server.heads) == (1, [])


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server that proves to be promptlayer.test, for whoever trusts its certificate."""
    place = tmp_path_factory.mktemp("certificate")
    context = tls_server(place, "DNS:promptlayer.test")
    context.place = place / "cert.pem"  # type: ignore[attr-defined]
    return context


class Tunnel:
    """A proxy that connects to the only server behind it, which speaks TLS."""

    def __init__(self, context: ssl.SSLContext, server: Server, answer: bytes = b"HTTP/1.1 200 Connected") -> None:
        self.heads: list[str] = []
        self._context, self._server, self._answer = context, server, answer

    def __call__(self, connection: socket.socket) -> None:
        """Converse on one connection."""
        self.heads.append(read_head(connection))
        connection.sendall(self._answer + b"\r\n\r\n")
        if b"200" in self._answer:
            with self._context.wrap_socket(connection, server_side=True) as secure:
                self._server(secure)


def test_tls_through_a_proxy(certified: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy learns the name alone; requests, keys and logins go to the server behind it."""
    server = Server()
    tunnel = Tunnel(certified, server)
    with raw_server(tunnel) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(certified.place))  # type: ignore[attr-defined]
        monkeypatch.setenv("https_proxy", f"me:pass@127.0.0.1:{port}")
        assert delivered("https://promptlayer.test", calls=2)
    (told,) = tunnel.heads
    assert told.startswith("CONNECT promptlayer.test:443 HTTP/1.1\r\n")
    assert "\r\nProxy-Authorization: Basic bWU6cGFzcw==" in told
    assert server.paths == ["/log-request"] * 2
    assert all("\r\nX-API-KEY: pl_key\r\n" in head and "Proxy-" not in head for head in server.heads)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Who are you?", b"HTTP/1.1 502 No way"])
def test_a_proxy_that_refuses(
    certified: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil, answer: bytes
) -> None:
    """Its answer is said; nothing was sent, so nothing is looked up."""
    server = Server()
    tunnel = Tunnel(certified, server, answer)
    with raw_server(tunnel) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        pltrack.configure(base_url="https://promptlayer.test")
        with pltrack.pl_session():
            MODEL.invoke("hi")
        wait_until(lambda: len(tunnel.heads) >= 2)
    assert answer.split()[1].decode() in str(pltrack.status().last_error)
    assert (pltrack.status().pending, server.heads) == (1, [])


def test_a_server_behind_a_proxy_that_proves_to_be_another(
    certified: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said which certificate is wrong, and nothing else: nothing was sent, so nothing is looked up."""
    server = Server()
    tunnel = Tunnel(certified, server)
    with raw_server(tunnel) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(certified.place))  # type: ignore[attr-defined]
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        pltrack.configure(base_url="https://another.test")
        with pltrack.pl_session():
            MODEL.invoke("hi")
        wait_until(lambda: len(tunnel.heads) >= 2)
        pltrack.shutdown(5)
    assert "Hostname mismatch" in caplog.text
    assert {record.name for record in caplog.records} == {"pltrack"}
    assert server.heads == []


@pytest.mark.parametrize("password", ["hunter/2", "hunter#2", "hunter?2"])
def test_a_proxy_address_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil, password: str
) -> None:
    """The reason is said without the password that makes it so."""
    monkeypatch.setenv("https_proxy", f"http://me:{password}@127.0.0.1:8080")
    pltrack.configure(base_url="https://promptlayer.test")
    with pltrack.pl_session():
        MODEL.invoke("hi")
    wait_until(lambda: "proxy" in str(pltrack.status().last_error))
    assert "hunter" not in str(pltrack.status().last_error)


def test_a_proxy_that_speaks_tls_itself(certified: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """https_proxy may be an https:// address."""
    server = Server()

    def converse(connection: socket.socket) -> None:
        with certified.wrap_socket(connection, server_side=True) as secure:
            server(secure)

    with raw_server(converse) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(certified.place))  # type: ignore[attr-defined]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", port))])
        monkeypatch.setenv("http_proxy", f"https://promptlayer.test:{port}")
        assert delivered("http://behind.test/v1")
    assert server.paths == ["http://behind.test/v1/log-request"]
