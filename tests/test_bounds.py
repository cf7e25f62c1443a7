"""What is bounded, what goes first, and that nothing goes unsaid: memory, single records, and the journal's file."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage

import pltrack
from pltrack import PromptLayerCallbackHandler, _handler
from pltrack._journal import clearing
from pltrack._journal.store import Store
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
DAY = 86_400
KIB = 1024
SMALLEST = 1024 * KIB  # the least that max_size may be
Wait = Callable[[Callable[[], object]], None]


@pytest.fixture
def journal(promptlayer: FakePromptLayer, tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def ask(text: str = "What comes after 1,2,3?") -> pltrack.Session:
    """Make one tracked call."""
    with pltrack.pl_session() as session:
        MODEL.invoke(text)
    return session


def look(journal: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Ask the file itself."""
    with closing(sqlite3.connect(journal)) as db, db:
        return db.execute(statement, values).fetchall()


def number(journal: Path, statement: str) -> int:
    """Ask the file for one number."""
    return int(look(journal, statement)[0][0])


def size(journal: Path) -> int:
    """Return how large the file is, or will be once the WAL is in it."""
    return max(journal.stat().st_size, number(journal, "pragma page_count") * 4096)


def stop_delivery() -> None:
    """Record from now on without delivering."""
    pltrack.shutdown(10)
    pltrack.configure(delivery="off")


def age(journal: Path, days: float) -> None:
    """Make everything in the journal so many days older, and upkeep due."""
    pltrack.shutdown(10)
    for table, columns in {
        "requests": ("started_at", "ended_at"),
        "notes": ("created_at",),
        "sessions": ("started_at",),
    }.items():
        for column in columns:
            look(journal, f"update {table} set {column} = {column} - ?", days * DAY)
    look(journal, "update meta set value = '0' where key = 'swept'")


@contextmanager
def locked(journal: Path) -> Iterator[None]:
    """Keep everybody else from writing."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("begin immediate")
        yield
        db.execute("rollback")


# -- memory ---------------------------------------------------------------------------------------------------


def test_what_memory_has_no_room_for_is_counted_and_said(
    promptlayer: FakePromptLayer, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the disk stuck and the queue full, records are given up, counted as lost and said; the rest arrives."""
    path = journal.with_name("other.db")
    pltrack.configure(journal=path, max_pending=20)
    ask()
    assert pltrack.flush(10).pending == 0
    handler = PromptLayerCallbackHandler()
    with locked(path):
        for _ in range(50):
            MODEL.invoke("hi", config={"callbacks": [handler]})
    assert pltrack.flush(20).pending == 0
    status = pltrack.status()
    assert 9 <= status.lost <= 30  # the writer had taken up to 20 out of the queue before it was stuck
    assert status.delivered + status.lost == status.recorded == 51
    assert len(promptlayer.requests) == status.delivered
    assert "were lost: the queue to the journal is full" in caplog.text


