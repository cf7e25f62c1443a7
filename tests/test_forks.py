"""Fork at any moment: each process delivers its own records, none twice, none is lost, none hangs."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import environment, run

from pltrack.testing import FakePromptLayer

# `child` runs a function in a forked process and returns its pid; `gather` waits, with a limit, for all of them.
FORKS = """
import ctypes, signal, traceback
children = []

def say(session):
    for own_id in session.ids:
        os.write(1, (own_id + "\\n").encode())

def call(name="call"):
    with pltrack.pl_session(name) as session:
        model.invoke("hi")
    say(session)

def child(work, fork=os.fork):
    pid = fork()
    if pid:
        children.append(pid)
        return pid
    signal.alarm(LIMIT)
    code = 1
    try:
        work()
        pltrack.shutdown(10)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

def gather():
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * len(children)
"""


def program(code: str, limit: int = 30) -> str:
    return FORKS.replace("LIMIT", str(limit)) + code


def assert_each_once(out: str, promptlayer: FakePromptLayer, count: int) -> None:
    """Hold that the ids that the processes printed are those that arrived, each once."""
    said = sorted(out.split())
    assert len(said) == len(set(said)) == count
    assert sorted(logged.metadata["pltrack_id"] for logged in promptlayer.requests) == said


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


MOMENTS = {
    "before first use": ("child(call); call(); gather()", 2),
    "while our threads import": ("call(); child(call); gather()", 2),
    "with a long queue": (
        """
for _ in range(200): call()
child(call); child(call); gather()
""",
        202,
    ),
    "from a thread": (
        """
call()
thread = threading.Thread(target=child, args=(call,))
thread.start(); thread.join(); gather()
""",
        2,
    ),
    "in a session": (
        """
with pltrack.pl_session("around") as outer:
    call("before")
    child(lambda: (call("in the child"), outer.score(7)))
    call("after")
gather()
""",
        3,
    ),
    "a child of a child": ("call(); child(lambda: (call(), child(call), call(), os.waitpid(-1, 0))); gather()", 4),
    "during a flush": (
        """
for _ in range(50): call()
thread = threading.Thread(target=pltrack.flush, args=(20,))
thread.start()
child(call); thread.join(); gather()
""",
        51,
    ),
}


QUICK = ("in a session", "while our threads import")


@pytest.mark.parametrize("moment", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS])
def test_a_fork_at_any_moment(promptlayer: FakePromptLayer, journal: Path, moment: str) -> None:
    """Parent and children each deliver their own calls, once, whenever the fork happens."""
    code, count = MOMENTS[moment]
    out = run(program(code), environment(journal, promptlayer, PLTRACK_EXIT_TIMEOUT="20"))
    assert_each_once(out, promptlayer, count)


STORM = """
call(); pltrack.flush(20)
stop = threading.Event()
def busy():
    while not stop.wait(0.003):
        call()
