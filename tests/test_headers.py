"""Sessions in headers: what travels, what is joined, and what hostile headers cannot do."""

from __future__ import annotations

import base64
import email.message
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

import pltrack
from pltrack import pl_session
from pltrack.testing import FakePromptLayer

MODEL = FakeListChatModel(responses=["four"])
SESSION, CONTEXT = "x-pltrack-session", "x-pltrack-context"


def joins(headers: Any) -> bool:
    """Tell whether headers are joined; whatever they hold, a session that works comes back."""
    session = pl_session.from_headers(headers)
    with session:
        MODEL.invoke("x")
    assert len(session.ids) == 1
    assert session.headers()[SESSION].isprintable()
    return session._joined is not None


def test_headers_carry_the_id_and_the_decision_and_nothing_else() -> None:
    """Neither tags nor metadata nor keys leave unless asked for; keys never do."""
    pltrack.configure(api_key="pl_private")
    options: dict[str, Any] = {"tags": ["private"], "metadata": {"private": "private"}, "user": "private"}
    with pl_session("private", api_key="pl_private_too", **options) as session:
        headers = session.headers()
        everything = session.headers(include=["tags", "metadata", "user", "conversation", "name"])
    assert headers == {SESSION: f"{session.id};{session.id};1"}
    assert "pl_private" not in str(headers) + base64.urlsafe_b64decode(everything[CONTEXT]).decode()


def test_one_session_in_two_processes_is_one_session(promptlayer: FakePromptLayer) -> None:
    """Calls on both sides carry the same session id; the joining side adds tags and metadata of its own."""
    with pl_session("web", tags=["a"], metadata={"x": 1, "y": 1}, user="u", conversation="c") as here:
        MODEL.invoke("one")
        headers = here.headers({"tags", "metadata", "user", "conversation", "name"})
    with pl_session.from_headers(headers, tags=["b"], metadata={"x": 2}) as there:
        MODEL.invoke("two")
    pltrack.flush(10)
    first, second = map(promptlayer.by_pltrack_id, (*here.ids, *there.ids))
    assert first.metadata["session_id"] == second.metadata["session_id"] == there.id == here.id
    assert second.tags == ["a", "b"]
    said = {key: second.metadata[key] for key in ("x", "y", "user_id", "conversation_id", "session")}
    assert said == {"x": "2", "y": "1", "user_id": "u", "conversation_id": "c", "session": "web"}


def test_headers_come_in_many_shapes() -> None:
    """Mappings, pairs of text or bytes, message objects, and any case of the name."""
    with pl_session() as session:
        value = session.headers()[SESSION]
    message = email.message.Message()
    message["X-Pltrack-Session"] = value
    for headers in (
        {SESSION.upper(): value},
        [(SESSION, value)],
        [(SESSION.encode(), value.encode())],
        iter([("other", ""), (SESSION, value)]),
        message,
    ):
        assert pl_session.from_headers(headers).id == session.id  # type: ignore[arg-type]


def test_without_headers_it_is_a_new_session() -> None:
    """Options hold then, an own id too; with headers their id holds, and None is not given."""
    assert pl_session.from_headers({}, id="mine", name="n").id == "mine"
    with pl_session(user="u", id="theirs") as session:
        headers = session.headers({"user"})
    joined = pl_session.from_headers(headers, id="mine", name="n", user=None, metadata=None)
    assert (joined.id, joined._name, joined._user) == ("theirs", "n", "u")
    assert pl_session.from_headers(headers, user="mine")._user == "mine"


@pytest.mark.parametrize("headers", [{}, {SESSION: "a;a;1"}])
def test_options_are_checked_whether_or_not_there_is_something_to_join(headers: dict[str, str]) -> None:
    """A wrong option is refused in both cases, so that it is found in development."""
    for options in ({"tags": "prod"}, {"metadata": {"a": []}}, {"metadata": 5}, {"user": 5}, {"nothing": 1}):
        with pytest.raises(TypeError):
            pl_session.from_headers(headers, **options)


def test_an_include_is_checked() -> None:
    """Text and unknown names are refused, naming the argument."""
    with pytest.raises(TypeError, match="include"):
        pl_session().headers("tags")
    with pytest.raises(ValueError, match="include"):
        pl_session().headers({"api_key"})


