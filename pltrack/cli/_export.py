"""`pltrack export`: requests as JSON lines or as a flat table, one after the other, never all in memory."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .. import _entries
from ..errors import PltrackError
from ._screen import clean

if TYPE_CHECKING:
    from .._entries import Entry
    from .._journal.browsing import Filters
    from .._journal.store import Store

# What a spreadsheet takes for a formula, full-width characters among it; some drop the space in front of it.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def run(store: Store | None, filters: Filters, *, as_csv: bool, output: Path | None) -> None:
    """Write what fits to a file or to stdout."""
    entries = iter(()) if store is None else _entries.every(store, filters)
    write = _write_csv if as_csv else _write_jsonl
    if output is None:
        write(entries, sys.stdout)
        return
    try:
        with _written(output) as file:
            count = write(entries, file)
    except OSError as error:
        raise PltrackError(f"{output} cannot be written: {error.strerror or error}") from error
    print(f"Exported {count} request(s) to {output}.", file=sys.stderr)


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """Write a file for its owner only; whoever looks sees the earlier one or the whole new one."""
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _write_jsonl(entries: Iterator[Entry], file: TextIO) -> int:
    count = 0
    for entry in entries:
        # In ASCII: what could move a cursor is escaped, and nothing is lost.
        file.write(json.dumps(entry.full(), ensure_ascii=True, default=str) + "\n")
        count += 1
    return count


def _write_csv(entries: Iterator[Entry], file: TextIO) -> int:
    table = csv.writer(file, lineterminator="\r\n")
    table.writerow(_COLUMNS)
    count = 0
    for entry in entries:
        table.writerow([_cell(value(entry)) for value in _COLUMNS.values()])
        count += 1
    return count


def _cell(value: Any) -> Any:
    """Return a value for a table: cleaned, and nothing that a spreadsheet would run."""
    if value is None or isinstance(value, int | float):
        return value
    text = clean(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _text(side: str) -> Callable[[Entry], str]:
    def said(entry: Entry) -> str:
        return "\n\n".join(f"[{who}]\n{what}" for who, what in _entries.text_of(entry.body.get(side)))

    return said


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""


def _prompt(entry: Entry, field: str) -> Any:
    return entry.prompts[-1].get(field) if entry.prompts else None


_COLUMNS: dict[str, Callable[[Entry], Any]] = {
    "id": lambda entry: entry.id,
    "request_id": lambda entry: entry.row["pl_id"],
    "started_at": lambda entry: entry.started.isoformat(),
    "seconds": lambda entry: round(entry.seconds, 6),
    "app": lambda entry: entry.row["app"],
    "session_id": lambda entry: entry.row["session_id"],
    "session": lambda entry: entry.session.get("name"),
    "user": lambda entry: entry.session.get("user"),
    "conversation": lambda entry: entry.session.get("conversation"),
    "provider": lambda entry: entry.row["provider"],
    "model": lambda entry: entry.row["model"],
    "status": lambda entry: entry.status,
    "error_type": lambda entry: entry.body.get("error_type"),
    "error_message": lambda entry: entry.body.get("error_message"),
    "input_tokens": lambda entry: entry.row["input_tokens"],
    "output_tokens": lambda entry: entry.row["output_tokens"],
    "cached_tokens": lambda entry: entry.row["cached_tokens"],
    "reasoning_tokens": lambda entry: entry.row["reasoning_tokens"],
    "cost": lambda entry: entry.row["cost"],
    "score": lambda entry: entry.scores.get(""),
    "scores": lambda entry: _compact({name: score for name, score in entry.scores.items() if name}),
    "tags": lambda entry: _compact(entry.tags),
    "metadata": lambda entry: _compact(entry.metadata),
    "prompt": lambda entry: _prompt(entry, "prompt_name"),
    "prompt_version": lambda entry: _prompt(entry, "version"),
    "delivery": lambda entry: entry.row["state"],
    "attempts": lambda entry: entry.row["attempts"],
    "reason": lambda entry: entry.row["reason"],
    "destination": lambda entry: entry.row["destination"],
    "input": _text("input"),
    "output": _text("output"),
}
