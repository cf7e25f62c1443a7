"""Which records go where: two keys in one journal, in one process, rotated, lost, absent, and never given away."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from programs import environment, run, start

import pltrack
from pltrack.testing import FakePromptLayer, Fault

MODEL = FakeListChatModel(responses=["four"])
ONE, TWO = "pl_one_0123456789", "pl_two_0123456789"
RECORD = """
with pltrack.pl_session(tags=["first"]) as s:
    model.invoke("What comes after 1,2,3?")
    s.score(90, name="tone")
print(s.ids[0], flush=True)
"""
SYNC = "from pltrack.cli import main; sys.stderr = sys.stdout; sys.argv = ['pltrack', 'sync', *OPTIONS]; main()"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def server() -> Iterator[FakePromptLayer]:
    with FakePromptLayer(api_keys=[ONE, TWO]) as server:
        yield server


def keyed(journal: Path, server: FakePromptLayer, key: str, **more: str) -> dict[str, str]:
    return environment(journal, server, PROMPTLAYER_API_KEY=key, **more)


def sync(env: dict[str, str], *options: str, code: int = 0) -> str:
    """Run `pltrack sync` and return all it said."""
    return run(f"OPTIONS = {['--timeout', '30', *options]}\n{SYNC}", env, code)


def fingerprint(server: FakePromptLayer, key: str) -> str:
    from pltrack._settings import Destination

    return Destination(server.url, key).fingerprint


def test_two_programs_with_different_keys_share_a_journal(server: FakePromptLayer, journal: Path) -> None:
    """Each of two programs, running at once, delivers its own records and never the other's, backlog included."""
    left = {key: run(RECORD, keyed(journal, server, key, PLTRACK_DELIVERY="external")).strip() for key in (ONE, TWO)}
    program = (
        RECORD + "sys.stdin.readline()\nfor _ in range(20):\n    with pltrack.pl_session():\n        model.invoke('x')"
    )
    running = {key: start(program, keyed(journal, server, key)) for key in (ONE, TWO)}
    own: dict[str, str] = {}
    for key, process in running.items():
        assert process.stdout is not None
        own[key] = process.stdout.readline().strip()
    for process in running.values():
        process.communicate("go\n", timeout=60)
    for key in (ONE, TWO, ONE):  # while the first is synced, the other's are left
        start(f"OPTIONS = []\n{SYNC}", keyed(journal, server, key)).communicate(timeout=60)
    for key in (ONE, TWO):
        assert server.by_pltrack_id(own[key]).api_key == key
        assert server.by_pltrack_id(left[key]).api_key == key
        assert server.by_pltrack_id(left[key]).scores == {"tone": 90}
    assert [sum(logged.api_key == key for logged in server.requests) for key in (ONE, TWO)] == [22, 22]


def test_what_another_key_left_is_named(server: FakePromptLayer, journal: Path) -> None:
    """`pltrack sync` names the destination of rows whose key it does not have, and does not send them."""
    run(RECORD, keyed(journal, server, ONE, PLTRACK_DELIVERY="external"))
    said = sync(keyed(journal, server, TWO), code=1)
    assert f"for destination {fingerprint(server, ONE)}" in said
    assert not server.requests


def test_two_keys_in_one_process(server: FakePromptLayer, journal: Path) -> None:
    """A session's key holds inside it, the innermost wins, notes follow, a bare handler has the configured one."""
    pltrack.configure(api_key=ONE, base_url=server.url, journal=journal, delivery="background")
    with pltrack.pl_session() as outer:
        MODEL.invoke("configured")
        with pltrack.pl_session(api_key=TWO) as inner:
            MODEL.invoke("inner")
            with pltrack.pl_session() as innermost:
                MODEL.invoke("inherited")
    MODEL.invoke("bare", config={"callbacks": [pltrack.PromptLayerCallbackHandler()]})
    assert pltrack.flush(20).pending == 0
    outer.score(80)
    outer.metadata(late="yes")
    pltrack.request(inner.requests[0].request_id or 0).score(70, name="by number")
    assert pltrack.flush(20).pending == 0
    assert pltrack.status().failed == 0
    keys = [server.by_pltrack_id(each).api_key for each in outer.ids]
    assert keys == [ONE, TWO, TWO]
    assert server.by_pltrack_id(innermost.ids[0]).scores == {"default": 80}
    assert server.by_pltrack_id(inner.ids[0]).scores == {"default": 80, "by number": 70}
    assert {logged.metadata.get("late") for logged in server.requests} == {"yes", None}
    bare = [logged for logged in server.requests if "late" not in logged.metadata]
    assert [logged.api_key for logged in bare] == [ONE]


