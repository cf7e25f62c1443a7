"""Sampling: decided once per outermost session by its id, the same in every process; and what is said of the rest."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import programs
import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
IDS = [f"session-{number}" for number in range(2_000)]


def sampled(rate: float, ids: list[str] = IDS) -> set[str]:
    """Return the ids whose sessions are recorded at a rate."""
    pltrack.configure(sample_rate=rate)
    kept = set()
    for own in ids:
        with pltrack.pl_session(id=own) as session:
            kept.add(own) if session.sampled else None
    return kept


def out_and_in(rate: float = 0.5) -> tuple[str, str]:
    """Return an id that is not sampled at this rate, and one that is."""
    kept = sampled(rate, IDS[:50])
    return next(own for own in IDS if own not in kept), next(own for own in IDS if own in kept)


@pytest.mark.parametrize("rate", [0, 0.01, 0.1, 0.5, 0.9, 1])
def test_the_share_is_the_rate(rate: float) -> None:
    """Of 2,000 sessions the share is the rate, within four standard deviations: exactly none at 0 and all at 1."""
    share = len(sampled(rate)) / len(IDS)
    assert abs(share - rate) <= 4 * math.sqrt(rate * (1 - rate) / len(IDS))


def test_ids_that_pltrack_makes_are_spread_too() -> None:
    """Ids made one after the other, which begin with the same time, are sampled like any."""
    pltrack.configure(sample_rate=0.5)
    kept = 0
    for _ in range(1_000):
        with pltrack.pl_session() as session:
            kept += session.sampled
    assert 400 < kept < 600


def test_a_higher_rate_only_adds() -> None:
    """What is recorded at a rate is recorded at every higher one, and again the next time."""
    assert sampled(0.1) < sampled(0.5) < sampled(0.9)
    assert sampled(0.1) == sampled(0.1)


DECIDE = """
import multiprocessing, os, sys
pltrack.configure(sample_rate=0.5, delivery="off")
def decide(*_):
    kept = ""
    for i in range(64):
        with pltrack.pl_session(id=f"session-{i}") as s:
            kept += str(int(s.sampled))
    return kept
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_process_decides_alike(tmp_path: Path, seed: str) -> None:
    """Other interpreters, whatever their hash seed, forked children and spawned workers decide as we do."""
    kept = sampled(0.5, IDS[:64])
    ours = "".join(str(int(own in kept)) for own in IDS[:64])
    env = programs.environment(tmp_path / "journal.db", PYTHONHASHSEED=seed)
    forked = """
    read, write = os.pipe()
    print(decide(), flush=True)
    if os.fork() == 0:
        os.write(write, decide().encode())
        os._exit(0)
    os.wait()
    print(os.read(read, 1000).decode())
    """
    assert programs.run(DECIDE + textwrap.dedent(forked), env).split() == [ours, ours]
    script = tmp_path / "spawned.py"
    script.write_text(
        "import pltrack\n" + DECIDE + "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.apply(decide))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [ours]


def test_the_outermost_session_decides_once() -> None:
    """Nested sessions, threads, attached blocks and another rate in between change nothing."""
    out, kept = out_and_in()
    for outer_id, inner_id in ((out, kept), (kept, out)):
        pltrack.configure(sample_rate=0.5)
        with pltrack.pl_session(id=outer_id) as outer:
            pltrack.configure(sample_rate=0 if outer.sampled else 1)
            with pltrack.pl_session(id=inner_id) as inner:
                MODEL.invoke("nested")
            thread = threading.Thread(target=outer.bind(lambda: MODEL.invoke("threaded")))
            thread.start()
            thread.join()
        with outer.attach():
            MODEL.invoke("later")
        assert inner.sampled is outer.sampled is (outer_id == kept)
        assert len(outer.ids) == 3
    status = pltrack.status()
    assert (status.unsampled, status.recorded) == (3, 3)


def test_the_decision_travels_in_headers() -> None:
    """Who joins by headers follows the first process's decision, with a signature too; its calls are counted."""
    out, _ = out_and_in()
    for secret in ("", "sign me"):
        pltrack.configure(sample_rate=0.5, secret=secret)
        with pltrack.pl_session(id=out) as here:
            headers = here.headers()
        pltrack.configure(sample_rate=1)
        before = pltrack.status()
        with pltrack.pl_session.from_headers(headers) as there, pltrack.pl_session() as inner:
            MODEL.invoke("x")
        assert (there.sampled, inner.sampled) == (False, False)
        after = pltrack.status()
        assert (after.unsampled - before.unsampled, after.recorded - before.recorded) == (1, 0)


def test_what_is_said_of_an_unsampled_call_is_dropped_with_it(promptlayer: FakePromptLayer) -> None:
    """Scores, metadata and links by session, handle or id leave nothing behind that waits for a request."""
    pltrack.configure(sample_rate=0)
    with pltrack.pl_session() as session:
        MODEL.invoke("x")
        assert (session.score(5), session.metadata(a=1), session.last.link_prompt("p", version=1)) == (0, 0, 0)
    (own_id,) = session.ids
    session_id = session.id
    del session
    assert pltrack.request(own_id).score(5) == 0
    assert pltrack.track.score(request_id=own_id, score=5)
    pltrack.session(session_id).score(5)
    flushed = pltrack.flush(5)
    assert (flushed.pending, flushed.delivered, len(promptlayer.calls)) == (0, 0, 0)
    status = pltrack.status()
    assert (status.unsampled, status.recorded, status.pending, status.orphans) == (1, 0, 0, 0)


def test_who_waits_for_the_id_of_an_unsampled_call_gets_ours(promptlayer: FakePromptLayer) -> None:
    """`pl_id_callback` is called with our id: what it says about it is dropped, and nothing hangs."""
    pltrack.configure(sample_rate=0)
    told: list[Any] = []
    heard = threading.Event()
    handler = pltrack.PromptLayerCallbackHandler(pl_id_callback=lambda own: (told.append(own), heard.set()))
    with pltrack.pl_session() as session:
        MODEL.invoke("x", config={"callbacks": [handler]})
    assert heard.wait(10)
    assert told == list(session.ids)


def test_calls_outside_of_sessions_are_not_sampled_away() -> None:
    """A call that is tracked by a handler alone has no session: it is always recorded."""
    pltrack.configure(sample_rate=0)
    MODEL.invoke("x", config={"callbacks": [pltrack.PromptLayerCallbackHandler()]})
    assert (pltrack.status().recorded, pltrack.status().unsampled) == (1, 0)


@pytest.mark.parametrize(("everywhere", "outer", "inner", "private"), [
    ("full", None, None, False), ("full", "metadata", None, True), ("full", None, "metadata", True),
    ("full", "metadata", "full", True), ("metadata", "full", "full", True), ("full", "full", "full", False),
])  # fmt: skip
def test_capture_of_a_session(
    promptlayer: FakePromptLayer, everywhere: str, outer: str | None, inner: str | None, private: bool
) -> None:
    """The strictest of settings, outer and inner session holds for a call; its tags and tokens stay."""
    pltrack.configure(capture=everywhere)
    with pltrack.pl_session(capture=outer), pltrack.pl_session(capture=inner, tags=["kept"]):
        MODEL.invoke("confidential")
    pltrack.flush(5)
    (logged,) = promptlayer.requests
    assert ("confidential" not in str(logged.body), logged.tags) == (private, ["kept"])
