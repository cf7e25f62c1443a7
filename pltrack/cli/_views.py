"""How entries look on a terminal: a table of many, a page about one, a table of the state of things."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import _entries
from .._entries import Entry
from ._screen import line, words
from ._standing import versions

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from .._journal.standing import Standing
    from ._standing import Found

_STATUS_STYLE = {"SUCCESS": "green", "WARNING": "yellow", "ERROR": "red"}
_MESSAGE_MOST = 4_000
_REASON_MOST = 300
_ANY_WIDTH = 10_000


def listing(entries: Sequence[Entry], screen: Console) -> RenderableType:
    """Return the table that `pltrack ls` prints; where it is too wide for the screen, with fewer columns or none."""
    from rich.console import Group

    names, unlimited = list(_COLUMNS), screen.options.update(max_width=_ANY_WIDTH)
    for dispensable in (*_DISPENSABLE, ""):
        table = _table(entries, names)
        if screen.measure(table, options=unlimited).maximum <= screen.width:
            return table
        if dispensable:
            names.remove(dispensable)
    return Group(*(_stacked(each) for each in entries))


def _table(entries: Sequence[Entry], names: Sequence[str]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in {"tokens", "cost"} else "left", no_wrap=True)
    for each in entries:
        table.add_row(*(_cell(each, name) for name in names))
    return table


def _stacked(entry: Entry) -> RenderableType:
    """Return an entry as a few lines, for a narrow screen."""
    facts = {name: _COLUMNS[name](entry) for name in ("model", "status", "delivery", "scores", "session")}
    said = [f"{name} {value}" for name, value in facts.items() if value]
    return words("\n  ".join((f"{entry.id[-_entries.SHORT :]}  {_time(entry)}", *said)) + "\n")


def _cell(entry: Entry, name: str) -> RenderableType:
    text = _COLUMNS[name](entry)
    return words(text, _STATUS_STYLE.get(text, "") if name == "status" else "")


def _time(entry: Entry) -> str:
    return entry.started.strftime("%m-%d %H:%M:%S")


_COLUMNS: dict[str, Callable[[Entry], str]] = {
    "time": _time,
    "id": lambda entry: entry.id[-_entries.SHORT :],
    "model": lambda entry: line(entry.short_model, 28),
    "status": lambda entry: entry.status,
    "tokens": lambda entry: _tokens(entry),
    "cost": lambda entry: _money(entry.row["cost"]),
    "scores": lambda entry: line(_scores(entry), 40),
    "delivery": lambda entry: entry.delivery,
    "session": lambda entry: line(entry.session.get("name") or (entry.row["session_id"] or "")[-_entries.SHORT :], 24),
}
_DISPENSABLE = ("cost", "tokens", "session", "scores")  # columns that go first where there is no room


def page(entry: Entry, *, whole: bool = False) -> RenderableType:
    """Return what `pltrack show` prints of one request; `whole`: nothing is cut."""
    from rich.console import Group

    most = None if whole else _MESSAGE_MOST
    return Group(_facts(_about(entry)), _heading("Conversation"), *_conversation(entry, most), *_notes(entry))


def state(found: Found) -> RenderableType:
    """Return the table that `pltrack status` prints."""
    status = found.status
    paused = status.paused_reason
    if status.paused_since is not None:
        paused = f"since {status.paused_since.astimezone():%Y-%m-%d %H:%M:%S}; `pltrack resume` lets it go on"
    facts = {
        "journal": status.journal + (" (cannot be used: in memory)" if status.in_memory else ""),
        **_standing(found.here),
        **({"hub": status.hub, **_standing(found.hub, "  ")} if found.hub is not None else {}),
        "delivery": status.delivery + ("" if status.enabled else " (pltrack is disabled)"),
        "paused": paused,
        "LangChain": None if found.hook is None else found.hook.words,
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "last error": status.last_error,
    }
    return _facts({name: value for name, value in facts.items() if value not in (None, "")})


def _standing(standing: Standing | None, indent: str = "") -> dict[str, Any]:
    if standing is None:
        return {f"{indent}requests": "nothing was recorded yet"}
    totals = standing.totals
    facts = {
        "requests": _states(totals.requests),
        "notes": _states(totals.notes),
        "without key": totals.keyless and f"{totals.keyless}, for `pltrack sync --adopt`",
        "orphans": totals.orphans and f"{totals.orphans}, about requests that are not known here",
        "lost": totals.lost,
        "oldest": standing.oldest is not None and f"undelivered for {_age(standing.oldest)}",
        "newest": standing.newest is not None and f"recorded {_age(standing.newest)} ago",
        "size": standing.bytes and f"{standing.bytes / 1_048_576:.1f} MB",
    }
    shown = {f"{indent}{name}": value for name, value in facts.items() if value}
    for each in standing.lines:
        if each.last_error:
            shown[f"{indent}at {each.destination or 'no key'}"] = line(each.last_error, _REASON_MOST)
    return shown


def _states(counts: Mapping[str, int]) -> str:
    told = {"sending": "being sent", "failed": "refused", "forwarded": "at the hub"}
    return ", ".join(f"{n} {told.get(state, state)}" for state, n in sorted(counts.items()) if n) or "none"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _about(entry: Entry) -> dict[str, Any]:
    row, session, body = entry.row, entry.session, entry.body
    named = [part for part in (session.get("name"), session.get("id")) if part]
    delivery = entry.delivery + (f": {row['reason']}" if row["reason"] else "")
    facts = {
        "id": entry.id,
        "PromptLayer id": row["pl_id"],
        "time": f"{entry.started:%Y-%m-%d %H:%M:%S %Z}, took {entry.seconds:.2f} s",
        "model": f"{row['model']} ({row['provider']})",
        "status": entry.status,
        "error": ": ".join(filter(None, (body.get("error_type"), body.get("error_message")))),
        "tokens": _tokens(entry),
        "cost": _money(row["cost"]),
        "session": " ".join(named),
        "user": session.get("user"),
        "conversation": session.get("conversation"),
        "prompt": ", ".join(_prompt(link) for link in entry.prompts),
        "tags": ", ".join(entry.tags),
        "metadata": "\n".join(f"{key} = {value}" for key, value in entry.metadata.items() if key[0:1] != "_"),
        "delivery": delivery,
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _conversation(entry: Entry, most: int | None) -> list[RenderableType]:
    from rich.padding import Padding

    said = [*_entries.text_of(entry.body.get("input")), *_entries.text_of(entry.body.get("output"))]
    if not said:
        return [words("  (not kept)", "dim")]
    shown: list[RenderableType] = []
    for who, what in said:
        cut = what if most is None or len(what) <= most else f"{what[:most]}… ({len(what)} characters; --full)"
        shown += [words(f"  {line(who, 40)}", "bold cyan"), Padding(words(cut), (0, 0, 0, 4), expand=False)]
    return shown


def _notes(entry: Entry) -> list[RenderableType]:
    notes = entry.notes()
    if not notes:
        return []
    shown: list[RenderableType] = [_heading("Said about it")]
    for note in notes:
        said = note["said"]
        what = {
            "score": f"{said.get('score')} {said.get('name', '')}",
            "metadata": ", ".join(f"{key} = {value}" for key, value in (said.get("metadata") or {}).items()),
            "prompt": _prompt(said),
        }.get(note["kind"], "")
        reason = f": {note['reason']}" if note["reason"] else ""
        shown.append(words(f"  {note['kind']} {line(what, 200)}  ({note['state']}{line(reason, 200)})"))
    return shown


def _prompt(link: dict[str, Any]) -> str:
    version, label = link.get("version"), link.get("label")
    which = f" version {version}" if version else f" {label}" if label else ""
    return f"{link.get('prompt_name', '?')}{which}"


def _facts(facts: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, words(value, _STATUS_STYLE.get(str(value), "")))
    return table


def _heading(text: str) -> RenderableType:
    return words(f"\n{text}", "bold")


def _tokens(entry: Entry) -> str:
    used = entry.row["input_tokens"], entry.row["output_tokens"]
    return "" if used == (None, None) else f"{used[0] or 0} → {used[1] or 0}"


def _money(cost: float | None) -> str:
    return "" if cost is None else f"${cost:.6f}" if cost < 0.01 else f"${cost:.2f}"


def _scores(entry: Entry) -> str:
    return ", ".join(f"{name}={score}" if name else str(score) for name, score in entry.scores.items())
