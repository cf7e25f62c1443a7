"""The hub: programs on several machines, one PostgreSQL, any number of workers."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from journals import opened
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from postgres import Server
from programs import environment, run, start

import pltrack
from pltrack._journal.hub import Hub
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
CALL = """
with pltrack.pl_session("app") as s:
    model.invoke("hi")
pltrack.flush(20)
print(s.ids[0])
"""
Until = Callable[[Callable[[], object]], None]


@contextmanager
def worker(server: FakePromptLayer, hub_url: str, journal: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `pltrack sync --watch` on a machine of its own."""
    env = environment(journal, server, PLTRACK_HUB=hub_url)
    command = [sys.executable, "-m", "pltrack", "sync", "--watch"]
    process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def sync(server: FakePromptLayer, hub_url: str, journal: Path, *options: str) -> str:
    """Run `pltrack sync` once."""
    env = environment(journal, server, PLTRACK_HUB=hub_url)
    done = subprocess.run(
        [sys.executable, "-m", "pltrack", "sync", *options], env=env, text=True, capture_output=True, timeout=60
    )
    return done.stdout + done.stderr


def use(server: FakePromptLayer, hub_url: str, journal: Path) -> None:
    """Let this process record to a journal and hand over to the hub."""
    pltrack.configure(
        api_key=server.api_key, base_url=server.url, hub=hub_url, journal=journal, delivery="background", id_timeout=20
    )


def test_rows_go_to_the_hub_and_a_worker_delivers_them(
    promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path
) -> None:
    """A program hands over to the hub and sends nothing itself; a worker on another machine delivers, folded."""
    use(promptlayer, hub_url, tmp_path / "app.db")
    with pltrack.pl_session(tags=["t"], metadata={"plan": "pro"}) as session:
        MODEL.invoke("hi")
        session.score(90)
    assert pltrack.flush(20).pending == 0
    assert promptlayer.calls == ()
    status = pltrack.status()
    assert (status.forwarded, status.pending, status.hub is not None) == (2, 0, True)
    assert "2 delivered" in sync(promptlayer, hub_url, tmp_path / "worker.db")
    (logged,) = promptlayer.requests
    assert (logged.metadata["pltrack_id"], logged.metadata["plan"], logged.tags) == (session.ids[0], "pro", ["t"])
    assert logged.scores == {"default": 90}
    assert [call.path for call in promptlayer.calls] == ["/log-request"]


def test_ids_come_back_to_whoever_asks(promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path) -> None:
    """`request_ids` in the program, a callback, and `pltrack.request(id)` on another machine get PromptLayer's id."""
    heard: list[Any] = []
    with worker(promptlayer, hub_url, tmp_path / "worker.db"):
        use(promptlayer, hub_url, tmp_path / "app.db")
        with pltrack.pl_session() as session:
            MODEL.invoke("hi", config={"callbacks": [pltrack.PromptLayerCallbackHandler(pl_id_callback=heard.append)]})
        (pl_id,) = session.request_ids
        assert promptlayer.requests[0].id == pl_id
        program = f"""
        handle = pltrack.request({session.ids[0]!r})
        deadline = time.monotonic() + 20
        while handle.request_id is None and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        print(handle.request_id)
        """
        assert run(program, environment(tmp_path / "other.db", promptlayer, PLTRACK_HUB=hub_url)).strip() == str(pl_id)
    pltrack.shutdown(10)
    assert heard == [pl_id]


def test_a_score_from_another_machine(promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path) -> None:
    """A score by our id, by the session's id and by PromptLayer's id, given where the request was never seen."""
    made = run(
        CALL.replace("print(s.ids[0])", "print(s.ids[0], s.id)"),
        environment(tmp_path / "a.db", promptlayer, PLTRACK_HUB=hub_url),
    )
    ours, session_id = made.split()
    other = environment(tmp_path / "b.db", promptlayer, PLTRACK_HUB=hub_url)
    run(f"pltrack.request('{ours}').score(91); assert pltrack.flush(20).pending == 0", other)
    sync(promptlayer, hub_url, tmp_path / "worker.db")
    run(f"pltrack.session('{session_id}').score(92, name='tone'); assert pltrack.flush(20).pending == 0", other)
    sync(promptlayer, hub_url, tmp_path / "worker.db")
    (logged,) = promptlayer.requests
    run(f"pltrack.request({logged.id}).score(93, name='late'); assert pltrack.flush(20).pending == 0", other)
    sync(promptlayer, hub_url, tmp_path / "worker.db")
    assert promptlayer.requests[0].scores == {"default": 91, "tone": 92, "late": 93}