def test_odd_ids_survive() -> None:
    """An own id with any characters comes back as it was."""
    for own in ("a;b", "ü €", "a\r\nX-Evil: 1", "%3B", "x" * 512):
        with pl_session(id=own) as session:
            headers = session.headers()
        assert headers[SESSION].isascii()
        assert headers[SESSION].isprintable()
        assert pl_session.from_headers(headers).id == own


def test_hostile_headers_join_nothing() -> None:
    """What we did not write is no session, and never an error."""
    for value in (
        "", ";", ";;", ";;1", "a;b", "a;b;2", "a;b;1;c;d", "a b;c;1", "a;b;1\r\nEvil: 1", "\x00;a;1", "\ud800;a;1",
        "é;a;1", "%00;a;1", "x" * 5000 + ";a;1", "y" * 513 + ";a;1", "a;;1", None, 5, b"\xff", ["a;b;1"],
    ):  # fmt: skip
        assert not joins({SESSION: value}), value
    assert joins({SESSION: "a;b;1"})


def test_a_hostile_context_is_left_out() -> None:
    """What cannot be read of the context, or is of the wrong kind or size, is dropped; the id still joins."""
    import orjson

    def context(said: Any) -> dict[str, str]:
        text = said if isinstance(said, str) else base64.urlsafe_b64encode(orjson.dumps(said)).decode()
        return {SESSION: "a;a;1", CONTEXT: text}

    for said in ("", "é", "%%%", "AAAA", [], 5, {"tags": "prod"}, {"tags": [1, "", None]}, {"metadata": [1]},
                 {"user": 5, "conversation": ["x"], "name": "n" * 600}, {"metadata": {"a": {"b": 1}, "": "x"}},
                 {"api_key": "pl_evil", "base_url": "http://evil", "capture": "full", "id": "evil"}):  # fmt: skip
        session = pl_session.from_headers(context(said))
        assert (session.id, session._tags, session._metadata) == ("a", (), {}), said
        assert (session._user, session._conversation, session._name, session._api_key) == (None, None, "", None)
    assert not joins({SESSION: "a;a;1", CONTEXT: "A" * 5000})


def test_what_is_too_long_to_send_stays(caplog: pytest.LogCaptureFixture) -> None:
    """Only the id goes, and it is said; what just fits is sent."""
    with pl_session(metadata={"a": "x" * 4000}) as session:
        assert set(session.headers({"metadata"})) == {SESSION}
    assert "too long" in caplog.text
    with pl_session(metadata={"a": "x" * 2900}) as session:
        assert pl_session.from_headers(session.headers({"metadata"}))._metadata == {"a": "x" * 2900}


def test_the_sampling_decision_travels() -> None:
    """An unsampled session is unsampled on the other side too, whatever the rate is there."""
    pltrack.configure(sample_rate=0)
    with pl_session() as session:
        headers = session.headers()
    pltrack.configure(sample_rate=1)
    before = pltrack.status().recorded
    with pl_session.from_headers(headers) as joined:
        MODEL.invoke("x")
    assert not joined.sampled
    assert pltrack.status().recorded == before


def test_with_a_secret_only_signed_headers_join() -> None:
    """No signature, another's, or a context that was changed or taken from elsewhere: nothing is joined."""
    pltrack.configure(secret="one")
    with pl_session(tags=["a"]) as session:
        bare, full = session.headers(), session.headers({"tags"})
    with pl_session(tags=["evil"]) as other:
        foreign = other.headers({"tags"})
    assert joins(bare)
    assert joins(full)
    assert pl_session.from_headers(full)._tags == ("a",)
    own, root, sampled, signature = bare[SESSION].split(";")
    for value in (f"{own};{root};{sampled}", f"{own};{root};0;{signature}", f"evil;{root};1;{signature}",
                  f"{own};{root};1;é", f"{own};{root};1;\ud800", f"{own};{root};1;"):  # fmt: skip
        assert not joins({SESSION: value}), value
    assert not joins({**full, CONTEXT: foreign[CONTEXT]})
    assert not joins({SESSION: full[SESSION]})
    assert not joins({**bare, CONTEXT: full[CONTEXT]})
    pltrack.configure(secret="two")
    assert not joins(bare)


def test_headers_never_choose_a_destination(promptlayer: FakePromptLayer) -> None:
    """The joining process sends to its own workspace."""
    with pl_session(api_key="pl_other") as session:
        headers = session.headers({"tags", "metadata", "user", "conversation", "name"})
    with pl_session.from_headers(headers):
        MODEL.invoke("x")
    pltrack.flush(10)
    assert promptlayer.requests[0].api_key == promptlayer.api_key
