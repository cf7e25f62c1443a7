"""The fake PromptLayer as a server: its keys, its faults, its end, and what a tester asks it."""

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from wire import SEARCH, body, log

from pltrack.testing import FakePromptLayer, Fault


@pytest.fixture
def pl() -> Iterator[FakePromptLayer]:
    with FakePromptLayer(api_keys={"pl_a", "pl_b"}) as pl:
        yield pl


@pytest.fixture
def client(pl: FakePromptLayer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=pl.url, headers={"X-API-KEY": "pl_a"}, timeout=10) as client:
        yield client


# -- keys and routes


def test_keys_are_checked_everywhere(pl: FakePromptLayer) -> None:
    """No key, a wrong one and a revoked one get 401; a key in the body counts on SDK routes only."""
    pl.revoke("pl_b")
    for headers in ({}, {"X-API-KEY": "pl_wrong"}, {"X-API-KEY": "pl_b"}):
        answer = httpx.post(f"{pl.url}/log-request", json=body(), headers=headers)
        assert answer.status_code == 401
        assert answer.json()["success"] is False
        assert answer.json()["message"]
    inside = {"api_key": "pl_a", "request_id": 1, "score": 1}
    assert httpx.post(f"{pl.url}/rest/track-score", json=inside).status_code == 401
    assert httpx.post(f"{pl.url}/library-track-score", json=inside).status_code == 400
    pl.accept("pl_b")
    assert httpx.get(f"{pl.url}/prompt-templates", headers={"X-API-KEY": "pl_b"}).status_code == 200


