"""Checked by mypy, never run: what the public face does to the user's types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, assert_type

import pltrack
from pltrack import PromptLayerCallbackHandler, Request, Session, current_session, pl_session, tracked


@tracked
def bare(question: str, *, depth: int = 1) -> int:
    return depth


@tracked()
async def coroutine(question: str) -> int:
    return 1


@tracked(tags=["rag"], metadata=lambda question, **_: {"len": len(question)}, on_end=lambda session: session.ids)
def generator(question: str) -> Iterator[int]:
    yield 1


@tracked("title", user="u", conversation="c", api_key="pl_x", capture="metadata", tags=lambda **_: ["x"])
async def agenerator(question: str) -> AsyncIterator[int]:
    yield 1


class Service:
    @tracked
    def method(self, x: int) -> str:
        return str(x)

    @classmethod
    @tracked
    def of_class(cls, x: int) -> str:
        return str(x)

    @staticmethod
    @tracked(name="static")
    def static(x: int) -> str:
        return str(x)


async def decorated() -> None:
    assert_type(bare("q", depth=2), int)
    assert_type(await coroutine("q"), int)
    assert_type(generator("q"), Iterator[int])
    assert_type(agenerator("q"), AsyncIterator[int])
    assert_type(Service().method(1), str)
    assert_type(Service.of_class(1), str)
    assert_type(Service.static(1), str)
    bare(5)  # type: ignore[arg-type]
    bare("q", depht=2)  # type: ignore[call-arg]
    tracked(tags="prod")(bare)
    tracked(nothing=1)(bare)  # type: ignore[call-overload]


async def sessions() -> None:
    with pl_session("checkout", tags=["prod"], metadata={"release": 42}, user="u", conversation="c", id="x") as s:
        assert_type(s, Session)
    async with pl_session() as s:
        assert_type(s, Session)
    with s.attach() as attached:
        assert_type(attached, Session)
    async with s.attach() as attached:
        assert_type(attached, Session)
    assert_type(s.id, str)
    assert_type(s.requests, tuple[Request, ...])
    assert_type(s.ids, tuple[str, ...])
    assert_type(s.request_ids, tuple[int, ...])
    assert_type(await s.arequest_ids(), tuple[int, ...])
    assert_type(s.wait(5), dict[str, int | None])
    assert_type(await s.await_ids(timeout=5), dict[str, int | None])
    assert_type(s.score(90), int)
    assert_type(s.score(80, name="tone", on="last"), int)
    assert_type(s.score(80, on=lambda request: request.status == "SUCCESS"), int)
    assert_type(s.metadata({"plan": "pro"}, release=4), int)
    assert_type(s.link_prompt("example", {"product": "toasters"}, version=1), int)
    assert_type(s.last, Request)
    assert_type(s.last.request_id, int | None)
    assert_type(s.usage.cost, float | None)
    assert_type(s.headers(include={"tags"}), dict[str, str])
    assert_type(pl_session.from_headers(s.headers(), tags=["t"]), Session)
    assert_type(current_session(), Session | None)
    s.score(90, on="first")  # type: ignore[arg-type]
    s.score("90")  # type: ignore[arg-type]


def bound(s: Session, function: Callable[[int], str]) -> None:
    assert_type(s.bind(function), Callable[[int], str])
    assert_type(s.bind(function)(1), str)
    result: Any = s.follow(iter([1]))
    del result


async def around() -> None:
    assert_type(pltrack.request("id").score(95), int)
    assert_type(pltrack.request(17), Request)
    assert_type(pltrack.flush(timeout=5).pending, int)
    assert_type((await pltrack.aflush(5)).failed, int)
    pltrack.configure(api_key="pl_x", sample_rate=0.5)
    pltrack.shutdown(timeout=5)
    assert_type(pltrack.status().lost, int)
    assert_type(pltrack.erase(user="u", before=0.0), pltrack.Erased)
    assert_type(pltrack.erase(request=17).promptlayer_ids, tuple[int, ...])
    PromptLayerCallbackHandler(pl_tags=["chatopenai"], pl_id_callback=print)
