"""Whose a call is in threads, tasks, generators and web apps: with a session, and with what carries one along."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import pytest_asyncio
from fastapi import BackgroundTasks, Depends, FastAPI
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import ContextThreadPoolExecutor, run_in_executor
from programs import environment, run
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse

import pltrack
import pltrack.asgi
from pltrack import Session, current_session, pl_session, tracked

MODEL = FakeListChatModel(responses=["four"])


def ask(text: str = "x") -> str:
    return str(MODEL.invoke(text).content)


def in_thread(function: Callable[..., Any], *args: Any) -> None:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


# -- threads and executors -------------------------------------------------------------------------------------


def test_a_bare_thread() -> None:
    """It knows nothing of the session: bind() gives it one, attach() inside it or a copied context do too [36]."""
    with pl_session() as session:
        in_thread(ask, "lost")
        assert session.requests == ()

        def attached() -> None:
            with session.attach():
                ask()

        in_thread(session.bind(ask))
        in_thread(attached)
        in_thread(contextvars.copy_context().run, ask)
    assert len(session.requests) == 3


def test_pools_of_langchain_and_of_python() -> None:
    """LangChain's own pool keeps the session, Python's needs bind(), nested ones too [36]."""
    with pl_session() as session, ContextThreadPoolExecutor(2) as theirs, ThreadPoolExecutor(2) as plain:
        theirs.submit(ask).result()
        list(theirs.map(ask, ["a", "b"]))
        assert len(session.requests) == 3
        plain.submit(ask, "lost").result()
        assert len(session.requests) == 3

        def nested() -> None:
            with ThreadPoolExecutor(1) as inner:
                inner.submit(session.bind(ask)).result()

        plain.submit(session.bind(nested)).result()
    assert len(session.requests) == 4


def test_a_pool_that_was_warm_before() -> None:
    """Threads made in an earlier session, or before any, are nobody's: neither session gets the other's calls [36]."""
    with ThreadPoolExecutor(1) as pool:
        with pl_session("first") as first:
            pool.submit(ask).result()
        with pl_session("second") as second:
            pool.submit(ask).result()
            pool.submit(second.bind(ask)).result()
    assert (len(first.requests), len(second.requests)) == (0, 1)


def test_a_bound_function_is_safe_in_many_threads_at_once() -> None:
    """One bound function runs in many threads at the same time, which one copied context cannot [36]."""
    together = threading.Barrier(4)

    def work() -> None:
        together.wait(10)
        ask()

    with pl_session() as session, ThreadPoolExecutor(4) as pool:
        bound = session.bind(work)
        for each in [pool.submit(bound) for _ in range(4)]:
            each.result()
    assert len(session.requests) == 4


async def test_ways_from_a_loop_into_threads() -> None:
    """to_thread and LangChain's run_in_executor(None) keep it; an executor of one's own needs bind() [36]."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        ways: list[tuple[Callable[[Session], Any], int]] = [
            (lambda _: asyncio.to_thread(ask), 1),
            (lambda _: run_in_executor(None, ask), 1),
            (lambda _: loop.run_in_executor(None, ask), 0),
            (lambda s: loop.run_in_executor(None, s.bind(ask)), 1),
            (lambda _: run_in_executor(pool, ask), 0),
            (lambda s: run_in_executor(pool, s.bind(ask)), 1),
        ]
        for way, count in ways:
            async with pl_session() as session:
                assert await way(session) == "four"
            assert len(session.requests) == count


async def test_tasks_and_callbacks_of_the_loop() -> None:
    """Tasks, call_soon, call_later, done-callbacks and run_coroutine_threadsafe take the session along [36]."""
    loop = asyncio.get_running_loop()
    done = [loop.create_future() for _ in range(5)]

    def call(i: int) -> None:
        done[i].set_result(ask())

    async with pl_session() as session:
        loop.call_soon(call, 0)
        loop.call_later(0, call, 1)
        loop.call_soon_threadsafe(call, 2)
        future = loop.create_future()
        future.add_done_callback(lambda _: call(3))
        future.set_result(None)
        await asyncio.gather(*done[:4], MODEL.ainvoke("a"), asyncio.create_task(MODEL.ainvoke("b")))
        async with asyncio.TaskGroup() as group:
            group.create_task(MODEL.ainvoke("c"))
        await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(MODEL.ainvoke("d"), loop).result(10))
    assert len(session.requests) == 8
    with pl_session() as sync:
        await asyncio.to_thread(lambda: asyncio.run(MODEL.ainvoke("x")))
    assert len(sync.requests) == 1


