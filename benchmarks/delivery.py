"""How fast a backlog is delivered beside the SDK in a loop, and with how many HTTP calls."""

from __future__ import annotations

from rig import Figures, Sinks, Team
from table import Goal, Row


def measure(team: Team, quick: bool) -> list[Row]:
    """Measure in turns; both say the same of each call, eight messages long."""
    calls = 500 if quick else 2_000
    found: dict[str, list[Figures]] = {"pltrack": [], "SDK by hand": []}
    for _ in range(2 if quick else 3):
        found["pltrack"] += [team.rounds(1, "backlog", ["pltrack"], calls=calls)["pltrack"]]
        found["SDK by hand"] += [team.rounds(1, "log", ["SDK by hand"], calls=calls // 8)["SDK by hand"]]
    rates = {name: sorted(each["rate"] for each in rounds)[len(rounds) // 2] for name, rounds in found.items()}
    works = {name: sorted(each["cpu"] for each in rounds)[len(rounds) // 2] for name, rounds in found.items()}
    return [
        Row("a backlog, delivered a second", "", rates, Goal(3.0, over="SDK by hand", at_least=True), "SDK by hand"),
        Row("CPU of its delivery, per call", "us", works, base="SDK by hand"),
        *_http_calls(team),
    ]


def _http_calls(team: Team) -> list[Row]:
    hundred, spoken = {}, {}
    for name, worker in list(team.workers.items()):
        before = Sinks.came(worker.url)["calls"]
        team.rounds(1, "call", [name], calls=50, messages=8)
        after = Sinks.came(worker.url)["calls"]
        hundred[name] = float(after - before)
        if team.rounds(1, "speak", [name]).get(name, {}).get("done"):
            spoken[name] = float(Sinks.came(worker.url)["calls"] - after)
    return [
        Row("HTTP calls for 100 calls", "", hundred),
        Row("HTTP calls for a call with score, metadata and prompt link", "", spoken, Goal(1.0)),
    ]
