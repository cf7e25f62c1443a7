"""What the courier does with every kind of answer, seen from the program and from the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from wire import in_call_order

import pltrack
from pltrack._courier import search
from pltrack.testing import FakePromptLayer, Fault

MODEL = FakeListChatModel(responses=["four"])


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look up unknown outcomes every 0.2 s: the real pace keeps to PromptLayer's 10 searches a minute."""
    monkeypatch.setattr(search, "EVERY", 0.2)
    monkeypatch.setattr(search, "PATIENCE", (0.2, 0.2))


def track_one(text: str = "What comes after 1,2,3?", **options: Any) -> pltrack.Session:
    """Make one tracked call and return its session."""
    with pltrack.pl_session(**options) as session:
        MODEL.invoke(text)
    return session


def paths(server: FakePromptLayer) -> list[str]:
    return [call.path for call in server.calls]


def test_score_metadata_and_prompt_link_travel_inside_one_call(promptlayer: FakePromptLayer) -> None:
    """A request with a score, metadata and a prompt link said in its session costs one HTTP call."""
    promptlayer.publish("example", {"type": "completion", "content": [{"type": "text", "text": "{product}"}]})
    with pltrack.pl_session() as session:
        MODEL.invoke("hi")
        session.score(90)
        session.metadata(plan="pro")
        session.link_prompt("example", {"product": "toasters"}, version=1)
    assert pltrack.flush(10).pending == 0
    (logged,) = promptlayer.requests
    assert paths(promptlayer) == ["/log-request"]
    assert logged.scores == {"default": 90}
    assert logged.metadata["plan"] == "pro"
    assert logged.prompt is not None
    assert (logged.prompt["name"], logged.prompt["version"]) == ("example", 1)
    assert logged.prompt["variables"] == {"product": "toasters"}


def test_what_does_not_fit_inside_follows_in_order(promptlayer: FakePromptLayer) -> None:
    """Named scores, a score of 0 and a second plain score go as calls of their own, in the order they were said."""
    with pltrack.pl_session() as session:
        MODEL.invoke("hi")
        session.score(0)
        session.score(70, name="tone")
        session.score(30)
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    sent = [call.body for call in promptlayer.calls if call.path == "/rest/track-score"]
    assert [(each.get("name"), each["score"]) for each in sent] == [(None, 0), ("tone", 70), (None, 30)]
    assert logged.scores == {"default": 30, "tone": 70}


def test_a_score_given_after_delivery_arrives(promptlayer: FakePromptLayer) -> None:
    """A score for a request that PromptLayer already has goes out under its id."""
    session = track_one()
    assert session.request_ids == (promptlayer.requests[0].id,)
    assert session.score(55) == 1
    pltrack.flush(10)
    assert promptlayer.requests[0].scores == {"default": 55}


def test_a_server_error_is_tried_again(promptlayer: FakePromptLayer) -> None:
    """A 503 delays a record and loses nothing."""
    promptlayer.fail(Fault(status=503, times=2, path="/log-request"))
    track_one()
    pltrack.flush(30)
    assert len(promptlayer.requests) == 1
    assert pltrack.status().failed == 0


def test_retry_after_is_honoured(promptlayer: FakePromptLayer) -> None:
    """After a 429 with Retry-After nothing is sent before that time."""
    promptlayer.fail(Fault(status=429, times=1, path="/log-request", headers={"Retry-After": "1"}))
    started = time.monotonic()
    track_one()
    promptlayer.wait_for(lambda pl: pl.requests, timeout=20)
    assert time.monotonic() - started >= 1


def test_a_refused_record_fails_alone(promptlayer: FakePromptLayer, caplog: pytest.LogCaptureFixture) -> None:
    """A 422 fails that row with the server's words, and its neighbours go on."""
    promptlayer.fail(Fault(status=422, path="/log-request", when=lambda body: "bad" in str(body["input"])))
    track_one("good one")
    bad = track_one("bad one")
    track_one("good two")
    result = pltrack.flush(10)
    assert (result.delivered, result.failed, result.pending) == (2, 1, 0)
    assert len(promptlayer.requests) == 2
    assert bad.wait(1) == {bad.ids[0]: None}
    assert "422" in caplog.text