async def test_workers_that_were_there_before() -> None:
    """A task made before the block, or fed through a queue, is its maker's: bind() the job [36]."""
    jobs: asyncio.Queue[Any] = asyncio.Queue()

    async def worker() -> None:
        while (job := await jobs.get()) is not None:
            await job()
            jobs.task_done()

    task = asyncio.create_task(worker())
    async with pl_session() as session:
        await jobs.put(lambda: MODEL.ainvoke("lost"))
        await jobs.join()
        assert session.requests == ()
        await jobs.put(session.bind(lambda: MODEL.ainvoke("bound")))
        await jobs.join()
    await jobs.put(None)
    await task
    assert len(session.requests) == 1


async def test_a_worker_may_have_a_session_of_its_own() -> None:
    """What a task or thread opens, and what fails in it, leaves the session around it as it is [36, 37]."""

    async def own() -> Session:
        with pl_session("own") as mine:
            await MODEL.ainvoke("x")
            if mine.scope.parent is None:
                raise AssertionError("not nested")
        raise KeyError("the worker's")

    async with pl_session() as session:
        with pytest.raises(KeyError):
            await asyncio.create_task(own())
        assert current_session() is session
        await MODEL.ainvoke("y")
    assert len(session.requests) == 2


def test_a_session_left_open_in_a_step() -> None:
    """LangChain runs steps in copies of the context: what is left open there does not leak out [42]."""

    def careless(x: Any) -> Any:
        pl_session("left open").__enter__()
        ask()
        return x

    async def acareless(x: Any) -> Any:
        return careless(x)

    with pl_session() as session:
        RunnableLambda(careless).invoke("x")
        assert current_session() is session
        asyncio.run(RunnableLambda(acareless).ainvoke("x"))
        assert current_session() is session
        ask()
    assert len(session.requests) == 3


# -- generators -------------------------------------------------------------------------------------------------


def steps() -> Iterator[Any]:
    with pl_session("generator") as session:
        ask("its own")
        yield session
        ask("its own")
        yield session


async def asteps() -> AsyncIterator[Any]:
    for each in steps():
        yield each


async def test_a_generator_that_holds_a_block() -> None:
    """Python shares its context with its reader: the reader's calls are charged to it; @tracked and bind() part them.

    [38] Nothing raises, and once it is exhausted nothing of it is current.
    """

    def read() -> None:
        seen = []
        for session in steps():
            seen.append(session)
            ask("the reader's")
        assert len(seen[0].requests) == 4
        assert current_session() is None
        for remedy in (tracked(steps), pl_session().bind(steps)):
            seen = []
            for session in remedy():
                seen.append(session)
                ask("the reader's")
                assert current_session() is None
            assert len(seen[0].requests) == 2

    contextvars.copy_context().run(read)
    held = []
    async for session in tracked(asteps)():
        held.append(session)
        await MODEL.ainvoke("the reader's")
        assert current_session() is None
    assert len(held[0].requests) == 2


def test_a_session_is_no_decorator() -> None:
    """A context manager as a decorator is over before an async or generator body runs: @tracked is the way [41]."""
    assert not callable(pl_session())

    @tracked
    async def answer() -> Any:
        seen.append(current_session())

    @tracked
    def generates() -> Iterator[Any]:
        seen.append(current_session())
        yield ask()

    seen: list[Any] = []
    asyncio.run(answer())
    assert list(generates()) == ["four"]
    assert None not in seen
    assert len(seen[1].requests) == 1


def test_contextmanagers_around_a_session() -> None:
    """A @contextmanager or an ExitStack may hold it, and may be left in another context without an error [40]."""
    from contextlib import ExitStack

    @contextmanager
    def around() -> Iterator[Session]:
        with pl_session() as session:
            yield session

    def body() -> None:
        with around() as session:
            ask()
        stack = ExitStack()
        other = stack.enter_context(around())
        contextvars.copy_context().run(stack.close)
        ask("nobody's")
        assert current_session() is None
        assert (len(session.requests), len(other.requests)) == (1, 0)

    contextvars.copy_context().run(body)


# -- processes --------------------------------------------------------------------------------------------------


def test_a_session_in_a_forked_child(tmp_path: Path) -> None:
    """The child is in the parent's session; both record their own calls under it, each once [43]."""
    program = """
        with pltrack.pl_session(id="both") as s:
            model.invoke("parent")
            pid = os.fork()
            if not pid:
                model.invoke("child")
                assert pltrack.current_session() is s
                pltrack.flush(10)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            print(len(s.requests))
    """
    with pltrack.testing.FakePromptLayer() as server:
        assert run(program, environment(tmp_path / "j.db", server)).strip() == "1"
        server.wait_for(lambda pl: len(pl.requests) == 2)
        assert {logged.metadata["session_id"] for logged in server.requests} == {"both"}


