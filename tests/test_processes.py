"""What survives the end of a process, and what several processes do with one journal."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from programs import environment, run, start

from pltrack.testing import FakePromptLayer, Fault

SYNC = "from pltrack.cli import main; sys.argv = ['pltrack', 'sync', '--timeout', '40']; main()"
CALL = """
with pltrack.pl_session("program") as s:
    model.invoke("What comes after 1,2,3?")
print(s.ids[0], flush=True)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.mark.parametrize(
    "ending",
    ["", "sys.exit(3)", "raise RuntimeError('boom')"],
)
def test_a_program_that_ends_delivers_first(promptlayer: FakePromptLayer, journal: Path, ending: str) -> None:
    """At a normal exit, sys.exit or an unhandled error what was recorded is delivered within exit_timeout [44]."""
    code = {"sys.exit(3)": 3, "raise RuntimeError('boom')": 1}.get(ending, 0)
    own_id = run(CALL + ending, environment(journal, promptlayer), code).strip()
    assert promptlayer.by_pltrack_id(own_id)


def test_exit_is_quick_against_a_silent_server_and_loses_nothing(promptlayer: FakePromptLayer, journal: Path) -> None:
    """50 undelivered calls and a silent server: the program ends in time, the next one delivers all of them."""
    promptlayer.fail(Fault.silent(path="/"))
    out = run(
        """
        for _ in range(50):
            with pltrack.pl_session() as s:
                model.invoke("hi")
        print(time.time(), flush=True)
        """,
        environment(journal, promptlayer),
    )
    assert time.time() - float(out) < 6
    promptlayer.heal()
    run(SYNC, environment(journal, promptlayer))
    ours = [logged.metadata["pltrack_id"] for logged in promptlayer.requests]
    assert len(ours) == len(set(ours)) == 50


def test_a_kill_loses_nothing_that_ended_50_ms_before(promptlayer: FakePromptLayer, journal: Path) -> None:
    """kill -9 after a call: the record is on disk, and the next process delivers it once."""
    process = start(
        CALL.replace("print(s.ids[0], flush=True)", "pltrack.flush(20)  # the libraries are loaded now")
        + """
with pltrack.pl_session() as s:
    model.invoke("hi")
threading.Event().wait(0.05)
print(s.ids[0], flush=True)
sys.stdin.readline()
""",
        environment(journal, PLTRACK_DELIVERY="external"),
    )
    assert process.stdout is not None
    own_id = process.stdout.readline().strip()
    process.kill()
    process.communicate()
    env = environment(journal, promptlayer)
    run(SYNC.replace("'sync'", "'sync', '--adopt'"), env)
    assert promptlayer.by_pltrack_id(own_id)


def test_scoring_by_our_id_from_another_process(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A score given in another process arrives, whether the request had been delivered before or not."""
    env = environment(journal, promptlayer)
    first = run(CALL, env).strip()
    waiting = run(CALL, environment(journal, promptlayer, PLTRACK_DELIVERY="external")).strip()
    assert len(promptlayer.requests) == 1
    run(f"pltrack.request('{first}').score(91); pltrack.request('{waiting}').score(92)", env)
    run(SYNC, env)
    assert promptlayer.by_pltrack_id(first).scores == {"default": 91}
    assert promptlayer.by_pltrack_id(waiting).scores == {"default": 92}


def test_a_run_id_that_another_process_gave_too(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A program that gives its runs fixed ids and is run twice leaves two records, and each score finds its own."""
    program = """
        import uuid
        with pltrack.pl_session() as session:
            model.invoke("hi", config={"run_id": uuid.UUID(int=7)})
        assert pltrack.flush(10).pending == 0
        session.score(int(os.environ["SCORE"]))
        assert pltrack.flush(10).pending == 0
        print(session.ids[0])
    """
    ids = {run(program, environment(journal, promptlayer, SCORE=score)).strip() for score in ("10", "20")}
    assert len(ids) == 2
    assert sorted(logged.scores["default"] for logged in promptlayer.requests) == [10, 20]
    assert {logged.metadata["pltrack_id"] for logged in promptlayer.requests} == ids


def test_a_forked_child_delivers_its_own(promptlayer: FakePromptLayer, journal: Path) -> None:
    """After a fork parent and child each deliver their own calls, none twice [43]."""
    out = run(
        CALL
        + """
with pltrack.pl_session("around") as outer:
    pid = os.fork()
    with pltrack.pl_session("child" if pid == 0 else "parent") as s:
        model.invoke("hi")
os.write(1, (s.ids[0] + "\\n").encode())
pltrack.flush(10)
if pid == 0:
    pltrack.shutdown(5)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
""",
        environment(journal, promptlayer),
    )
    assert sorted(out.split()) == sorted(logged.metadata["pltrack_id"] for logged in promptlayer.requests)
    assert len(promptlayer.requests) == 3


def test_pending_calls_in_flight_at_exit_are_recorded(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A call that still runs in a daemon thread when the program ends is recorded as a warning [44]."""
    run(
        """
        started = threading.Event()
        class Slow(FakeListChatModel):
            def _call(self, *args, **kwargs):
                started.set()
                threading.Event().wait()
        def work():
            with pltrack.pl_session():
                Slow(responses=["never"]).invoke("hi")
        threading.Thread(target=work, daemon=True).start()
        started.wait(20)
        """,
        environment(journal, promptlayer),
    )
    (logged,) = promptlayer.requests
    assert logged.body["status"] == "WARNING"


def test_no_key_is_ever_in_the_journal(promptlayer: FakePromptLayer, journal: Path) -> None:
    """The journal's files hold the fingerprint of a destination, never its key."""
    promptlayer.accept("pl_very_secret_key_4711")
    env = environment(journal, promptlayer) | {"PROMPTLAYER_API_KEY": "pl_very_secret_key_4711"}
    run(CALL, env)
    assert len(promptlayer.requests) == 1
    for file in journal.parent.glob("journal.db*"):
        assert b"very_secret" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0


def test_disabled_by_the_environment(promptlayer: FakePromptLayer, journal: Path) -> None:
    """PLTRACK_DISABLED=1 makes all of it a no-op with the same faces, and no journal is made."""
    out = run(
        """
        with pltrack.pl_session(tags=["x"]) as s:
            model.invoke("hi")
        @pltrack.tracked
        def answer(): return model.invoke("hi").content
        print(answer(), s.ids, s.request_ids, s.score(5), s.last.score(5), s.usage.calls, pltrack.flush(1).pending)
        """,
        environment(journal, promptlayer, PLTRACK_DISABLED="1"),
    )
    assert out.strip() == "four () () 0 0 0 0"
    assert not promptlayer.requests
    assert not journal.exists()
