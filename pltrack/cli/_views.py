"""How entries look on a terminal: a table of many, a page about one, a table of the state of things."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import _entries
from .._entries import Entry
from ._screen import line, words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .._status import Status

_STATUS_STYLE = {"SUCCESS": "green", "WARNING": "yellow", "ERROR": "red"}
_MESSAGE_MOST = 4_000
_ALL_OF_TODAY = "%H:%M:%S"


def listing(entries: Iterable[Entry]) -> RenderableType:
    """Return the table that `pltrack ls` prints."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in _COLUMNS:
        table.add_column(name, justify=justify, no_wrap=name in {"id", "time", "status"}, overflow="fold")
    for each in entries:
        cells = (
            each.started.strftime("%m-%d " + _ALL_OF_TODAY),
            each.id[-_entries.SHORT :],
            line(each.row["model"].rsplit(".", 1)[-1], 28),
            each.status,
            _tokens(each),
            _money(each.row["cost"]),
            line(_scores(each), 40),
            each.delivery,
            line(each.session.get("name") or (each.row["session_id"] or "")[-_entries.SHORT :], 24),
        )
        table.add_row(*(words(cell, _STATUS_STYLE.get(cell, "")) for cell in cells))
    return table


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("time", "left"),
    ("id", "left"),
    ("model", "left"),
    ("status", "left"),
    ("tokens", "right"),
    ("cost", "right"),
    ("scores", "left"),
    ("delivery", "left"),
    ("session", "left"),
)


def page(entry: Entry) -> RenderableType:
    """Return what `pltrack show` prints of one request."""
    from rich.console import Group

    return Group(_facts(_about(entry)), _heading("Conversation"), *_conversation(entry), *_notes(entry))


def state(status: Status) -> RenderableType:
    """Return the table that `pltrack status` prints."""
    oldest = status.oldest_pending_seconds
    facts = {
        "journal": status.journal + (" (cannot be used: in memory)" if status.in_memory else ""),
        "delivered": status.delivered,
        "pending": f"{status.pending}" + (f", the oldest for {oldest:.0f} s" if status.pending and oldest else ""),
        "without key": status.without_key,
        "refused": status.failed,
        "orphans": status.orphans,
        "delivery": status.delivery + ("" if status.enabled else " (pltrack is disabled)"),
        "paused": status.paused_reason,
        "LangChain": "; ".join(status.warnings) or None,
        "last error": status.last_error,
    }
    return _facts({name: value for name, value in facts.items() if value is not None})


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


def _conversation(entry: Entry) -> list[RenderableType]:
    from rich.padding import Padding

    said = [*_entries.text_of(entry.body.get("input")), *_entries.text_of(entry.body.get("output"))]
    if not said:
        return [words("  (not kept)", "dim")]
    shown: list[RenderableType] = []
    for who, what in said:
        cut = what if len(what) <= _MESSAGE_MOST else f"{what[:_MESSAGE_MOST]}… ({len(what)} characters)"
        shown += [words(f"  {line(who, 40)}", "bold cyan"), Padding(words(cut), (0, 0, 0, 4))]
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
