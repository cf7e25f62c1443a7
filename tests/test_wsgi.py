"""Sessions around the requests of WSGI apps, under the standard library's server on loopback."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack
from pltrack import Session, current_session
from pltrack.testing import FakePromptLayer
from pltrack.wsgi import SessionMiddleware

model = FakeListChatModel(responses=["four"])
HEADERS = [("Content-Type", "text/plain")]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="wsgiref")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(15)


def called(app: Any, **more: Any) -> tuple[Any, dict[str, Any]]:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= more
    return app(environ, lambda *_: None), environ


def returned(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", HEADERS)
    return [str(model.invoke(environ["PATH_INFO"]).content).encode()]


def streamed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", HEADERS)
    yield b""
    for chunk in model.stream(environ["PATH_INFO"]):
        yield str(chunk.content).encode()


@pytest.mark.parametrize("app", [returned, streamed])
def test_returned_and_streamed_bodies_belong_to_the_session(promptlayer: FakePromptLayer, app: Any) -> None:
    """Calls in the app and while its body is produced are the request's, by the rules of WSGI."""
    wrapped = SessionMiddleware(validator(app), tags=["web"], metadata=lambda environ: {"path": environ["PATH_INFO"]})
    with serving(validator(wrapped)) as url:
        assert httpx.get(f"{url}/a").text == "four"
    promptlayer.wait_for(lambda pl: pl.requests)
    (logged,) = promptlayer.requests
    assert (logged.tags, logged.metadata["path"]) == (["web"], "/a")


def test_requests_do_not_leak_into_each_other(pltrack_journal: Any) -> None:
    """Two bodies read in turns in one thread keep to their sessions, and none is current between the steps."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        for _ in range(2):
            session = current_session()
            yield b"" if session is None else session.id.encode()

    wrapped = SessionMiddleware(app)
    (one, first), (two, second) = called(wrapped), called(wrapped)
    seen = []
    for _ in range(2):
        seen += [next(one).decode(), next(two).decode()]
        assert current_session() is None
    assert seen == [first["pltrack.session"].id, second["pltrack.session"].id] * 2


def test_the_body_is_closed_in_the_session(pltrack_journal: Any) -> None:
    """What the app does in its body's `close` belongs to the session, which then ends; errors of it pass."""
    seen: list[Any] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            seen.append(current_session())
            raise OSError("disk")

    body, environ = called(SessionMiddleware(lambda *_: Body()))
    with pytest.raises(OSError, match="disk"):
        body.close()
    assert seen == [environ["pltrack.session"]]
    assert current_session() is None


def test_a_closed_stream_is_logged(promptlayer: FakePromptLayer) -> None:
    """A body that the server closes early, as for a client that went away, logs what had come."""
    body, _ = called(SessionMiddleware(streamed, tags=["gone"]))
    assert [next(body), next(body)] == [b"", b"f"]
    body.close()
    pltrack.flush(5)
    (logged,) = promptlayer.requests
    assert logged.tags == ["gone"]


def test_ready_bodies_are_left_as_they_are(pltrack_journal: Any) -> None:
    """Lists and files go to the server as the app returned them: it knows their length, or has its own way."""
    ready = [b"abc"]
    assert called(SessionMiddleware(lambda *_: ready))[0] is ready
    file = FileWrapper(io.BytesIO(b"abc"))
    assert called(SessionMiddleware(lambda *_: file), **{"wsgi.file_wrapper": FileWrapper})[0] is file


@pytest.mark.parametrize("when", ["call", "step"])
def test_errors_of_the_app_pass_unchanged(pltrack_journal: Any, when: str) -> None:
    """What the app raises is what the server gets, and no session is left open."""
    boom = ValueError("boom")

    def at_once(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise boom

    def later(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b"a"
        raise boom

    with pytest.raises(ValueError, match="boom") as caught:
        list(called(SessionMiddleware(at_once if when == "call" else later))[0])
    assert caught.value is boom
    assert current_session() is None


def test_headers_join_the_callers_session(promptlayer: FakePromptLayer) -> None:
    """With `join_headers` a request that carries a session continues it; otherwise it is a new one."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        session: Session = environ["pltrack.session"]
        return [session.id.encode()]

    for join in (True, False):
        with serving(SessionMiddleware(app, join_headers=join)) as url, pltrack.pl_session("caller") as s:
            assert (httpx.get(url, headers=s.headers()).text == s.id) is join
            assert httpx.get(url).text != s.id


def test_what_the_functions_raise_does_not_reach_the_app(pltrack_journal: Any) -> None:
    """A `user` function that fails costs the user, not the request; it is counted."""

    def failing(environ: Any) -> str:
        raise KeyError("REMOTE_USER")

    _, environ = called(SessionMiddleware(lambda *_: [b""], user=failing, name="kept"))
    assert environ["pltrack.session"].scope.name == "kept"
    assert pltrack.status().internal_errors == 1