def test_a_program_that_is_terminated(tmp_path: Path) -> None:
    """SIGTERM skips every exit hook: what ended before is on disk, and `pltrack sync` delivers it [44]."""
    program = """
        with pltrack.pl_session() as s:
            model.invoke("x")
        pltrack.flush(5)
        model.invoke("unseen")
        import signal
        os.kill(os.getpid(), signal.SIGTERM)
    """
    env = environment(tmp_path / "j.db")
    run(program, env, code=-15)
    with pltrack.testing.FakePromptLayer() as server:
        env = environment(tmp_path / "j.db", server)
        subprocess.run([sys.executable, "-m", "pltrack", "sync", "--adopt"], env=env, check=True, capture_output=True)
        assert len(server.requests) == 1


def test_nest_asyncio(tmp_path: Path) -> None:
    """Where promptlayer's sync calls have patched asyncio, sessions of tasks that run loops inside do not mix [45]."""
    program = """
        import asyncio, nest_asyncio
        nest_asyncio.apply()
        async def one(name):
            async with pltrack.pl_session(name) as s:
                await model.ainvoke(name)
                asyncio.get_event_loop().run_until_complete(model.ainvoke(name))
                asyncio.run(model.ainvoke(name))
            return s
        async def main():
            found = await asyncio.gather(one("a"), one("b"))
            print([len(s.requests) for s in found], {r.status for s in found for r in s.requests})
            print(pltrack.current_session())
        asyncio.run(main())
    """
    assert run(program, environment(tmp_path / "j.db")).splitlines() == ["[3, 3] {'SUCCESS'}", "None"]


def test_pltrack_does_not_patch_asyncio(tmp_path: Path) -> None:
    """A session, a delivery and a prompt client leave asyncio.run what it was [45]."""
    program = """
        import asyncio
        before = asyncio.run, asyncio.Task
        with pltrack.pl_session() as s:
            model.invoke("x")
        pltrack.flush(1)
        pltrack.prompts
        print((asyncio.run, asyncio.Task) == before)
    """
    assert run(program, environment(tmp_path / "j.db")).strip() == "True"


# -- fixtures ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sync_fixture() -> Iterator[Session]:
    with pl_session("sync fixture") as session:
        yield session


@pytest_asyncio.fixture
async def async_fixture() -> AsyncIterator[Session]:
    async with pl_session("async fixture") as session:
        yield session


def test_a_fixture_that_holds_a_block(sync_fixture: Session) -> None:
    """The calls of the test are its session's [46]."""
    ask()
    assert (current_session(), len(sync_fixture.requests)) == (sync_fixture, 1)


async def test_async_tests_and_fixtures(sync_fixture: Session, async_fixture: Session) -> None:
    """The same for async tests, with sync and async fixtures [46]."""
    await MODEL.ainvoke("x")
    assert current_session() is async_fixture
    assert len(sync_fixture.requests) == len(async_fixture.requests) == 1


def test_anyios_fixtures(tmp_path: Path) -> None:
    """The same with anyio's plugin, in a pytest of its own [46]."""
    (tmp_path / "test_it.py").write_text("""
import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from pltrack import current_session, pl_session

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def held(anyio_backend):
    async with pl_session() as session:
        yield session

@pytest.mark.anyio
async def test_it(held):
    await FakeListChatModel(responses=["x"]).ainvoke("x")
    assert current_session() is held
    assert len(held.requests) == 1
""")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path / "j.db"), capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


# -- web apps ---------------------------------------------------------------------------------------------------


async def got(app: Any, path: str = "/") -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t") as client:
        return (await client.get(path)).text


held: list[Session] = []


def sync_dependency() -> Iterator[Session]:
    with pl_session() as session:
        held.append(session)
        yield session


