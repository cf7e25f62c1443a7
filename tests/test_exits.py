"""However a program ends: what ended 50 ms before is on disk, and somebody delivers it, once."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from journals import opened
from programs import environment, run, start

from pltrack.testing import FakePromptLayer, Fault

SYNC = "from pltrack.cli import main; sys.argv = ['pltrack', 'sync', '--timeout', '40']; main()"
CALL = """
def call():
    with pltrack.pl_session("program") as session:
        model.invoke("hi")
    os.write(1, (session.ids[0] + "\\n").encode())
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def on_disk(journal: Path) -> list[str]:
    """Return the ids of the requests in the journal."""
    with opened(journal) as db:
        return sorted(row[0] for row in db.execute("select id from requests"))


def arrived(promptlayer: FakePromptLayer) -> list[str]:
    return sorted(logged.metadata["pltrack_id"] for logged in promptlayer.requests)


@pytest.mark.parametrize(
    "before",
    [
        "",
        *(pytest.param(code, marks=pytest.mark.slow) for code in ("call(); pltrack.flush(20)", "pltrack.shutdown(5)")),
    ],
)
def test_a_call_in_an_exit_handler_that_runs_after_ours(
    promptlayer: FakePromptLayer, journal: Path, before: str
) -> None:
    """What a late exit handler records is on disk when the program has ended, and the next process delivers it."""
    # pltrack loads lazily: `_runtime`, imported after the handler was registered, ends before it runs.
    code = "import atexit\n" + CALL + "def late(): call(); call()\natexit.register(late)\nimport pltrack._runtime\n"
    env = environment(journal, promptlayer)
    out = run(code + before, env)
    assert on_disk(journal) == sorted(out.split())
    run(SYNC, env)
    assert arrived(promptlayer) == sorted(out.split())


@pytest.mark.parametrize(
    "sig", [signal.SIGTERM, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGKILL))]
)
def test_a_signal(promptlayer: FakePromptLayer, journal: Path, sig: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and kill -9 inside a session: what ended 50 ms before is delivered, once."""
    process = start(
        CALL
        + """
call(); pltrack.flush(20)
with pltrack.pl_session("around"):
    call()
    threading.Event().wait(0.05)
    print("now", flush=True)
    threading.Event().wait(60)
""",
        environment(journal, promptlayer, PLTRACK_LINGER="20"),
    )
    assert process.stdout is not None
    ids = sorted(process.stdout.readline().strip() for _ in range(2))
    assert process.stdout.readline() == "now\n"
    process.send_signal(sig)
    process.communicate(timeout=30)
    assert process.returncode == -sig
    assert on_disk(journal) == ids
    run(SYNC, environment(journal, promptlayer))
    assert arrived(promptlayer) == ids


def test_sigterm_with_a_handler(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A SIGTERM handler that calls sys.exit: delivered before the end."""
    out = run(
        CALL
        + """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
call()
os.kill(os.getpid(), signal.SIGTERM)
""",
        environment(journal, promptlayer),
    )
    assert arrived(promptlayer) == out.split()


@pytest.mark.slow
def test_daemon_threads_that_call_until_the_end(promptlayer: FakePromptLayer, journal: Path) -> None:
    """Threads that still make calls while the interpreter ends neither hang nor break it; what they say is there."""
    out = run(
        CALL
        + """
begun = threading.Event()
def work():
    while True:
        call(); begun.set(); threading.Event().wait(0.005)
for _ in range(3): threading.Thread(target=work, daemon=True).start()
begun.wait(20)
""",
        environment(journal, promptlayer),
    )
    whole = [line for line in out.split("\n") if len(line) == 36]
    assert set(whole) <= set(on_disk(journal))
    run(SYNC, environment(journal, promptlayer))
    assert len(arrived(promptlayer)) == len(set(arrived(promptlayer)))
    assert set(whole) <= set(arrived(promptlayer))


def test_a_loop_that_ends_with_calls_in_flight(promptlayer: FakePromptLayer, journal: Path) -> None:
    """asyncio.run that leaves tasks behind: their calls are recorded as warnings, nothing is said on stderr."""
    process = start(
        """
import asyncio
class Slow(FakeListChatModel):
    async def _acall(self, *args, **kwargs): await asyncio.Event().wait()
    async def _agenerate(self, *args, **kwargs): await asyncio.Event().wait()
async def main():
    async with pltrack.pl_session():
        task = asyncio.create_task(Slow(responses=["never"]).ainvoke("hi"))
        for _ in range(50): await asyncio.sleep(0.001)
asyncio.run(main())
""",
        environment(journal, promptlayer),
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == ""
    (logged,) = promptlayer.requests
    assert logged.body["status"] == "WARNING"


@pytest.mark.slow  # test_processes has a form of it in the normal run
def test_a_silent_server_costs_the_exit_timeout_only(promptlayer: FakePromptLayer, journal: Path) -> None:
    """From the last line of the program to its end: exit_timeout and a little, and everything is on disk."""
    promptlayer.fail(Fault.silent(path="/"))
    out = run(
        CALL + "call(); pltrack.flush(0.5)\nfor _ in range(49): call()\nprint(time.time(), flush=True)",
        environment(journal, promptlayer, PLTRACK_EXIT_TIMEOUT="1"),
    )
    *ids, ended = out.split()
    assert time.time() - float(ended) < 2.5
    assert on_disk(journal) == sorted(ids)
