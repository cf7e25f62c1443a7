"""Real servers with real workers: each delivers its own, and a signal that ends them costs nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from programs import environment

from pltrack.testing import FakePromptLayer, Fault

WaitUntil = Callable[[Callable[[], object]], None]

APP = """
import os
import pltrack, pltrack.asgi, pltrack.wsgi
from langchain_core.language_models.fake_chat_models import FakeListChatModel

model = FakeListChatModel(responses=["four"])

def call(name):
    with pltrack.pl_session(name) as session:
        model.invoke(name)
    return session.ids[0]

AT_PRELOAD = call("preload") if os.environ.get("PRELOAD") else ""

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/preload":
        return [AT_PRELOAD.encode()]
    return [f"{os.getpid()} {call('worker')}".encode()]

wsgi = pltrack.wsgi.SessionMiddleware(wsgi)

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        call("at shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = call("request").encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

asgi = pltrack.asgi.SessionMiddleware(asgi)
"""

TASKS = """
import os
import celery
import pltrack
from langchain_core.language_models.fake_chat_models import FakeListChatModel

model = FakeListChatModel(responses=["four"])
place = os.environ["BROKER"]
app = celery.Celery("tasks", broker="filesystem://", backend="file://" + place + "/results")
app.conf.broker_transport_options = {
    "data_folder_in": place + "/queue", "data_folder_out": place + "/queue", "control_folder": place + "/control",
}

@app.task
def answer(question):
    with pltrack.pl_session("task") as session:
        model.invoke(question)
    return f"{os.getpid()} {session.ids[0]}"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the programs, where the servers run."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "tasks.py").write_text(TASKS)
    for folder in ("queue", "control", "results"):
        (tmp_path / folder).mkdir()
    return tmp_path


@contextmanager
def running(place: Path, env: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as a process; what it says is in `server.log`."""
    with (place / "server.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=place, env=env, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(15)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def ended(process: subprocess.Popen[bytes], sig: int = signal.SIGTERM) -> int:
    """End a server with a signal; return its exit code."""
    process.send_signal(sig)
    return process.wait(30)


def sync(env: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "pltrack", "sync", "--timeout", "40"], env=env, check=True, timeout=60)


def arrived(promptlayer: FakePromptLayer) -> list[str]:
    return sorted(logged.metadata["pltrack_id"] for logged in promptlayer.requests)


def gunicorn(port: int, workers: int) -> list[str]:
    return f"gunicorn app:wsgi --preload --workers {workers} --bind 127.0.0.1:{port} --no-control-socket".split()


def ask(port: int, times: int, workers: int = 1) -> list[str]:
    """Ask, four at once, this often and until each worker has answered; return the ids of their calls."""
    found: list[list[str]] = []
    deadline = time.monotonic() + 60
    with ThreadPoolExecutor(4) as pool, httpx.Client(timeout=30) as client:
        while len(found) < times or len({pid for pid, _ in found}) < workers:
            assert time.monotonic() < deadline, "a worker does not answer"
            found += pool.map(lambda _: client.get(f"http://127.0.0.1:{port}/").text.split(), range(times))
    return [own_id for _, own_id in found]


@pytest.mark.parametrize(("workers", "calls"), [(2, 12), pytest.param(4, 400, marks=pytest.mark.slow)])
def test_gunicorn_with_preload(
    promptlayer: FakePromptLayer, place: Path, wait_until: WaitUntil, workers: int, calls: int
) -> None:
    """Calls of the master before the fork and of all workers are delivered while the server runs, each once."""
    port, env = free_port(), environment(place / "journal.db", promptlayer, PRELOAD="1")
    with running(place, env, *gunicorn(port, workers)) as server:
        wait_until(lambda: answers(port))
        ids = ask(port, calls, workers)
        ids.append(httpx.get(f"http://127.0.0.1:{port}/preload").text)
        wait_until(lambda: len(promptlayer.requests) >= len(ids))
        assert ended(server) == 0
    assert arrived(promptlayer) == sorted(ids)


@pytest.mark.parametrize(("workers", "calls"), [(2, 12), pytest.param(4, 100, marks=pytest.mark.slow)])
def test_gunicorn_ended_while_nothing_can_be_delivered(
    promptlayer: FakePromptLayer, place: Path, wait_until: WaitUntil, workers: int, calls: int
) -> None:
    """SIGTERM ends all workers in time; what they had recorded is on disk, and `pltrack sync` delivers it, once."""
    promptlayer.fail(Fault(status=503))
    port = free_port()
    env = environment(place / "journal.db", promptlayer, PRELOAD="1", PLTRACK_EXIT_TIMEOUT="0.5")
    with running(place, env, *gunicorn(port, workers)) as server:
        wait_until(lambda: answers(port))
        ids = ask(port, calls, workers)
        ids.append(httpx.get(f"http://127.0.0.1:{port}/preload").text)
        assert ended(server) == 0
    assert not promptlayer.requests
    promptlayer.heal()
    sync(env)
    assert arrived(promptlayer) == sorted(ids)


@pytest.mark.parametrize("sig", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_uvicorn_ended_by_a_signal(
    promptlayer: FakePromptLayer, place: Path, wait_until: WaitUntil, sig: signal.Signals
) -> None:
    """uvicorn dies of the signal and runs no exit handlers: the middleware delivers when the lifespan ends."""
    port, env = free_port(), environment(place / "journal.db", promptlayer, PLTRACK_LINGER="20")
    with running(place, env, "uvicorn", "app:asgi", "--port", str(port)) as server:
        wait_until(lambda: answers(port))
        own_id = httpx.get(f"http://127.0.0.1:{port}/").text
        ended(server, sig)
    assert own_id in arrived(promptlayer)
    assert len(promptlayer.requests) == 2


def test_uvicorn_ended_while_nothing_can_be_delivered(
    promptlayer: FakePromptLayer, place: Path, wait_until: WaitUntil
) -> None:
    """With PromptLayer away the end of the server is held up for `exit_timeout` only, and nothing is lost."""
    promptlayer.fail(Fault(status=503))
    port, env = free_port(), environment(place / "journal.db", promptlayer, PLTRACK_EXIT_TIMEOUT="0.5")
    with running(place, env, "uvicorn", "app:asgi", "--port", str(port)) as server:
        wait_until(lambda: answers(port))
        own_id = httpx.get(f"http://127.0.0.1:{port}/").text
        server.send_signal(signal.SIGTERM)
        assert server.wait(0.5 + 2.5) == -signal.SIGTERM
    promptlayer.heal()
    sync(env)
    assert len(promptlayer.requests) == 2
    assert own_id in arrived(promptlayer)


ASK_TASKS = """
import os, sys
import pltrack
from tasks import answer
results = [answer.delay(str(i)) for i in range(int(sys.argv[1]))]
found = [each.get(timeout=40, interval=0.02).split() for each in results]
for number, (_, own_id) in enumerate(found):
    pltrack.request(own_id).score(number)
print(*(own_id for _, own_id in found), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("away", [False, True], ids=["delivered", "away"])
def test_a_celery_worker(promptlayer: FakePromptLayer, place: Path, away: bool) -> None:
    """Tasks return ids, their caller scores by them; each record and score is there once, SIGTERM or not."""
    if away:
        promptlayer.fail(Fault(status=503))
    env = environment(place / "journal.db", promptlayer, BROKER=str(place), PLTRACK_EXIT_TIMEOUT="1")
    with running(place, env, "celery", "-A", "tasks", "worker", "--pool=prefork", "-c", "2") as worker:
        done = subprocess.run(
            [sys.executable, "-c", ASK_TASKS, "20"], cwd=place, env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert ended(worker) == 0
    promptlayer.heal()
    sync(env)
    ids = done.stdout.split()
    assert len(set(ids)) == 20
    assert arrived(promptlayer) == sorted(ids)
    assert [promptlayer.by_pltrack_id(each).scores["default"] for each in ids] == list(range(20))
