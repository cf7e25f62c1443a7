"""Where the time of a tracked call goes, function by function and thread by thread, as py-spy sees it.

Usage: python benchmarks/hot.py [calls]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rig import Sinks, environment

CALLS = 20_000
PROGRAM = """
import sys
from pathlib import Path
from ways import Pltrack
from worker import MODEL, history
way, told = Pltrack(sys.argv[1], Path(sys.argv[2])), history(8)
for _ in range(int(sys.argv[3]) // 200):
    with way.on():
        for _ in range(200):
            MODEL.invoke(told)
way.flush()
"""
MOST = 14


def main(calls: int) -> None:
    """Print, for each thread, where it works most."""
    if (spy := shutil.which("py-spy", path=str(Path(sys.executable).parent))) is None:
        sys.exit("py-spy is not installed: it is in the dependency group `bench`")
    sinks = Sinks(1)
    with tempfile.TemporaryDirectory(prefix="pltrack-bench-") as place:
        stacks, folder = Path(place) / "stacks", Path(place)
        recorder = [spy, "record", "-F", "-t", "-f", "raw", "-r", "500", "-o", str(stacks), "--"]
        command = [sys.executable, "-c", PROGRAM, sinks.urls[0], str(folder), str(calls)]
        done = subprocess.run(
            [*recorder, *command], env=environment() | {"PYTHONPATH": str(Path(__file__).parent)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if not stacks.exists():
            sys.exit(f"py-spy may not look at programs here: {done.stderr[-500:]}")
        report(stacks.read_text())
    sinks.close()


def report(stacks: str) -> None:
    """Print where each thread is: in a function itself, and in it with all that it calls; without loading modules."""
    threads: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        thread, *calls = frames.split(";")
        if not calls or "_find_and_load" in frames:
            continue
        own, whole = threads.setdefault(thread.partition(": ")[2], (Counter(), Counter()))
        names = [_shown(call) for call in calls]
        own[names[-1]] += int(count)
        whole.update(dict.fromkeys(names, int(count)))
    everything = sum(own.total() for own, _ in threads.values())
    for thread, (own, whole) in sorted(threads.items(), key=lambda each: -each[1][0].total()):
        if not thread:
            continue
        print(f"\n{thread}: {own.total() / everything:.0%} of all work; in percent of this thread")
        print(f"  {'itself':>6} {'whole':>6}")
        ours = Counter({name: count for name, count in whole.items() if name.startswith("pltrack/")})
        for name in sorted(
            {*dict(own.most_common(MOST)), *dict(ours.most_common(MOST))}, key=lambda name: -whole[name]
        ):
            print(f"  {own[name] / own.total():6.1%} {whole[name] / own.total():6.1%}  {name}")


def _shown(call: str) -> str:
    """Return the function of `function (path:line)` after its path."""
    function, _, place = call.rpartition(" (")
    return f"{place.rpartition(':')[0]} {function}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CALLS)
