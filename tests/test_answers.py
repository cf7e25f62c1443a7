"""The table of answers: what each does to a record, to its neighbours, and to the destination."""

from __future__ import annotations

import email.utils
import itertools
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from journals import opened
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from programs import environment, run
from sockets import raw_server, read_request, tls_server

import pltrack
from pltrack._courier import answers, line, search
from pltrack._journal.store import Store
from pltrack.testing import FakePromptLayer, Fault
from pltrack.testing._http import Incoming, LoopbackServer, Outgoing

MODEL = FakeListChatModel(responses=["four"])
WaitUntil = Callable[..., None]


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look up unknown outcomes every 0.2 s: the real pace keeps to PromptLayer's 10 searches a minute; retry soon."""
    monkeypatch.setattr(answers, "_FIRST_WAIT", 0.1)
    monkeypatch.setattr(search, "EVERY", 0.2)
    monkeypatch.setattr(search, "PATIENCE", (0.2, 0.2))


def track(*texts: str, **options: Any) -> pltrack.Session:
    """Make tracked calls and return their session."""
    with pltrack.pl_session(**options) as session:
        for text in texts or ("hi",):
            MODEL.invoke(text)
    return session


def paths(server: FakePromptLayer) -> list[str]:
    return [call.path for call in server.calls]


def times_of(server: FakePromptLayer, path: str = "/log-request") -> list[float]:
    """Return a list that takes down when calls come."""
    came: list[float] = []

    def note(_: object) -> bool:
        came.append(time.monotonic())
        return False

    server.fail(Fault(path=path, when=note))
    return came


# -- 4xx ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refused_row_keeps_the_servers_words(
    promptlayer: FakePromptLayer, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """It is asked once, fails alone with what the server said, and its neighbours of the same moment go on."""
    refusal = {"success": False, "message": "the moon is full"}
    promptlayer.fail(
        Fault(status=status, body=refusal, path="/log-request", when=lambda body: "bad" in str(body["input"]))
    )
    session = track("good 1", "good 2", "bad", "good 3")
    result = pltrack.flush(10)
    assert (result.delivered, result.failed, result.pending) == (3, 1, 0)
    assert [got is None for got in session.wait(1).values()] == [False, False, True, False]
    assert paths(promptlayer) == ["/log-request"] * 4
    assert f"{status} the moon is full" in caplog.text


def test_a_bad_note_does_not_cost_its_request(promptlayer: FakePromptLayer) -> None:
    """Where a call is refused for what was folded into it, the request goes without, and the note fails by itself."""
    promptlayer.fail(Fault(status=422, when=lambda body: body.get("score") == 13))
    with pltrack.pl_session() as session:
        MODEL.invoke("hi")
        session.score(13)
        session.metadata(plan="pro")
    result = pltrack.flush(10)
    (logged,) = promptlayer.requests
    assert logged.metadata["plan"] == "pro"
    assert logged.scores == {}
    assert (result.delivered, result.failed) == (2, 1)


