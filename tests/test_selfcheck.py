"""The day LangChain changes, users are told: what the hook's check finds, and what it never says."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers import context

import pltrack
from pltrack import _blocks

MODEL = FakeListChatModel(responses=["four"])


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What pltrack logs."""
    caplog.set_level(logging.WARNING, "pltrack")
    return caplog


@pytest.fixture
def hooks() -> Iterator[list[Any]]:
    """LangChain's own list of hooks, with our entry in it; put back afterwards."""
    with pltrack.pl_session():
        MODEL.invoke("x")
    found: list[Any] = context._configure_hooks
    before = list(found)
    yield found
    found[:] = before  # in place: older versions have it in two modules


@pytest.fixture
def no_hook(hooks: list[Any]) -> None:
    """LangChain without our entry among its hooks, as if the registry had moved."""
    hooks[:] = [each for each in hooks if each[0] is not _blocks._current]


def of_langchain(said: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages that name LangChain's version."""
    return [each.getMessage() for each in said.records if "langchain-core" in each.getMessage()]


def test_a_hook_that_is_gone_is_said_once(no_hook: None, said: pytest.LogCaptureFixture) -> None:
    """With our entry gone, the first session that misses its calls says so, with versions and remedy; once."""
    for _ in range(3):
        with pltrack.pl_session() as session:
            MODEL.invoke("x")
        assert session.ids == ()
    status = pltrack.status()
    assert status.hook_ok is False
    (warning,) = status.warnings
    assert "callbacks=" in warning
    (message,) = of_langchain(said)
    assert warning in message
    assert all(
        version in message
        for version in (f"langchain-core {version('langchain-core')}", f"pltrack {version('pltrack')}")
    )


def test_a_hook_that_was_emptied_is_found_by_doctors(
    no_hook: None, hooks: list[Any], said: pytest.LogCaptureFixture
) -> None:
    """Asked for at once, the check answers whatever sessions there were, and sees it when the hook is back."""
    assert _blocks.check_hook(at_once=True) is False
    hooks.append((_blocks._current, True, None, None))
    assert _blocks.check_hook(at_once=True) is True
    assert pltrack.status().hook_ok is True
    assert len(of_langchain(said)) == 1


def test_the_check_is_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with many sessions that call nothing pays for one check a minute."""
    looks: list[object] = []
    with pltrack.pl_session():
        MODEL.invoke("x")
    from pltrack import _selfcheck

    monkeypatch.setattr(_selfcheck, "_fault", lambda variable: looks.append(variable) or "")
    for _ in range(100):
        with pltrack.pl_session():
            pass
    assert len(looks) == 1


def quiet(said: pytest.LogCaptureFixture) -> None:
    """Expect that nothing was said, and that the hook is believed in, after a check that surely ran."""
    assert _blocks.check_hook(at_once=True) is True
    status = pltrack.status()
    assert (status.hook_ok, status.warnings, status.internal_errors) == (True, (), 0)
    assert of_langchain(said) == []


def test_no_false_alarm_without_calls(said: pytest.LogCaptureFixture) -> None:
    """Sessions with no call, with embeddings only, with `_generate` alone, with a cached completion say nothing."""
    model = FakeListLLM(responses=["four"], cache=InMemoryCache())
    model.invoke("x")
    with pltrack.pl_session() as nothing:
        pass
    with pltrack.pl_session() as embedded:
        DeterministicFakeEmbedding(size=3).embed_query("x")
    with pltrack.pl_session() as below:
        MODEL._generate([HumanMessage("x")])
    with pltrack.pl_session() as cached:
        model.invoke("x")
    assert [each.ids for each in (nothing, embedded, below, cached)] == [()] * 4
    quiet(said)


async def test_no_false_alarm_in_a_loop(said: pytest.LogCaptureFixture) -> None:
    """The check works inside a running loop."""
    async with pltrack.pl_session():
        pass
    quiet(said)


@pytest.mark.parametrize("variable", ["LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LANGCHAIN_TRACING"])
def test_no_false_alarm_where_langsmith_traces(
    said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Tracing to LangSmith, also the old kind that LangChain refuses, is no reason for an alarm."""
    with pltrack.pl_session():
        MODEL.invoke("x")
    monkeypatch.setenv(variable, "true")
    assert _blocks.check_hook(at_once=True) in (True, None)
    assert pltrack.status().warnings == ()
    assert of_langchain(said) == []


def test_no_model_no_check() -> None:
    """A program that never loads a model of LangChain's is not made to by the check."""
    code = (
        "import sys, pltrack\n"
        "with pltrack.pl_session(): pass\n"
        "print('langchain_core.language_models.chat_models' in sys.modules, pltrack.status().warnings)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False ()"


class Listener(BaseCallbackHandler):
    """Somebody else's handler."""

    heard = 0

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        """Count."""
        self.heard += 1


def test_nobody_else_hears_of_the_check(hooks: list[Any]) -> None:
    """Handlers that come with hooks of others, always on, get no event of a call that the program did not make."""
    from contextvars import ContextVar

    listener = Listener()
    always: ContextVar[Any] = ContextVar("always", default=listener)
    hooks.append((always, True, None, None))
    assert _blocks.check_hook(at_once=True) is True
    assert listener.heard == 0


def test_the_check_leaves_no_trace(promptlayer: Any) -> None:
    """The fake call of the check is recorded nowhere."""
    with pltrack.pl_session():
        assert _blocks.check_hook(at_once=True) is True
    pltrack.flush(5)
    assert (pltrack.status().recorded, len(promptlayer.requests)) == (0, 0)


def test_events_that_changed_are_found(said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """If LangChain called its chat models' start by another name, the check would tell."""
    from langchain_core.callbacks import manager

    with pltrack.pl_session():
        MODEL.invoke("x")
    dispatch = manager.handle_event

    def renamed(handlers: Any, event: str, *args: Any, **more: Any) -> None:
        dispatch(handlers, "on_prompted" if event == "on_chat_model_start" else event, *args, **more)

    monkeypatch.setattr(manager, "handle_event", renamed)
    with pltrack.pl_session() as session:
        MODEL.invoke("x")
    assert session.ids == ()
    assert pltrack.status().hook_ok is False
    assert len(of_langchain(said)) == 1


def odd_starts() -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Starts of shapes that do not exist today."""
    run = {"run_id": uuid4()}
    return {
        "a number of messages": (({}, 5), run),
        "a request in one": ((SimpleNamespace(messages=[]),), run),
        "no run id": (({}, [[HumanMessage("x")]]), {}),
        "more by position": (({}, [[HumanMessage("x")]], "new"), run),
        "a message without content": (({}, [[SimpleNamespace(words="x")]]), run),
    }


@pytest.mark.parametrize("kind", sorted(odd_starts()))
def test_a_start_of_another_shape_is_said_once(kind: str, said: pytest.LogCaptureFixture) -> None:
    """A start that is not understood, or not wholly, is told by status() and once by the log; nothing raises."""
    args, kwargs = odd_starts()[kind]
    handler = pltrack.PromptLayerCallbackHandler()
    for _ in range(3):
        handler.on_chat_model_start(*args, **kwargs)
    assert len(pltrack.status().warnings) == len(of_langchain(said)) == 1


def test_a_result_without_generations_is_said(said: pytest.LogCaptureFixture) -> None:
    """An answer of another shape is told; the call is recorded all the same."""
    handler, run_id = pltrack.PromptLayerCallbackHandler(), uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run_id)
    handler.on_llm_end(SimpleNamespace(answers=["four"]), run_id=run_id)
    status = pltrack.status()
    assert (status.recorded, len(status.warnings)) == (1, 1)
    assert "generations" in of_langchain(said)[0]


def test_shapes_that_do_occur_are_no_alarm(said: pytest.LogCaptureFixture) -> None:
    """Ends without a start, empty generations and new keywords are things that happen."""
    handler = pltrack.PromptLayerCallbackHandler()
    handler.on_llm_end(LLMResult(generations=[]), run_id=uuid4())
    for generations in ([], [[]]):
        run_id = uuid4()
        handler.on_chat_model_start({}, [[HumanMessage("")]], run_id=run_id, brand_new="keyword")
        handler.on_llm_end(LLMResult(generations=generations), run_id=run_id)
    assert pltrack.status().warnings == ()
    assert of_langchain(said) == []
