"""Decorated functions are pickled and copied like undecorated ones."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pickled
import pytest
from pickled import Service

from pltrack import tracked

CALLABLES: dict[str, tuple[Callable[[], Any], Any]] = {
    "function": (lambda: pickled.doubled, 10),
    "function under another name": (lambda: pickled.tripled, 15),
    "bound method": (lambda: pickled.service.method, 20),
    "class method": (lambda: Service.below_class, ("Service", 5)),
    "class method, other order": (lambda: Service.above_class, ("Service", 5)),
    "class method of an instance": (lambda: pickled.service.above_class, ("Service", 5)),
    "static method": (lambda: Service.below_static, 5),
    "static method, other order": (lambda: Service.above_static, 5),
    "static method of an instance": (lambda: pickled.service.above_static, 5),
    "callable object": (lambda: pickled.times, 35),
}
COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda each: pickle.loads(pickle.dumps(each)),
    "old pickle": lambda each: pickle.loads(pickle.dumps(each, 0)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("kind", CALLABLES)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_works_and_is_tracked(kind: str, how: str) -> None:
    """Every kind of callable survives pickle, copy and deepcopy, and can be pickled again [52]."""
    made, expected = CALLABLES[kind]
    duplicate = COPIES[how](made())
    assert duplicate(5) == expected
    assert pickle.loads(pickle.dumps(duplicate))(5) == expected
    assert type(duplicate) is type(made())


def test_functions_are_pickled_by_name() -> None:
    """What comes back is the decorated function itself, as for every function of a module."""
    for function in (pickled.doubled, pickled.later, pickled.steps):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy({"f": function})["f"] is function
    assert pickle.loads(pickle.dumps(pickled.partial))() == 15


def test_methods_reached_through_their_class() -> None:
    """`Service.method` survives too."""
    duplicate = pickle.loads(pickle.dumps(Service.method))
    assert duplicate(Service(3), 5) == 15


def test_a_deep_copy_of_an_object_has_methods_of_its_own() -> None:
    """A bound method's deep copy belongs to a copy of the object, a callable object's copy is independent."""
    original = Service(2)
    bound = original.method
    duplicate = copy.deepcopy(bound)
    original.factor = 100
    assert (bound(1), duplicate(1)) == (100, 2)
    times = tracked(pickled.Times(2))
    shallow, deep = copy.copy(times), copy.deepcopy(times)
    times.__wrapped__.factor = 100  # type: ignore[attr-defined]
    assert (times(1), shallow(1), deep(1)) == (100, 2, 2)


def test_local_functions_cannot_be_pickled_as_without_us() -> None:
    """The error is pickle's own."""

    def local() -> None:
        """Nothing can find it by name."""

    for each in (local, tracked(local), tracked(lambda: 5)):
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(each)
    assert copy.deepcopy(tracked(local))() is None


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_process_pools_take_decorated_functions(method: str) -> None:
    """Functions, methods and callable objects run in the processes of a pool [52]."""
    context: Any = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(pickled.doubled, [1, 2])) == [2, 4]
        assert pool.submit(pickled.service.method, 5).result(60) == 20
        assert pool.submit(pickled.times, 5).result(60) == 35
    with context.Pool(1) as old_pool:
        assert old_pool.map(pickled.tripled, [1]) == [3]
