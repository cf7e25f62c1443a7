"""Type-checked, never run: decorators keep what users wrote."""

from __future__ import annotations

from typing import assert_type

import pltrack


@pltrack.tracked
def bare(question: str, k: int = 1) -> int:
    return k


@pltrack.tracked("named", tags=["x"], on_end=lambda session: session.score(5))
async def called(question: str) -> str:
    return question


async def uses() -> None:
    assert_type(bare("x", k=2), int)
    assert_type(await called("x"), str)
    with pltrack.pl_session("s", tags=["x"]) as session:
        assert_type(session, pltrack.Session)
        assert_type(session.request_ids, tuple[int, ...])
        assert_type(session.score(5), int)
        assert_type(session.last, pltrack.Request)
    async with pltrack.pl_session() as other:
        assert_type(await other.arequest_ids(), tuple[int, ...])
    assert_type(session.bind(bare)("x"), int)
    assert_type(pltrack.flush(1), pltrack.FlushResult)
    assert_type(pltrack.status(), pltrack.Status)