def test_a_prompts_own_link_that_is_refused_can_be_seen(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """A registry prompt that PromptLayer no longer knows costs the link, which is kept as failed with the reason."""
    template = {"type": "chat", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello {name}"}]}]}
    promptlayer.publish("example", {**template, "input_variables": ["name"]})
    prompt = pltrack.prompts.get("example", langchain=True)
    promptlayer.fail(Fault(status=404, path="/log-request", when=lambda body: bool(body.get("prompt_name"))))
    with pltrack.pl_session() as session:
        (prompt | MODEL).invoke({"name": "Ada"})
        session.score(80)
    result = pltrack.flush(10)
    assert (result.delivered, result.pending) == (2, 0)
    assert promptlayer.requests[0].scores == {"default": 80}
    pltrack.shutdown(5)
    with opened(tmp_path / "journal.db") as db:
        ((state, payload, reason),) = db.execute("select state, payload, reason from notes where kind = 'prompt'")
    assert (state, "example" in payload, reason[:3]) == ("failed", True, "404")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_pauses_and_comes_back(
    promptlayer: FakePromptLayer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It is said once; one row at a time asks whether the key is good again; then all of them go."""
    monkeypatch.setattr(line, "PROBE_KEY_EVERY", 0.2)
    promptlayer.fail(Fault(status=status, path="/log-request"))
    track(*[f"call {n}" for n in range(20)])
    promptlayer.wait_for(lambda pl: len(pl.calls) >= 12)
    assert pltrack.status().paused_reason is not None
    assert sum("the key was refused" in record.message for record in caplog.records) == 1
    promptlayer.heal()
    promptlayer.wait_for(lambda pl: len(pl.requests) == 20)
    assert pltrack.flush(10).pending == 0
    assert pltrack.status().paused_reason is None
    assert sum("answers again" in record.message for record in caplog.records) == 1


def test_a_refused_key_stops_what_is_already_claimed(promptlayer: FakePromptLayer) -> None:
    """Of 60 rows claimed at once only those already out are sent with a bad key."""
    promptlayer.revoke(promptlayer.api_key)
    track(*[f"call {n}" for n in range(60)])
    pltrack.flush(10)
    assert 1 <= len(promptlayer.calls) <= 16
    assert pltrack.flush(1).pending == 60


def test_notes_alone_end_a_pause(
    promptlayer: FakePromptLayer, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """A pause that only a score waits behind ends, too, when the key is good again."""
    monkeypatch.setattr(line, "PROBE_KEY_EVERY", 0.2)
    session = track()
    pltrack.flush(10)
    promptlayer.revoke(promptlayer.api_key)
    session.score(70)
    wait_until(lambda: pltrack.status().paused_reason)
    promptlayer.accept(promptlayer.api_key)
    promptlayer.wait_for(lambda pl: pl.requests[0].scores == {"default": 70})


def test_a_body_that_is_always_too_large_is_refused_in_the_end(promptlayer: FakePromptLayer) -> None:
    """A server that answers 413 to everything is not asked for ever."""
    promptlayer.fail(Fault(status=413, path="/log-request"))
    track("long " * 5_000)
    assert pltrack.flush(10).failed == 1
    assert 2 <= len(promptlayer.calls) <= 12


# -- 429 and Retry-After --------------------------------------------------------------------------------------


def test_too_many_requests_without_a_time(promptlayer: FakePromptLayer) -> None:
    """A bare 429 is tried again after a backoff."""
    promptlayer.fail(Fault(status=429, times=2, path="/log-request"))
    track()
    promptlayer.wait_for(lambda pl: pl.requests)
    assert pltrack.status().failed == 0


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_as_a_date_holds_for_everything(promptlayer: FakePromptLayer, status: int) -> None:
    """Until that moment nothing at all goes there, new records included."""
    came = times_of(promptlayer)
    until = datetime.now(UTC) + timedelta(seconds=3)
    promptlayer.fail(
        Fault(
            status=status,
            times=1,
            path="/log-request",
            headers={"Retry-After": email.utils.format_datetime(until, True)},
        )
    )
    track("first")
    promptlayer.wait_for(lambda pl: pl.calls)
    track("second")
    promptlayer.wait_for(lambda pl: len(pl.requests) == 2, timeout=20)
    assert min(came[1:]) - came[0] > 1.4


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("value", ["inf", "nan", "-1", "soon", "1e999", "Fri, 31 Feb 2026 99:00:00 GMT"])
def test_a_retry_after_without_sense_parks_nothing(promptlayer: FakePromptLayer, status: int, value: str) -> None:
    """What is no time is no reason to wait longer than a backoff."""
    promptlayer.fail(Fault(status=status, times=1, path="/log-request", headers={"Retry-After": value}))
    track()
    promptlayer.wait_for(lambda pl: pl.requests)


def test_a_far_retry_after_is_an_hour_at_most(promptlayer: FakePromptLayer, tmp_path: Path) -> None:
    """No server parks a record for years."""
    promptlayer.fail(Fault(status=503, path="/log-request", headers={"Retry-After": "999999999"}))
    track()
    promptlayer.wait_for(lambda pl: pl.calls and pl.calls[0].status)
    pltrack.shutdown(0)
    with opened(tmp_path / "journal.db") as db:
        (due,) = db.execute("select max(due_at) from requests").fetchone()
    assert due - time.time() <= 3601


# -- 5xx, and no connection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 408, 425, 500, 502, 503])
def test_what_may_pass_is_tried_again(promptlayer: FakePromptLayer, status: int) -> None:
    """Nothing is lost, nothing is looked up, and it arrives once."""
    promptlayer.fail(Fault(status=status, times=2, path="/log-request"))
    track()
    promptlayer.wait_for(lambda pl: pl.requests)
    assert set(paths(promptlayer)) == {"/log-request"}


def test_a_gateway_that_gave_up_waiting_is_an_unknown_outcome(promptlayer: FakePromptLayer) -> None:
    """A 504 may come after the request was stored: it is looked up, and not billed twice."""
    promptlayer.fail(Fault(status=504, times=1, path="/log-request", store=True))
    session = track()
    assert session.wait(10) == {session.ids[0]: promptlayer.requests[0].id}
    assert paths(promptlayer) == ["/log-request", search.PATH]


def test_a_name_that_nobody_knows(tmp_path: Path, wait_until: WaitUntil) -> None:
    """A DNS failure delays, and says what it is."""
    pltrack.configure(
        api_key="pl_x", base_url="http://promptlayer.invalid", journal=tmp_path / "journal.db", delivery="background"
    )
    track()
    wait_until(lambda: "DNS" in (pltrack.status().last_error or ""))
    status = pltrack.status()
    assert (status.pending, status.failed) == (1, 0)


def test_a_name_server_that_does_not_answer_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    """A program ends in time while a look-up of PromptLayer's address hangs."""
    out = run(
        """
        import socket
        asked = threading.Event()
        def hang(*args, **kwargs):
            asked.set()
            threading.Event().wait(60)
        with pltrack.pl_session():
            model.invoke("hi")
        socket.getaddrinfo = hang
        asked.wait(20)
        print(time.time(), flush=True)
        """,
        environment(
            tmp_path / "journal.db", PROMPTLAYER_API_KEY="pl_x", PROMPTLAYER_BASE_URL="http://promptlayer.invalid"
        ),
    )
    assert time.time() - float(out) < 5


def test_https_to_a_server_that_speaks_plain_http(promptlayer: FakePromptLayer, wait_until: WaitUntil) -> None:
    """A failed TLS handshake delays; nothing was sent, so nothing is looked up."""
    pltrack.configure(base_url=promptlayer.url.replace("http:", "https:"))
    track()
    wait_until(lambda: "SSL" in (pltrack.status().last_error or ""))
    assert pltrack.status().pending == 1
    assert not promptlayer.calls


def test_a_certificate_that_nobody_vouches_for(
    promptlayer: FakePromptLayer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Content and key never go to a server that cannot prove who it is."""
    context = tls_server(tmp_path, "IP:127.0.0.1")
    got: list[bytes] = []

    def converse(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            got.append(secure.recv(1))

    with raw_server(converse) as port:
        pltrack.configure(base_url=f"https://127.0.0.1:{port}")
        track()
        wait_until(lambda: "certificate" in (pltrack.status().last_error or "").lower())
        assert pltrack.status().pending == 1
        pltrack.configure(base_url=promptlayer.url)
    assert b"".join(got) == b""


# -- answers below or beside the protocol ---------------------------------------------------------------------


def test_an_answer_that_comes_in_pieces(promptlayer: FakePromptLayer) -> None:
    """PromptLayer answers with the whole row: its id is found however many packets that takes."""
    asked: list[str] = []
    answer = b'{"request_response": "' + b"x" * 3_000_000 + b'", "id": 4711}'
    pause = threading.Event()

    def converse(connection: socket.socket) -> None:
        asked.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer[:100])
        pause.wait(0.05)  # so that the client reads the first piece by itself
        connection.sendall(answer[100:])

    with raw_server(converse) as port:
        pltrack.configure(base_url=f"http://127.0.0.1:{port}")
        session = track()
        assert session.wait(10) == {session.ids[0]: 4711}
        assert asked == ["/log-request"]
        pltrack.configure(base_url=promptlayer.url)


def test_an_answer_that_never_ends_is_an_unknown_outcome(promptlayer: FakePromptLayer) -> None:
    """An answer slower than http_timeout counts as none: the request is looked up, not sent again."""
    asked: list[str] = []
    looked, over = threading.Event(), threading.Event()

    def converse(connection: socket.socket) -> None:
        asked.append(read_request(connection))
        if asked[-1] == search.PATH:
            looked.set()
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 201 Created\r\ncontent-length: 100000\r\n\r\n{")
            while not over.wait(0.05):
                connection.sendall(b" ")

    with raw_server(converse) as port:
        pltrack.configure(base_url=f"http://127.0.0.1:{port}", http_timeout=0.5)
        track()
        assert looked.wait(10)
        assert asked == ["/log-request", search.PATH]
        over.set()
        pltrack.configure(base_url=promptlayer.url)


def test_silence_is_an_unknown_outcome(promptlayer: FakePromptLayer) -> None:
    """A server that takes a request and says nothing is asked whether it has it, and not billed twice."""
    pltrack.configure(http_timeout=0.5)
    promptlayer.fail(Fault.silent(times=1, path="/log-request", store=True))
    session = track()
    assert session.wait(10) == {session.ids[0]: promptlayer.requests[0].id}
    assert paths(promptlayer) == ["/log-request", search.PATH]


@pytest.mark.parametrize(
    "body",
    [{}, [], "fine", {"id": None}, {"id": True}, {"id": -1}, {"id": "x"}, {"id": 2**63}, {"id": 2**70}, {"id": [1]}],
    ids=str,
)
def test_an_answer_without_a_usable_id(promptlayer: FakePromptLayer, body: Any) -> None:
    """An odd id is no id: the request is looked up, the courier lives on, nothing is lost or doubled."""
    promptlayer.fail(Fault(status=201, times=1, path="/log-request", body=body, store=True))
    session = track()
    assert session.wait(10) == {session.ids[0]: promptlayer.requests[0].id}
    track()
    promptlayer.wait_for(lambda pl: len(pl.requests) == 2)


# -- the breaker ----------------------------------------------------------------------------------------------


class Recorder:
    """A PromptLayer that fails until it is healed, and knows which of its exchanges overlapped."""

    def __init__(self) -> None:
        self.healed = threading.Event()
        self.spans: list[tuple[float, float]] = []
        self.logged = 0
        self._lock = threading.Lock()

    def __call__(self, incoming: Incoming) -> Outgoing:
        began = time.monotonic()
        self.healed.wait(0.03)
        with self._lock:
            if self.healed.is_set():
                self.logged += 1
                return Outgoing.json(201, {"id": self.logged})
            self.spans.append((began, time.monotonic()))
        return Outgoing.json(503, {"message": "away"})


def test_an_open_breaker_lets_one_request_at_a_time_through(
    promptlayer: FakePromptLayer, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """With 30 rows waiting a failing server sees one at a time; when it is well again, all of them, once."""
    monkeypatch.setattr(line, "backoff", lambda _: 0.1)
    recorder = Recorder()
    server = LoopbackServer(recorder, name="failing")
    server.start()
    pltrack.configure(base_url=f"http://127.0.0.1:{server.port}")
    track(*[f"call {n}" for n in range(30)])
    wait_until(lambda: len(recorder.spans) >= 20)
    spans = sorted(recorder.spans)
    # At most 8 were out when it opened, and a place or two was filled again before the third failure.
    probes = spans[10:]
    assert all(later[0] >= earlier[1] for earlier, later in itertools.pairwise(probes))
    assert all(later[0] - earlier[0] > 0.1 for earlier, later in itertools.pairwise(probes))
    recorder.healed.set()
    wait_until(lambda: recorder.logged == 30, 5)
    assert pltrack.flush(5).pending == 0
    pltrack.configure(base_url=promptlayer.url)
    server.stop()


def test_notes_get_through_an_open_breaker(promptlayer: FakePromptLayer) -> None:
    """Where only notes wait, one of them is the probe."""
    session = track()
    pltrack.flush(10)
    promptlayer.fail(Fault(status=503, times=4, path="/rest/"))
    session.score(70)
    promptlayer.wait_for(lambda pl: pl.requests[0].scores == {"default": 70}, timeout=20)


def test_a_dead_destination_does_not_slow_another(promptlayer: FakePromptLayer) -> None:
    """While calls to one workspace hang, those to another go at their usual pace."""
    promptlayer.accept("pl_other")
    promptlayer.fail(Fault.silent(path="/log-request", when=lambda body: "hang" in str(body["input"])))
    track(*["hang"] * 40, api_key="pl_other")
    promptlayer.wait_for(lambda pl: len(pl.calls) >= 8)
    track(*["quick"] * 10)
    promptlayer.wait_for(lambda pl: len(pl.requests) == 10, timeout=3)


def test_an_outage_costs_no_cpu(promptlayer: FakePromptLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing may go there, the courier does not look again and again for what is due."""
    promptlayer.fail(Fault(status=429, path="/log-request", headers={"Retry-After": "600"}))
    track()
    promptlayer.wait_for(lambda pl: pl.calls and pl.calls[0].status)
    looks: list[float] = []
    settled, expire = threading.Event(), Store.expire
    monkeypatch.setattr(Store, "expire", lambda self: (looks.append(time.monotonic()), expire(self))[1])
    next_due = Store.next_due
    monkeypatch.setattr(Store, "next_due", lambda self, *a: (looks.append(time.monotonic()), next_due(self, *a))[1])
    track("due at once, and blocked")
    settled.wait(1.5)
    assert len(looks) < 15


# -- the unknown outcome --------------------------------------------------------------------------------------


def test_resend_does_not_look(promptlayer: FakePromptLayer) -> None:
    """on_unknown="resend" sends again at once, at the price of being billed twice."""
    pltrack.configure(on_unknown="resend")
    promptlayer.fail(Fault.drop(times=1, path="/log-request", store=True))
    track()
    promptlayer.wait_for(lambda pl: len(pl.requests) == 2)
    assert paths(promptlayer) == ["/log-request"] * 2


def test_hold_leaves_it_to_the_user(
    promptlayer: FakePromptLayer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """on_unknown="hold" marks it failed with a reason that says that it may have arrived; it goes no further."""
    pltrack.configure(on_unknown="hold")
    promptlayer.fail(Fault.drop(times=1, path="/log-request", store=True))
    session = track()
    assert session.wait(10) == {session.ids[0]: None}
    track("next")
    pltrack.flush(10)
    assert pltrack.status().failed == 1
    with opened(tmp_path / "journal.db") as db:
        (reason,) = db.execute("select reason from requests where state = 'failed'").fetchone()
    assert "may have arrived" in reason
    assert "may have arrived" in caplog.text
    assert paths(promptlayer) == ["/log-request"] * 2


def test_a_search_that_lags_does_not_bill_twice(promptlayer: FakePromptLayer) -> None:
    """One "not found" right after the send proves nothing: it is looked for three times."""
    promptlayer.fail(Fault.drop(times=1, path="/log-request", store=True))
    promptlayer.fail(Fault(status=200, times=2, path=search.PATH, body={"success": True, "items": []}))
    session = track()
    assert session.wait(10) == {session.ids[0]: promptlayer.requests[0].id}
    assert paths(promptlayer) == ["/log-request", *[search.PATH] * 3]


@pytest.mark.parametrize("body", [{}, {"items": None}, {"items": {"id": 5}}, [], "<html>"], ids=str)
def test_only_an_answer_to_the_search_says_that_it_is_not_there(promptlayer: FakePromptLayer, body: Any) -> None:
    """A proxy's page in place of a search answer does not make it send again."""
    promptlayer.fail(Fault.drop(times=1, path="/log-request", store=True))
    promptlayer.fail(Fault(status=200, times=4, path=search.PATH, body=body))
    session = track()
    assert session.wait(10) == {session.ids[0]: promptlayer.requests[0].id}
    assert len(promptlayer.requests) == 1


@pytest.mark.parametrize("items", [[None, 3, "x"], [{"id": 1, "metadata": [None, 3]}], [{"metadata": {}}]], ids=str)
def test_odd_items_in_a_search_answer(promptlayer: FakePromptLayer, items: list[Any]) -> None:
    """What cannot be read in a search answer is passed over."""
    promptlayer.fail(Fault.drop(times=1, path="/log-request", store=True))
    promptlayer.fail(Fault(status=200, times=1, path=search.PATH, body={"items": items}))
    session = track()
    assert session.wait(10) == {session.ids[0]: promptlayer.requests[0].id}


@pytest.mark.parametrize("status", [403, 404, 429])
def test_a_search_that_is_refused_stops_nothing_else(
    promptlayer: FakePromptLayer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The unknown one waits, visibly, and is never sent blindly; everything else goes on."""
    promptlayer.fail(Fault.drop(times=1, path="/log-request", store=True))
    promptlayer.fail(Fault(status=status, path=search.PATH))
    unknown = track("unknown")
    promptlayer.wait_for(lambda pl: pl.calls[-1].path == search.PATH and pl.calls[-1].status)
    track("after")
    promptlayer.wait_for(lambda pl: len(pl.requests) == 2, timeout=5)
    assert pltrack.status().paused_reason is None
    promptlayer.heal()
    assert unknown.wait(20)[unknown.ids[0]] is not None
    assert len(promptlayer.requests) == 2


def test_searches_keep_to_the_limit(
    promptlayer: FakePromptLayer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sixty unknown outcomes are looked up 25 in one search, and never sooner than EVERY after the one before."""
    monkeypatch.setattr(search, "EVERY", 0.5)
    came = times_of(promptlayer, search.PATH)
    pltrack.configure(delivery="external")
    session = track(*[f"call {n}" for n in range(60)])
    pltrack.flush(10)
    with opened(tmp_path / "journal.db") as db:
        db.execute("update requests set uncertain = 1")
    pltrack.configure(delivery="background")
    pltrack.flush(0.5)
    assert set(session.wait(30).values()) == {logged.id for logged in promptlayer.requests}
    assert len(promptlayer.requests) == 60
    sizes = [len(call.body["filter_group"]["filters"]) for call in promptlayer.calls if call.path == search.PATH]
    assert max(sizes) == 25
    assert min(later - earlier for earlier, later in itertools.pairwise(came)) > 0.45


def test_strangers_with_the_same_id_do_not_hide_ours(promptlayer: FakePromptLayer) -> None:
    """Where other copies fill the page of a search, what is not on it is looked for by itself."""
    promptlayer.fail(Fault.drop(times=2, path="/log-request", store=True))
    first_page = {"items": [{"id": 900 + n, "metadata": {"pltrack_id": "x"}} for n in range(25)], "has_next": True}
    many = Fault(
        status=200, path=search.PATH, body=first_page, when=lambda body: len(body["filter_group"]["filters"]) > 1
    )
    promptlayer.fail(many)
    session = track("one", "two")
    assert set(session.wait(20).values()) == {logged.id for logged in promptlayer.requests}
    assert len(promptlayer.requests) == 2


# -- notes ----------------------------------------------------------------------------------------------------


def test_notes_of_one_request_keep_their_order_through_retries(promptlayer: FakePromptLayer) -> None:
    """What was said later arrives later, though something before it has to be tried again."""
    session = track()
    pltrack.flush(10)
    promptlayer.fail(Fault(status=503, times=2, path="/rest/", when=lambda body: body.get("score") == 20))
    for score in (10, 20, 30):
        session.score(score)
    promptlayer.wait_for(lambda pl: any(call.status == 503 for call in pl.calls))
    session.score(40)
    session.metadata(plan="pro")
    promptlayer.wait_for(lambda pl: pl.requests[0].metadata.get("plan") == "pro")
    taken = [call.body.get("score") for call in promptlayer.calls if call.path != "/log-request" and call.status == 200]
    assert taken == [10, 20, 30, 40, None]


def test_what_is_said_while_a_request_is_out_follows_it(promptlayer: FakePromptLayer) -> None:
    """A score given during the send goes by itself, after the id is known."""
    promptlayer.fail(Fault.silent(times=1, path="/log-request"))
    session = track()
    promptlayer.wait_for(lambda pl: pl.calls)
    session.score(60)
    promptlayer.heal()
    assert pltrack.flush(10).pending == 0
    assert promptlayer.requests[0].scores == {"default": 60}
    assert paths(promptlayer) == ["/log-request", "/rest/track-score"]


# -- the journal is busy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [201, 422, 503])
def test_an_outcome_that_cannot_be_written_at_once_is_kept(
    promptlayer: FakePromptLayer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wait_until: WaitUntil, status: int
) -> None:
    """While another process holds the journal's lock answers come in; they are written down afterwards."""
    path = tmp_path / "busy.db"
    monkeypatch.setattr("pltrack._journal.store.BUSY_MS", 100)
    blocker = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    statuses = [status, 201]
    came = threading.Event()

    def answer(_: Incoming) -> Outgoing:
        if len(statuses) == 2:
            blocker.execute("begin immediate")
            threading.Timer(1.0, blocker.execute, ["commit"]).start()
        came.set()
        return Outgoing.json(statuses.pop(0), {"id": 7, "message": "no"})

    server = LoopbackServer(answer, name="answering")
    server.start()
    pltrack.configure(base_url=f"http://127.0.0.1:{server.port}", journal=path)
    session = track()
    assert came.wait(10)
    assert session.wait(10) == {session.ids[0]: None if status == 422 else 7}
    assert len(statuses) == (0 if status == 503 else 1)
    pltrack.configure(base_url=promptlayer.url)
    server.stop()
    blocker.close()


@pytest.mark.parametrize("held", [False, True], ids=["waiting", "leased"])
def test_a_clock_that_is_set_back_parks_nothing(promptlayer: FakePromptLayer, tmp_path: Path, held: bool) -> None:
    """What was to wait until a time that is now hours away goes out soon."""
    pltrack.configure(delivery="external")
    track()
    pltrack.shutdown(5)
    with opened(tmp_path / "journal.db") as db:
        db.execute("update requests set due_at = due_at + 7200")
        if held:
            db.execute("update requests set state = 'sending', lease_until = due_at")
    pltrack.configure(delivery="background", on_unknown="resend")
    track()
    promptlayer.wait_for(lambda pl: len(pl.requests) == 2, timeout=20)


# -- settings -------------------------------------------------------------------------------------------------


def test_external_delivery_holds_from_then_on(promptlayer: FakePromptLayer) -> None:
    """A process that delivered so far sends nothing more once delivery is somebody else's."""
    track("ours")
    assert pltrack.flush(10).delivered == 1
    pltrack.configure(delivery="external")
    track("somebody else's")
    pltrack.flush(5)
    threading.Event().wait(2.5)  # longer than the courier goes without looking
    assert len(promptlayer.requests) == 1


@pytest.mark.parametrize("value", [0, 31])
def test_a_timeout_fits_into_a_lease(value: float) -> None:
    """No timeout at all, or one longer than half a lease, would send twice."""
    with pytest.raises(pltrack.SettingError, match="http_timeout"):
        pltrack.configure(http_timeout=value)


def test_the_log_is_not_flooded(promptlayer: FakePromptLayer, caplog: pytest.LogCaptureFixture) -> None:
    """Many failures are one line at first, and one line when it is over."""
    caplog.set_level(logging.WARNING, "pltrack")
    promptlayer.fail(Fault(status=503, times=12, path="/log-request"))
    track(*[f"call {n}" for n in range(12)])
    promptlayer.wait_for(lambda pl: len(pl.requests) == 12, timeout=30)
    assert sum("will be tried again" in record.message for record in caplog.records) == 1
