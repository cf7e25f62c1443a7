"""`pltrack erase`: say what would go, ask, and say what went and what is left elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import typer

from .. import _erase, _runtime
from ._screen import complain, line, print_json


def run(wanted: Mapping[str, Any], *, ask: bool, as_json: bool) -> int:
    """Erase; return the exit code: 1 when traces may be left, at a hub for one."""
    if ask:
        found = _erase.count(**wanted)
        typer.confirm(f"Erase {_words(found)} for good?", abort=True, err=True)
    done = _erase.erase(**wanted)
    if as_json:
        print_json(dataclasses.asdict(done))
    else:
        print(f"Erased {_words(done)}.")
        if done.promptlayer_ids:
            print("PromptLayer still has, and only its own pages can delete:", *done.promptlayer_ids)
        for path in done.files_removed:
            print(f"Removed {line(path)}, which was set aside and could not be read.")
    if done.in_flight:
        complain(f"{done.in_flight} of them were being sent: PromptLayer may have them, under ids that nobody knows")
    if _runtime.get().settings.hub:
        complain("nothing was erased at the hub: its rows are for whoever looks after that database")
    if done.left:
        complain(done.left)
    return int(bool(done.left or done.in_flight or _runtime.get().settings.hub))


def _words(found: _erase.Erased) -> str:
    return f"{found.requests} request(s), {found.notes} note(s) and {found.sessions} session(s)"
