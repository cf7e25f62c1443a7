"""The commands that only look: nothing is sent, and no journal is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options, _place
from ._options import Json, Wanted
from ._screen import complain, console, print_json


def status(
    *,
    max_age: Annotated[
        float | None,
        typer.Option("--max-age", min=0, metavar="SECONDS", help="Exit with 2 when something undelivered is older."),
    ] = None,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Print metrics for Prometheus.")] = False,
    as_json: Json = False,
) -> None:
    """Say how it stands: what was recorded, what became of it, and what stands in the way.

    Exit code 1 when that cannot be found out, 2 when something undelivered is older than --max-age.

    Example: pltrack status --max-age 300
    """
    from . import _standing

    found = _standing.look(with_hook=not prometheus and max_age is None)
    if prometheus:
        print(_standing.metrics(found), end="")
    elif as_json:
        print_json(_standing.as_json(found))
    else:
        from . import _views

        console().print(_views.state(found))
    if max_age is not None and found.oldest is not None and found.oldest > max_age:
        complain(f"something has been waiting for {found.oldest:.0f} s")
        raise typer.Exit(2)


def ls(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many at most.")] = 20,
    tag: _options.Tag = "",
    session: _options.Session = "",
    user: _options.User = "",
    model: _options.Model = "",
    status: _options.Status = "",
    state: _options.State = "",
    text: _options.Text = "",
    since: _options.Since = "",
    as_json: Json = False,
) -> None:
    """List requests, the newest first; where several filters are given, all must hold.

    Example: pltrack ls --tag prod --status error --since 2h
    """
    from .. import _entries

    filters = _options.filters(tag, session, user, model, status, state, text, since)
    store = _place.store()
    entries = _entries.newest(store, limit, filters) if store is not None else []
    if as_json:
        print_json([each.summary() for each in entries])
    elif not entries:
        print(f"Nothing like that is in {_place.name()}." if filters.given else _nothing())
    else:
        from . import _views

        screen = console()
        screen.print(_views.listing(entries, screen))


def show(
    wanted: Wanted,
    full: Annotated[bool, typer.Option("--full", help="Cut nothing, however long it is.")] = False,
    as_json: Json = False,
) -> None:
    """Show one request: the conversation and what was said of it.

    Exit code 1 when there is no such request.

    Example: pltrack show last
    """
    entry = _place.found(wanted)
    if entry is None:
        complain(f"there is no request {wanted} in {_place.name()}")
        raise typer.Exit(1)
    if as_json:
        print_json(entry.full())
        return
    from . import _views

    console().print(_views.page(entry, whole=full))


def export(
    *,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line: everything (the default).")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="A flat table; no cell is a formula.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file, readable by you only, instead of stdout.")
    ] = None,
    tag: _options.Tag = "",
    session: _options.Session = "",
    user: _options.User = "",
    model: _options.Model = "",
    status: _options.Status = "",
    state: _options.State = "",
    text: _options.Text = "",
    since: _options.Since = "",
) -> None:
    """Write requests out, the oldest first, with all that was said in and about them.

    In constant memory, however many they are. The filters are those of `pltrack ls`.

    Example: pltrack export --csv --since 7d --output week.csv
    """
    if jsonl and csv:
        raise typer.BadParameter("give --jsonl or --csv, not both")
    from . import _export

    filters = _options.filters(tag, session, user, model, status, state, text, since)
    _export.run(_place.store(), filters, as_csv=csv, output=output)


def _nothing() -> str:
    return f"Nothing was recorded yet in {_place.name()}."
