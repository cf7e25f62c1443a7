"""Sessions around the requests of ASGI apps: FastAPI and Starlette under real uvicorn, on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from starlette.responses import StreamingResponse
from websockets.sync.client import connect

import pltrack
import pltrack.asgi
from pltrack import Session, current_session
from pltrack.testing import FakePromptLayer, Logged

model = FakeListChatModel(responses=["four"])
PATHS = ["/sync", "/async", "/stream", "/sync-stream", "/background", "/sync-background"]


class _Served(uvicorn.Server):
    def __init__(self, app: Any) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_level="critical"))
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an app on a free port, in a thread; yield host and port."""
    server = _Served(app)
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        assert server.ready.wait(15)
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive()


def endpoints() -> FastAPI:
    """Return an app that calls the model in every way a web app can."""
    app = FastAPI()

    @app.get("/sync")
    def sync() -> str:
        return str(model.invoke("/sync").content)

    @app.get("/async")
    async def async_() -> str:
        return str((await model.ainvoke("/async")).content)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async for chunk in model.astream("/stream"):
                yield str(chunk.content)

        return StreamingResponse(body())

    @app.get("/sync-stream")
    def sync_stream() -> StreamingResponse:
        return StreamingResponse(str(chunk.content) for chunk in model.stream("/sync-stream"))

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(model.ainvoke, "/background")
        return "four"

    @app.get("/sync-background")
    def sync_background(tasks: BackgroundTasks) -> str:
        tasks.add_task(model.invoke, "/sync-background")
        return "four"

    return app


def told(promptlayer: FakePromptLayer, count: int = 1) -> tuple[Logged, ...]:
    promptlayer.wait_for(lambda pl: len(pl.requests) >= count)
    pltrack.flush(5)
    assert len(promptlayer.requests) == count
    return promptlayer.requests


def asked(logged: Logged) -> str:
    return str(logged.body["input"]["messages"][0]["content"][0]["text"])


@pytest.mark.parametrize("path", PATHS)
def test_the_middleware_covers_every_kind_of_endpoint(promptlayer: FakePromptLayer, path: str) -> None:
    """Sync, async, streamed and background calls all belong to the request's session [49]."""
    app = endpoints()
    app.add_middleware(pltrack.asgi.SessionMiddleware, tags=["web"], metadata=lambda scope: {"path": scope["path"]})
    with serving(app) as host:
        assert "four" in httpx.get(f"http://{host}{path}").text
        (logged,) = told(promptlayer)
    assert (asked(logged), logged.tags, logged.metadata["path"]) == (path, ["web"], path)


@pytest.mark.parametrize("path", PATHS)
def test_the_dependency_covers_every_kind_of_endpoint(promptlayer: FakePromptLayer, path: str) -> None:
    """As a dependency of the whole app it does without the middleware what the middleware does [47].

    All but a sync body: its steps run in threads whose contexts FastAPI copies while the dependency is open.
    """
    opened: list[Session] = []

    async def keep(s: Annotated[Session, Depends(pltrack.asgi.session)]) -> None:
        opened.append(s)

    app = FastAPI(dependencies=[Depends(keep)])
    app.include_router(endpoints().router)
    with serving(app) as host:
        assert "four" in httpx.get(f"http://{host}{path}").text
        (logged,) = told(promptlayer)
    (session,) = opened
    assert session.ids == (logged.metadata["pltrack_id"],)


def test_the_dependency_yields_the_middlewares_session(promptlayer: FakePromptLayer) -> None:
    """With the middleware the dependency opens nothing: scope, dependency and current_session() are one."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(s: Annotated[Session, Depends(pltrack.asgi.session)]) -> list[str | None]:
        current = current_session()
        return [s.id, current and current.id]

    seen: list[str] = []

    class Around:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)
            if "pltrack.session" in scope:
                seen.append(scope["pltrack.session"].id)

    app.add_middleware(pltrack.asgi.SessionMiddleware)
    app.add_middleware(Around)
    with serving(app) as host:
        one, other = httpx.get(f"http://{host}/").json()
    assert one == other
    assert seen == [one]


def test_a_session_around_the_whole_server_is_not_the_requests(promptlayer: FakePromptLayer) -> None:
    """Inside a long-lived session each request still gets one of its own."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(s: Annotated[Session, Depends(pltrack.asgi.session)]) -> str:
        return s.id

    async def two() -> list[str]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return [(await client.get("/")).json() for _ in range(2)]

    with pltrack.pl_session("server") as outer:
        ids = asyncio.run(two())
    assert len({*ids, outer.id}) == 3


def test_concurrent_requests_are_isolated(promptlayer: FakePromptLayer) -> None:
    """Of requests served at once each session gathers its own calls only [50]."""
    app = FastAPI()
    together = threading.Barrier(4)

    @app.get("/{name}")
    def endpoint(name: str, s: Annotated[Session, Depends(pltrack.asgi.session)]) -> list[str]:
        together.wait(15)
        model.invoke(name)
        together.wait(15)
        model.invoke(name)
        return list(s.ids)

    app.add_middleware(pltrack.asgi.SessionMiddleware, user=lambda scope: scope["path"])
    with serving(app) as host, ThreadPoolExecutor(4) as pool:
        names = ["a", "b", "c", "d"]
        found = dict(zip(names, pool.map(lambda name: httpx.get(f"http://{host}/{name}").json(), names), strict=True))
        told(promptlayer, 8)
    for name, ids in found.items():
        assert [asked(promptlayer.by_pltrack_id(each)) for each in ids] == [name, name]


