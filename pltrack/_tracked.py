"""`@tracked`: a session around each call of a function, without changing what the function is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from . import _runtime
from ._bound import bound
from ._checks import checked_metadata, checked_tags
from ._session import Session

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


@overload
def tracked(function: F, /) -> F: ...
@overload
def tracked(
    title: str | None = None,
    /,
    *,
    name: str | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    metadata: Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None = None,
    user: str | None = None,
    conversation: str | None = None,
    api_key: str | None = None,
    capture: str | None = None,
    on_end: Callable[[Session], object] | None = None,
) -> Callable[[F], F]: ...
def tracked(
    function: Any = None,
    /,
    name: Any = None,
    **options: Any,
) -> Any:
    """Run each call of the decorated function in a session of its own.

    Bare, with brackets, or with `pl_session`'s arguments. `tags` and `metadata` may be functions of the call's
    bound arguments (given by keyword). `on_end(session)` is called when the call is over, streams included.
    """
    if isinstance(function, str):
        function, name = None, function
    plan = _Plan(name, options)
    return plan if function is None else plan(function)


class _Plan:
    """What `@tracked(...)` was given, checked when the function is decorated."""

    __slots__ = ("_metadata", "_on_end", "_options", "_tags")

    def __init__(self, name: str | None, options: dict[str, Any]) -> None:
        options = dict(options)
        self._on_end = options.pop("on_end", None)
        if self._on_end is not None and not callable(self._on_end):
            raise TypeError(f"on_end: expected a function of the session, got {type(self._on_end).__name__}")
        self._tags = options.pop("tags", ())
        self._metadata = options.pop("metadata", None)
        self._options = {**options, **({} if name is None else {"name": name})}
        if "id" in options:
            raise TypeError("id: each call is a session of its own; use pl_session(id=...) inside")
        fixed_tags = () if callable(self._tags) else checked_tags("tags", self._tags)
        Session(tags=fixed_tags, metadata=None if callable(self._metadata) else self._metadata, **self._options)
        if not callable(self._tags):
            self._tags = fixed_tags

    def __call__(self, function: Any) -> Any:
        """Decorate `function`."""
        if inspect.isclass(function):
            raise TypeError("tracked: decorate a class's methods, not the class")
        if not callable(function) and not isinstance(function, classmethod | staticmethod):
            raise TypeError(f"tracked: expected something callable, got {type(function).__name__}")
        return bound(function, self._life, (_remade, (self,)))

    def __reduce__(self) -> Any:
        options = {**self._options, "tags": self._tags, "metadata": self._metadata, "on_end": self._on_end}
        return _plan, (options,)

    def _life(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function, _Call(self._session(function, args, kwargs), self._on_end)

    def _session(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Session:
        tags, metadata = self._tags, self._metadata
        if callable(tags) or callable(metadata):
            named = _named(function, args, kwargs)
            if callable(tags):
                tags = _computed_tags(tags, named) or ()
            if callable(metadata):
                metadata = _computed_metadata(metadata, named)
        options = self._options
        if "name" not in options:
            options = {**options, "name": getattr(function, "__qualname__", type(function).__qualname__)}
        return Session(tags=tags, metadata=metadata, **options)


# What users' functions compute may fail or be refused: that costs the tags, not the call.


@_runtime.guarded
def _named(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(function)
    call = signature.bind(*args, **kwargs)
    call.apply_defaults()
    named = dict(call.arguments)
    for each in signature.parameters.values():
        if each.kind is each.VAR_KEYWORD:
            named |= named.pop(each.name, {})
    return named


@_runtime.guarded
def _computed_tags(function: Any, named: dict[str, Any] | None) -> tuple[str, ...] | None:
    return None if named is None else checked_tags("tags", function(**named))


@_runtime.guarded
def _computed_metadata(function: Any, named: dict[str, Any] | None) -> dict[str, str] | None:
    return None if named is None else checked_metadata("metadata", function(**named))


class _Call:
    """One call: a session that is attached while anything of it runs, and ended when it is over."""

    __slots__ = ("_on_end", "_session")

    def __init__(self, session: Session, on_end: Callable[[Session], object] | None) -> None:
        self._session = session
        self._on_end = on_end

    def step(self) -> Any:
        return self._session.attach()

    def steps(self) -> Any:
        return self._session.steps()

    def end(self, error: BaseException | None) -> None:
        self._session.end()
        if self._on_end is not None:
            _tell(self._on_end, self._session)


@_runtime.guarded
def _tell(on_end: Callable[[Session], object], session: Session) -> None:
    on_end(session)


def _plan(options: dict[str, Any]) -> _Plan:
    return _Plan(options.pop("name", None), options)


def _remade(function: Any, plan: _Plan) -> Any:
    return plan(function)
