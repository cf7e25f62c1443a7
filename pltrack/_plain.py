"""Any value -> a JSON-clean value: bounded, total, and hardly ever running code of the value's own."""

from __future__ import annotations

import marshal
import math
from collections import deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MemberDescriptorType
from typing import Any, TypeVar, cast
from uuid import UUID

import orjson

# What `json.loads` could return: a recursive alias would need a cast at every step.

Json = Any

Frozen = dict[Any, Any] | bytes

MASK = "**********"
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_INT_BITS = 4096  # beyond it str(int) is slow, and beyond 4300 digits Python refuses it
_PYDANTIC = frozenset({"pydantic.main.BaseModel", "pydantic.v1.main.BaseModel"})
_SECRETS = ("pydantic.types.Secret", "pydantic.types._Secret", "pydantic.v1.types.Secret")
_MODEL = "__pydantic_fields__"
_ABSENT = object()
_TOLD: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (datetime, datetime.isoformat),  # before date, of which it is a kind
    (date, date.isoformat),
    (time, time.isoformat),
    (timedelta, timedelta.__str__),
    (UUID, UUID.__str__),
    (Decimal, Decimal.__str__),
    (PurePath, PurePath.__str__),
)
FIXED = frozenset({str, int, float, bool, type(None)})
T = TypeVar("T")


def plain(value: object, *, depth: int = 12, budget: int = 20_000) -> Json:
    """Return a JSON-clean snapshot that later changes of `value` do not reach; never raise.

    New dicts and lists down to `depth` levels and `budget` values, strings by reference. What is deeper,
    larger, circular or foreign is described in angle brackets; secrets of pydantic are masked.
    """
    return attempt(lambda: _Walk(budget).visit(value, depth), "<unreadable>")


def dumps(value: object) -> bytes:
    """Return `value` as JSON, through `plain` where orjson alone refuses it; never raise."""
    try:
        marshal.dumps(
            cast(Any, value)
        )  # refuses foreign classes: orjson runs their code, and dies of a tzinfo that raises
        return orjson.dumps(value)
    except Exception:  # noqa: BLE001 -- too deep, too large, not JSON: whatever stands in the way
        return orjson.dumps(plain(value, depth=60, budget=500_000))


def thaw(snapshot: Frozen) -> dict[Any, Any]:
    """Return the mapping that was kept as it is, or as JSON."""
    found = orjson.loads(snapshot) if isinstance(snapshot, bytes) else snapshot
    return found if isinstance(found, dict) else {}


def text(value: object) -> str:
    """Return a scalar as the user would print it, anything else as JSON, as a clean string; never raise."""
    if type(value) is str:
        return clean(value)
    if value is None or type(value) in (bool, float):
        return str(value)
    snapshot = plain(value)
    return snapshot if isinstance(snapshot, str) else dumps(snapshot).decode()


def clean(value: str) -> str:
    """Return the string with surrogate pairs joined and lone surrogates replaced, as JSON needs it."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def peek(value: object, name: str) -> Any:
    """Return an attribute, the instance's own field first; None where there is none or reading it fails."""
    if value is None:
        return None
    try:
        return value.__dict__[name]
    except Exception:  # noqa: BLE001 -- as in `attempt`, which costs a call more
        # A pydantic model keeps its fields in its dict; asking it for another costs more than all the rest.
        return attempt(lambda: None if hasattr(type(value), _MODEL) else getattr(value, name, None), None)


def attempt(read: Callable[[], T], default: T) -> T:
    """Return what `read` gives, or the default where it raises: for reading objects of unknown classes."""
    try:
        return read()
    except Exception:  # noqa: BLE001 -- foreign code (properties, metaclasses, iterators) may raise anything
        return default


def class_name(cls: type) -> str:
    """Return the dotted name of a class without asking its metaclass."""
    module = type.__dict__["__module__"].__get__(cls)
    if not isinstance(module, str):
        module = "?"
    return clean(f"{module}.{type.__dict__['__qualname__'].__get__(cls)}")


