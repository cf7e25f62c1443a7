"""Processes of pools: multiprocessing ends its children with os._exit, and still nothing they recorded is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from journals import opened
from programs import environment

from pltrack.testing import FakePromptLayer, Fault

METHODS = ["fork", *(pytest.param(each, marks=pytest.mark.slow) for each in ("forkserver", "spawn"))]

# Methods other than fork import the program again, so it has to be a file.
POOLS = """
import concurrent.futures, multiprocessing, os, sys, time
import pltrack
from langchain_core.language_models.fake_chat_models import FakeListChatModel

model = FakeListChatModel(responses=["four"])

def call(_=None):
    with pltrack.pl_session("call") as session:
        model.invoke("hi")
    os.write(1, (session.ids[0] + "\\n").encode())
    return session.ids[0]

@pltrack.tracked
def answer(question):
    found = model.invoke(question).content
    os.write(1, (pltrack.current_session().ids[-1] + "\\n").encode())
    return found

def late():
    multiprocessing.util.Finalize(None, call, exitpriority=-2_000)
    call()

def failing():
    call()
    raise SystemExit(3)

if __name__ == "__main__":
    start = multiprocessing.get_context(sys.argv[1])
    call()

    def children(work, count, code=0):
        processes = [start.Process(target=work) for _ in range(count)]
        for each in processes: each.start()
        for each in processes: each.join()
        assert [each.exitcode for each in processes] == [code] * count

"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def run(journal: Path, env: dict[str, str], method: str, code: str) -> list[str]:
    """Run the program in a file of its own; return the ids that its processes printed."""
    program = journal.with_name("pools.py")
    program.write_text(POOLS + "".join(f"    {line}\n" for line in code.splitlines()))
    done = subprocess.run(
        [sys.executable, program, method], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


WORK = {
    "processes that end at once": ("children(call, 3)", 4),
    "a process that ends with a code": ("children(failing, 1, code=3)", 2),
    "a call in a finalizer after ours": ("children(late, 1)", 3),
    "an executor with tracked functions": (
        "with concurrent.futures.ProcessPoolExecutor(2, mp_context=start) as pool:\n"
        "    assert list(pool.map(answer, 'abcdef')) == ['four'] * 6",
        7,
    ),
    "a pool that is closed": (
        "pool = start.Pool(2)\npool.map(call, range(6), chunksize=1)\npool.close(); pool.join()",
        7,
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("work", WORK)
def test_children_deliver_their_own(promptlayer: FakePromptLayer, journal: Path, method: str, work: str) -> None:
    """Each record of the parent and of its children is there when the parent has ended, once."""
    code, count = WORK[work]
    env = environment(journal, promptlayer, PLTRACK_EXIT_TIMEOUT="20")
    said = run(journal, env, method, code)
    assert len(set(said)) == count
    if "after ours" in work:  # it is on disk; the parent, which ends later, may or may not have seen it
        sync(env)
    assert sorted(logged.metadata["pltrack_id"] for logged in promptlayer.requests) == sorted(said)


def sync(env: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "pltrack", "sync", "--timeout", "40"], env=env, check=True, timeout=60)


def test_children_that_a_pool_kills(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A `with Pool()` ends its processes with SIGTERM: what they said 50 ms before is delivered by somebody, once."""
    code = (
        "pltrack.flush(20)\n"  # a first write has to import what it needs, which takes longer
        "with start.Pool(2) as pool:\n"
        "    pool.map(call, range(6), chunksize=1)\n"
        "    time.sleep(0.05)"
    )
    env = environment(journal, promptlayer, PLTRACK_DELIVERY="external")  # test_kills.py kills while something is sent
    said = run(journal, env, "fork", code)
    sync(env)
    assert len(set(said)) == 7
    assert sorted(logged.metadata["pltrack_id"] for logged in promptlayer.requests) == sorted(said)


def test_a_silent_server_costs_children_the_exit_timeout_only(promptlayer: FakePromptLayer, journal: Path) -> None:
    """Children that cannot deliver end in time, and what they said waits on disk."""
    promptlayer.fail(Fault.silent(path="/"))
    code = "pltrack.flush(0.1); began = time.time(); children(call, 3); print(time.time() - began)"
    *said, took = run(journal, environment(journal, promptlayer, PLTRACK_EXIT_TIMEOUT="0.5"), "fork", code)
    assert float(took) < 0.5 + 1.5
    with opened(journal) as db:
        assert {row[0] for row in db.execute("select id from requests")} == set(said)


def test_multiprocessing_is_not_imported_by_us(journal: Path) -> None:
    """A program that makes no processes does not pay for them."""
    code = "import sys, pltrack._runtime; pltrack._runtime.get(); print('multiprocessing.util' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(journal), capture_output=True, text=True)
    assert done.stdout == "False\n"
