"""`pltrack status`: how the journal, and the hub where there is one, stand; as JSON and as metrics, too."""

from __future__ import annotations

import dataclasses
import platform
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import _runtime
from .._status import MISSING, installed
from . import _hook, _place

if TYPE_CHECKING:
    from .._journal.standing import Standing
    from .._status import Status

_PACKAGES = ("pltrack", "langchain-core", "promptlayer", "SQLAlchemy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found out."""

    status: Status
    here: Standing | None  # None: nothing was recorded yet
    hub: Standing | None
    hook: _hook.Checked | None  # None: not looked at

    @property
    def oldest(self) -> float | None:
        """Seconds that the oldest undelivered row has waited, here or at the hub."""
        ages = [each.oldest for each in (self.here, self.hub) if each is not None and each.oldest is not None]
        return max(ages, default=None)


def look(*, with_hook: bool) -> Found:
    """Find out how it stands; raise JournalError where that cannot be read."""
    from .._journal import standing

    journal, hub = _place.journal(), _place.hub()
    here = None if journal is None else standing.look(journal)
    there = None if hub is None else standing.look(hub)
    status = _runtime.status()
    if there is not None and there.totals.paused is not None:
        from .._status import paused

        status = dataclasses.replace(status, **paused(there.totals.paused, ()))
    hook = _hook.check() if with_hook else None
    if hook is not None:
        status = dataclasses.replace(status, hook_ok=hook.works)
    return Found(status=status, here=here, hub=there, hook=hook)


def versions() -> dict[str, str]:
    """Return the versions of what matters."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    known = {package: installed(package) for package in _PACKAGES}
    return found | {package: version for package, version in known.items() if version != MISSING}


def as_json(found: Found) -> dict[str, Any]:
    """Return it as `status --json` shows it: what `pltrack.status()` has, and more."""
    status = dataclasses.asdict(found.status)
    since = found.status.paused_since
    return {
        **status,
        "paused_since": None if since is None else since.isoformat(),
        **_figures("", found.here),
        **(_figures("hub_", found.hub) if found.hub is not None else {}),
        "hook": None if found.hook is None else found.hook.words,
        "versions": versions(),
    }


def _figures(prefix: str, standing: Standing | None) -> dict[str, Any]:
    if standing is None:
        return {f"{prefix}{name}": None for name in ("rows", "bytes", "oldest_seconds", "newest_seconds")} | {
            f"{prefix}destinations": []
        }
    return {
        f"{prefix}rows": {"requests": standing.totals.requests, "notes": standing.totals.notes},
        f"{prefix}bytes": standing.bytes,
        f"{prefix}oldest_seconds": standing.oldest,
        f"{prefix}newest_seconds": standing.newest,
        f"{prefix}destinations": [each._asdict() for each in standing.lines],
    }


# -- metrics --------------------------------------------------------------------------------------------------

_METRICS = {
    "rows": "Requests and notes by what became of them.",
    "oldest_undelivered_seconds": "For how long the oldest undelivered request or note has waited.",
    "newest_request_seconds": "How long ago the newest request ended.",
    "waiting_rows": "Requests and notes that wait, by the fingerprint of their destination.",
    "refused_rows": "Requests and notes that were refused, by the fingerprint of their destination.",
    "without_key_requests": "Requests that were recorded without a key.",
    "orphan_notes": "Notes about requests that are not known here.",
    "lost_requests": "Requests that had to be given up.",
    "bytes": "Size of the database.",
    "paused": "Whether delivery was paused by hand.",
}


def metrics(found: Found) -> str:
    """Return it in Prometheus' text format; nothing that was recorded is in it."""
    samples: dict[str, list[str]] = {name: [] for name in _METRICS}

    def add(name: str, value: float | None, **labels: str) -> None:
        if value is not None:
            told = ",".join(f'{key}="{text}"' for key, text in labels.items())
            samples[name].append(f"pltrack_{name}{{{told}}} {value:.15g}")

    for place, standing in (("journal", found.here), ("hub", found.hub)):
        if standing is not None:
            _samples(place, standing, add)
    return "".join(
        f"# HELP pltrack_{name} {_METRICS[name]}\n# TYPE pltrack_{name} gauge\n" + "\n".join(lines) + "\n"
        for name, lines in samples.items()
        if lines
    )


def _samples(place: str, standing: Standing, add: Any) -> None:
    totals = standing.totals
    for kind, states in (("requests", totals.requests), ("notes", totals.notes)):
        for state in ("pending", "sending", "waiting", "delivered", "failed", "forwarded"):
            add("rows", states.get(state, 0), place=place, kind=kind, state=state)
    for line in standing.lines:
        add("waiting_rows", line.waiting, place=place, destination=line.destination)
        add("refused_rows", line.failed, place=place, destination=line.destination)
    add("oldest_undelivered_seconds", standing.oldest or 0.0, place=place)
    add("newest_request_seconds", standing.newest, place=place)
    add("without_key_requests", totals.keyless, place=place)
    add("orphan_notes", totals.orphans, place=place)
    add("lost_requests", totals.lost, place=place)
    add("bytes", standing.bytes, place=place)
    add("paused", int(totals.paused is not None), place=place)