def test_runs_without_an_end_are_bounded_and_recorded(pltrack_journal: Path) -> None:
    """Of runs that never end only so many are kept in memory; the oldest are recorded as far as they came."""
    handler = PromptLayerCallbackHandler()
    message = [[HumanMessage("hi")]]
    for _ in range(_handler._LIVE_MOST + 1):
        handler.on_chat_model_start({}, message, run_id=uuid.uuid4())
    assert len(_handler._live) <= _handler._LIVE_MOST
    pltrack.flush(20)
    (kinds,) = look(pltrack_journal, "select status, count(*) from requests group by status")
    assert kinds == ("WARNING", _handler._LIVE_MOST // 10)


# -- one record -----------------------------------------------------------------------------------------------


def test_a_huge_text_is_cut_before_the_journal(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A text of megabytes reaches neither disk nor PromptLayer as a whole; a mark tells its size, the rest stays."""
    pltrack.configure(max_body=100 * KIB)
    huge = "x" * 3_000_000
    with pltrack.pl_session() as session:
        MODEL.invoke([HumanMessage("a short one"), HumanMessage(huge)])
        session.metadata(trace="y" * 3_000_000)
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    first, second = [message["content"][0]["text"] for message in logged.body["input"]["messages"]]
    assert first == "a short one"
    assert second.endswith("[cut by pltrack: 3000000 characters]")
    assert second.startswith("x" * 20_000)
    assert logged.metadata["trace"].endswith("[cut by pltrack: 3000000 characters]")
    assert journal.stat().st_size < 1_000_000
    assert number(journal, "select max(length(payload)) from bodies") <= 100 * KIB


def test_too_many_texts_leave_the_facts(promptlayer: FakePromptLayer) -> None:
    """A conversation of thousands of short messages is recorded without them, as a valid blueprint."""
    pltrack.configure(max_body=4 * KIB)
    with pltrack.pl_session(tags=["prod"]):
        MODEL.invoke([HumanMessage("a short one")] * 2_000)
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert "[cut by pltrack:" in str(logged.body["input"])
    assert logged.tags == ["prod"]
    assert logged.metadata["pltrack_id"]


# -- what is old ----------------------------------------------------------------------------------------------


def test_content_goes_with_its_delivery_when_it_is_not_to_be_kept(promptlayer: FakePromptLayer, journal: Path) -> None:
    """With keep_content=0 a delivered request has no content any more, nor its link's variables; its id stays."""
    pltrack.configure(keep_content=0)
    promptlayer.publish("example", {"type": "completion", "content": [{"type": "text", "text": "{product}"}]})
    with pltrack.pl_session() as session:
        MODEL.invoke("hi")
        session.link_prompt("example", {"product": "secret toasters"}, version=1)
    assert pltrack.flush(10).pending == 0
    session.link_prompt("example", {"product": "secret kettles"}, version=1)
    assert pltrack.flush(10).pending == 0
    assert number(journal, "select count(*) from bodies") == 0
    assert look(journal, "select pl_id, content from requests") == [(promptlayer.requests[0].id, 0)]
    assert [json.loads(said) for (said,) in look(journal, "select payload from notes")] == [
        {"prompt_name": "example", "version": 1}
    ] * 2


def test_delivered_content_goes_after_its_days(promptlayer: FakePromptLayer, journal: Path, wait_until: Wait) -> None:
    """What was delivered is kept keep_content days; what waits is kept longer, and so is the id."""
    delivered = ask()
    assert pltrack.flush(10).pending == 0
    stop_delivery()
    waiting = ask()
    age(journal, 8)
    pltrack.configure(delivery="off")
    new = ask()
    pltrack.flush(10)
    wait_until(lambda: number(journal, "select count(*) from bodies") == 2)
    kept = "select id from requests join bodies using (seq) order by seq"
    assert look(journal, kept) == [(waiting.ids[0],), (new.ids[0],)]
    pltrack.request(delivered.ids[0]).score(70)
    pltrack.configure(delivery="background")
    assert pltrack.flush(10).pending == 0
    assert promptlayer.by_pltrack_id(delivered.ids[0]).scores == {"default": 70}


def test_rows_go_after_their_days(promptlayer: FakePromptLayer, journal: Path, wait_until: Wait) -> None:
    """After keep_ids days a delivered request goes, with its notes and its session; what never went stays."""
    session = ask()
    assert pltrack.flush(10).pending == 0
    session.score(90)
    assert pltrack.flush(10).pending == 0
    stop_delivery()
    waiting = ask()
    waiting.score(80)
    age(journal, 401)
    pltrack.configure(delivery="off")
    new = ask()
    pltrack.flush(10)
    wait_until(lambda: number(journal, "select count(*) from sessions") == 2)
    assert look(journal, "select id from requests order by seq") == [(waiting.ids[0],), (new.ids[0],)]
    assert look(journal, "select request_id from notes") == [(waiting.ids[0],)]
    assert not look(journal, "select * from sessions where id = ?", session.id)
    assert pltrack.status().delivered == 0


# -- what is too much -----------------------------------------------------------------------------------------


def test_a_journal_that_is_too_large_gives_up_delivered_content_first(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait
) -> None:
    """Beyond max_size the oldest delivered content goes and the file shrinks; nothing that waits is touched."""
    pltrack.configure(max_size=SMALLEST)
    for _ in range(5):
        for _ in range(20):
            ask("a" * 20 * KIB)
        assert pltrack.flush(30).pending == 0
    stop_delivery()
    waiting = [ask("b" * 20 * KIB).ids[0] for _ in range(10)]
    pltrack.flush(10)
    wait_until(lambda: size(journal) <= SMALLEST)
    assert pltrack.status().lost == 0
    assert number(journal, "select count(*) from requests where state = 'delivered'") == 100
    assert look(journal, "select content from requests where state = 'pending'") == [(1,)] * len(waiting)
    cleared, kept = (
        look(journal, f"select {f}(seq) from requests where content = {c} and state = 'delivered'")
        for f, c in (("max", 0), ("min", 1))
    )
    assert kept[0][0] is None or cleared < kept


def test_what_nobody_delivered_is_given_up_last_and_said(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    """Content without a key goes before the oldest that waits: counted as lost, said, and never sent empty."""
    pltrack.configure(max_size=SMALLEST, delivery="off")
    for _ in range(20):
        ask("a" * 20 * KIB)
    pltrack.configure(api_key="")
    keyless = [ask("b" * 20 * KIB).ids[0] for _ in range(20)]
    pltrack.configure(api_key=promptlayer.api_key)
    for _ in range(60):
        ask("c" * 20 * KIB)
    pltrack.flush(10)
    wait_until(lambda: "were lost" in caplog.text and size(journal) <= SMALLEST)
    record = next(each for each in caplog.records if "were lost" in each.message)
    assert record.levelno == logging.ERROR
    gone = look(journal, "select id, reason, state from requests where content = 0 order by seq")
    assert {(reason, state) for _, reason, state in gone} == {(clearing.GIVEN_UP, "failed")}
    assert set(keyless) < {own_id for own_id, _, _ in gone}
    pltrack.configure(delivery="background")
    status = pltrack.status()
    assert status.lost == len(gone) == status.failed
    assert pltrack.flush(30).pending == 0
    assert len(promptlayer.requests) == 100 - len(gone)
    assert all(logged.body["input"]["messages"] for logged in promptlayer.requests)
    pltrack.shutdown(5)
    assert pltrack.status().lost == len(gone)  # the journal knows, whoever asks


def test_a_full_disk_costs_delivered_content_only(
    promptlayer: FakePromptLayer, journal: Path, wait_until: Wait
) -> None:
    """Where less than min_free is left on the file system, delivered content goes; what waits stays."""
    ask()
    assert pltrack.flush(10).pending == 0
    stop_delivery()
    pltrack.configure(min_free=2**50)
    waiting = ask()
    wait_until(lambda: number(journal, "select count(*) from requests where content = 0") == 1)
    assert look(journal, "select id from requests where content = 1") == [(waiting.ids[0],)]
    assert pltrack.status().lost == 0


def test_a_request_without_content_is_never_sent(promptlayer: FakePromptLayer, journal: Path) -> None:
    """A row whose content is gone, however that came, fails with that as its reason; its neighbours go."""
    pltrack.configure(delivery="off")
    gone, there = ask(), ask()
    gone.score(50)
    pltrack.flush(10)
    look(journal, "delete from bodies where seq = 1")
    pltrack.configure(delivery="background")
    assert pltrack.flush(10).pending == 0
    assert [logged.metadata["pltrack_id"] for logged in promptlayer.requests] == [there.ids[0]]
    states = look(journal, "select state, reason from requests where id = ?", gone.ids[0])
    assert states == [("failed", "its content is not in the journal any more")]
    assert look(journal, "select state from notes") == [("failed",)]


# -- several, and the others' turn ----------------------------------------------------------------------------


def test_one_process_at_a_time_does_the_upkeep(tmp_path: Path) -> None:
    """Who has taken the upkeep over keeps it until it is done, or has died; by the database's clock."""
    first, second = Store.open(tmp_path / "journal.db"), Store.open(tmp_path / "journal.db")
    with first._writing() as db:
        assert clearing.takes_over(db)
    with second._writing() as db:
        assert not clearing.takes_over(db)
    with first._writing() as db:
        clearing.hands_over(db, swept=True)
    with second._writing() as db:
        assert clearing.takes_over(db)
        assert not clearing.sweeps(db, 60)
        db.exec_driver_sql("update meta set value = '1' where key = 'upkeep'")  # the process that had it died
    with first._writing() as db:
        assert clearing.takes_over(db)
    first.close()
    second.close()


@pytest.mark.slow
def test_others_write_while_a_large_journal_is_cleared(journal: Path, wait_until: Wait) -> None:
    """While much is cleared and the file shrinks, another process waits for a few milliseconds."""
    pltrack.configure(delivery="off")
    ask()
    pltrack.flush(10)
    columns = [row[1] for row in look(journal, "pragma table_info(requests)") if row[1] not in ("seq", "id")]
    old = {"state": "'delivered'", "ended_at": "ended_at - 30 * 86400"}
    chosen = ", ".join(old.get(name, name) for name in columns)
    pltrack.shutdown(5)
    look(
        journal,
        f"""insert into requests (id, {", ".join(columns)})
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000)
        select 'x' || i, {chosen} from n, requests where requests.seq = 1""",
    )
    look(journal, "insert into bodies select seq, zeroblob(6000) from requests where state = 'delivered'")
    look(journal, "update meta set value = '0' where key = 'swept'")
    large = journal.stat().st_size
    pltrack.configure(delivery="off")
    ask()
    waited, pause, limit = [], threading.Event(), time.monotonic() + 60
    with closing(sqlite3.connect(journal, timeout=10, isolation_level=None)) as db:
        while db.execute("select count(*) from bodies").fetchone()[0] > 2 or journal.stat().st_size > large / 4:
            started = time.monotonic()
            db.execute("begin immediate")
            db.execute("commit")
            waited.append(time.monotonic() - started)
            pause.wait(0.002)
            assert time.monotonic() < limit, "it did not come to an end"
    waited.sort()
    print(f"{len(waited)} tries: median {waited[len(waited) // 2] * 1000:.1f} ms, most {waited[-1] * 1000:.1f} ms")
    assert waited[len(waited) // 2] < 0.01
    assert waited[-1] < 1


def test_what_status_counts_is_what_there_is(promptlayer: FakePromptLayer, journal: Path) -> None:
    """After deliveries, refusals, orphans and what came back, the numbers are those that counting would give."""
    promptlayer.fail(
        pltrack.testing.Fault(status=422, path="/log-request", when=lambda body: "bad" in str(body["input"]))
    )
    good, bad = ask(), ask("a bad one")
    for session in (good, bad):
        session.score(50)
    early = str(uuid.uuid4())
    pltrack.request(early).score(10)
    pltrack.request(str(uuid.uuid4())).score(10)
    assert pltrack.status().orphans in (0, 2)
    pltrack.flush(5)
    assert pltrack.status().orphans == 2
    handler = PromptLayerCallbackHandler()
    MODEL.invoke("hi", config={"callbacks": [handler], "run_id": uuid.UUID(early)})
    pltrack.configure(api_key="")
    ask()
    pltrack.flush(5)
    status = pltrack.status()
    states = dict(
        look(
            journal,
            """select state, count(*) from
        (select state from requests union all select state from notes) group by state""",
        )
    )
    assert states == {"delivered": status.delivered, "failed": status.failed, "waiting": 1, "pending": 1}
    assert (status.orphans, status.without_key, status.pending) == (1, 1, 2)
