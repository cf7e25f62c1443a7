"""What the page asks of a journal and of a hub: the same answers, from a bounded number of rows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_store import note, request, session

from pltrack._journal import browsing
from pltrack._journal.browsing import Browser, Filters
from pltrack._journal.charting import facts
from pltrack._journal.hub import Hub
from pltrack._journal.store import Store

NOW = time.time()


@pytest.fixture(params=["journal", "hub"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty journal, and an empty hub."""
    hub = request.param == "hub"
    found = Hub.open(request.getfixturevalue("hub_url")) if hub else Store.open(tmp_path / "journal.db")
    yield found
    found.close()


def at(ago: float, name: str = "", **more: object) -> dict[str, object]:
    """Return a request that ended a while ago."""
    return request(name, started_at=NOW - ago - 1, ended_at=NOW - ago, **more)


def fail(store: Store, *names: str) -> None:
    """Let PromptLayer refuse some of what is due."""
    rows = store.claim([at(0)["destination"]], "1-me", 100, 5.0)
    store.failed([(row, f"422 no {row.id}") for row in rows if row.id in names])
    store.retry([(row, 3000.0, 0, "503 away", True) for row in rows if row.id not in names])


def test_facts_of_a_time(store: Store) -> None:
    """Charts get what began in a time, in whatever state it is and however late it came, with the last scores."""
    names = ["refused", "cleared", "waiting", "old"]
    store.write([], [at(60, "refused"), at(61, "cleared"), at(50, "waiting"), at(9000, "old")], [])
    fail(store, "refused", "cleared")
    store.write([], [at(3000, "late")], [note(each) for each in names])
    store.write([], [], [note("waiting", payload='{"score":10}'), note("waiting", payload='{"score":7,"name":"x"}')])
    found = facts(store, Filters(since=NOW - 3600))
    assert {each.id for each in found.rows} == {"refused", "cleared", "waiting", "late"}
    assert found.scores["waiting"] == {"": 10, "x": 7}
    assert found.every == 1
    assert {each.id for each in facts(store, Filters()).rows} == {*names, "late"}
    assert [each.id for each in facts(store, Filters(since=NOW - 55)).rows] == ["waiting"]


def test_of_very_many_a_part_stands_for_all(store: Store) -> None:
    """Of more than can be drawn one in so many is taken, evenly over what repeats itself, and it is said how many."""
    rows = [at(6000 - number, model=f"m{number % 5}") for number in range(5000)]
    store.write([], rows, [])
    found = facts(store, Filters(since=NOW - 7000), most=500)
    assert (found.every, len(found.rows)) == (10, 500)
    by_model = [sum(each.model == f"m{number}" for each in found.rows) * found.every for number in range(5)]
    assert all(800 < each < 1200 for each in by_model)
    one = facts(store, Filters(since=NOW - 7000, model="m3"), most=500)
    assert {each.model for each in one.rows} == {"m3"}
    assert facts(store, Filters(since=NOW - 1500), most=500).every == 1


def test_a_page_looks_at_so_many_rows_and_says_how_far(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is rare is found by looking further; each look is bounded and tells until when it went."""
    monkeypatch.setattr(browsing, "_LOOKED_AT", 100)
    store.write([session("s")], [at(1000 - n, f"r{n}", model="rare" if n == 7 else "usual") for n in range(250)], [])
    browser, before, looks = Browser(store), None, 0
    while True:
        page = browser.requests(Filters(model="rare"), before=before)
        looks += 1
        if page.rows:
            break
        assert page.since is not None
        before = page.older
    assert (page.rows[0]["id"], looks, page.older) == ("r7", 3, None)
    store.write([], [at(0, "in-session", session_id="s", root="s")], [])
    store.write([], [at(0) for _ in range(150)], [])
    assert [row["id"] for row in browser.requests(Filters(session="s")).rows] == ["in-session"]
    assert browser.requests(Filters(model="rare", since=NOW - 10)).older is not None
    assert browser.requests(Filters(model="rare", since=NOW + 9000)).older is None


def test_sessions_page_by_page(store: Store) -> None:
    """Sessions that began at one moment are each shown once; a user's and a tag's are found."""
    tags = json.dumps(["é", "x"])
    rows = [
        {**session(f"s{n}"), "root": f"s{n}", "started_at": 5.0, "user": f"u{n % 2}", "tags": tags if n == 3 else "[]"}
        for n in range(9)
    ]
    store.write(rows, [], [])
    browser, seen, before = Browser(store), [], None
    while True:
        page = browser.sessions(before=before, limit=4)
        seen += [row["id"] for row in page.rows]
        if page.older is None:
            break
        before = page.older
    assert seen == [f"s{n}" for n in reversed(range(9))]
    assert [row["id"] for row in browser.sessions(user="u1").rows] == ["s7", "s5", "s3", "s1"]
    assert [row["id"] for row in browser.sessions(tag="é").rows] == ["s3"]
    assert browser.sessions(tag="%").rows == []


def test_sums_of_a_session_are_of_what_is_in_it(store: Store) -> None:
    """A session's sums hold what is nested in it, a nested one's no more than its own."""
    family = [{**session(name, parent), "root": "a"} for name, parent in (("a", None), ("b", "a"), ("c", "b"))]
    rows = [request(f"in-{name}", session_id=name, root="a") for name in ("a", "b", "c")]
    store.write(family, rows, [])
    for name, calls in (("a", 3), ("b", 2), ("c", 1)):
        around, there = Browser(store).session(name)
        assert {each["id"] for each in around} == {"a", "b", "c"}
        assert next(each["calls"] for each in around if each["id"] == name) == calls
        assert len(there) == 3


def test_why_something_is_not_delivered(store: Store) -> None:
    """What is refused and what waits is listed with the server's words, which are counted."""
    store.write([], [at(3, "bad"), at(2, "worse"), at(1, "waits")], [])
    fail(store, "bad", "worse")
    browser = Browser(store)
    assert [row["id"] for row in browser.undelivered()] == ["worse", "bad", "waits"]
    assert sorted(browser.reasons()) == [
        ("requests", "failed", "422 no bad", 1),
        ("requests", "failed", "422 no worse", 1),
        ("requests", "pending", "503 away", 1),
    ]
    assert browser.destinations() == [("fingerprint", "failed", 2), ("fingerprint", "pending", 1)]
