"""What never reaches the journal: secrets, content that was not wanted, and what a user's function takes out."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel, Field

import pltrack
from pltrack import _redact
from pltrack.testing import FakePromptLayer

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


SHAPES = [
    "{}",
    "密钥是{}。",
    '{{"log": "line 1\\n{}"}}',
    '{{"log": "a\\u00e9{}"}}',
    "token%3D{}",
    "KEY={}",
    "\t{}\n",
    "https://host/?q={}&x",
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("secret", [each for each in SECRETS if "://" not in each])
def test_whatever_stands_before_a_secret(secret: str, shape: str) -> None:
    """After letters of scripts without spaces, escapes of JSON and of URLs, and signs, a secret is one."""
    assert secret not in masked(shape.format(secret))


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("redis://:hunter2secret@host:6379/0", "hunter2secret"),
        ("postgres://user:pa:ss@word@host/db", "pa:ss"),
        ("postgres://user:pa:ss@word@host/db", "word"),
        ("Authorization: Bearer abcdefghijklmnop1234", "abcdefghijklmnop1234"),
        ("-----BEGIN RSA PRIVATE KEY-----\\nMIIabc\\n-----END RSA PRIVATE KEY-----", "MIIabc"),
        ("sk-abcdefghijklmnop-----BEGIN PRIVATE KEY-----\\nMIIabc", "MIIabc"),
        ("GROQ gsk_abcdefghijklmnopqrstuvwx", "gsk_abcdefgh"),
        ("a-b " * 6_000 + "glpat-abcdefghijklmnopqrst", "abcdefghijklmnopqrst"),
    ],
)
def test_other_kinds_of_secrets(text: str, hidden: str) -> None:
    """Passwords in addresses, whatever is in them, bearer tokens, private keys."""
    assert hidden not in masked(text)


def masked(text: str) -> str:
    from pltrack._redact import Redactor

    return str(orjson.loads(Redactor(True, lambda _: None).clean({"x": text}, "full"))["x"])


_letters = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=40, max_size=50)
_secrets = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["sk-", "sk_live_", "pk-lf-", "rk_", "gsk_", "pcsk_", "pl_"]), _letters),
    st.builds("{}{}".format, st.sampled_from(["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"]), _letters),
    st.builds("{}{}".format, st.sampled_from(["glpat-", "hf_", "xoxb-", "xoxp-", "AIza", "lsv2_pt_"]), _letters),
    st.builds("{}{}".format, st.sampled_from(["AKIA", "ASIA"]), _letters.map(lambda text: text.upper()[:16])),
    st.builds("eyJ{0}.{0}.{0}".format, _letters),
)
_around = st.text(st.characters(codec="utf-8"), max_size=8)


@st.composite
def _holding(draw: st.DrawFn) -> tuple[str, Any]:
    """Return a secret, and a value of JSON that holds it somewhere."""
    secret = draw(_secrets)
    before = draw(
        _around.filter(lambda text: not text or not (text[-1].isascii() and (text[-1].isalnum() or text[-1] in "_%")))
    )
    text = f"{before} {secret} {draw(_around)}" if draw(st.booleans()) else f"{before}{secret}"
    value: Any = text
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["list", "value", "key", "text", "escaped"]))
        if kind == "list":
            value = [1, value, draw(_around)]
        elif kind == "value":
            value = {draw(_around): value, "type": "x", "n": None}
        elif kind == "key" and isinstance(value, str):
            value = {value: draw(_around)}
        elif kind == "text":
            value = json.dumps(value)
        elif kind == "escaped" and value is text:
            place = len(before) + draw(st.integers(0, 12))
            code = "".join(f"\\u{ord(c):04x}" if n == place and c.isalnum() else c for n, c in enumerate(text))
            value = '{"a": "' + code + '"}'
            break
    return secret, value


@given(_holding())
def test_a_secret_is_found_wherever_it_is(found: tuple[str, Any]) -> None:
    """In texts, in names of fields, in JSON within texts, in part written as escapes, in nested lists: never stored."""
    from pltrack._redact import Redactor

    secret, value = found
    stored = Redactor(True, lambda _: None).clean({"metadata": {"status": value}, "tags": [value]}, "full").decode()
    told = re.sub(r"\\+u00([2-7][0-9a-fA-F])", lambda match: chr(int(match[1], 16)), stored)
    for part in (secret, secret[:30], secret[-30:]):
        assert part not in stored
        assert part not in told


_in_part_escaped = _secrets.map(lambda text: text[:8] + f"\\u{ord(text[8]):04X}" + text[9:])


_found_by_rules = st.sampled_from(_redact._ALL).flatmap(
    lambda rule: st.from_regex(rule.secret).map(lambda text: rule.sign[: rule.behind] + text)
)


@given(st.one_of(_around, _secrets, _in_part_escaped, _found_by_rules))
def test_the_quick_scan_misses_nothing(text: str) -> None:
    """Whatever any rule masks, as a text, in JSON within a text, or as a name, the few rules that are asked mask."""
    from pltrack._plain import dumps

    for value in ({"a": text}, {"a": orjson.dumps(text).decode()}, {text: 1}, [[text]]):
        whole = _redact._masked(value, (), _redact._ALL)
        assert _redact._masked(value, (), _redact._rules_for(dumps(value))) == whole


def test_a_secret_is_not_cut_before_it_is_known(pltrack_journal: Path) -> None:
    """Tags, names of metadata and error texts that are too long are cut after redaction: no half of a secret stays."""
    secret = "sk-proj-abcdefghijklmnopqrstuvwx1234"

    class Failing(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            raise RuntimeError("x " * 500 + secret)

    with pltrack.pl_session(), pytest.raises(RuntimeError):
        Failing(responses=[]).invoke("hi", config={"tags": ["x " * 254 + secret], "metadata": {"m " * 508 + secret: 1}})
    (body,) = bodies(pltrack_journal)
    assert max(map(len, body["tags"])) == 512
    assert max(map(len, body["metadata"])) == 1024
    assert len(body["error_message"]) <= 1024
    assert "sk-proj" not in " ".join((body["error_message"], *body["tags"], *body["metadata"]))


class _Tool(BaseModel):
    """Look up with sk-proj-abcdefghijklmnopqrstuvwx1234."""

    status: str = Field("sk-proj-abcdefghijklmnopqrstuvwx1234", description="AKIAABCDEFGHIJKLMNOP")


def test_every_field_is_searched(pltrack_journal: Path) -> None:
    """Tool definitions and arguments, parameters, names, users, notes, links, keys, also under names of the schema."""
    secret = SECRETS[0]

    class Model(FakeListChatModel):
        model: str = secret

        @property
        def _identifying_params(self) -> dict[str, Any]:
            return {"model": secret, "stop": [secret], "_type": secret}

        def _get_ls_params(self, **kwargs: Any) -> Any:
            return {"ls_provider": secret, "ls_model_name": secret}

    call = {"name": secret, "args": {secret: [{"type": secret}], "role": secret}, "id": "1", "type": "tool_call"}
    messages = [
        HumanMessage([{"type": "text", "text": secret}, {"type": secret, secret: secret}], name=secret),
        AIMessage(secret, tool_calls=[call], additional_kwargs={secret: secret}),
        ToolMessage(json.dumps({"nested": json.dumps({"key": f"\n{secret}"})}), tool_call_id="1", artifact=secret),
    ]
    metadata = {"status": secret, "type": secret, "session_id": secret, "_langchain_parent_run_id": secret, secret: "x"}
    tools = [
        {"type": "function", "function": {"name": "f", "description": secret, "parameters": _Tool.model_json_schema()}}
    ]
    with pltrack.pl_session(secret, tags=[secret], metadata=metadata, user=secret, conversation=secret) as session:
        config: Any = {"tags": [secret], "metadata": metadata, "run_name": secret}
        Model(responses=[secret]).bind(tools=tools, stop=[secret], temperature=secret).invoke(messages, config=config)
        session.metadata(metadata)
        session.score(5, name=secret)
        session.link_prompt(secret, {secret: {"format": [secret]}}, version=1)
    pltrack.session(session.id).metadata({"role": secret})
    pltrack.request(session.ids[0]).metadata({"pltrack_id": secret})
    pltrack.prompts.publish("p", "Say {x}")
    prompt = pltrack.prompts.get("p")
    with pltrack.pl_session():
        (prompt | FakeListChatModel(responses=["ok"])).invoke({"x": secret})
    found = raw(pltrack_journal)
    assert b"Look up with [redacted]" in found
    assert found.count(b"[redacted]") > 30
    assert secret.encode() not in found
    assert b"AKIAABCDEFGHIJKLMNOP" not in found


@pytest.mark.parametrize("way", ["a session", "a handler", "another process's handles", "a local prompt"])
def test_capture_metadata_holds_everywhere(pltrack_journal: Path, way: str) -> None:
    """configure(capture="metadata") holds outside sessions, for handles by id, and for links to local prompts."""
    with pltrack.pl_session() as before:
        FakeListChatModel(responses=["ok"]).invoke("ok")
    pltrack.flush(5)
    pltrack.configure(capture="metadata")
    model = FakeListChatModel(responses=["private answer"])
    if way == "a session":
        with pltrack.pl_session():
            model.invoke("private question")
    elif way == "a handler":
        model.invoke("private question", config={"callbacks": [pltrack.PromptLayerCallbackHandler()]})
    elif way == "another process's handles":
        pltrack.request(before.ids[0]).link_prompt("p", {"x": "private"}, version=1)
        pltrack.session(before.id).link_prompt("p", {"x": "private"}, version=1)
        pltrack.request(5).link_prompt("p", {"x": "private"}, version=1)
    else:
        pltrack.prompts.publish("p", "Say {x}")
        with pltrack.pl_session():
            (pltrack.prompts.get("p") | model).invoke({"x": "private"})
    assert b"private" not in raw(pltrack_journal)


def test_ids_survive_a_users_function(pltrack_journal: Path) -> None:
    """A function that changes every text leaves what the schema fixes and the ids by which a record is found."""
    pltrack.configure(redact=lambda text, field: "X")
    with pltrack.pl_session(id="my-own", tags=["a"], metadata={"status": "secret", "format": "secret"}) as session:
        FakeListChatModel(responses=["secret"]).invoke([HumanMessage("secret"), AIMessage("secret")])
    (body,) = bodies(pltrack_journal)
    assert [each["role"] for each in body["input"]["messages"]] == ["user", "assistant"]
    assert body["status"] == "SUCCESS"
    assert body["request_start_time"] < body["request_end_time"]
    assert (body["metadata"]["pltrack_id"], body["metadata"]["session_id"]) == (session.ids[0], "my-own")
    assert (body["metadata"]["status"], body["metadata"]["format"], body["tags"]) == ("X", "X", ["X"])
    assert b"secret" not in raw(pltrack_journal)


def test_a_function_that_always_hangs_is_left_alone(
    pltrack_journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs its time limit a few times only, leaves a few threads, and is called again once it came back."""
    monkeypatch.setattr("pltrack._redact._TIME_LIMIT", 0.1)
    go, calls, others = threading.Event(), [], set(threading.enumerate())

    def redact(text: str, field: str) -> str:
        calls.append(field)
        go.wait(60)
        return "kept"

    pltrack.configure(redact=redact)
    model = FakeListChatModel(responses=["private"])
    with pltrack.pl_session():
        for _ in range(30):
            model.invoke("private")
    pltrack.flush(10)
    left = [each for each in set(threading.enumerate()) - others if each.name == "pltrack-redact"]
    assert len(left) == len(calls) == 3
    go.set()
    for each in left:
        each.join(10)
        assert not each.is_alive()
    with pltrack.pl_session():
        model.invoke("hi")
    assert bodies(pltrack_journal)[-1]["input"]["messages"][0]["content"][0]["text"] == "kept"
    assert b"private" not in raw(pltrack_journal)
    assert "redact took longer" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError, ValueError])
def test_a_functions_own_words_are_not_logged(
    pltrack_journal: Path, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """Whatever it raises, the record stays, the next one is written, and the log has the place but not the words."""

    def redact(text: str, field: str) -> str:
        raise error(f"cannot hide {text}")

    pltrack.configure(redact=redact)
    for _ in range(2):
        with pltrack.pl_session():
            FakeListChatModel(responses=["private"]).invoke("private")
    assert len(bodies(pltrack_journal)) == 2
    assert b"private" not in raw(pltrack_journal)
    assert f"redact raised {error.__name__} at {__file__}" in caplog.text
    assert "private" not in caplog.text


def test_recorded_text_is_not_logged(promptlayer: FakePromptLayer, caplog: pytest.LogCaptureFixture) -> None:
    """A program that logs everything at DEBUG level has nothing of what was said in its log."""
    caplog.set_level(logging.DEBUG)
    with pltrack.pl_session() as session:
        FakeListChatModel(responses=["private answer"]).invoke("private question")
        session.metadata(note="private note")
    assert pltrack.flush(10).pending == 0
    assert len(promptlayer.requests) == 1
    pltrack.shutdown(5)
    assert "private" not in caplog.text