def test_a_rotated_keys_backlog_goes_out_under_the_new_one(server: FakePromptLayer, journal: Path) -> None:
    """What was recorded under a key in `previous_api_keys` is sent, notes too, with the current key only."""
    own_id = run(RECORD, keyed(journal, server, ONE, PLTRACK_DELIVERY="external")).strip()
    server.revoke(ONE)
    new = keyed(journal, server, TWO, PLTRACK_PREVIOUS_API_KEYS=ONE)
    sync(new)
    assert server.by_pltrack_id(own_id).api_key == TWO
    assert server.by_pltrack_id(own_id).scores == {"tone": 90}
    run(f"pltrack.request('{own_id}').score(40)", new)
    assert server.by_pltrack_id(own_id).scores == {"tone": 90, "default": 40}
    assert {call.api_key for call in server.calls} == {TWO}


def test_a_key_is_rotated_in_a_running_process(
    server: FakePromptLayer, journal: Path, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """A destination paused by 401 goes on when configure() gives the new key and names the old one."""
    server.revoke(ONE)
    pltrack.configure(api_key=ONE, base_url=server.url, journal=journal, delivery="background")
    with pltrack.pl_session() as session:
        MODEL.invoke("before")
    wait_until(lambda: pltrack.status().paused_reason)
    pltrack.configure(api_key=TWO, previous_api_keys=[ONE])
    session.score(60)
    assert pltrack.flush(20).pending == 0
    assert server.by_pltrack_id(session.ids[0]).api_key == TWO
    assert server.by_pltrack_id(session.ids[0]).scores == {"default": 60}
    with pltrack.pl_session(api_key=ONE) as late:
        MODEL.invoke("a session that still names the old key")
    assert pltrack.flush(20).pending == 0
    assert server.by_pltrack_id(late.ids[0]).api_key == TWO


def test_previous_keys_hold_for_the_same_address_only(server: FakePromptLayer, journal: Path) -> None:
    """What was recorded for another base_url is not sent to this one, whatever key is named."""
    run(RECORD, keyed(journal, server, ONE, PLTRACK_DELIVERY="external", PROMPTLAYER_BASE_URL="http://127.0.0.1:9"))
    sync(keyed(journal, server, TWO, PLTRACK_PREVIOUS_API_KEYS=ONE), code=1)
    assert not server.requests


def test_a_key_that_nobody_has_any_more(server: FakePromptLayer, journal: Path) -> None:
    """The 401 in the log names the destination, and `sync --take-over` with that name delivers its rows and notes."""
    server.revoke(ONE)
    program = RECORD.replace("print(", "pltrack.flush(10)\nprint(") + "print(pltrack.status().paused_reason)"
    process = start(program, keyed(journal, server, ONE))
    out, err = process.communicate(timeout=60)
    own_id, paused = out.splitlines()
    assert "401" in paused
    found = re.search(r"\[destination (\w+)\]", err)
    assert found is not None, err
    name = found.group(1)
    env = keyed(journal, server, TWO)
    assert "expected a fingerprint" in sync(env, "--take-over", ONE, code=2)
    assert f"Took over 1 request(s) of destination {name}." in sync(env, "--take-over", name)
    assert server.by_pltrack_id(own_id).api_key == TWO
    assert server.by_pltrack_id(own_id).scores == {"tone": 90}
    run(f"pltrack.request('{own_id}').score(40)", env)
    assert server.by_pltrack_id(own_id).scores == {"tone": 90, "default": 40}


def test_without_a_key_records_go_nowhere_until_they_are_adopted(server: FakePromptLayer, journal: Path) -> None:
    """Programs with keys leave keyless rows and their notes alone; `sync --adopt` makes them its own."""
    own_id = run(RECORD, environment(journal, PROMPTLAYER_BASE_URL=server.url)).strip()
    env = keyed(journal, server, TWO)
    run(RECORD + f"pltrack.request('{own_id}').score(10)", env)
    sync(env, code=1)
    assert len(server.requests) == 1
    sync(env, "--adopt")
    assert server.by_pltrack_id(own_id).api_key == TWO
    assert server.by_pltrack_id(own_id).scores == {"tone": 90, "default": 10}


TELL_ALL = """
import logging, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
from pltrack.cli import main
key, more = os.environ["PROMPTLAYER_API_KEY"], os.environ["OTHER_KEY"]
for wrong in (
    {"base_url": f"https://user:{more}@"}, {"base_url": key}, {"base_url": f"ftp://{key}@host"}, {"delivery": key},
    {"concurrency": key}, {"api_key": key + "\\n" + more}, {"previous_api_keys": [more + "\\u00fc"]}, {"fold": key},
):
    try:
        pltrack.configure(**wrong)
    except ValueError as error:
        traceback.print_exc(file=sys.stdout)
        print(repr(error))
try:
    pltrack.pl_session(api_key=more + "\\x7f")
except ValueError:
    traceback.print_exc(file=sys.stdout)
from pltrack import _runtime
_runtime.configure()
with pltrack.pl_session(api_key=more, tags=["other's"]) as s:
    model.invoke("hi")
    s.score(5)
    print(repr(s), repr(s.last), s.scope)
with pltrack.pl_session() as s:
    model.invoke("hi")
try:
    pltrack.prompts.get("no such prompt", timeout=3)
except pltrack.PromptError:
    traceback.print_exc(file=sys.stdout)
print(pltrack.flush(5), pltrack.status())
runtime = _runtime.get()
print(repr(runtime.settings), runtime.destinations, runtime.lane.courier().lines)
sys.stdout.flush()
for arguments in (["status"], ["status", "--json"], ["ls"], ["show", "last"], ["sync", "--timeout", "3"]):
    sys.argv = ["pltrack", *arguments]
    try:
        main()
    except SystemExit:
        pass
"""


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("pl_aaaabbbbccccdddd1111", "pl_eeeeffffgggghhhh2222"),
        ("""o'dd"key\\with/odd:signs{}%s<é>""".replace("é", "e"), "pl_x@y:z?&#"),
    ],
)
@pytest.mark.parametrize("answer", ["taken", "refused", "repeated"])
def test_a_key_appears_nowhere(server: FakePromptLayer, tmp_path: Path, key: str, other: str, answer: str) -> None:
    """Not in a file, a log line at DEBUG level, an error, traceback, repr, status or CLI output, even if echoed."""
    journal = tmp_path / "state" / "journal.db"
    server.accept(key)
    server.accept(other)
    if answer == "refused":
        server.revoke(key)
        server.revoke(other)
    elif answer == "repeated":
        server.fail(Fault(status=401, times=None, when=lambda body: "other's" in str(body), body={"message": other}))
        server.fail(Fault(status=401, times=None, body={"message": f"the key {key} is wrong"}))
    env = environment(journal, server, PROMPTLAYER_API_KEY=key, OTHER_KEY=other, PLTRACK_EXIT_TIMEOUT="0.5")
    process = start(TELL_ALL, env)
    told = "".join(process.communicate(timeout=60))
    stored = b"".join(file.read_bytes() for file in journal.parent.iterdir())
    assert len(stored) > 1000
    assert "pltrack" in told
    if answer == "taken":
        assert len(server.requests) == 2, told
    for secret in (key, other):
        lines = [line for line in told.splitlines() if secret in line]
        assert not lines
        assert repr(secret)[1:-1] not in told
        assert secret.encode() not in stored


