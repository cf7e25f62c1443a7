"""`pltrack ls`, `status` and `export`: what is found, what is counted, what a spreadsheet makes of it."""

from __future__ import annotations

import csv
import io
import json
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, cli, settings
from journals import opened
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from programs import run

import pltrack
from pltrack.testing import FakePromptLayer, Fault

HOSTILE = "=cmd|' /C calc'!A0 \x1b[31m\u202e[bold]"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a journal with three calls in it: two of a session and one that failed, years ago."""
    journal = tmp_path / "journal.db"
    pltrack.configure(journal=journal, delivery="off", app="shop")
    with pltrack.pl_session("checkout", tags=["prod"], user="u-7", conversation="c-9", metadata={"plan": "+pro"}) as s:
        FakeListChatModel(responses=["four"]).invoke("What comes after 1,2,3?")
        with pltrack.pl_session("inner", tags=["rag"]):
            FakeListChatModel(responses=[HOSTILE]).invoke(HOSTILE)
        s.score(90)
        s.score(80, name="tone")
        s.link_prompt("example", {"product": "toasters"}, version=3)
    with pltrack.pl_session("old", tags=["prod, eu"]), pytest.raises(IndexError):
        FakeListChatModel(responses=[], error_on_chunk_number=0).invoke("nothing")
    pltrack.flush(10)
    pltrack.shutdown(1)
    with opened(journal) as db:
        db.execute("update requests set started_at = 1e9, ended_at = 1e9 + 1, model = 'gpt-4.1' where status = 'ERROR'")
    return settings(journal)


def listed(env: dict[str, str], *filters: str) -> list[dict[str, Any]]:
    found = json.loads(cli("ls", "--json", *filters, env=env).out)
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    ("filters", "sessions"),
    [
        ("--tag prod", ["inner", "checkout"]),
        ("--tag rag", ["inner"]),
        ("--session inner", ["inner"]),
        ("--session checkout", ["inner", "checkout"]),
        ("--user u-7 --model FakeListChatModel", ["inner", "checkout"]),
        ("--model gpt-4.1", ["old"]),
        ("--model 1", []),
        ("--status error", ["old"]),
        ("--since 2h", ["inner", "checkout"]),
        ("--since 2001-01-01", ["old", "inner", "checkout"]),
        ("--text after", ["checkout"]),
        ("--state pending --limit 1", ["old"]),
        ("--state delivered", []),
        ("--tag prod --tag rag", ["inner"]),
    ],
)
def test_filters(env: dict[str, str], filters: str, sessions: list[str]) -> None:
    """Each filter finds what it says, by whole words; several hold together."""
    assert [each["session"]["name"] for each in listed(env, *filters.split())] == sessions


def test_a_list_for_people(env: dict[str, str]) -> None:
    """Models with a dot in their name are shown whole; where nothing fits, that is said."""
    assert "gpt-4.1" in cli("ls", env=env).out
    assert "Nothing like that" in cli("ls", "--tag", "none", env=env).out


@pytest.mark.parametrize("wrong", ["--status fine", "--state lost", "--since yesterday"])
def test_a_filter_that_means_nothing(env: dict[str, str], wrong: str) -> None:
    """Exit code 2 and what is expected; no empty list that looks like an answer."""
    assert "expected" in cli("ls", *wrong.split(), env=env, code=2).err


# -- show -----------------------------------------------------------------------------------------------------


def test_show_cuts_what_is_huge(tmp_path: Path) -> None:
    """A message of 100,000 characters is cut, and said to be; --full has all of it."""
    env = settings(tmp_path / "journal.db")
    run("with pltrack.pl_session():\n    model.invoke('x' * 100_000)\npltrack.shutdown(0)", env)
    cut = cli("show", "last", env=env).out
    assert cut.count("x") < 5_000
    assert "100000 characters" in cut
    assert cli("show", "last", "--full", env=env).out.count("x") >= 100_000


# -- status ---------------------------------------------------------------------------------------------------


def test_status_tells_states_size_versions_and_the_hook(env: dict[str, str]) -> None:
    """The counts by state, for how long the oldest waits, the file's size, and that LangChain calls us."""
    found = json.loads(cli("status", "--json", env=env).out)
    assert found["rows"] == {"requests": {"pending": 3}, "notes": {"waiting": 6}}
    assert found["oldest_seconds"] > 1e8
    assert found["bytes"] == Path(env["PLTRACK_JOURNAL"]).stat().st_size
    assert found["hook_ok"] is True
    assert found["versions"]["pltrack"] == pltrack.__version__
    told = cli("status", env=env).out
    for shown in ("3 pending", "6 waiting", "without key", "MB", "a fake model's call was recorded", "langchain-core"):
        assert shown in told