def test_first_words_of_several_machines(promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path) -> None:
    """What each machine's journal numbers alike are different words at the hub; a session's score is for each call."""
    calls = CALL.replace('model.invoke("hi")', 'model.invoke("one"); model.invoke("two")')
    made = run(
        calls.replace("s.ids[0]", "s.id, *s.ids"), environment(tmp_path / "a.db", promptlayer, PLTRACK_HUB=hub_url)
    )
    session_id, *ids = made.split()
    for name in ("b", "c"):
        other = environment(tmp_path / f"{name}.db", promptlayer, PLTRACK_HUB=hub_url)
        run(f"pltrack.session('{session_id}').score(90, name='{name}'); assert pltrack.flush(20).pending == 0", other)
    sync(promptlayer, hub_url, tmp_path / "worker.db")
    assert [each.scores for each in promptlayer.requests] == [{"b": 90, "c": 90}] * len(ids)


def test_a_hub_that_is_away_costs_nothing(
    promptlayer: FakePromptLayer, postgres: Server, hub_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    wait_until: Until,
) -> None:  # fmt: skip
    """While the hub is down calls go on and rows stay local, said once; when it is back, all of them get there."""
    use(promptlayer, hub_url, tmp_path / "app.db")
    postgres.stop()
    try:
        with caplog.at_level(logging.WARNING, "pltrack"), pltrack.pl_session() as session:
            before = time.perf_counter()
            for _ in range(20):
                MODEL.invoke("hi")
            assert time.perf_counter() - before < 1
            wait_until(lambda: pltrack.status().last_error)
        assert pltrack.flush(0.5).pending == 20
        assert len([each for each in caplog.records if "the hub" in each.message]) == 1
    finally:
        postgres.start()
    wait_until(lambda: pltrack.flush(5).pending == 0)
    sync(promptlayer, hub_url, tmp_path / "worker.db")
    assert sorted(each.metadata["pltrack_id"] for each in promptlayer.requests) == sorted(session.ids)


def test_a_hub_restarted_under_way(
    promptlayer: FakePromptLayer, postgres: Server, hub_url: str, tmp_path: Path, wait_until: Until
) -> None:
    """A worker and a program lose their connections in the middle: nothing is lost, nothing sent twice."""
    with worker(promptlayer, hub_url, tmp_path / "worker.db"):
        use(promptlayer, hub_url, tmp_path / "app.db")
        with pltrack.pl_session() as session:
            for number in range(60):
                MODEL.invoke("hi")
                if number in (20, 40):
                    wait_until(lambda seen=number: len(promptlayer.requests) > seen / 4)
                    postgres.stop()
                    postgres.start()
        wait_until(lambda: len(promptlayer.requests) >= 60)
        wait_until(lambda: pltrack.flush(5).pending == 0)
    sync(promptlayer, hub_url, tmp_path / "worker.db")
    assert sorted(each.metadata["pltrack_id"] for each in promptlayer.requests) == sorted(session.ids)


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_kill_while_handing_over(promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path, point: str) -> None:
    """Killed before or after the hub has the batch, but before that is written down here: each row gets there once."""
    program = f"""
    import signal
    from pltrack._journal.hub import Hub
    receive = Hub.receive
    def killing(self, batch):
        if {point!r} == "after":
            receive(self, batch)
        os.kill(os.getpid(), signal.SIGKILL)
    Hub.receive = killing
    with pltrack.pl_session() as s:
        model.invoke("hi")
        s.score(90)
    pltrack.flush(20)
    """
    env = environment(tmp_path / "app.db", promptlayer, PLTRACK_HUB=hub_url)
    process = start(program, env)
    process.communicate(timeout=60)
    assert process.returncode == -9
    _end_leases(tmp_path / "app.db")
    out = sync(promptlayer, hub_url, tmp_path / "app.db")
    assert "0 left" in out
    (logged,) = promptlayer.requests
    assert logged.scores == {"default": 90}


def _end_leases(journal: Path) -> None:

    with opened(journal) as db:
        for table in ("requests", "notes"):
            db.execute(f"update {table} set lease_until = 1 where state = 'sending'")


def test_many_workers_deliver_each_row_once(promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path) -> None:
    """Four workers at once on 200 requests with scores: each request once, each with its score."""
    use(promptlayer, hub_url, tmp_path / "app.db")
    with pltrack.pl_session() as session:
        for _ in range(200):
            MODEL.invoke("hi")
        session.score(90)
    assert pltrack.flush(30).pending == 0
    env = [environment(tmp_path / f"w{n}.db", promptlayer, PLTRACK_HUB=hub_url) for n in range(4)]
    running = [subprocess.Popen([sys.executable, "-m", "pltrack", "sync"], env=each) for each in env]
    assert [each.wait(60) for each in running] == [0, 0, 0, 0]
    assert sorted(each.metadata["pltrack_id"] for each in promptlayer.requests) == sorted(session.ids)
    assert all(each.scores == {"default": 90} for each in promptlayer.requests)