def test_a_wrong_key_pauses_delivery_and_says_it_once(
    promptlayer: FakePromptLayer, caplog: pytest.LogCaptureFixture
) -> None:
    """A 401 pauses the destination loudly; the rows wait, and request_ids does not."""
    promptlayer.revoke(promptlayer.api_key)
    session = track_one()
    promptlayer.wait_for(lambda pl: any(call.status == 401 for call in pl.calls))
    assert pltrack.flush(5).pending == 1
    track_one()
    started = time.monotonic()
    assert session.request_ids == ()
    assert time.monotonic() - started < 2
    status = pltrack.status()
    assert status.paused_reason is not None
    assert "401" in status.paused_reason
    assert sum("the key was refused" in record.message for record in caplog.records) == 1
    assert promptlayer.api_key not in caplog.text


def test_an_unknown_prompt_does_not_cost_the_record(promptlayer: FakePromptLayer) -> None:
    """A link to a prompt that PromptLayer does not know is dropped with its reason; the request is delivered."""
    with pltrack.pl_session() as session:
        MODEL.invoke("hi")
        session.link_prompt("nobody", version=3)
        session.score(10)
    result = pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert logged.prompt is None
    assert logged.scores == {"default": 10}
    assert result.failed == 1


def test_a_body_that_is_too_large_is_cut_and_marked(promptlayer: FakePromptLayer) -> None:
    """After a 413 the longest texts are cut, with a mark that tells their size."""
    promptlayer.fail(Fault(status=413, path="/log-request", when=lambda body: len(str(body)) > 20_000))
    track_one("long " * 20_000)
    pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert "cut by pltrack: 100000 characters" in str(logged.body)


def test_a_dropped_answer_does_not_bill_twice(promptlayer: FakePromptLayer) -> None:
    """When the connection ends after the request was stored, its id is looked up instead of sending it again."""
    promptlayer.fail(Fault.drop(times=1, path="/log-request", store=True))
    session = track_one()
    promptlayer.wait_for(lambda pl: pl.requests)
    assert session.wait(20) == {session.ids[0]: promptlayer.requests[0].id}
    assert len(promptlayer.requests) == 1


def test_a_dropped_request_is_sent_again(promptlayer: FakePromptLayer) -> None:
    """When the connection ends and the search does not know the request, it is sent again."""
    promptlayer.fail(Fault.drop(times=1, path="/log-request", store=False))
    session = track_one()
    assert session.wait(20) == {session.ids[0]: promptlayer.requests[0].id}


@pytest.mark.parametrize("make", [Fault.garbage, Fault.truncated])
def test_an_answer_without_sense_loses_nothing(promptlayer: FakePromptLayer, make: Any) -> None:
    """A garbage or truncated answer is an unknown outcome: looked up, then sent again."""
    promptlayer.fail(make(times=1, path="/log-request"))
    session = track_one()
    assert session.wait(20)[session.ids[0]] is not None
    assert len(promptlayer.requests) == 1


def test_the_caller_never_waits_for_a_silent_server(promptlayer: FakePromptLayer) -> None:
    """With a server that accepts and never answers, calls and verbs take no longer than without tracking."""
    promptlayer.fail(Fault.silent(path="/"))
    started = time.monotonic()
    for _ in range(20):
        track_one().score(50)
    assert time.monotonic() - started < 3
    assert pltrack.flush(0.2).pending > 0


def test_a_refused_connection_is_not_lost(promptlayer: FakePromptLayer) -> None:
    """What was recorded while the port was closed arrives once it is open."""
    promptlayer.stop()
    track_one()
    assert pltrack.flush(0.3).pending == 1
    promptlayer.start()
    promptlayer.wait_for(lambda pl: pl.requests, timeout=30)


def test_two_keys_in_one_process_never_cross(promptlayer: FakePromptLayer) -> None:
    """A session with a key of its own goes to that workspace, its neighbour to the configured one."""
    promptlayer.accept("pl_other")
    first = track_one()
    second = track_one(api_key="pl_other")
    pltrack.flush(10)
    assert {logged.api_key for logged in promptlayer.requests} == {promptlayer.api_key, "pl_other"}
    assert first.request_ids != second.request_ids


