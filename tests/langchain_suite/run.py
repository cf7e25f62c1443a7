"""Run LangChain's own tests without pltrack and with a session around each: the outcomes have to be the same.

The source distribution of the installed langchain-core carries them. It is fetched and unpacked below build/, with an
environment of its own for what they need; nothing of it enters this repository.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VERSION = importlib.metadata.version("langchain-core")
WORK = ROOT / "build" / f"langchain-core-{VERSION}"
SOURCE = WORK / f"langchain_core-{VERSION}"
PYTHON = WORK / "venv" / "bin" / "python"
PARTS = (
    *("callbacks", "runnables", "language_models", "tracers", "prompts"),
    *("caches", "output_parsers", "rate_limiters", "test_tools.py", "test_retrievers.py", "test_globals.py"),
)
MEASURES_TIME = "tests/unit_tests/language_models/chat_models/test_benchmark.py"  # on a busy machine it fails by chance
COUNTS_HANDLERS = {"tests/unit_tests/runnables/test_config.py::test_merge_config_callbacks"}
LIMIT = 900
Outcomes = dict[str, str]


def main() -> int:
    """Fetch, run twice, compare; return 1 where an outcome is another one."""
    prepare()
    without, _ = outcomes("without", [])
    tracked, status = outcomes("tracked", [])
    differing = differences(without, tracked)
    if differing:  # only what differs again was not by chance
        print("once more, each way:", *differing, sep="\n  ", flush=True)
        again, _ = outcomes("without", differing)
        differing = differences(again, outcomes("tracked", differing)[0])
    for test in differing:
        print(f"DIFFERS {test}: {without.get(test)} without pltrack, {tracked.get(test)} in a session")
    print(f"langchain-core {VERSION}: {summary(without)} without pltrack; {summary(tracked)} in a session")
    print(f"tracked: {status}; tests that may differ, as they count handlers: {len(COUNTS_HANDLERS)}")
    unsound = not status["recorded"] or status["internal_errors"] or status.get("warnings")
    if unsound:
        print("the tracked run has recorded nothing, or has caught errors of pltrack's own")
    return 1 if differing or unsound or "passed" not in without.values() else 0


def prepare() -> None:
    """Fetch the tests and make the environment they run in, unless that was done before."""
    stamp = WORK / "ready"
    if stamp.exists() and stamp.stat().st_mtime >= (ROOT / "pyproject.toml").stat().st_mtime:
        return
    WORK.mkdir(parents=True, exist_ok=True)
    if not SOURCE.exists():
        wanted = ["--no-deps", "--no-binary", "langchain-core", f"langchain-core=={VERSION}"]
        pip(sys.executable, "download", *wanted, "-d", str(WORK))
        with tarfile.open(SOURCE.with_name(SOURCE.name + ".tar.gz")) as packed:
            packed.extractall(WORK, filter="data")
    if not PYTHON.exists():
        venv.create(PYTHON.parent.parent, with_pip=True)
        pip(str(PYTHON), "install", "--upgrade", "pip")  # older ones know no --group
    own_tests = f"{SOURCE / 'pyproject.toml'}:test"
    pip(str(PYTHON), "install", f"langchain-core=={VERSION}", "-e", str(ROOT), "--group", own_tests)
    stamp.touch()


def pip(python: str, *arguments: str) -> None:
    """Run pip and let it speak only of errors."""
    command = [python, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, timeout=LIMIT, stdin=subprocess.DEVNULL)


def outcomes(way: str, tests: list[str]) -> tuple[Outcomes, dict[str, int]]:
    """Run the tests (all without `tests`) and return what came out, and how pltrack stands at the end."""
    name = f"{way}-again" if tests else way
    told = WORK / f"{name}.json"
    told.unlink(missing_ok=True)
    plugins = ["-p", "told", "-p", "no:pltrack"] if way == "without" else ["-p", "told", "-p", "held"]
    command = [
        str(PYTHON),
        "-m",
        "pytest",
        "-q",
        "--no-header",
        "--tb=short",
        "-p",
        "no:xdist",
        f"--deselect={MEASURES_TIME}",
    ]
    command += ["-p", "no:cacheprovider", *plugins, *(tests or [f"tests/unit_tests/{each}" for each in PARTS])]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PLTRACK", "PROMPTLAYER", "LANG"))}
    env = kept | {"PYTHONPATH": str(HERE), "PYTHONHASHSEED": "0", "TOLD": str(told)}
    started = time.monotonic()
    with (WORK / f"{name}.log").open("w") as log:
        subprocess.run(
            command, cwd=SOURCE, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LIMIT, check=False
        )
    if not told.exists():
        sys.exit(f"the tests did not run; see {log.name}")
    found = json.loads(told.read_text())
    print(f"{way}: {summary(found['outcomes'])} in {time.monotonic() - started:.0f} s; {log.name}", flush=True)
    return found["outcomes"], found["status"]


def differences(without: Outcomes, tracked: Outcomes) -> list[str]:
    """Return the tests whose outcomes are not the same."""
    every = sorted(without.keys() | tracked.keys())
    return [test for test in every if without.get(test) != tracked.get(test) and test not in COUNTS_HANDLERS]


def summary(found: Outcomes) -> str:
    """Return how many tests came out how."""
    kinds = sorted(set(found.values()))
    return ", ".join(f"{sum(each == kind for each in found.values())} {kind}" for kind in kinds) or "no test"


if __name__ == "__main__":
    sys.exit(main())