def test_status_of_nothing(tmp_path: Path) -> None:
    """Without a journal it says so, makes none, and no alarm goes off."""
    env = settings(tmp_path / "journal.db")
    assert "nothing was recorded yet" in cli("status", env=env).out
    assert cli("status", "--prometheus", "--max-age", "1", env=env).out == ""
    assert not (tmp_path / "journal.db").exists()


def test_status_for_alarms(env: dict[str, str], tmp_path: Path, promptlayer: FakePromptLayer) -> None:
    """--max-age exits with 2 when something undelivered is older, with 0 when nothing is."""
    assert "waiting" in cli("status", "--max-age", "300", env=env, code=2).err
    cli("status", "--max-age", "3e9", env=env)
    other = settings(tmp_path / "other.db", promptlayer)
    run("with pltrack.pl_session():\n    model.invoke('hi')\npltrack.flush(10)", other)
    cli("status", "--max-age", "0", env=other)


def test_a_note_that_waits_is_something_undelivered(tmp_path: Path, promptlayer: FakePromptLayer) -> None:
    """A score of a delivered request that does not get through sets the alarm off, too."""
    env = settings(tmp_path / "journal.db", promptlayer)
    promptlayer.fail(Fault(status=503, path="/rest/track-score"))
    run(
        "with pltrack.pl_session() as s:\n    model.invoke('hi')\npltrack.flush(10)\ns.score(1)\npltrack.shutdown(0)",
        env,
    )
    assert json.loads(cli("status", "--json", env=env).out)["rows"]["requests"] == {"delivered": 1}
    cli("status", "--max-age", "0", env=env, code=2)


def test_status_as_metrics(env: dict[str, str]) -> None:
    """Every line is Prometheus' text format; the numbers are those of the journal."""
    told = cli("status", "--prometheus", env=env).out
    samples = {}
    for line in told.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    assert samples['pltrack_rows{place="journal",kind="requests",state="pending"}'] == 3
    assert samples['pltrack_without_key_requests{place="journal"}'] == 3
    assert samples['pltrack_oldest_undelivered_seconds{place="journal"}'] > 1e8
    assert samples['pltrack_paused{place="journal"}'] == 0
    for name in {each.partition("{")[0] for each in samples}:
        assert told.count(f"# TYPE {name} gauge\n") == 1


def test_the_last_error_of_each_destination(tmp_path: Path, promptlayer: FakePromptLayer) -> None:
    """What PromptLayer said last is told for each destination that has something left, without the key."""
    env = settings(tmp_path / "journal.db", promptlayer)
    promptlayer.fail(
        Fault(status=422, path="/log-request", body={"message": f"no \x1b[31mway for {promptlayer.api_key}"})
    )
    run("with pltrack.pl_session():\n    model.invoke('hi')\npltrack.flush(10)", env)
    (at,) = json.loads(cli("status", "--json", env=env).out)["destinations"]
    assert at["failed"] == 1
    assert at["last_error"].startswith("422 no")
    told = cli("status", env=env).out
    assert f"at {at['destination']}" in told
    assert "way for ***" in told
    assert "\x1b" not in told


def test_a_locked_journal(env: dict[str, str]) -> None:
    """While another program holds the file, looking ends soon, with exit code 1, its name and the reason."""
    program = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('begin exclusive')\n"
        "print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, env["PLTRACK_JOURNAL"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for command in ("status", "ls", "pause"):
            began = time.monotonic()
            told = cli(command, env=env, code=1).err
            assert time.monotonic() - began < 15
            assert env["PLTRACK_JOURNAL"] in told
            assert "another program holds it" in told
    finally:
        holder.communicate("\n", timeout=30)
    cli("ls", env=env)


# -- export ---------------------------------------------------------------------------------------------------


