"""Odd objects in every place where a program can put one: recorded or described, quickly, their code not run."""

from __future__ import annotations

import array
import json
import re
import sys
import threading
import time
import types
import uuid
import weakref
from collections import ChainMap, UserDict, UserList
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import orjson
import pytest
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import BaseModel, SecretStr

import pltrack

PACKAGE = str(Path(pltrack.__file__).parent)
TOUCHED: list[str] = []


def touch(name: str) -> Any:
    """Take note when code of an object runs on behalf of pltrack; it would hang there."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            TOUCHED.append(f"{name} by {frame.f_code.co_qualname} in {frame.f_code.co_filename.removeprefix(PACKAGE)}")
            break
        frame = frame.f_back  # type: ignore[assignment]
    raise RuntimeError(name)


def hanging(*bases: type) -> type:
    """Return a class all of whose methods hang, or raise."""
    own = ("str repr len bool iter eq getattr", "format bytes int float index getitem contains json call dir")
    names = " ".join(own).split()
    members: dict[str, Any] = {f"__{name}__": (lambda self, *_, name=name: touch(name)) for name in names}
    members |= {
        name: (lambda self, *_, name=name, **__: touch(name)) for name in ("items", "keys", "isoformat", "dict")
    }
    members |= {"__hash__": object.__hash__, "model_dump": lambda *_, **__: touch("dump")}
    if dict in bases or list in bases:
        del members["__bool__"], members["__len__"]  # LangChain asks for these itself
    return types.new_class("Hanging", bases, exec_body=lambda space: space.update(members))


class Lying:
    """Says that it is a mapping; the real class says no."""

    @property
    def __class__(self) -> Any:
        return dict

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise AttributeError


class LyingLoudly:
    @property
    def __class__(self) -> Any:
        return touch("class")


class Lazy(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return touch("item")

    def __iter__(self) -> Iterator[str]:
        return touch("iter")

    def __len__(self) -> int:
        return touch("len")


class Nowhere(tzinfo):
    def utcoffset(self, _: datetime | None) -> Any:
        raise ValueError("nowhere")


class Odd(Enum):
    SELF = object()
    SECRET = SecretStr("hunter2hunter2")


class Account(BaseModel):
    name: str = "a"
    password: SecretStr = SecretStr("hunter2hunter2")

    @property
    def balance(self) -> int:
        return touch("property")


@dataclass
class Ring:
    inner: Any = None

    def __post_init__(self) -> None:
        self.inner = [self]


class Slots:
    __slots__ = ("a", "b")


class Meta(type):
    def __repr__(cls) -> str:
        return touch("meta repr")

    def __getattribute__(cls, name: str) -> Any:
        return touch("meta") if name in {"__name__", "__qualname__", "__module__"} else super().__getattribute__(name)


def deep(levels: int) -> Any:
    value: Any = "end"
    for n in range(levels):
        value = {"in": value} if n % 2 else [value]
    return value


def broken() -> Exception:
    return hanging(Exception)("hunter3")


def ring() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def weak() -> Any:
    return weakref.proxy(threading.Event())  # dead at once


def numpy(build: str) -> Callable[[], Any]:
    def made() -> Any:
        module = pytest.importorskip("numpy")
        return eval(build, {"np": module})

    return made


KINDS: dict[str, Callable[[], Any]] = {
    "hanging": lambda: hanging()(),
    "hanging str": lambda: hanging(str)("text"),
    "hanging int": lambda: hanging(int)(3),
    "hanging float": lambda: hanging(float)(1.5),
    "hanging dict": lambda: hanging(dict)(a=1),
    "hanging list": lambda: hanging(list)([1]),
    "hanging tuple": lambda: hanging(tuple)((1,)),
    "hanging set": lambda: hanging(set)({1}),
    "hanging bytes": lambda: hanging(bytes)(b"1"),
    "hanging exception": broken,
    "hanging path": lambda: hanging(type(Path()))("/tmp"),
    "hanging decimal": lambda: hanging(Decimal)("1.5"),
    "hanging uuid": lambda: hanging(uuid.UUID)(int=1),
    "hanging datetime": lambda: hanging(datetime)(2026, 1, 1, tzinfo=UTC),
    "hanging metaclass": lambda: Meta("M", (), {})(),
    "class of a hanging metaclass": lambda: Meta("M", (), {}),
    "lying": Lying,
    "lying loudly": LyingLoudly,
    "lazy mapping": Lazy,
    "time of nowhere": lambda: datetime(2026, 1, 1, tzinfo=Nowhere()),
    "enum of an object": lambda: Odd.SELF,
    "enum of a secret": lambda: Odd.SECRET,
    "model with a secret": Account,
    "secret": lambda: SecretStr("hunter2hunter2"),
    "ring of a dataclass": Ring,
    "ring of dicts": ring,
    "empty slots": Slots,
    "deep": lambda: deep(50_000),
    "wide": lambda: {str(n): [n] for n in range(50_000)},
    "huge int": lambda: 1 << 3_000_000,
    "big int": lambda: 10**30,
    "odd floats": lambda: [float("nan"), float("inf"), Decimal("sNaN"), complex(1, 2), Fraction(1, 3)],
    "odd text": lambda: "a\ud800b\0\x1b[31m\u202e",
    "odd keys": lambda: {1: 1, "1": 2, None: 3, b"x": 4, (1, 2): 5, 1.5: 6, frozenset({1}): 7, "\ud800": 8},
    "long text": lambda: "x" * 1_000_000,
    "bytes": lambda: [b"\xff", bytearray(b"1"), memoryview(b"12"), array.array("i", [1])],
    "generator": lambda: (touch("generator") for _ in range(3)),
    "iterators": lambda: [iter([1]), zip([1], [2], strict=True), map(str, [1]), range(10**12), {}.keys()],
    "user's containers": lambda: [UserDict(a=1), UserList([1]), ChainMap({"a": 1}), types.MappingProxyType({"a": 1})],
    "proxy of what is gone": weak,
    "locks and threads": lambda: [threading.Lock(), threading.current_thread(), threading.local(), sys.stdin],
    "modules and functions": lambda: [sys, len, touch, re.compile("x"), re.match("x", "x"), KINDS.get],
    "mock": MagicMock,
    "numpy scalars": numpy(
        "[np.int64(3), np.float32('nan'), np.bool_(True), np.datetime64('2026-01-01'), np.str_('a')]"
    ),
    "numpy arrays": numpy("[np.zeros((1000, 1000)), np.array(['a', None], dtype=object), np.ma.masked]"),
}


class Answering(FakeMessagesListChatModel):
    """Answers with odd things around its text."""

    odd: Any = None

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        message = AIMessage("four")
        message.additional_kwargs = {"x": self.odd, "reasoning": self.odd}
        message.response_metadata = {"model_name": self.odd, "finish_reason": self.odd, "token_usage": self.odd}
        message.__dict__["usage_metadata"] = {"input_tokens": self.odd, "output_tokens": 3, "total_tokens": 5}
        message.__dict__["tool_calls"] = [{"name": "f", "args": {"x": self.odd}, "id": "1", "type": "tool_call"}]
        info = {"finish_reason": self.odd, "logprobs": self.odd}
        return ChatResult(
            generations=[ChatGeneration(message=message, generation_info=info)], llm_output={"x": self.odd}
        )


def stored(journal: Path) -> list[dict[str, Any]]:
    from pltrack._journal.store import Store

    store = Store.open(journal)
    try:
        return store.rows(100)
    finally:
        store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_object_costs_nothing_but_itself(pltrack_journal: Path, kind: str) -> None:
    """In messages, arguments, parameters, metadata, answers and variables: recorded, in bounded time, untouched."""
    odd = KINDS[kind]()
    TOUCHED.clear()
    message = HumanMessage([{"type": "text", "text": "What comes after 1,2,3?"}])
    message.content.append({"type": "odd", "text": odd, "x": [odd]})  # type: ignore[union-attr,arg-type]
    asked = AIMessage("", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}])
    asked.tool_calls[0]["args"]["x"] = odd
    model = Answering.model_construct(responses=[], odd=odd)
    with pltrack.pl_session(metadata={"plan": "pro"}) as session:
        handlers = [each for each in _handlers() if type(each).__module__.startswith("pltrack")]
        run_id = uuid.uuid4()
        started = time.thread_time()
        for handler in handlers:
            handler.on_chat_model_start(
                {"id": ["odd"]}, [[message, asked]], run_id=run_id, tags=["t"], metadata={"x": odd, "plan": odd},
                invocation_params={"x": odd, "stop": odd, "model": odd, "tools": [odd, {"name": odd}], "top_p": odd},
            )  # fmt: skip
            handler.on_llm_end(model._generate([]), run_id=run_id)
        spent = time.thread_time() - started
        session.link_prompt("p", {"x": odd}, version=1)
        with suppress(TypeError):  # of an argument that cannot be used
            session.metadata(x=odd)
    assert spent < 1
    assert TOUCHED == []
    started = time.monotonic()
    pltrack.flush(20)
    assert time.monotonic() - started < 15
    status = pltrack.status()
    assert (status.recorded, status.lost, status.internal_errors) == (1, 0, 0)
    (row,) = stored(pltrack_journal)
    body = orjson.loads(row["payload"])
    assert TOUCHED == []
    assert body["metadata"]["pltrack_id"] == session.ids[0]
    assert body["input"]["messages"][0]["content"][0]["text"] == "What comes after 1,2,3?"
    assert body["output"]["messages"][0]["content"][-1]["text"] == "four"
    assert {note["kind"] for note in row["notes"]} >= {"prompt"}
    assert "hunter2" not in json.dumps(body) + str(row["notes"])


def _handlers() -> list[Any]:
    """Return the handlers that LangChain would call here."""
    from langchain_core.callbacks import CallbackManager

    return list(CallbackManager.configure().handlers)
