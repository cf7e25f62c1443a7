"""What tracking costs: one table of one run, pltrack beside a no-op handler and beside what others do.

Usage: python benchmarks [NAME ...] [--quick] [--json FILE] [--write-docs]

Programs of their own beside it: benchmarks/faults.py (200 kills, exits), hub.py (workers on PostgreSQL), page.py (the
local page), hot.py (a profile of every thread).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import blocks
import calls
import delivery
import memory
import rows
import starts
import two
from rig import Team
from table import Row, as_data, circumstances, markdown, written_into
from ways import WAYS

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
THEMES: dict[str, Callable[[Team, bool], list[Row]]] = {
    "calls": calls.measure,
    "cpu": calls.cpu,
    "blocks": blocks.measure,
    "delivery": delivery.measure,
    "two": two.measure,
    "starts": starts.measure,
    "rows": rows.measure,
    "memory": memory.measure,
}


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(THEMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer rows: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCUMENT.name}")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(THEMES):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    where, started = circumstances(), time.monotonic()
    found, notes = measured(asked.names or list(THEMES), asked.quick)
    text = "\n".join([markdown(found), "", where, *(f"- {note}" for note in notes)])
    print(f"{text}\n\n{summary(found)} It took {time.monotonic() - started:.0f} s.")
    if asked.json is not None:
        asked.json.write_text(json.dumps({"where": where, "notes": notes, "rows": as_data(found)}, indent=1))
    if asked.write_docs:
        DOCUMENT.write_text(written_into(DOCUMENT.read_text(), text))


def measured(names: list[str], quick: bool) -> tuple[list[Row], list[str]]:
    """Return the rows of what was asked for; a measurement that fails does not stop the others."""
    found: list[Row] = []
    with Team(WAYS) as team:
        notes = team.notes
        for name in names:
            print(f"... {name}", end="", file=sys.stderr, flush=True)
            started = time.monotonic()
            try:
                found += THEMES[name](team, quick)
            except KeyboardInterrupt:
                notes.append(f"it was interrupted in {name}; what comes after that is missing")
                break
            except Exception as error:
                traceback.print_exc()
                notes.append(f"{name} could not be measured: {type(error).__name__}: {error}")
            print(f": {time.monotonic() - started:.0f} s", file=sys.stderr)
    return found, notes


def summary(found: list[Row]) -> str:
    """Say how many goals were met, and which were not."""
    goals = [row for row in found if row.met is not None]
    missed = "; ".join(row.what for row in goals if not row.met)
    return f"{sum(bool(row.met) for row in goals)} of {len(goals)} goals met{f'; not: {missed}' if missed else ''}."


if __name__ == "__main__":
    main()