def test_without_a_key_everything_stays_local(
    pltrack_journal: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key: nothing is sent, ids come at once as none, it is said once, the rows wait for nobody."""
    monkeypatch.delenv("PROMPTLAYER_API_KEY", raising=False)
    pltrack.configure(api_key="", delivery="background")
    session = track_one()
    track_one()
    assert session.request_ids == ()
    assert session.score(9) == 1
    assert pltrack.flush(5).delivered == 0
    assert pltrack.status().without_key == 2
    assert sum("no PromptLayer key" in record.message for record in caplog.records) == 1


def test_requests_of_a_session_can_be_scored_by_its_id(promptlayer: FakePromptLayer) -> None:
    """A session handle speaks about the session's answered requests and those of nested sessions."""
    with pltrack.pl_session("outer") as outer:
        MODEL.invoke("one")
        with pltrack.pl_session("inner"):
            MODEL.invoke("two")
    track_one("not meant")
    pltrack.flush(10)
    pltrack.session(outer.id).score(77)
    pltrack.flush(10)
    assert [logged.scores for logged in in_call_order(promptlayer)] == [{"default": 77}, {"default": 77}, {}]


def test_a_callback_that_hangs_does_not_hold_up_delivery(promptlayer: FakePromptLayer) -> None:
    """pl_id_callback runs on a thread of its own, never the courier's."""
    release, entered = threading.Event(), threading.Event()

    def hang(_: int) -> None:
        entered.set()
        release.wait(20)

    MODEL.invoke("hi", config={"callbacks": [pltrack.PromptLayerCallbackHandler(pl_id_callback=hang)]})
    assert entered.wait(10)
    track_one()
    assert pltrack.flush(10).pending == 0
    assert len(promptlayer.requests) == 2
    release.set()


def test_the_guide_works_even_when_the_id_cannot_come(
    promptlayer: FakePromptLayer, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """With delivery elsewhere the callback gets our own id at once, and every verb takes it."""
    pltrack.configure(delivery="external")
    got: list[Any] = []
    MODEL.invoke("hi", config={"callbacks": [pltrack.PromptLayerCallbackHandler(pl_id_callback=got.append)]})
    wait_until(lambda: got)
    assert isinstance(got[0], str)
    assert pltrack.track.score(request_id=got[0], score=100) is True
    pltrack.configure(delivery="background")
    assert pltrack.flush(10).pending == 0
    assert promptlayer.requests[0].scores == {"default": 100}


def test_shutdown_can_be_repeated_and_use_starts_anew(promptlayer: FakePromptLayer) -> None:
    """shutdown() is idempotent, and the next call is tracked again."""
    track_one()
    pltrack.shutdown(5)
    pltrack.shutdown(5)
    track_one()
    pltrack.flush(10)
    assert len(promptlayer.requests) == 2


def test_a_changed_journal_keeps_what_went_before(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """configure(journal=) holds from then on; what was recorded before is still delivered."""
    track_one("before")
    pltrack.configure(journal=tmp_path / "second.db")
    track_one("after")
    promptlayer.wait_for(lambda pl: len(pl.requests) == 2)


async def test_aflush_and_arequest_ids_leave_the_loop_free(promptlayer: FakePromptLayer) -> None:
    """In async code ids are awaited; request_ids answers at once and names the other one."""
    async with pltrack.pl_session() as session:
        await MODEL.ainvoke("hi")
    assert session.request_ids == ()
    assert await session.arequest_ids() == (promptlayer.requests[0].id,)
    assert (await pltrack.aflush(5)).pending == 0
    assert session.request_ids == (promptlayer.requests[0].id,)


def test_many_threads_lose_nothing(promptlayer: FakePromptLayer) -> None:
    """Calls from many threads at once all arrive, once."""
    logging.getLogger("pltrack").setLevel(logging.INFO)
    threads = [threading.Thread(target=lambda: [track_one() for _ in range(20)]) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert pltrack.flush(30).pending == 0
    ours = [logged.metadata["pltrack_id"] for logged in promptlayer.requests]
    assert len(ours) == len(set(ours)) == 160