@pytest.mark.parametrize("kind", ["async endpoint", "sync endpoint"])
async def test_a_sync_dependency_with_yield(kind: str) -> None:
    """FastAPI runs it in a thread: the endpoint is not in its session, and leaving it raises nothing [47, 40].

    attach() in the endpoint, an async dependency (`pltrack.asgi.session`) or the middleware are the remedies.
    """
    held.clear()
    app = FastAPI()

    async def answer(s: Annotated[Session, Depends(sync_dependency)]) -> str:
        await MODEL.ainvoke("lost")
        with s.attach():
            await MODEL.ainvoke("kept")
        return "fine"

    def sync_answer(s: Annotated[Session, Depends(sync_dependency)]) -> str:
        ask("lost")
        with s.attach():
            ask("kept")
        return "fine"

    app.get("/")(answer if kind == "async endpoint" else sync_answer)
    assert await got(app) == '"fine"'
    assert len(held[0].requests) == 1
    assert current_session() is None
    await MODEL.ainvoke("nobody's")
    assert len(held[0].requests) == 1


async def test_an_async_dependency_with_yield() -> None:
    """An async one holds for async and sync endpoints, streamed bodies and background tasks [47]."""
    held: list[Session] = []

    async def dependency() -> AsyncIterator[Session]:
        async with pl_session() as session:
            held.append(session)
            yield session

    async def streamed() -> AsyncIterator[str]:
        async for chunk in MODEL.astream("body"):
            yield str(chunk.content)

    app = FastAPI(dependencies=[Depends(dependency)])

    @app.get("/async")
    async def answer() -> str:
        return str((await MODEL.ainvoke("x")).content)

    @app.get("/sync")
    def sync_answer(tasks: BackgroundTasks) -> str:
        tasks.add_task(ask, "later")
        return ask()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(streamed())

    counts = []
    for path in ("/async", "/sync", "/stream"):
        assert "four" in await got(app, path)
        counts.append(len(held[-1].requests))
    assert counts == [1, 2, 1]


async def test_a_block_around_a_streaming_response() -> None:
    """It is over before the body is made: follow() the body, or hold the block inside its generator [48]."""
    sessions: dict[str, Session] = {}

    async def body() -> AsyncIterator[str]:
        async for chunk in MODEL.astream("x"):
            yield str(chunk.content)

    def sync_body() -> Iterator[str]:
        for chunk in MODEL.stream("x"):
            yield str(chunk.content)
        yield ask()

    async def holding() -> AsyncIterator[str]:
        with pl_session() as session:
            sessions["/holding"] = session
            async for text in body():
                yield text

    def sync_holding() -> Iterator[str]:
        with pl_session() as session:
            sessions["/sync-holding"] = session
            yield from sync_body()

    def respond(path: str) -> Any:
        async def endpoint() -> StreamingResponse:
            if "holding" in path:
                return StreamingResponse(holding() if path == "/holding" else sync_holding())
            with pl_session() as session:
                sessions[path] = session
                made = sync_body() if "sync" in path else body()
                return StreamingResponse(session.follow(made) if "followed" in path else made)

        return endpoint

    app = FastAPI()
    counts = {"/lost": 0, "/sync-lost": 0, "/followed": 1, "/sync-followed": 2, "/holding": 1, "/sync-holding": 1}
    for path, count in counts.items():
        app.get(path)(respond(path))
        assert "four" in await got(app, path)
        assert len(sessions[path].requests) == count, path
        assert current_session() is None


async def test_a_base_http_middleware() -> None:
    """A block in Starlette's BaseHTTPMiddleware has the calls of the endpoint, its body and background tasks [49]."""
    held: list[Session] = []

    async def around(request: Any, call_next: Any) -> Any:
        with pl_session() as session:
            held.append(session)
            return await call_next(request)

    async def body() -> AsyncIterator[str]:
        async for chunk in MODEL.astream("body"):
            yield str(chunk.content)

    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=around)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        await MODEL.ainvoke("x")
        tasks.add_task(ask, "later")
        return StreamingResponse(body(), background=tasks)

    assert "four" in await got(app)
    assert len(held[0].requests) == 3
    assert {each.status for each in held[0].requests} == {"SUCCESS"}


async def test_a_lifespan_is_not_the_requests() -> None:
    """A block held by an app's lifespan is not current in its requests: each has the middleware's own [50]."""
    from contextlib import asynccontextmanager

    seen: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        with pl_session("lifespan") as session:
            seen.append(session)
            await MODEL.ainvoke("warm up")
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(pltrack.asgi.SessionMiddleware)

    @app.get("/")
    async def endpoint() -> str:
        seen.append(current_session())
        return ask()

    started, stop = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with lifespan(app):
            started.set()
            await stop.wait()

    server = asyncio.create_task(live())
    await started.wait()
    await got(app)
    stop.set()
    await server
    assert seen[0] is not seen[1]
    assert (len(seen[0].requests), len(seen[1].requests)) == (1, 1)