def bases(cls: type) -> tuple[type, ...]:
    """Return the classes that instances of `cls` really are of, whatever `__class__` claims."""
    return tuple(type.__dict__["__mro__"].__get__(cls))


class _Walk:
    """One walk over a value: what it may still visit, and the containers it is inside of."""

    __slots__ = ("inside", "left")

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.inside: set[int] = set()

    def visit(self, value: Any, depth: int) -> Json:
        """Return the snapshot of one value."""
        cls = type(value)
        if cls is str:
            return clean(value)
        if value is None or cls is bool:
            return value
        if cls is int:
            return _integer(value)
        if cls is float:
            return value if math.isfinite(value) else str(value)
        if self.left <= 0:
            return "<cut>"
        if cls is dict:
            return self._nested(value, depth, value, None)
        if cls is list:
            return self._nested(value, depth, None, value)
        kinds = bases(cls)
        scalar = attempt(lambda: _scalar(value, kinds, self, depth), _ABSENT)
        if scalar is not _ABSENT:
            return scalar
        return attempt(lambda: self._foreign(value, kinds, depth), f"<{class_name(cls)} object>")

    def _foreign(self, value: Any, kinds: tuple[type, ...], depth: int) -> Json:
        fields = _fields(value, kinds)
        items = None if fields is not None else _items(value, kinds)
        if fields is None and items is None:
            return _describe(value, kinds)
        return self._nested(value, depth, fields, items)

    def _nested(self, value: Any, depth: int, fields: dict[Any, Any] | None, items: Iterable[Any] | None) -> Json:
        if id(value) in self.inside:
            return "<circular>"
        if depth <= 0:
            return f"<{class_name(type(value))}: too deep>"
        self.inside.add(id(value))
        try:
            if fields is not None:
                return self._mapping(fields, depth - 1)
            return self._sequence(items or (), depth - 1)
        finally:
            self.inside.discard(id(value))

    def _mapping(self, fields: dict[Any, Any], depth: int) -> dict[str, Json]:
        # A list at once: another thread may change the dict while we walk it.
        pairs = list(dict.items(fields) if len(fields) <= self.left else islice(dict.items(fields), self.left))
        cut = dict.__len__(fields) - len(pairs)
        found: dict[str, Json] = {}
        for key, item in pairs:
            if self.left <= 0:
                cut += 1
                continue
            self.left -= 1
            kind = type(item)
            simple = item is None or (kind is str and item.isascii())
            if simple and type(key) is str and key.isascii() and key not in found:
                found[key] = item  # nearly all there is in practice, and this runs on the caller's thread
            else:
                found[self._key(key, found)] = self.visit(item, depth)
        if cut:
            found["<cut>"] = f"<{cut} more>"
        return found

    def _key(self, key: Any, found: dict[str, Json]) -> str:
        name = text(self.visit(key, 2))
        while name in found:  # {1: ..., "1": ...}: both are kept
            name += "'"
        return name

    def _sequence(self, items: Iterable[Any], depth: int) -> list[Json]:
        found: list[Json] = []
        rest = iter(items)
        for item in rest:
            if self.left <= 0:
                found.append("<cut: more>")
                break
            self.left -= 1
            found.append(self.visit(item, depth))
        return found


def _integer(value: int) -> int | str:
    if _INT_MIN <= value <= _INT_MAX:
        return value
    return str(value) if value.bit_length() <= _INT_BITS else f"<int: {value.bit_length()} bits>"