threads = [threading.Thread(target=busy, daemon=True) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(FORKS):
    pid = child(call)
    assert os.waitpid(pid, 0)[1] == 0, "a child hung or failed"
    children.remove(pid)
stop.set()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("forks", [15, pytest.param(150, marks=pytest.mark.slow)])
def test_forks_while_our_threads_are_busy(promptlayer: FakePromptLayer, journal: Path, forks: int) -> None:
    """No child inherits a lock that nobody will ever release: neither ours nor one inside SQLite."""
    code = program(STORM.replace("FORKS", str(forks)), limit=20)
    out = run(code, environment(journal, promptlayer, PLTRACK_EXIT_TIMEOUT="30"), timeout=110)
    assert_each_once(out, promptlayer, len(out.split()))


SLOW_DISK = """
import importlib.util

class Disk:  # busy with other things: one module comes late
    found, there = threading.Event(), threading.Event()
    def find_spec(self, name, path=None, target=None):
        if name == "MODULE":
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            read = spec.loader.exec_module
            def late(module):
                self.found.set()
                threading.Timer(SECONDS, self.there.set).start()
                self.there.wait()
                read(module)
            spec.loader.exec_module = late
            return spec

sys.modules.pop("MODULE", None)  # though LangChain may have needed it before us
disk = Disk()
sys.meta_path.insert(0, disk)
call()
assert disk.found.wait(20)
def work():
    call()
    assert pltrack.flush(15).pending == 0
child(work)
gather()
"""


def slow(module: str) -> str:
    return program(SLOW_DISK.replace("MODULE", module).replace("SECONDS", "4"))


@pytest.mark.parametrize(
    "module", ["sqlalchemy.dialects.sqlite", "pltrack._journal.rows", "httptools", "encodings.idna"]
)
def test_a_fork_while_a_slow_disk_gives_us_our_modules(
    promptlayer: FakePromptLayer, journal: Path, module: str
) -> None:
    """A fork waits for what our threads load, however long: a child could never load what is half loaded in it."""
    out = run(slow(module), environment(journal, promptlayer, PLTRACK_EXIT_TIMEOUT="20"))
    assert_each_once(out, promptlayer, 2)


@pytest.mark.parametrize("module", ["psycopg", "psycopg.types.range"])
def test_a_fork_while_a_slow_disk_gives_us_those_of_the_hub(
    promptlayer: FakePromptLayer, journal: Path, hub_url: str, module: str
) -> None:
    """The same for what only a hub needs."""
    out = run(slow(module), environment(journal, promptlayer, PLTRACK_HUB=hub_url))
    assert len(out.split()) == 2


def test_a_fork_while_the_first_session_loads_its_modules(promptlayer: FakePromptLayer, journal: Path) -> None:
    """The same for what the program's own threads load on our account."""
    code = slow("pltrack._handler").replace(
        "call()\nassert disk", "model.invoke('hi')\nthreading.Thread(target=call).start()\nassert disk", 1
    )
    assert "Thread(target=call)" in code
    assert_each_once(run(code, environment(journal, promptlayer)), promptlayer, 2)


def test_the_first_session_does_not_wait_for_what_our_threads_load(promptlayer: FakePromptLayer, journal: Path) -> None:
    """What they load after a first word about an old request is no matter of the program's own threads."""
    code = slow("pltrack._journal.rows").partition("call()\nassert disk")[0]
    assert "Disk" in code
    out = run(
        code
        + """
pltrack.request("f" * 32).score(5)
assert disk.found.wait(20)
before = time.monotonic()
with pltrack.pl_session():
    model.invoke("hi")
print(time.monotonic() - before)
""",
        environment(journal, promptlayer),
    )
    assert float(out) < 2


def test_a_fork_that_python_does_not_know_of(promptlayer: FakePromptLayer, journal: Path) -> None:
    """Where Python's fork hooks do not run, the process id tells, though a lock of ours was held meanwhile."""
    out = run(
        program("""
from pltrack import _runtime
for _ in range(20): call()
assert pltrack.flush(20).pending == 0  # without the hooks a module half loaded stays so: our threads are at rest
held, go = threading.Event(), threading.Event()
def hold():
    with _runtime._lock:
        held.set(); go.wait()
threading.Thread(target=hold, daemon=True).start(); held.wait()
child(call, ctypes.PyDLL(None).fork)
go.set(); call(); gather()
"""),
        environment(journal, promptlayer, PLTRACK_EXIT_TIMEOUT="20"),
    )
    # Without the hooks LangChain may give parent and child the same run id: then one record gets another id of ours.
    arrived = [logged.metadata["pltrack_id"] for logged in promptlayer.requests]
    assert len(arrived) == len(set(arrived)) == 22
    assert set(out.split()) <= set(arrived)


def test_a_child_that_ends_at_once_leaves_its_call_on_disk(promptlayer: FakePromptLayer, journal: Path) -> None:
    """os._exit 50 ms after a call in a forked child: somebody else delivers what it wrote, once."""
    out = run(
        program("""
call(); pltrack.flush(20)
def short():
    call()
    threading.Event().wait(0.05)
    os._exit(0)
child(short); gather()
"""),
        environment(journal, promptlayer),
    )
    run("from pltrack.cli import main; sys.argv = ['pltrack', 'sync', '--timeout', '40']; main()",
        environment(journal, promptlayer))  # fmt: skip
    assert_each_once(out, promptlayer, 2)
