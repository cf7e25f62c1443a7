"""What a journal and a hub both do: the same tests on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from pltrack._journal.browsing import Browser, Filters
from pltrack._journal.charting import facts
from pltrack._journal.hub import Hub
from pltrack._journal.store import Claimed, Delivered, Store
from pltrack._records import new_id
from pltrack.errors import JournalError

ME, OTHER = "1-me", "2-other"
TO = "fingerprint"
Opener = Callable[[], Store]


@pytest.fixture(params=["journal", "hub"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens one and the same store again and again."""
    stores: list[Store] = []
    url = request.getfixturevalue("hub_url") if request.param == "hub" else ""

    def open_one() -> Store:
        stores.append(Hub.open(url) if url else Store.open(tmp_path / "journal.db"))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Opener) -> Store:
    """An empty store."""
    return opened()


def request(id: str = "", **more: Any) -> dict[str, Any]:
    id = id or new_id()
    return {
        "id": id, "session_id": None, "root": None, "owner": ME, "app": "test", "destination": TO, "state": "pending",
        "due_at": 1.0, "attempts": 0, "uncertain": 0, "kind": "chat", "provider": "openai", "model": "gpt-4o",
        "status": "SUCCESS", "linked": 0, "started_at": 1.0, "ended_at": 2.0, "first_token_at": None,
        "input_tokens": 1, "output_tokens": 2, "cached_tokens": None, "reasoning_tokens": None, "cost": 0.5,
        "cache_hit": 0, "tags": "[]",
        "prompt_name": None, "prompt_version": None, "local_link": None,
        "payload": orjson.dumps({"metadata": {"pltrack_id": id}}), **more,
    }  # fmt: skip


def note(request_id: str | None, **more: Any) -> dict[str, Any]:
    return {
        "id": new_id(), "request_id": request_id, "pl_id": None, "session_id": None, "kind": "score",
        "payload": '{"score":90}', "owner": ME, "destination": TO, "due_at": 1.0, "created_at": time.time(), **more,
    }  # fmt: skip


def claimed(store: Store, owner: str = ME, limit: int = 100, patience: float = 5.0) -> list[Claimed]:
    return store.claim([TO], owner, limit, patience)


def test_a_request_is_claimed_once(store: Store) -> None:
    """What one courier holds under a lease no other gets; its body comes with it."""
    row = request()
    store.write([], [row], [])
    (one,) = claimed(store)
    assert (one.id, one.destination, one.attempts, one.uncertain) == (row["id"], TO, 1, False)
    assert one.payload == row["payload"]
    assert claimed(store) == []


def test_another_processs_row_is_borrowed_when_it_is_overdue(store: Store) -> None:
    """A row that its own process does not deliver is taken by another after a while, not before."""
    store.write([], [request("late"), request("fresh", due_at=time.time() - 1)], [])
    assert [one.id for one in claimed(store, OTHER)] == ["late"]
    assert [one.id for one in claimed(store, OTHER, patience=0.0)] == ["fresh"]


def test_rows_of_other_destinations_are_left(store: Store) -> None:
    """A courier gets rows of the destinations that it names, and none that is not due."""
    store.write([], [request(destination="another"), request(destination=""), request(due_at=time.time() + 60)], [])
    assert claimed(store) == []


def test_notes_that_were_there_come_with_their_request(store: Store) -> None:
    """A note written before its request was claimed travels with it; its order is kept."""
    row = request()
    first, second = note(row["id"]), note(row["id"], kind="metadata")
    store.write([], [row], [first])
    store.write([], [], [second])
    (one,) = claimed(store)
    assert [each.kind for each in one.notes] == ["score", "metadata"]
    assert store.claim_notes([TO], ME, 10, 5.0) == []


def test_notes_follow_their_request(store: Store) -> None:
    """Notes that did not fit inside go out once the request has its id, those that did are done with it."""
    row = request()
    store.write([], [row], [note(row["id"]), note(row["id"], kind="metadata")])
    (one,) = claimed(store)
    store.write([], [], [note(row["id"], kind="prompt")])
    store.delivered([Delivered(one, 7, folded=[one.notes[0].seq])])
    assert [(each.kind, each.pl_id) for each in store.claim_notes([TO], ME, 10, 5.0)] == [
        ("metadata", 7),
        ("prompt", 7),
    ]
    store.write([], [], [note(row["id"], kind="score")])
    assert store.outcomes([row["id"]]) == [(row["id"], "delivered", 7, None)]


