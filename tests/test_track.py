"""The old guide's `promptlayer.track`, for PromptLayer's ids and for ours."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

import pltrack as promptlayer
from pltrack.testing import FakePromptLayer

CHAT = {"type": "chat", "messages": [{"role": "user", "content": [{"type": "text", "text": "{product}"}]}]}


def one_request(pl: FakePromptLayer) -> tuple[str, int]:
    """Make a call, deliver it, and return our id and PromptLayer's."""
    with promptlayer.pl_session() as session:
        FakeListChatModel(responses=["ok"]).invoke("hi")
    assert promptlayer.flush(10).pending == 0
    return session.ids[0], pl.requests[-1].id


@pytest.fixture(params=["ours", "int", "digits"])
def request_id(request: pytest.FixtureRequest, promptlayer: FakePromptLayer) -> Any:
    """An id of a delivered request, in each of the forms that there are."""
    ours, number = one_request(promptlayer)
    return {"ours": ours, "int": number, "digits": str(number)}[request.param]


@pytest.fixture
def pl(promptlayer: FakePromptLayer) -> FakePromptLayer:
    return promptlayer


def test_score(pl: FakePromptLayer, request_id: Any) -> None:
    """A score arrives under the default name, or the one given by either keyword."""
    assert promptlayer.track.score(request_id=request_id, score=100) is True
    assert promptlayer.track.score(request_id, 90, "tone") is True
    assert promptlayer.track.score(request_id, 80, name="length") is True
    promptlayer.flush(10)
    assert sorted(pl.requests[0].scores.values()) == [80, 90, 100]
    assert (pl.requests[0].scores["tone"], pl.requests[0].scores["length"]) == (90, 80)


def test_metadata(pl: FakePromptLayer, request_id: Any) -> None:
    """Metadata arrives as text."""
    assert promptlayer.track.metadata(request_id=request_id, metadata={"foo": "bar", "n": 3}) is True
    promptlayer.flush(10)
    assert {"foo": "bar", "n": "3"}.items() <= pl.requests[0].metadata.items()


def test_prompt(pl: FakePromptLayer, request_id: Any) -> None:
    """A request is linked to a version of a prompt, with its variables."""
    pl.publish("example", CHAT)
    pl.publish("example", CHAT)
    variables = {"product": "toasters"}
    linked = promptlayer.track.prompt(
        request_id=request_id, prompt_name="example", prompt_input_variables=variables, version=1
    )
    assert linked is True
    promptlayer.flush(10)
    assert pl.requests[0].prompt == {"name": "example", "version": 1, "label": None, "variables": variables}


def test_prompt_by_label(pl: FakePromptLayer) -> None:
    """A request is linked to what a label points at."""
    pl.publish("example", CHAT, labels=["prod"])
    ours, _ = one_request(pl)
    promptlayer.track.prompt(ours, "example", label="prod")
    promptlayer.flush(10)
    assert pl.requests[0].prompt is not None
    assert pl.requests[0].prompt["version"] == 1


def test_a_word_before_the_request_was_sent(pl: FakePromptLayer) -> None:
    """What is said at once, about our id, arrives with the request."""
    with promptlayer.pl_session() as session:
        FakeListChatModel(responses=["ok"]).invoke("hi")
        promptlayer.track.score(session.ids[0], 7, "early")
    promptlayer.flush(10)
    assert pl.requests[0].scores == {"early": 7}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: promptlayer.track.score(1, 50.0), "score"),  # type: ignore[arg-type]
        (lambda: promptlayer.track.score(1, 101), "score"),
        (lambda: promptlayer.track.score(True, 1), "id"),
        (lambda: promptlayer.track.score(1, 1, "a", name="b"), "score_name"),
        (lambda: promptlayer.track.score(1, 1, ""), "name"),
        (lambda: promptlayer.track.metadata(1, ["a"]), "metadata"),  # type: ignore[arg-type]
        (lambda: promptlayer.track.metadata(1, {"a": {}}), "metadata"),
        (lambda: promptlayer.track.prompt(1, "p", version=1, label="x"), "label"),
        (lambda: promptlayer.track.prompt(1, "p", version=0), "version"),
        (lambda: promptlayer.track.prompt(1, ""), "name"),
    ],
    ids=range(10),
)
def test_arguments_are_checked_at_the_call(pl: FakePromptLayer, call: Any, named: str) -> None:
    """A wrong argument raises at once and is named."""
    with pytest.raises((TypeError, ValueError), match=named):
        call()
