"""What the rest of the face costs its caller: sessions, the decorator, verbs."""

from __future__ import annotations

from rig import Figures, Team
from table import Goal, Row


def measure(team: Team, quick: bool) -> list[Row]:
    """Measure what stands around calls, and what is said about them."""
    rounds, calls = (5, 200) if quick else (15, 400)
    empty = team.rounds(rounds, "block", calls=calls)
    decorated = team.rounds(rounds, "decorated", calls=calls)
    verbs = team.rounds(rounds, "verbs", ["pltrack"], calls=40)["pltrack"]
    return [
        _row("an empty session, entered and left", empty, Goal(15.0)),
        _row("`@tracked` on an empty function", decorated, Goal(20.0)),
        *(Row(f"the verb `{verb}`", "us", {"pltrack": took}) for verb, took in verbs.items()),
    ]


def _row(what: str, found: dict[str, Figures], goal: Goal) -> Row:
    words = {name: "none" for name, each in found.items() if not each}
    return Row(what, "us", {name: each["caller"] for name, each in found.items() if each}, goal, words=words)