def test_a_note_never_overtakes_an_earlier_one(store: Store) -> None:
    """While one note of a request is out or waits for its next try, later ones about it stay."""
    store.write([], [], [note(None, pl_id=7), note(None, pl_id=8)])
    (first, other) = store.claim_notes([TO], ME, 10, 5.0)
    store.write([], [], [note(None, pl_id=7, kind="metadata")])
    assert store.claim_notes([TO], ME, 10, 5.0) == []
    store.retry_notes([(first, 60.0, "away")])
    assert store.claim_notes([TO], ME, 10, 5.0) == []
    store.notes_delivered([other.seq])
    store.retry_notes([(first, 0.0, "away")])
    assert store.claim_notes([TO], ME, 10, 5.0) == []  # it is not out: only what is claimed can be put back


def test_notes_of_a_refused_request_fail_with_it(store: Store) -> None:
    """When a request is refused for good, what was said about it fails too, before and after."""
    row = request()
    store.write([], [row], [note(row["id"])])
    (one,) = claimed(store)
    store.failed([(one, "400 bad")])
    store.write([], [], [note(row["id"])])
    assert store.totals().notes == {"failed": 2}
    assert store.outcomes([row["id"]]) == [(row["id"], "failed", None, "400 bad")]


def test_what_is_put_back_is_tried_later(store: Store) -> None:
    """A row put back is due after its wait, remembers that it may have arrived, and counts attempts that count."""
    store.write([], [request("now"), request("later")], [])
    now, later = sorted(claimed(store), key=lambda one: one.id, reverse=True)
    store.retry([(now, 0.0, 1, "timeout", False), (later, 60.0, 0, "500", True)])
    (again,) = claimed(store)
    assert (again.id, again.attempts, again.uncertain) == ("now", 1, True)
    due = store.next_due([TO], ME, 5.0)
    assert due is not None
    assert 50 < due <= 60


def test_a_session_note_reaches_all_its_requests(store: Store) -> None:
    """A note about a session becomes one for each of its answered requests, nested sessions' included."""
    outer, inner = session("outer"), session("inner", parent="outer")
    rows = [
        request("a", session_id="outer"),
        request("b", session_id="inner"),
        request("c", session_id="inner", status="ERROR"),
        request("d"),
    ]
    store.write([outer, inner], rows, [])
    store.write([], [], [note(None, session_id="outer"), note(None, session_id="outer", kind="metadata")])
    by_id = {one.id: [each.kind for each in one.notes] for one in claimed(store)}
    assert by_id == {"a": ["score", "metadata"], "b": ["score", "metadata"], "c": ["metadata"], "d": []}


def session(id: str, parent: str | None = None) -> dict[str, Any]:
    return {
        "id": id, "root": "outer", "parent": parent, "name": "", "user": None, "conversation": None, "tags": "[]",
        "metadata": "{}", "app": "test", "started_at": 1.0,
    }  # fmt: skip


def test_the_end_of_a_session_hurries_its_requests(store: Store) -> None:
    """Requests whose outermost session ended are due at once instead of after the linger."""
    row = request(root="root", due_at=time.time() + 60)
    store.write([], [row], [], ["root"])
    due = store.next_due([TO], ME, 5.0)
    assert due is not None
    assert due < 1


def test_an_id_that_is_taken_costs_no_record(store: Store) -> None:
    """Another process's request under the same id is kept under a new one; the very same row is kept once."""
    first, second = request("same"), request("same", owner=OTHER)
    store.write([], [first], [])
    renamed = store.write([], [dict(second), request("next")], [])
    ids = {one.id: one for one in claimed(store, patience=0.0)}
    assert ids.keys() == {"same", "next", renamed["same"]}
    assert orjson.loads(ids[renamed["same"]].payload)["metadata"]["pltrack_id"] == renamed["same"]
    assert store.write([], [request("same")], []) == {}
    assert sum(store.totals().requests.values()) == 3


def test_rows_of_a_dead_process_are_freed(store: Store, opened: Opener) -> None:
    """When a lease has ended the row is free again, marked as one that may have arrived."""
    store.write([], [request("x")], [note(None, pl_id=7)])
    assert len(claimed(store)) == len(store.claim_notes([TO], ME, 10, 5.0)) == 1
    _end_leases(store)
    assert opened().expire() == 2
    (again,) = claimed(store)
    assert again.uncertain


def _end_leases(store: Store) -> None:
    with store._writing() as db:
        for table in ("requests", "notes"):
            db.exec_driver_sql(f"update {table} set lease_until = 1")


def test_orphans_are_given_up_after_a_day(store: Store) -> None:
    """A note whose request nobody knows waits a day, and is counted meanwhile."""
    store.write([], [], [note("nobody"), note("nobody", created_at=time.time() - 25 * 3600)])
    assert store.totals().orphans == 2
    store.expire()
    assert store.totals().orphans == 1
    assert store.totals().notes == {"waiting": 1, "failed": 1}