@pytest.mark.parametrize("bad", ["ends in mid-answer", "no such host"])
def test_a_login_in_the_address_is_masked(tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    """base_url="http://user:pl_key@host" may be used, and is shown nowhere with its login."""
    caplog.set_level(logging.DEBUG)
    with FakePromptLayer() as server:
        host = server.url.removeprefix("http://") if bad == "ends in mid-answer" else "host.invalid"
        server.fail(Fault.truncated(times=None, store=False))
        url = f"http://user:pl_aaaabbbbccccdddd1111@{host}"
        pltrack.configure(api_key=ONE, base_url=url, journal=tmp_path / "journal.db", delivery="background")
        with pltrack.pl_session():
            MODEL.invoke("hi")
        pltrack.flush(1.5)
        from pltrack import _runtime

        runtime = _runtime.get()
        shown = f"{pltrack.status()} {runtime.settings!r} {runtime.destinations} {runtime.lane.courier().lines}"
        pltrack.shutdown(0.5)
    assert "http://***@" in caplog.text
    assert "aaaabbbb" not in caplog.text + shown
    assert not [file for file in tmp_path.iterdir() if b"aaaabbbb" in file.read_bytes()]


def test_an_environment_with_an_odd_key(journal: Path) -> None:
    """A key that no HTTP header can carry is refused with a line in the log that does not repeat it."""
    process = start(RECORD, environment(journal, PROMPTLAYER_API_KEY="pl_geheimniskr\u00e4mer"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "PROMPTLAYER_API_KEY: the value given cannot be used" in err
    assert "geheimnis" not in err
