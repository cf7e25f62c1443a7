"""`pltrack doctor`: one check after the other, each failure with its remedy."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _runtime
from ..errors import JournalError, PltrackError
from . import _place
from ._screen import console, line, print_json, words

if TYPE_CHECKING:
    from .._courier.api import Answer
    from .._settings import Settings

_TIMEOUT = 10.0
_CLOCK_MOST = 60.0  # seconds that this machine may be wrong
_ASKED = "/prompt-templates?page=1&per_page=1"  # reads, and changes nothing
_SIGNS = {True: ("ok", "green"), False: ("failed", "red"), None: ("not checked", "yellow")}


class Check(NamedTuple):
    """What came of a check; `ok` is None where it could not be made."""

    name: str
    ok: bool | None
    words: str
    remedy: str = ""


def run(paths: list[Path], *, as_json: bool) -> int:
    """Make the checks; return the exit code: 1 when one failed."""
    done = []
    for check in _checks(paths):
        done.append(check)
        if not as_json:
            _print(check)
    if as_json:
        print_json({"ok": all(each.ok is not False for each in done), "checks": [each._asdict() for each in done]})
    return int(any(each.ok is False for each in done))


def _print(check: Check) -> None:
    screen = console()
    sign, style = _SIGNS[check.ok]
    text = words(f"{sign:<12}", style)
    text.append(line(f"{check.name}: {check.words}", 2_000), style="default")
    screen.print(text)
    if check.remedy:
        for each in check.remedy.splitlines():
            screen.print(words(f"{'':<12}-> {line(each, 500)}"))


def _checks(paths: list[Path]) -> Iterator[Check]:
    settings, check = _settings()
    yield check
    if settings is not None:
        yield from _promptlayer(settings)
        yield _guarded("journal", _journal)
        if settings.hub:
            yield _guarded("hub", _hub)
        yield _langchain()
    yield _guarded("old handler", lambda: _old_handler(paths))


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except PltrackError as error:
        return Check(
            name, False, str(error), "see `pltrack doctor --help`" if name == "old handler" else _remedy(error)
        )


def _remedy(error: PltrackError) -> str:
    if "locked" in str(error):
        return "another program holds the file: end it, or wait for it"
    return "PLTRACK_JOURNAL names another file; running programs set a damaged one aside by themselves"


def _settings() -> tuple[Settings | None, Check]:
    try:
        _place.check_settings()
    except PltrackError as error:
        return None, Check("settings", False, str(error), "docs/settings.md has what each setting may be")
    settings = _runtime.get().settings
    if not settings.enabled:
        return settings, Check("settings", False, "pltrack is disabled", "unset PLTRACK_DISABLED and PLTRACK_ENABLED")
    return settings, Check("settings", True, f"delivery {settings.delivery}, capture {settings.capture}")


# -- PromptLayer ----------------------------------------------------------------------------------------------


def _promptlayer(settings: Settings) -> Iterator[Check]:
    """Ask for a page of prompts: key, network and clock show in the answer."""
    to = settings.destination
    began = time.time()
    answer = asyncio.run(_ask(settings))
    took = time.time() - began
    yield _network(str(to), answer, took)
    yield _key(settings, answer)
    yield _clock(answer, began + took / 2)


async def _ask(settings: Settings) -> Answer:
    from .._courier.api import Api

    api = Api()
    try:
        return await api.get(settings.destination, _ASKED, _TIMEOUT)
    finally:
        api.close()


def _network(to: str, answer: Answer, took: float) -> Check:
    if answer.status == 0:
        remedy = (
            "check the network, a proxy (HTTPS_PROXY) or firewall, and PROMPTLAYER_BASE_URL; records wait until then"
        )
        return Check("network", False, f"{to}: {answer.error}", remedy)
    if answer.status >= 500:
        return Check(
            "network", False, f"{to}: {answer.words}", "PromptLayer has a problem; records wait until it is over"
        )
    return Check("network", True, f"{to} answered in {took * 1000:.0f} ms")


def _key(settings: Settings, answer: Answer) -> Check:
    if not settings.api_key:
        remedy = "set PROMPTLAYER_API_KEY; `pltrack sync --adopt` sends what was recorded without one"
        return Check("key", False, "there is none: records stay in the journal", remedy)
    fingerprint = settings.destination.fingerprint
    if answer.status == 401:
        remedy = "make a new key in PromptLayer's settings and set PROMPTLAYER_API_KEY; records wait until then"
        return Check("key", False, f"PromptLayer refused it: {answer.words} (destination {fingerprint})", remedy)
    if not 200 <= answer.status < 300:
        return Check("key", None, f"PromptLayer did not say whether it is good (destination {fingerprint})")
    return Check("key", True, f"PromptLayer took it (destination {fingerprint})")


def _clock(answer: Answer, now: float) -> Check:
    if answer.date is None:
        return Check("clock", None, "nobody told the time")
    ahead = now - answer.date
    if abs(ahead) <= _CLOCK_MOST:
        return Check("clock", True, f"within {max(1.0, abs(ahead)):.0f} s of PromptLayer's")
    which = "ahead of" if ahead > 0 else "behind"
    remedy = "let the system set it (timedatectl set-ntp true): requests would be shown at the wrong time"
    return Check("clock", False, f"{abs(ahead):.0f} s {which} PromptLayer's", remedy)


# -- this machine ---------------------------------------------------------------------------------------------


def _journal() -> Check:
    settings, path = _runtime.get().settings, _runtime.get().lane.path
    from .._journal import places, standing

    folder = next(each for each in (path.parent, *path.parent.parents) if each.exists())
    if kind := places.network_of(path):
        remedy = "PLTRACK_JOURNAL=/a/local/disk/journal.db: until then records are in memory only"
        return Check("journal", False, f"{path} is on a network file system ({kind})", remedy)
    if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        return Check(
            "journal", False, f"{path} cannot be written", "give it to this user, or name another: PLTRACK_JOURNAL"
        )
    if (free := shutil.disk_usage(folder).free) < settings.min_free:
        remedy = "make room, or lower PLTRACK_MIN_FREE: delivered content is cleared early"
        return Check("journal", False, f"{folder} has {free / 1_048_576:.0f} MB left", remedy)
    store = _place.journal()  # opening it writes
    if store is None:
        return Check("journal", True, f"{path} is made at the first record")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Check("journal", False, f"other users can read {path}", f"chmod 600 {path}")
    found = standing.look(store)
    if found.totals.paused is not None:
        return Check("journal", False, "delivery is paused", "`pltrack resume` lets it go on")
    if failed := found.totals.states.get("failed", 0):
        words = next((each.last_error for each in found.lines if each.failed and each.last_error), "")
        return Check(
            "journal", False, f"{failed} were refused: {words}", "`pltrack ls --state failed`, then `pltrack retry`"
        )
    return Check("journal", True, f"{path}, {(found.bytes or 0) / 1_048_576:.1f} MB, can be written")


def _hub() -> Check:
    from .._journal import standing

    try:
        store = _place.hub()
        assert store is not None
        found = standing.look(store)
    except JournalError as error:
        return Check("hub", False, str(error), "check PLTRACK_HUB, and run `pltrack hub upgrade` once")
    if found.totals.paused is not None:
        return Check("hub", False, "delivery is paused", "`pltrack resume` lets it go on")
    return Check("hub", True, f"{_place.name()} has its tables")


def _langchain() -> Check:
    from . import _hook

    found = _hook.check()
    remedy = (
        "" if found.works is not False else "look for a newer pltrack, or pin langchain-core to the last that worked"
    )
    return Check("LangChain", found.works, found.words, remedy)


def _old_handler(paths: list[Path]) -> Check:
    from ._dead import search

    found = search(paths)
    if not found.uses:
        looked = f"not used in {found.files} file(s)" + ("" if found.complete else "; time was up before all were seen")
        return Check("old handler", True if found.files and found.complete else None, looked)
    places: dict[str, Any] = dict.fromkeys(f"{each.path}:{each.line}: {each.instead}" for each in found.uses)
    used = ", ".join(dict.fromkeys(each.what for each in found.uses))
    return Check("old handler", False, f"{used}: since promptlayer 1.0.72 nothing of it is recorded", "\n".join(places))
