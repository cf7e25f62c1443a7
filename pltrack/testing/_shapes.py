"""Small checks that say what is wrong with a JSON value, and where: the words that `_rules` is written in."""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

Loc = tuple[str | int, ...]


class Issue(NamedTuple):
    """One thing that is wrong, in the shape of PromptLayer's 422 answers."""

    loc: Loc
    msg: str
    type: str

    def as_json(self) -> dict[str, Any]:
        return {"loc": ["body", *self.loc], "msg": self.msg, "type": self.type}


Check = Callable[[Any, Loc], Iterator[Issue]]


def anything(_value: Any, _loc: Loc) -> Iterator[Issue]:
    return iter(())


def text(*, least: int = 0, most: int | None = None) -> Check:
    def check(value: Any, loc: Loc) -> Iterator[Issue]:
        if not isinstance(value, str):
            yield Issue(loc, "Input should be a valid string", "string_type")
        elif len(value) < least:
            yield Issue(loc, f"String should have at least {least} characters", "string_too_short")
        elif most is not None and len(value) > most:
            yield Issue(loc, f"String should have at most {most} characters", "string_too_long")

    return check


def integer(*, least: int | None = None, most: int | None = None) -> Check:
    def check(value: Any, loc: Loc) -> Iterator[Issue]:
        if isinstance(value, bool) or not isinstance(value, int):
            yield Issue(loc, "Input should be a valid integer", "int_type")
        else:
            yield from _within(value, least, most, loc)

    return check


def number(*, least: float | None = None) -> Check:
    def check(value: Any, loc: Loc) -> Iterator[Issue]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield Issue(loc, "Input should be a valid number", "float_type")
        else:
            yield from _within(value, least, None, loc)

    return check


def _within(value: float, least: float | None, most: float | None, loc: Loc) -> Iterator[Issue]:
    if least is not None and value < least:
        yield Issue(loc, f"Input should be greater than or equal to {least}", "greater_than_equal")
    if most is not None and value > most:
        yield Issue(loc, f"Input should be less than or equal to {most}", "less_than_equal")


def boolean(value: Any, loc: Loc) -> Iterator[Issue]:
    if not isinstance(value, bool):
        yield Issue(loc, "Input should be a valid boolean", "bool_type")


def null(value: Any, loc: Loc) -> Iterator[Issue]:
    if value is not None:
        yield Issue(loc, "Input should be null", "none_required")


def moment(value: Any, loc: Loc) -> Iterator[Issue]:
    """Pass a point in time: ISO 8601 with a zone, or seconds since the epoch."""
    if isinstance(value, str):
        try:
            zone = datetime.fromisoformat(value).tzinfo
        except ValueError:
            yield Issue(loc, "Input should be a valid datetime", "datetime_parsing")
        else:
            if zone is None:
                yield Issue(loc, "Input should have timezone info", "timezone_aware")
    else:
        yield from number()(value, loc)


def one_of(*allowed: str) -> Check:
    def check(value: Any, loc: Loc) -> Iterator[Issue]:
        if not isinstance(value, str) or value not in allowed:
            yield Issue(loc, f"Input should be one of {', '.join(allowed)}", "enum")

    return check


def either(*checks: Check) -> Check:
    """Pass what one of the checks passes; otherwise say what the one that came furthest found."""

    def check(value: Any, loc: Loc) -> Iterator[Issue]:
        found = [list(each(value, loc)) for each in checks]
        if all(found):
            yield from max(found, key=lambda issues: max(len(issue.loc) for issue in issues))

    return check


def maybe(check: Check) -> Check:
    def checked(value: Any, loc: Loc) -> Iterator[Issue]:
        if value is not None:
            yield from check(value, loc)

    return checked


def many(check: Check) -> Check:
    def checked(value: Any, loc: Loc) -> Iterator[Issue]:
        if not isinstance(value, list):
            yield Issue(loc, "Input should be a valid list", "list_type")
            return
        for position, item in enumerate(value):
            yield from check(item, (*loc, position))

    return checked


def mapping(check: Check = anything, *, key: Check = anything) -> Check:
    def checked(value: Any, loc: Loc) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield Issue(loc, "Input should be a valid dictionary", "dict_type")
            return
        for name, item in value.items():
            yield from key(name, (*loc, name))
            yield from check(item, (*loc, name))

    return checked


def record(
    required: Mapping[str, Check] | None = None,
    optional: Mapping[str, Check] | None = None,
    *,
    closed: bool = False,
) -> Check:
    """Pass an object with these keys; further keys only where it is not `closed`."""
    needed, allowed = dict(required or {}), dict(optional or {})
    known = needed | allowed

    def check(value: Any, loc: Loc) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield Issue(loc, "Input should be a valid dictionary", "dict_type")
            return
        for name in needed:
            if name not in value:
                yield Issue((*loc, name), "Field required", "missing")
        for name, item in value.items():
            if name in known:
                yield from known[name](item, (*loc, name))
            elif closed:
                yield Issue((*loc, name), "Extra inputs are not permitted", "extra_forbidden")

    return check


def tagged(tag: str, kinds: Mapping[str, Check]) -> Check:
    """Pass an object whose `tag` names one of the kinds, and that is of this kind."""

    def check(value: Any, loc: Loc) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield Issue(loc, "Input should be a valid dictionary", "dict_type")
        elif tag not in value:
            yield Issue(loc, f"Unable to extract tag using discriminator '{tag}'", "union_tag_not_found")
        elif not isinstance(value[tag], str) or value[tag] not in kinds:
            known = ", ".join(kinds)
            yield Issue(loc, f"'{tag}' is {value[tag]!r}, expected one of {known}", "union_tag_invalid")
        else:
            yield from kinds[value[tag]](value, loc)

    return check
