"""A wrapper that does not change what a function is: same signature, same kind, and it can be pickled."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import wrapt

from . import _shapes

# (instance, args, kwargs) of a call -> what to call it through
Lives = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Callable[..., Any], _shapes.Life]]


class _Bound(wrapt.BoundFunctionWrapper):  # type: ignore[misc, type-arg, unused-ignore]
    """The wrapper as an attribute of an instance or class."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        owner = self._self_instance
        if owner is None:
            # Reached through its class: a class method knows it, a static or plain one does not.
            owner = getattr(self.__wrapped__, "__self__", None) or self._self_owner
        return getattr, (owner, self.__wrapped__.__name__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        function, arguments = self.__reduce_ex__(4)
        return function(copy.deepcopy(arguments[0], memo), arguments[1])


class _Wrapper(wrapt.FunctionWrapper):  # type: ignore[misc, type-arg, unused-ignore]
    """The wrapper itself."""

    __bound_function_wrapper__ = _Bound

    def __init__(self, wrapped: Any, wrapper: Any, remake: tuple[Callable[..., Any], tuple[Any, ...]] | None) -> None:
        super().__init__(wrapped, wrapper)
        self._self_remake = remake

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._self_remake is None or _by_name(self.__wrapped__) is self:
            return self.__wrapped__.__qualname__  # as functions are
        function, arguments = self._self_remake
        return function, (self.__wrapped__, *arguments)

    def __copy__(self) -> Any:
        return self._made_of(copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._made_of(copy.deepcopy(self.__wrapped__, memo))

    def _made_of(self, wrapped: Any) -> Any:
        if wrapped is self.__wrapped__:
            return self
        return _Wrapper(wrapped, self._self_wrapper, self._self_remake)


def _by_name(function: Any) -> Any:
    """Return what stands under a function's name in its module."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found


def bound(function: Any, lives: Lives, remake: tuple[Callable[..., Any], tuple[Any, ...]] | None = None) -> Any:
    """Return `function` wrapped so that each call is driven through the life that `lives` gives for it."""

    def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _, life = lives(wrapped, args, kwargs)
        return _shapes.drive(wrapped, args, kwargs, life)

    return _Wrapper(function, call, remake)