def test_export_as_json_lines(env: dict[str, str]) -> None:
    """One request a line, oldest first, with scores, metadata, tags, usage, price, delivery and messages."""
    told = cli("export", env=env).out
    assert told == cli("export", "--jsonl", env=env).out
    assert told.isascii()
    first, second, third = map(json.loads, told.splitlines())
    assert first["scores"] == {"": 90, "tone": 80}
    assert first["metadata"]["plan"] == "+pro"
    assert first["tags"] == ["prod"]
    assert first["prompts"][0]["version"] == 3
    assert first["delivery"]["state"] == "pending"
    assert first["input"]["messages"][0]["content"][0]["text"] == "What comes after 1,2,3?"
    assert first["output"]["messages"][0]["content"][0]["text"] == "four"
    assert {"cost", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"} <= set(first)
    assert second["input"]["messages"][0]["content"][0]["text"] == HOSTILE  # nothing is lost
    assert third["error_type"]


def test_export_as_a_table(env: dict[str, str]) -> None:
    """Flat columns, a row for each request; what a spreadsheet would run, or a terminal obey, is defused."""
    told = cli("export", "--csv", env=env).out
    first, second, third = csv.DictReader(io.StringIO(told, newline=""))
    assert first["score"] == "90"
    assert json.loads(first["scores"]) == {"tone": 80}
    assert json.loads(first["metadata"])["plan"] == "+pro"
    assert (first["prompt"], first["prompt_version"], first["user"]) == ("example", "3", "u-7")
    assert first["input"] == "[user]\nWhat comes after 1,2,3?"
    assert third["status"] == "ERROR"
    cells = [cell for row in (first, second, third) for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert not set(told) & {"\x1b", "\u202e"}


@pytest.mark.parametrize(
    "start", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r\n=1", "\x1b[31m=1", "\u202e=1", "\uff1d1"]
)
def test_no_cell_is_a_formula(tmp_path: Path, start: str) -> None:
    """Whatever hides in front of it: control characters are taken out before a cell is looked at."""
    pltrack.configure(journal=tmp_path / "journal.db", delivery="off")
    with pltrack.pl_session(start, user=start, conversation=start):
        FakeListChatModel(responses=["x"]).invoke("hi")
    pltrack.shutdown(5)
    (row,) = csv.DictReader(io.StringIO(cli("export", "--csv", env=settings(tmp_path / "journal.db")).out, newline=""))
    assert [row[name][0] for name in ("session", "user", "conversation")] == ["'"] * 3


def test_export_takes_filters(env: dict[str, str]) -> None:
    """They are those of `ls`."""
    (row,) = map(json.loads, cli("export", "--tag", "rag", env=env).out.splitlines())
    assert row["session"]["name"] == "inner"
    assert cli("export", "--tag", "none", env=env).out == ""
    cli("export", "--csv", "--jsonl", env=env, code=2)


def test_export_to_a_file(env: dict[str, str], tmp_path: Path) -> None:
    """It is its owner's only, replaces an earlier one as a whole, and leaves nothing else behind."""
    target = tmp_path / "out" / "week.csv"
    assert "cannot be written" in cli("export", "-o", str(target), env=env, code=1).err
    target.parent.mkdir()
    target.write_text("earlier")
    assert "Exported 3" in cli("export", "--csv", "-o", str(target), env=env).err
    assert target.read_text(encoding="utf-8").startswith("id,request_id,")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.slow
def test_export_needs_no_memory(env: dict[str, str]) -> None:
    """100,000 requests take hardly more memory than three; a reader that leaves early ends it without a word."""
    program = (
        "import resource, subprocess, sys; process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n"
        "lines = sum(1 for _ in process.stdout); assert process.wait() == 0\n"
        "print(lines, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", program, *COMMAND, "export"]

    def measured() -> list[int]:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=300)
        return [int(each) for each in done.stdout.split()]

    few, memory = measured()
    with opened(env["PLTRACK_JOURNAL"]) as db:
        columns = [row[1] for row in db.execute("pragma table_info(requests)") if row[1] not in {"seq", "id"}]
        names = ", ".join(columns)
        db.execute(
            f"with recursive n (i) as (select 1000 union all select i + 1 from n where i < 100999) "
            f"insert into requests (seq, id, {names}) select i, 'id-' || i, {names} from n, requests r where r.seq = 1"
        )
        db.execute(
            "insert into bodies select r.seq, b.payload from requests r, bodies b where r.seq >= 1000 and b.seq = 1"
        )
    many, much = measured()
    assert (few, many) == (3, 100_003)
    assert much < memory * 1.3
    process = subprocess.Popen([*COMMAND, "export"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(60)
