"""Any value becomes JSON-clean, whatever it is."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from pltrack._plain import dumps, plain, text

Point = namedtuple("Point", "x y")


class Colour(Enum):
    RED = "red"


class Size(StrEnum):
    BIG = "big"


class Hostile:
    """Raises wherever it is touched."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        return 7


class HostileDict(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("items")

    def __iter__(self) -> Any:
        raise RuntimeError("iter")


class HostileFields:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("dict")


@dataclass
class Order:
    name: str
    lines: list[int] = field(default_factory=list)

    @property
    def price(self) -> int:
        raise AssertionError("never asked")


@dataclass(slots=True)
class Slotted:
    name: str


class User(BaseModel):
    name: str
    password: SecretStr = SecretStr("hunter2")
    hidden: str = Field("hide me", exclude=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("é", "é"),
        (True, True),
        (None, None),
        (3, 3),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ({1: "a", None: "b", False: "c"}, {"1": "a", "None": "b", "False": "c"}),
        ({2: "a", "2": "b"}, {"2": "a", "2'": "b"}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("/tmp/x"), "/tmp/x"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Size.BIG, "big"),
        (b"abc", "<bytes: 3>"),
        ({"b", "a"}, ["a", "b"]),
        (deque([1, 2]), [1, 2]),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Order("a", [1]), {"name": "a", "lines": [1]}),
        (Slotted("a"), {"name": "a"}),
        (User(name="a"), {"name": "a", "password": "**********"}),
        (SecretStr("x"), "**********"),
        (ValueError("no", 3), "ValueError: no, 3"),
        (Decimal, "<class decimal.Decimal>"),
        (MagicMock(), "<unittest.mock.MagicMock object>"),
        (threading.Lock(), "<_thread.lock object>"),
        (json, "<builtins.module object>"),
        (HostileDict(a=1), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
    ],
)
def test_each_kind_of_value_has_one_plain_form(value: object, expected: object) -> None:
    """A value of each kind becomes what JSON can say of it, or a description in angle brackets."""
    assert plain(value) == expected
    assert orjson.loads(dumps({"v": [plain(value)]})) == {"v": [expected]}


def test_hostile_objects_are_described_untouched() -> None:
    """An object that raises wherever it is touched is described by its class, its neighbours are kept."""
    assert plain([1, Hostile(), HostileFields(), {Hostile(): 2}]) == [
        1,
        f"<{__name__}.Hostile object>",
        f"<{__name__}.HostileFields object>",
        {f"<{__name__}.Hostile object>": 2},
    ]


def test_a_snapshot_does_not_change_with_its_source() -> None:
    """Lists and dicts are copied at every level, strings are shared."""
    words = "x" * 1000
    source = {"a": [{"b": words}]}
    snapshot = plain(source)
    source["a"][0]["b"] = "changed"
    source["a"].append({})
    assert snapshot == {"a": [{"b": words}]}
    assert snapshot["a"][0]["b"] is words


def test_circles_end() -> None:
    """A structure that holds itself is described where it closes; the same object twice is no circle."""
    circle: list[Any] = [1]
    circle.append(circle)
    shared = {"a": 1}
    assert plain(circle) == [1, "<circular>"]
    assert plain([shared, shared]) == [shared, shared]


def test_depth_and_size_are_bounded() -> None:
    """A very deep or very large value is cut with a mark, quickly."""
    deep: Any = "end"
    for _ in range(100_000):
        deep = [deep]
    assert "too deep" in dumps(plain(deep)).decode()
    assert len(plain(list(range(100_000)))) == 20_001
    wide = plain({str(n): n for n in range(100_000)})
    assert wide["<cut>"] == "<80000 more>"
    assert dumps(deep).startswith(b"[[[")


def test_iterators_are_not_consumed() -> None:
    """A generator in a message still has all its items afterwards."""
    source = (n for n in range(3))
    assert plain([source]) == ["<builtins.generator object>"]
    assert list(source) == [0, 1, 2]


def test_numpy_like_huge_ints_do_not_take_time() -> None:
    """An int of a million digits is described, not printed."""
    assert plain(1 << 4_000_000) == "<int: 4000001 bits>"


def test_text_is_what_a_user_would_print() -> None:
    """Scalars become their text, everything else JSON."""
    assert [text(v) for v in (True, 3, 1.5, None, "a", Colour.RED, [1, "b"])] == [
        "True",
        "3",
        "1.5",
        "None",
        "a",
        "red",
        '[1,"b"]',
    ]


def test_dumps_takes_what_orjson_refuses() -> None:
    """Keys, classes and objects that orjson refuses are converted, never raised."""
    assert orjson.loads(dumps({1: Hostile(), "s": "\ud800", "c": {1, 2}, "m": User(name="a")})) == {
        "1": f"<{__name__}.Hostile object>",
        "s": "\ufffd",
        "c": [1, 2],
        "m": {"name": "a", "password": "**********"},
    }
    assert dumps([float("nan")]) == b"[null]"


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(),
    st.decimals(),
    st.datetimes(),
    st.uuids(),
    st.builds(Hostile),
    st.builds(MagicMock),
)
_keys = st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.builds(Hostile))
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.lists(st.tuples(_keys, inner), max_size=4).map(lambda pairs: _mapping(pairs)),
        st.builds(Order, st.text(), st.lists(inner, max_size=2)),
    ),
    max_leaves=12,
)


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        try:
            found[key] = value
        except RuntimeError:  # two hostile keys
            continue
    return found


@given(_values)
def test_every_value_can_be_told(value: object) -> None:
    """Whatever a program holds, plain gives strict JSON and dumps and text never raise."""
    snapshot = plain(value)
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
    assert orjson.loads(orjson.dumps(snapshot)) == snapshot
    assert isinstance(dumps(value), bytes)
    text(value).encode()