def test_a_client_that_goes_away(promptlayer: FakePromptLayer) -> None:
    """A stream whose client disconnects is logged under the session with what had come, and the server goes on [50]."""
    app = FastAPI()
    slow = FakeListChatModel(responses=["x" * 10_000], sleep=0.001)

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async for chunk in slow.astream("long"):
                yield str(chunk.content)

        return StreamingResponse(body())

    app.add_middleware(pltrack.asgi.SessionMiddleware, tags=["gone"])
    with serving(app) as host:
        with httpx.stream("GET", f"http://{host}/") as response:
            assert next(response.iter_text())
        (logged,) = told(promptlayer)
    assert logged.tags == ["gone"]
    assert logged.body["status"] != "SUCCESS"


def test_headers_join_the_callers_session(promptlayer: FakePromptLayer) -> None:
    """With `join_headers` a request that carries a session continues it; without, or with none, it is a new one."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(s: Annotated[Session, Depends(pltrack.asgi.session)]) -> str:
        return s.id

    for join in (True, False):
        wrapped = pltrack.asgi.SessionMiddleware(app, join_headers=join)
        with serving(wrapped) as host, pltrack.pl_session("caller") as s:
            joined = httpx.get(f"http://{host}/", headers=s.headers()).json()
            assert (joined == s.id) is join
            assert httpx.get(f"http://{host}/").json() != s.id
            assert httpx.get(f"http://{host}/", headers={"x-pltrack-session": "nonsense"}).status_code == 200


def test_a_websocket_is_one_session(promptlayer: FakePromptLayer) -> None:
    """All calls of one websocket connection belong to one session."""
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        for _ in range(2):
            await model.ainvoke(await socket.receive_text())
        session = current_session()
        assert session is not None
        await socket.send_json(session.ids)
        await socket.close()

    app.add_middleware(pltrack.asgi.SessionMiddleware, tags=["ws"])
    with serving(app) as host:
        with connect(f"ws://{host}/ws") as client:
            client.send("one")
            client.send("two")
            ids = json.loads(client.recv())
        told(promptlayer, 2)
    assert [asked(promptlayer.by_pltrack_id(each)) for each in ids] == ["one", "two"]
    assert all(each.tags == ["ws"] for each in promptlayer.requests)


@pytest.mark.parametrize("kind", ["middleware", "dependency"])
async def test_errors_of_the_app_pass_unchanged(pltrack_journal: Any, kind: str) -> None:
    """What the app raises is what the server gets, and no session is left open."""
    boom = ValueError("boom")
    app = FastAPI(dependencies=[Depends(pltrack.asgi.session)] if kind == "dependency" else [])

    @app.get("/")
    async def endpoint() -> None:
        raise boom

    if kind == "middleware":
        app.add_middleware(pltrack.asgi.SessionMiddleware)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t") as client:
        with pytest.raises(ValueError, match="boom") as caught:
            await client.get("/")
    assert caught.value is boom
    assert current_session() is None


async def test_what_the_functions_raise_does_not_reach_the_app(pltrack_journal: Any) -> None:
    """A `metadata` function that fails costs the metadata, not the request; it is counted."""
    served: list[Session | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(current_session())

    def failing(scope: Any) -> dict[str, str]:
        raise KeyError("no such header")

    await pltrack.asgi.SessionMiddleware(app, metadata=failing, tags=["kept"])({"type": "http"}, None, None)  # type: ignore[arg-type]
    assert served[0] is not None
    assert served[0].scope.tags == ("kept",)
    assert pltrack.status().internal_errors == 1


async def test_scopes_without_a_request_pass_through(pltrack_journal: Any) -> None:
    """The lifespan is no request: it gets no session, and its scope is left alone."""
    served: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append((current_session(), dict(scope)))

    await pltrack.asgi.SessionMiddleware(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert served == [(None, {"type": "lifespan"})]


def test_names_users_and_conversations(pltrack_journal: Any) -> None:
    """Name, user and conversation may be fixed or read from the scope; the name stays of low cardinality."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["pltrack.session"].scope)

    fixed = pltrack.asgi.SessionMiddleware(app, name="api", user="u", conversation="c")
    read = pltrack.asgi.SessionMiddleware(app, user=lambda scope: scope["u"], conversation=lambda _: None)
    asyncio.run(fixed({"type": "http"}, None, None))  # type: ignore[arg-type]
    asyncio.run(read({"type": "http", "u": "ann"}, None, None))  # type: ignore[arg-type]
    assert [(each.name, each.user, each.conversation) for each in seen] == [("api", "u", "c"), ("asgi", "ann", None)]


def test_wrong_arguments_are_refused_at_once() -> None:
    """A mistake is told when the app is built, not in its first request."""
    with pytest.raises(TypeError, match="tags"):
        pltrack.asgi.SessionMiddleware(endpoints(), tags="web")
    with pytest.raises(TypeError, match="metadata"):
        pltrack.asgi.SessionMiddleware(endpoints(), metadata=["a"])  # type: ignore[arg-type]


def test_no_web_framework_is_needed() -> None:
    """The module imports neither Starlette nor FastAPI."""
    code = "import sys, pltrack.asgi, pltrack.wsgi; print({'starlette', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