def test_workspaces_do_not_see_each_other(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A request of one key is unknown to another, in tracking, search and look-up; ids are not shared."""
    mine = log(client, metadata={"pltrack_id": "r1"})
    other = {"X-API-KEY": "pl_b"}
    score = {"request_id": mine, "score": 1}
    assert client.post("/rest/track-score", json=score, headers=other).status_code == 400
    assert client.get(f"/api/public/v2/requests/{mine}", headers=other).status_code == 404
    assert client.post(SEARCH, json={}, headers=other).json()["total"] == 0
    assert client.post("/log-request", json=body(), headers=other).json()["id"] == mine + 1
    assert [logged.api_key for logged in pl.requests] == ["pl_a", "pl_b"]


def test_unknown_routes_are_not_found(client: httpx.Client) -> None:
    """What PromptLayer does not offer, or this fake does not, is 404."""
    for method, path in [("GET", "/log-request"), ("POST", "/spans-bulk"), ("DELETE", "/prompt-templates/x")]:
        assert client.request(method, path, json={}).status_code == 404


def test_connection_is_kept_alive(pl: FakePromptLayer, client: httpx.Client) -> None:
    """One connection serves many calls, refused ones included."""
    log(client)
    client.post("/log-request", json={})
    client.get("/nowhere")
    assert {call.connection for call in pl.calls} == {1}
    assert [(call.method, call.path, call.api_key, call.status) for call in pl.calls] == [
        ("POST", "/log-request", "pl_a", 201),
        ("POST", "/log-request", "pl_a", 422),
        ("GET", "/nowhere", "pl_a", 404),
    ]


# -- faults


def test_fault_answers_as_often_as_told(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A fault strikes `times` matching calls with its status, body and headers, and nothing else."""
    pl.fail(Fault(status=503, times=2, path="/log-request", body={"error": "x"}, headers={"Retry-After": "1"}))
    assert client.get("/prompt-templates").status_code == 200
    answers = [client.post("/log-request", json=body()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 201]
    assert (answers[0].json(), answers[0].headers["Retry-After"]) == ({"error": "x"}, "1")
    assert len(pl.requests) == 1


def test_fault_can_choose_by_body_until_healed(pl: FakePromptLayer, client: httpx.Client) -> None:
    """`when` looks into the body; without `times` a fault lasts until `heal()`."""
    pl.fail(Fault(status=413, when=lambda sent: bool(sent) and sent.get("model") == "big", body="too big"))
    answer = client.post("/log-request", json=body(model="big"))
    assert (answer.status_code, answer.text) == (413, "too big")
    log(client)
    pl.heal()
    log(client, model="big")


@pytest.mark.parametrize("store", [True, False])
def test_dropped_connection_keeps_its_secret(store: bool, pl: FakePromptLayer, client: httpx.Client) -> None:
    """A drop looks the same to the client whether the request was stored or not."""
    pl.fail(Fault.drop(store=store, times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/log-request", json=body())
    assert len(pl.requests) == int(store)
    assert pl.calls[0].status is None
    log(client)


def test_truncated_and_garbage_answers(pl: FakePromptLayer, client: httpx.Client) -> None:
    """An answer cut short breaks in the client; garbage is a 200 that is no JSON."""
    pl.fail(Fault.truncated(times=1))
    pl.fail(Fault.garbage(times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/log-request", json=body())
    answer = client.post("/log-request", json=body())
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html")
    assert len(pl.requests) == 1


def test_silent_call_is_answered_after_healing(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A silent server holds the call; `heal()` has it done and answered."""
    pl.fail(Fault.silent(path="/log-request"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(log, client)
        pl.wait_for(lambda pl: pl.calls)
        assert pl.requests == ()
        assert pl.calls[0].status is None
        pl.heal()
        assert waiting.result(10) == 1001


def test_silent_call_of_a_client_that_left_is_forgotten(pl: FakePromptLayer, client: httpx.Client) -> None:
    """Who gave up waiting is not served after all: a retry must not find itself logged twice."""
    pl.fail(Fault.silent())
    with pytest.raises(httpx.ReadTimeout):
        client.post("/log-request", json=body(), timeout=0.05)
    pl.heal()
    log(client)
    assert len(pl.requests) == 1


def test_slow_answer_is_a_proper_one(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A slow server does what it is asked, later."""
    pl.fail(Fault.slow(0.02, times=1))
    assert log(client) == 1001


def test_stop_leaves_no_thread_and_no_socket() -> None:
    """`stop()` hangs up on idle and silent connections alike and joins; the port refuses from then on."""
    before = set(threading.enumerate())
    pl = FakePromptLayer().start()
    address = ("127.0.0.1", urlsplit(pl.url).port)
    pl.fail(Fault.silent())
    # The idle one comes first: it has been accepted when the other one's call is there.
    with socket.create_connection(address) as idle, socket.create_connection(address) as silent:
        silent.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        pl.wait_for(lambda pl: pl.calls)
        pl.stop()
        pl.stop()
        assert set(threading.enumerate()) <= before
        assert (idle.recv(10), silent.recv(10)) == (b"", b"")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts file descriptors in /proc")
def test_stop_closes_every_descriptor() -> None:
    """Ten servers that came and went leave as many open files as before."""

    def used() -> int:
        return len(os.listdir("/proc/self/fd"))

    with FakePromptLayer():
        pass
    before = used()
    for _ in range(10):
        with FakePromptLayer() as pl, httpx.Client(base_url=pl.url) as client:
            client.get("/")
    assert used() == before


def test_server_comes_back_on_its_port(pl: FakePromptLayer, client: httpx.Client) -> None:
    """After an outage the same address serves again, with everything it had."""
    log(client)
    url = pl.url
    pl.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    pl.start()
    assert pl.url == url
    with httpx.Client(base_url=url, headers={"X-API-KEY": "pl_a"}) as again:
        assert log(again) == 1002
    assert len(pl.requests) == 2


# -- the tester's side


def test_wait_for_returns_what_it_waited_for(pl: FakePromptLayer, client: httpx.Client) -> None:
    """`wait_for` wakes when something comes, takes a look-up error as "not yet", and returns the result."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pl.wait_for, lambda pl: pl.by_pltrack_id("r1").id)
        one = log(client, metadata={"pltrack_id": "r1"})
        assert waiting.result(10) == one


def test_wait_for_says_what_came_instead(pl: FakePromptLayer, client: httpx.Client) -> None:
    """A vain wait fails the test with the calls that came, and why they were refused."""
    client.post("/log-request", json=body(score=101))
    with pytest.raises(AssertionError, match=r"(?s)0 requests, 1 calls.*POST /log-request -> 422.*score"):
        pl.wait_for(lambda pl: pl.requests, timeout=0.01)


def test_double_delivery_is_noticed(pl: FakePromptLayer, client: httpx.Client) -> None:
    """Two requests under one id of ours fail the test that asks for it."""
    log(client, metadata={"pltrack_id": "r1"})
    log(client, metadata={"pltrack_id": "r1"})
    with pytest.raises(AssertionError, match="2 times: 1001, 1002"):
        pl.by_pltrack_id("r1")
    with pytest.raises(LookupError):
        pl.by_pltrack_id("r2")


def test_many_threads_may_call_at_once(pl: FakePromptLayer) -> None:
    """Concurrent clients get different ids and lose nothing."""

    def client(number: int) -> list[int]:
        with httpx.Client(base_url=pl.url, headers={"X-API-KEY": "pl_a"}) as client:
            return [log(client, metadata={"n": str(number)}) for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        ids = [each for made in pool.map(client, range(8)) for each in made]
    assert sorted(ids) == list(range(1001, 1081)) == [logged.id for logged in pl.requests]
