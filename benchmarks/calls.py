"""What tracking adds to a call: on the caller's thread, and in all with journal and delivery."""

from __future__ import annotations

from rig import Figures, Team
from table import Goal, Row

KB = 1_000


def measure(team: Team, quick: bool) -> list[Row]:
    """Measure calls of every size, sync, async and streamed."""
    rounds, calls = (5, 60) if quick else (9, 100)
    by_length = {
        count: team.rounds(rounds, "call", calls=calls * 8 // max(count, 8), messages=count)
        for count in (8, 1, 50, 200)
    }
    asynchronous = team.rounds(rounds, "acall", calls=calls, messages=8)
    rows = [
        _row("caller's thread, `invoke`, 8 messages", by_length[8], goal=Goal(2.5, over="no-op")),
        _row("the same, by the clock on the wall, calls back to back", by_length[8], "wall"),
        _row("caller's thread, `ainvoke`, 8 messages", asynchronous),
        _row("the same, by the clock on the wall", asynchronous, "wall"),
        *(_row(f"caller's thread, {count} message{'s'[: count > 1]}", by_length[count]) for count in (1, 50, 200)),
        _slope(by_length[8], by_length[200], 200 - 8),
    ]
    for what, in_loop in (("`stream`", False), ("`astream`", True)):
        found = team.rounds(rounds, "stream", calls=max(calls // 10, 5), chunks=200, asynchronous=in_loop)
        goal = None if in_loop else Goal(3.0)
        rows.append(_row(f"caller's thread, {what}, per chunk", found, goal=goal))
    return rows + _contents(team, quick)


def cpu(team: Team, quick: bool) -> list[Row]:
    """Measure all the work that a call causes in its process, until it is delivered."""
    rounds = 3 if quick else 5
    found = team.rounds(rounds, "call", calls=400 if quick else 1_000, messages=8, around=100)
    one = team.rounds(rounds, "call", calls=100 if quick else 200, messages=8, around=1)
    bare = team.rounds(rounds, "post", ["pltrack"], calls=300)["pltrack"]["cpu"]
    return [
        _row("CPU of a call with delivery, 8 messages", found, "cpu", Goal(350.0), base="pltrack"),
        _row("the same, each call in a block of its own", one, "cpu", base="pltrack"),
        Row("for comparison: a bare keep-alive POST with aiohttp", "us", {"pltrack": bare}),
    ]


def _contents(team: Team, quick: bool) -> list[Row]:
    rows = []
    for what, size, calls in (("1 KB", KB, 50), ("100 KB", 100 * KB, 20), ("5 MB", 5_000 * KB, 4)):
        found = team.rounds(2 if quick else 3, "call", calls=calls, messages=1, characters=size)
        rows.append(_row(f"caller's thread, a message of {what}", found))
        rows.append(_row(f"CPU with delivery, a message of {what}", found, "cpu", base="pltrack"))
    return rows


def _row(
    what: str, found: dict[str, Figures], figure: str = "caller", goal: Goal | None = None, base: str = "no-op"
) -> Row:
    values = {name: each[figure] for name, each in found.items()}
    if figure == "cpu":
        values.pop("no-op", None)
    return Row(what, "us", values, goal, base)


def _slope(short: dict[str, Figures], long: dict[str, Figures], more: int) -> Row:
    grown = {name: (long[name]["caller"] - short[name]["caller"]) / more for name in long}
    return Row("caller's thread, per message more", "us", grown, Goal(2.0))