def test_workers_share_and_never_double(opened: Opener) -> None:
    """Four workers that claim at once get every row, none of them twice, and notes arrive while they do."""
    rows = [request(f"r{number}") for number in range(400)]
    opened().write([], rows, [])
    start = threading.Barrier(5)

    def work(name: int) -> list[Claimed]:
        store, mine = opened(), []
        start.wait(10)
        while got := store.claim([TO], f"w{name}", 20, 0.0):
            mine += got
            store.delivered([Delivered(one, one.seq) for one in got])
        return mine

    def talk() -> None:
        store = opened()
        start.wait(10)
        for row in rows:
            store.write([], [], [note(row["id"])])

    with ThreadPoolExecutor(5) as pool:
        talking = pool.submit(talk)
        parts = [each.result(60) for each in [pool.submit(work, name) for name in range(4)]]
        talking.result(60)
    ids = [one.id for part in parts for one in part]
    assert sorted(ids) == sorted(row["id"] for row in rows)
    totals = opened().totals()
    assert totals.requests == {"delivered": 400}
    assert totals.notes == {"pending": 400}


def test_a_store_that_fails_says_so_without_content(opened: Opener) -> None:
    """An error names the place and the driver's words, never what was being written, and no password."""
    store = opened()
    with pytest.raises(JournalError) as caught:
        store.write([], [request(model=None, payload=b"my secret words")], [])
    assert "secret" not in str(caught.value)
    assert claimed(store) == []


def test_flush_knows_what_is_unsettled(store: Store) -> None:
    """Rows up to a mark are unsettled until they are delivered or failed; later ones are not asked for."""
    store.write([], [request("a")], [])
    marks = store.marks()
    store.write([], [request("b")], [])
    assert store.unsettled(ME, marks, [TO])
    assert store.progress(ME, marks, (0, 0)) == {"pending": 1, "written": 1}
    (one,) = [each for each in claimed(store) if each.id == "a"]
    assert store.unsettled(ME, marks, [TO])
    store.delivered([Delivered(one, 1)])
    assert not store.unsettled(ME, marks, [TO])
    assert store.progress(ME, marks, marks) == {"written": 0}


def test_pages_of_requests(store: Store) -> None:
    """Requests come newest first, page by page, and every filter finds what it says."""
    rows = [
        request("a", model="m1", tags='["x","y"]', prompt_name="p", prompt_version=1),
        request("b", model="m2", status="ERROR", session_id="inner", root="outer"),
        request("c", payload=b'{"said":"a \\"needle\\" in hay","metadata":{}}', prompt_name="p", prompt_version=2),
    ]
    store.write([session("outer"), {**session("inner", "outer"), "user": "u1"}], rows, [note("a")])
    browser = Browser(store)
    first = browser.requests(Filters(), limit=2)
    assert [row["id"] for row in first.rows] == ["c", "b"]
    second = browser.requests(Filters(), before=first.older, limit=2)
    assert ([row["id"] for row in second.rows], second.older) == (["a"], None)
    assert [each["kind"] for each in second.rows[0]["notes"]] == ["score"]
    wanted = {
        Filters(model="m1"): ["a"], Filters(status="ERROR"): ["b"], Filters(tag="y"): ["a"], Filters(tag="%"): [],
        Filters(user="u1"): ["b"], Filters(session="outer"): ["b"], Filters(prompt="p"): ["c", "a"],
        Filters(prompt="p@2"): ["c"], Filters(text='"Needle"'): ["c"], Filters(text="%"): [], Filters(since=2.0): [],
        Filters(state="pending", until=2.0): ["c", "b", "a"],
    }  # fmt: skip
    for filters, expected in wanted.items():
        assert [row["id"] for row in browser.requests(filters).rows] == expected, filters
    assert sorted(fact.id for fact in facts(store, Filters(prompt="p")).rows) == ["a", "c"]


def test_pages_of_sessions(store: Store) -> None:
    """Outermost sessions come with what happened in them; one opens with its family and calls."""
    rows = [
        request("a", session_id="outer", root="outer"),
        request("b", session_id="inner", root="outer", status="ERROR", ended_at=5.0),
    ]
    store.write([session("outer"), session("inner", "outer")], rows, [])
    (row,), older, _ = Browser(store).sessions()
    assert (row["id"], row["calls"], row["errors"], row["tokens"], row["cost"], row["seconds"], older) == (
        "outer", 2, 1, 6, 1.0, 4.0, None,
    )  # fmt: skip
    family, calls = Browser(store).session("inner")
    assert [each["id"] for each in family] == ["outer", "inner"]
    assert [each["id"] for each in calls] == ["a", "b"]
    assert Browser(store).session("nobody") == ([], [])
