"""The `pltrack` command as people and scripts meet it: real processes, a real journal, a piped terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import environment, run

from pltrack.testing import FakePromptLayer, Fault

PROGRAM = """
with pltrack.pl_session("checkout", tags=["prod"], metadata={"release": "42"}, user="u-7") as s:
    model.invoke("What comes after 1,2,3?")
    s.score(90)
    s.score(80, name="tone")
print(s.ids[0])
pltrack.shutdown(0)
"""
# Colours, a new window title, a cleared screen, text that runs backwards, rich's markup, and a C1 sequence.
HOSTILE = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J \u202egnp.exe\u202c [bold]not bold[/bold] [/] \x9b5m \x07 end"
COMMAND = [sys.executable, "-c", "from pltrack.cli import main; main()"]


def start(*arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start the command with its output piped."""
    return subprocess.Popen(
        [*COMMAND, *arguments], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def cli(*arguments: str, env: dict[str, str], code: int = 0) -> str:
    """Run the command to its end; return what it printed."""
    process = start(*arguments, env=env)
    out, err = process.communicate(timeout=90)
    assert process.returncode == code, f"{process.returncode}: {out}\n{err}"
    return out


def failure(*arguments: str, env: dict[str, str], code: int = 1) -> str:
    """Run the command, which fails; return what it said on stderr."""
    process = start(*arguments, env=env)
    _, err = process.communicate(timeout=90)
    assert process.returncode == code, err
    return err


def entries(env: dict[str, str]) -> list[dict[str, Any]]:
    return json.loads(cli("ls", "--json", env=env))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def env(journal: Path) -> dict[str, str]:
    """An environment without a key."""
    found = environment(journal, PYTHONIOENCODING="utf-8", PYTHONUTF8="1")
    return {key: value for key, value in found.items() if key not in {"FORCE_COLOR", "COLUMNS"}}


@pytest.fixture
def recorded(env: dict[str, str]) -> str:
    """One request in the journal, recorded without a key by a program that has ended; its id."""
    return run(PROGRAM, env).strip()


def keyed(env: dict[str, str], server: FakePromptLayer, **more: str) -> dict[str, str]:
    return env | {"PROMPTLAYER_API_KEY": server.api_key, "PROMPTLAYER_BASE_URL": server.url} | more


def test_ls_tells_what_was_recorded(env: dict[str, str], recorded: str) -> None:
    """`ls` has time, model, scores, delivery and session of the newest requests, also as JSON."""
    (entry,) = entries(env)
    assert entry["id"] == recorded
    assert entry["scores"] == {"": 90, "tone": 80}
    assert entry["delivery"]["state"] == "pending"
    assert entry["session"]["name"] == "checkout"
    assert entry["status"] == "SUCCESS"
    table = cli("ls", env=env)
    for shown in (recorded[-8:], "FakeListChatModel", "SUCCESS", "90, tone=80", "no key", "checkout"):
        assert shown in table


def test_ls_limit(env: dict[str, str]) -> None:
    """`--limit` keeps the newest."""
    run("with pltrack.pl_session():\n    [model.invoke(str(n)) for n in range(3)]\npltrack.shutdown(0)", env)
    every = entries(env)
    assert len(every) == 3
    assert json.loads(cli("ls", "--limit", "2", "--json", env=env)) == every[:2]


def test_looking_leaves_no_trace(env: dict[str, str], journal: Path) -> None:
    """Without a journal, `ls` says that there is nothing and makes none."""
    assert "Nothing was recorded yet" in cli("ls", env=env)
    assert json.loads(cli("ls", "--json", env=env)) == []
    assert str(journal) in failure("show", "last", env=env)
    assert not journal.exists()


def test_looking_delivers_nothing(env: dict[str, str], recorded: str) -> None:
    """With a key and something to deliver, the reading commands do not call PromptLayer."""
    with FakePromptLayer() as server:
        there = keyed(env, server)
        run(PROGRAM, keyed(env, server, PLTRACK_DELIVERY="external"))
        for command in (["status"], ["ls"], ["show", "last"], ["ls", "--json"]):
            cli(*command, env=there)
        assert server.calls == ()


def test_show_has_the_conversation(env: dict[str, str], recorded: str) -> None:
    """`show` takes our id, its end or `last`, and tells what was asked, answered and said."""
    for wanted in (recorded, recorded[-8:], "last"):
        page = cli("show", wanted, env=env)
        for shown in (recorded, "What comes after 1,2,3?", "four", "prod", "release = 42", "u-7", "score 80 tone"):
            assert shown in page
    full = json.loads(cli("show", recorded, "--json", env=env))
    assert full["tags"] == ["prod"]
    assert full["metadata"]["release"] == "42"
    assert full["output"]["messages"][0]["content"][0]["text"] == "four"
    assert [note["said"]["score"] for note in full["notes"]] == [90, 80]


def test_recorded_text_is_hostile(env: dict[str, str]) -> None:
    """Escape sequences, direction overrides and markup in what was recorded do not reach the terminal."""
    program = f"""
evil = {HOSTILE!r}
with pltrack.pl_session(evil, tags=[evil], metadata={{"k": evil}}, user=evil) as s:
    model.invoke(evil)
    s.score(1, name=evil)
pltrack.shutdown(0)
"""
    run(program, env)
    for command in (["ls"], ["show", "last"], ["ls", "--json"], ["show", "last", "--json"]):
        out = cli(*command, env=env | {"COLUMNS": "400"})
        assert not [char for char in out if ord(char) in {0x1B, 0x07, 0x9B, 0x202E, 0x202C}], command
        assert "title" not in out or "--json" in command
        assert "[bold]" in out  # shown as it is, not obeyed
    assert "gnp.exe" in cli("show", "last", env=env)
    kept = json.loads(cli("show", "last", "--json", env=env))
    assert kept["input"]["messages"][0]["content"][0]["text"].startswith("\x1b[31mred")


def test_an_unknown_request_is_an_error(env: dict[str, str], recorded: str) -> None:
    """`show` and `score` of an id that is not there exit with 1; nothing is scored by accident."""
    assert "there is no request 12345678" in failure("show", "12345678", env=env)
    assert "there is no request abcd" in failure("score", "abcd", "90", env=env)
    assert entries(env)[0]["scores"] == {"": 90, "tone": 80}


def test_score_from_the_command_line(env: dict[str, str], recorded: str) -> None:
    """A score is kept in the journal where there is no key."""
    assert "Kept in the journal" in cli("score", recorded[-8:], "70", "--name", "taste", env=env)
    assert entries(env)[0]["scores"]["taste"] == 70


def test_a_score_that_cannot_be_is_refused(env: dict[str, str], recorded: str) -> None:
    """101 is no score: exit code 2, and a line that names the argument."""
    err = failure("score", recorded, "101", env=env, code=2)
    assert "0 to 100" in err
    assert "Traceback" not in err


def test_score_is_delivered_at_once_with_a_key(env: dict[str, str]) -> None:
    """A score of a delivered request goes out before the command ends."""
    with FakePromptLayer() as server:
        there = keyed(env, server)
        run("with pltrack.pl_session():\n    model.invoke('hi')\npltrack.flush(10)", there)
        (logged,) = server.requests
        assert "Delivered" in cli("score", str(logged.id), "60", "--name", "tone", env=there)
        assert server.request(logged.id).scores["tone"] == 60


def test_status_counts(env: dict[str, str], journal: Path, recorded: str) -> None:
    """`status` has the counts of `pltrack.status()`."""
    found = json.loads(cli("status", "--json", env=env))
    assert found["pending"] == 3  # the request and two scores
    assert found["without_key"] == 1
    assert found["journal"] == str(journal)
    assert str(journal) in cli("status", env=env)


def test_sync_delivers_what_other_programs_recorded(env: dict[str, str]) -> None:
    """Rows of a process that is gone are delivered, with their scores, and the exit code says that all went."""
    with FakePromptLayer() as server:
        external = keyed(env, server, PLTRACK_DELIVERY="external")
        run(PROGRAM, external)
        assert server.calls == ()
        assert "3 delivered, 0 refused, 0 left" in cli("sync", env=external)
        (logged,) = server.requests
        assert logged.scores == {"default": 90, "tone": 80}
        assert "0 delivered, 0 refused, 0 left" in cli("sync", env=external)
    (entry,) = entries(env)
    assert entry["request_id"] == logged.id


@pytest.mark.slow
def test_sync_adopts_what_had_no_key(env: dict[str, str], recorded: str) -> None:
    """Without `--adopt` such rows stay, with exit code 1 and the remedy; with it they are delivered."""
    with FakePromptLayer() as server:
        there = keyed(env, server)
        assert "pltrack sync --adopt" in failure("sync", env=there)
        assert server.calls == ()
        assert "Adopted 1" in cli("sync", "--adopt", env=there)
        assert server.by_pltrack_id(recorded).scores == {"default": 90, "tone": 80}


def test_sync_without_a_key(env: dict[str, str], recorded: str) -> None:
    """There is nowhere to deliver to: exit code 1 and the variable to set."""
    assert "PROMPTLAYER_API_KEY" in failure("sync", env=env)


@pytest.mark.slow
def test_sync_gives_up_where_the_key_is_refused(env: dict[str, str]) -> None:
    """A refused key ends it long before its timeout; the rows stay."""
    with FakePromptLayer() as server:
        run(PROGRAM, keyed(env, server, PLTRACK_DELIVERY="external"))
        server.revoke(server.api_key)
        began = time.monotonic()
        assert "paused" in failure("sync", env=keyed(env, server))
        assert time.monotonic() - began < 40
    assert entries(env)[0]["delivery"]["state"] == "pending"


@pytest.mark.slow
def test_sync_stops_at_its_timeout(env: dict[str, str]) -> None:
    """With a server that never answers it ends in time, with exit code 1, and nothing is lost."""
    with FakePromptLayer() as server:
        run(PROGRAM, keyed(env, server, PLTRACK_DELIVERY="external"))
        server.fail(Fault.silent())
        assert "time is up" in failure("sync", "--timeout", "1", env=keyed(env, server))
        server.heal()
    assert entries(env)[0]["delivery"]["state"] == "pending"


@pytest.mark.slow
def test_sync_says_what_was_refused(env: dict[str, str]) -> None:
    """A row that PromptLayer refuses for good makes the exit code 1, once; its words are shown, cleaned."""
    with FakePromptLayer() as server:
        run(PROGRAM, keyed(env, server, PLTRACK_DELIVERY="external"))
        server.fail(Fault(status=422, times=2, path="/log-request", body={"message": "no \x1b[31mway"}))
        assert "refused" in failure("sync", env=keyed(env, server))
        page = cli("show", "last", env=env)
        assert "no way" in page
        assert "\x1b" not in page
        cli("sync", env=keyed(env, server))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_sync_watch_goes_on_until_it_is_stopped(
    env: dict[str, str], how: signal.Signals, wait_until: Callable[..., None]
) -> None:
    """`--watch` delivers what is recorded while it runs, and ends in good order when it is told to."""
    with FakePromptLayer() as server:
        watcher = start("sync", "--watch", env=keyed(env, server))
        run(PROGRAM, keyed(env, server, PLTRACK_DELIVERY="external"))
        wait_until(lambda: json.loads(cli("status", "--json", env=env))["delivered"] == 3, 60)
        watcher.send_signal(how)
        out, err = watcher.communicate(timeout=20)
        assert watcher.returncode == 0, err
        assert "0 left" in out
        assert "Traceback" not in err


def test_sync_watch_hears_a_signal_wherever_it_is(env: dict[str, str]) -> None:
    """Also in the middle of something whose errors Python ignores, as a finalizer's are."""
    with FakePromptLayer() as server:
        program = """
        import os, signal
        from pltrack.cli import _sync

        class Finalized:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait(0.1)

        counts, odd = _sync._counts, [None, Finalized()]  # not in the first, which is before it all
        _sync._counts = lambda journals: (odd and odd.pop(0), counts(journals))[1]
        print(_sync.run(_sync.Wanted(watch=True, timeout=20)), flush=True)
        """
        began = time.monotonic()
        assert "0 left" in run(program, keyed(env, server))
        assert time.monotonic() - began < 15


def test_a_journal_that_cannot_be_read(env: dict[str, str], journal: Path) -> None:
    """Exit code 1 and one line that says why: no table that looks as if nothing had been recorded."""
    journal.write_bytes(b"this is no database, " * 100)
    err = failure("ls", env=env)
    assert str(journal) in err
    assert "Traceback" not in err


def test_a_setting_that_cannot_be_used(env: dict[str, str]) -> None:
    """Exit code 2 and the variable's name."""
    assert "PLTRACK_CAPTURE" in failure("ls", env=env | {"PLTRACK_CAPTURE": "some"}, code=2)


def test_help_is_quick(env: dict[str, str]) -> None:
    """`--help` loads neither LangChain nor the journal's machinery, so that it can be quick."""
    code = (
        "import sys, time; began = time.perf_counter(); from pltrack.cli import main\n"
        "sys.argv = ['pltrack', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'langchain_core', 'sqlalchemy', 'aiohttp', 'promptlayer'} & set(sys.modules)\n"
        "print(heavy, time.perf_counter() - began, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("set()")
    assert float(done.stderr.split()[-1]) < 1.0  # 0.1 s where nothing else runs
    for command in ("status", "ls", "show", "score", "sync", "demo"):
        assert command in done.stdout
    assert cli("--version", env=env).strip()


def test_demo_needs_nothing(env: dict[str, str], journal: Path) -> None:
    """The demo runs without an account and network, whatever key is set, and tells what to do next."""
    with FakePromptLayer() as server:
        there = keyed(env, server)
        out = cli("demo", env=there)
        assert server.calls == ()
    for shown in ("3 calls", "thumbs-up=95", "shop-answer version 1", "What to do next", str(journal)):
        assert shown in out
    assert len(entries(env)) == 3
    assert {each["destination"] for each in entries(env)} == {None}


def test_demo_leaves_the_journal_of_the_user_alone(env: dict[str, str], tmp_path: Path) -> None:
    """Without PLTRACK_JOURNAL it uses a fresh temporary folder."""
    home = tmp_path / "home"
    home.mkdir()
    own = {key: value for key, value in env.items() if key != "PLTRACK_JOURNAL"}
    out = cli("demo", env=own | {"HOME": str(home), "TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(home / "state")})
    assert str(tmp_path / "pltrack-demo-") in out
    assert not list(home.iterdir())


def test_the_example_runs(env: dict[str, str]) -> None:
    """examples/demo.py is a program that works as it stands."""
    example = Path(__file__).parent.parent / "examples" / "demo.py"
    done = subprocess.run([sys.executable, str(example)], env=env, capture_output=True, text=True, check=True)
    assert "2 calls were recorded" in done.stdout


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("a\x00b\x7fc\u202ed\u2066e\ufefff", "abcdef"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a\tb", "a    b"),
        ("नमस्ते 👩\u200d🚀 ünï", "नमस्ते 👩\u200d🚀 ünï"),
        ("\ud800", ""),
    ],
)
def test_cleaning(dirty: str, cleaned: str) -> None:
    """What controls a terminal goes; every script's text and emoji stay."""
    from pltrack.cli._screen import clean

    assert clean(dirty) == cleaned


def test_a_closed_pipe_is_no_error(env: dict[str, str], recorded: str, wait_until: Callable[..., None]) -> None:
    """`pltrack ls | head -0`: no traceback."""
    process = start("ls", env=env)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    wait_until(lambda: process.poll() is not None, 60)
    with process.stderr:
        assert "Traceback" not in process.stderr.read()