def _scalar(value: Any, kinds: tuple[type, ...], walk: _Walk, depth: int) -> Json:
    """Return the value of a scalar kind, or _ABSENT."""
    if Enum in kinds:
        return walk.visit(object.__getattribute__(value, "_value_"), depth - 1) if depth > 0 else "<too deep>"
    if str in kinds:
        return clean(str.__str__(value))
    if int in kinds:
        return _integer(int.__add__(value, 0))
    if float in kinds:
        return walk.visit(float.__add__(value, 0.0), depth)
    for kind, told in _TOLD:
        if kind in kinds and _class_attribute(kinds, "__getattr__") is None:  # paths ask for what they have not yet
            return clean(told(value))
    for binary in (bytes, bytearray, memoryview):
        if binary in kinds:
            return f"<bytes: {value.nbytes if binary is memoryview else binary.__len__(value)}>"
    if class_name(kinds[-2]) == "numpy.generic":
        return walk.visit(value.item(), depth)
    return _ABSENT


def _fields(value: Any, kinds: tuple[type, ...]) -> dict[Any, Any] | None:
    """Return what a mapping-like value holds, read without running its own code; None for all else."""
    if dict in kinds:
        return cast("dict[Any, Any]", value)
    if type(value) is MappingProxyType:
        return dict(value)
    if any(class_name(base) in _PYDANTIC for base in kinds):
        return _model(value, kinds)
    if tuple in kinds:
        names = _class_attribute(kinds, "_fields")
        return dict(zip(names, tuple.__iter__(value), strict=False)) if isinstance(names, tuple) else None
    names = _class_attribute(kinds, "__dataclass_fields__")
    if isinstance(names, dict):
        read = {name: _own(value, kinds, name) for name in names}
        return {name: item for name, item in read.items() if item is not _ABSENT}
    return None


def _model(value: Any, kinds: tuple[type, ...]) -> dict[Any, Any]:
    """Return a pydantic model's fields and extras, without those that its author keeps out of dumps."""
    declared = _class_attribute(kinds, _MODEL)
    hidden = {
        name
        for name, field in (declared.items() if isinstance(declared, dict) else ())
        if peek(field, "exclude") is True
    }
    own = object.__getattribute__(value, "__dict__")
    extra = attempt(lambda: object.__getattribute__(value, "__pydantic_extra__"), None)
    found = {**own, **extra} if isinstance(extra, dict) else own
    return {name: item for name, item in found.items() if name not in hidden}


def _items(value: Any, kinds: tuple[type, ...]) -> Iterable[Any] | None:
    """Return what a sequence or set holds; None for all else: iterators are not ours to consume."""
    if list in kinds:
        return cast("Iterable[Any]", list.__iter__(value))
    if tuple in kinds:
        return cast("Iterable[Any]", tuple.__iter__(value))
    if deque in kinds:
        return list(deque.copy(value))
    if set in kinds or frozenset in kinds:
        items = list((set if set in kinds else frozenset).__iter__(value))
        return sorted(items) if all(type(item) is str for item in items) else items
    return None


def _describe(value: Any, kinds: tuple[type, ...]) -> str:
    if any(class_name(base).startswith(_SECRETS) for base in kinds):
        return MASK
    if type in kinds:
        return f"<class {class_name(value)}>"
    if BaseException in kinds:
        args = BaseException.__dict__["args"].__get__(value)
        name = clean(type.__dict__["__name__"].__get__(type(value)))
        return f"{name}: {', '.join(text(arg) for arg in args)}" if args else class_name(type(value))
    if type(value) in (FunctionType, BuiltinFunctionType):
        return clean(f"<function {value.__module__}.{value.__qualname__}>")
    return f"<{class_name(type(value))} object>"


def _class_attribute(kinds: tuple[type, ...], name: str) -> Any:
    for base in kinds:
        found = type.__dict__["__dict__"].__get__(base).get(name, _ABSENT)
        if found is not _ABSENT:
            return found
    return None


def _own(value: Any, kinds: tuple[type, ...], name: str) -> Any:
    """Return an instance's own field from its dict or slot, never through a property."""
    slot = _class_attribute(kinds, name)
    if type(slot) is MemberDescriptorType:
        return attempt(lambda: slot.__get__(value), _ABSENT)
    own: dict[str, Any] = attempt(lambda: object.__getattribute__(value, "__dict__"), {})
    return own.get(name, _ABSENT)
