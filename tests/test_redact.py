"""What never reaches the journal: secrets, content that was not wanted, and what a user's function takes out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage, ToolMessage

import pltrack

SECRETS = [
    "sk-proj-abcdefghijklmnopqrstuvwx1234",
    "sk-ant-" + "api03-" + "abcdefghij" * 2,
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIAABCDEFGHIJKLMNOP",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop",
    "pl_abcdefghijklmnopqrstuv",
    "xoxb-123456789012-abcdefghij",
    "postgresql://user:hunter2hunter2@host/db",
]


def bodies(journal: Path) -> list[dict[str, Any]]:
    """Return what the journal would send."""
    from pltrack._journal.store import Store

    pltrack.flush(10)
    store = Store.open(journal)
    try:
        return [orjson.loads(row["payload"]) for row in reversed(store.rows(100))]
    finally:
        store.close()


def raw(journal: Path) -> bytes:
    pltrack.flush(10)
    pltrack.shutdown(1)
    return b"".join(file.read_bytes() for file in journal.parent.glob("journal.db*"))


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_never_reach_the_disk(pltrack_journal: Path, secret: str) -> None:
    """Built-in patterns hold over input, output, tags, metadata, names, notes and error texts."""
    hidden = secret.split(":")[2].split("@")[0] if "://" in secret else secret

    class Failing(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            raise RuntimeError(f"401 for {secret}")

    with pltrack.pl_session(secret, tags=[secret], metadata={"k": secret}, user=secret) as session:
        FakeListChatModel(responses=[secret]).invoke([HumanMessage(secret), ToolMessage(secret, tool_call_id="1")])
        session.metadata(more=secret)
        session.link_prompt("p", {"x": secret}, version=1)
        with pytest.raises(RuntimeError):
            Failing(responses=[]).invoke("hi")
    found = raw(pltrack_journal)
    assert b"[redacted]" in found
    assert hidden.encode() not in found


def test_ordinary_words_are_left_alone(pltrack_journal: Path) -> None:
    """max_tokens, an author, an e-mail address, a task-list and a URL stay as they are."""
    text = "max_tokens author task-list risk-free me@example.org https://example.org/a?b=c pk_1 disk-usage-of-it"
    with pltrack.pl_session():
        FakeListChatModel(responses=["ok"]).invoke(text)
    (body,) = bodies(pltrack_journal)
    assert body["input"]["messages"][0]["content"][0]["text"] == text


def test_capture_metadata_keeps_no_content(pltrack_journal: Path) -> None:
    """With capture="metadata" neither side's words are recorded; roles, times, tags and counts are."""
    pltrack.configure(capture="metadata")
    with pltrack.pl_session(tags=["prod"], capture="full") as session:
        FakeListChatModel(responses=["private answer"]).invoke("private question")
        session.link_prompt("p", {"x": "private variable"}, version=1)
    (body,) = bodies(pltrack_journal)
    assert [each["role"] for each in body["input"]["messages"]] == ["user"]
    assert body["tags"] == ["prod"]
    assert b"private" not in raw(pltrack_journal)


def test_a_users_function_sees_every_text(pltrack_journal: Path) -> None:
    """redact(text, field) changes what is stored; None drops a text."""

    def redact(text: str, field: str) -> str | None:
        return None if field == "output" else text.replace("Alice", "A.")

    pltrack.configure(redact=redact)
    with pltrack.pl_session(tags=["for Alice"]):
        FakeListChatModel(responses=["Dear Alice"]).invoke("I am Alice")
    (body,) = bodies(pltrack_journal)
    assert body["input"]["messages"][0]["content"][0]["text"] == "I am A."
    assert body["output"]["messages"][0]["content"][0]["text"] == ""
    assert body["tags"] == ["for A."]


def _raising(text: str, field: str) -> str:
    raise KeyError(field)


def _nonsense(text: str, field: str) -> Any:
    return 5


def _hanging(text: str, field: str) -> str:
    threading.Event().wait(60)
    return text


@pytest.mark.parametrize("function", [_raising, _nonsense, _hanging])
def test_a_function_that_fails_costs_the_content_not_the_call(
    pltrack_journal: Path, monkeypatch: pytest.MonkeyPatch, function: Any
) -> None:
    """A redact function that raises, hangs or answers nonsense: the record stays, its words do not, it is counted."""
    monkeypatch.setattr("pltrack._redact._TIME_LIMIT", 0.2)
    pltrack.configure(redact=function)
    with pltrack.pl_session() as session:
        FakeListChatModel(responses=["private"]).invoke("private")
    (body,) = bodies(pltrack_journal)
    assert body["metadata"]["pltrack_id"] == session.ids[0]
    assert pltrack.status().internal_errors >= 1
    assert b"private" not in raw(pltrack_journal)