def test_an_error_of_our_own_on_the_way_to_the_hub_costs_nothing(
    promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It is logged, what was on its way goes again, and the thread lives on."""
    works, tries = Hub.receive, []

    def receive(hub: Hub, batch: Any) -> None:
        tries.append(batch)
        if len(tries) == 1:
            raise RuntimeError("a bug")
        works(hub, batch)

    monkeypatch.setattr(Hub, "receive", receive)
    use(promptlayer, hub_url, tmp_path / "app.db")
    with pltrack.pl_session():
        MODEL.invoke("hi")
    assert pltrack.flush(20).pending == 0
    assert len(tries) == 2
    assert "a bug" in caplog.text


def test_a_hub_without_tables_is_said_and_nothing_lost(
    promptlayer: FakePromptLayer, postgres: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    wait_until: Until,
) -> None:  # fmt: skip
    """An empty database is named with the remedy; after `pltrack hub upgrade` the rows get there."""
    url = postgres.database()
    use(promptlayer, url, tmp_path / "app.db")
    with caplog.at_level(logging.WARNING, "pltrack"), pltrack.pl_session():
        MODEL.invoke("hi")
        wait_until(lambda: "pltrack hub upgrade" in caplog.text)
    assert "pltrack hub upgrade" in (pltrack.status().last_error or "")
    env = environment(tmp_path / "app.db", promptlayer, PLTRACK_HUB=url)
    command = [sys.executable, "-m", "pltrack", "hub", "upgrade"]
    for expected in ("now has schema 1", "is up to date"):
        assert expected in subprocess.run(command, env=env, text=True, capture_output=True, timeout=60).stdout
    wait_until(lambda: pltrack.flush(5).pending == 0)
    assert pltrack.status().forwarded == 1


def test_a_newer_hub_is_left_alone(
    promptlayer: FakePromptLayer, postgres: Server, hub_url: str, tmp_path: Path, wait_until: Until
) -> None:
    """A hub of a schema that this package does not know gets nothing from it, and is not changed."""
    postgres.execute(hub_url, "update meta set value = '99' where key = 'schema'")
    use(promptlayer, hub_url, tmp_path / "app.db")
    with pltrack.pl_session():
        MODEL.invoke("hi")
    wait_until(lambda: pltrack.status().last_error)
    assert "update pltrack" in str(pltrack.status().last_error)
    assert postgres.execute(hub_url, "select count(*) from requests") == [(0,)]
    assert "schema 99" in sync(promptlayer, hub_url, tmp_path / "worker.db")


@pytest.mark.slow
def test_a_hub_that_is_slow_holds_nobody_up(
    promptlayer: FakePromptLayer, postgres: Server, hub_url: str, tmp_path: Path
) -> None:
    """With its table locked, calls go on, and a program ends in time with everything on its disk."""
    import psycopg

    program = """
    with pltrack.pl_session() as s:
        for _ in range(5):
            before = time.perf_counter()
            model.invoke("hi")
            assert time.perf_counter() - before < 0.5
    sys.stdout.write("\\n".join(s.ids))
    """
    env = environment(tmp_path / "app.db", promptlayer, PLTRACK_HUB=hub_url)
    with psycopg.connect(hub_url) as locked:
        locked.execute("lock table requests in access exclusive mode")
        before = time.monotonic()
        ids = run(program, env).split()
        assert time.monotonic() - before < 20
    _end_leases(tmp_path / "app.db")
    assert "5 delivered" in sync(promptlayer, hub_url, tmp_path / "app.db")
    assert sorted(each.metadata["pltrack_id"] for each in promptlayer.requests) == sorted(ids)


def test_a_key_is_needed_by_workers_only(promptlayer: FakePromptLayer, hub_url: str, tmp_path: Path) -> None:
    """What was recorded without a key waits at the hub until a worker adopts it."""
    env = environment(tmp_path / "app.db", None, PLTRACK_HUB=hub_url)
    run(CALL, env)
    assert promptlayer.requests == ()
    sync(promptlayer, hub_url, tmp_path / "worker.db")
    assert promptlayer.requests == ()
    assert "Adopted 1" in sync(promptlayer, hub_url, tmp_path / "worker.db", "--adopt")
    assert len(promptlayer.requests) == 1


def test_the_hubs_password_is_shown_nowhere(
    promptlayer: FakePromptLayer, tmp_path: Path, caplog: pytest.LogCaptureFixture, wait_until: Until
) -> None:
    """Not in the log, a status, an error, or a repr, with an address that cannot be reached or understood."""
    secret = "hunter2secret"
    address = f"postgresql://me:{secret}@127.0.0.1:1/hub"
    use(promptlayer, address, tmp_path / "app.db")
    with caplog.at_level(logging.DEBUG), pltrack.pl_session():
        MODEL.invoke("hi")
        wait_until(lambda: pltrack.status().last_error)
    shown = f"{caplog.text}{pltrack.status()}{sync(promptlayer, address, tmp_path / 'w.db')}"
    assert "127.0.0.1" in shown
    assert secret not in shown
    with pytest.raises(pltrack.errors.SettingError) as caught:
        pltrack.configure(hub=f"mysql://me:{secret}@x/y")
    assert secret not in str(caught.value)
