"""The commands and their options; what they need is loaded inside them, so that `--help` is quick."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PltrackError, SettingError
from ._screen import complain, console, log_to_stderr, print_json

if TYPE_CHECKING:
    from .._entries import Entry
    from .._journal.store import Store

_SCORE_TIMEOUT = 5.0

app = typer.Typer(
    name="pltrack",
    help="Look at what pltrack has recorded, say something about it, and deliver it to PromptLayer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # their tracebacks show the values of variables: recorded text
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wanted = Annotated[str, typer.Argument(metavar="ID", help="Our id or its end, PromptLayer's id, or 'last'.")]


def main() -> None:
    """Run the command line; errors of ours are one line on stderr."""
    try:
        app(prog_name="pltrack")
    except PltrackError as error:
        complain(error)
        sys.exit(2 if isinstance(error, SettingError) else 1)


def _print_version(wanted: bool) -> None:
    if wanted:
        import pltrack

        print(pltrack.__version__)
        raise typer.Exit


@app.callback()
def _every_command(
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave."),
    ] = False,
) -> None:
    log_to_stderr()


@app.command()
def status(as_json: Json = False) -> None:
    """Count what was recorded, and say what stands in the way."""
    import dataclasses

    from .. import _runtime

    _check_settings()
    found = _runtime.status()
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    from . import _views

    console().print(_views.state(found))


@app.command()
def ls(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List the newest requests."""
    from .. import _entries

    store = _open()
    entries = _entries.newest(store, limit) if store is not None else []
    if as_json:
        print_json([each.summary() for each in entries])
    elif not entries:
        print(f"Nothing was recorded yet in {_journal()}.")
    else:
        from . import _views

        console().print(_views.listing(entries))


@app.command()
def show(wanted: Wanted, as_json: Json = False) -> None:
    """Show one request: the conversation and what was said of it."""
    entry = _found(wanted)
    if entry is None:
        complain(f"there is no request {wanted} in {_journal()}")
        raise typer.Exit(1)
    if as_json:
        print_json(entry.full())
        return
    from . import _views

    console().print(_views.page(entry))


@app.command()
def score(
    wanted: Wanted,
    value: Annotated[int, typer.Argument(metavar="VALUE", help="A whole number from 0 to 100.")],
    name: Annotated[str | None, typer.Option("--name", help="What is scored, such as 'tone'.")] = None,
) -> None:
    """Score a request.

    The score is delivered now where that is possible, and later where it is not.
    """
    from .. import _runtime
    from .._checks import score_payload
    from .._request import request

    try:
        score_payload(value, name)
    except ValueError as error:
        complain(error)
        raise typer.Exit(2) from None
    entry = _found(wanted)
    if entry is None and not _is_whole_id(wanted):
        complain(f"there is no request {wanted} in {_journal()}")
        raise typer.Exit(1)
    if request(wanted if entry is None else entry.id).score(value, name=name) == 0:
        complain("pltrack is disabled; see PLTRACK_DISABLED and PLTRACK_ENABLED")
        raise typer.Exit(1)
    _runtime.flush(_SCORE_TIMEOUT)
    said = _found(wanted if entry is None else entry.id)
    what = said.notes("score")[-1] if said is not None else {"state": "pending", "reason": None}
    if what["state"] == "failed":
        complain(f"the score was refused: {what['reason']}")
        raise typer.Exit(1)
    print("Delivered." if what["state"] == "delivered" else "Kept in the journal, to be delivered later.")


@app.command()
def sync(
    watch: Annotated[bool, typer.Option("--watch", help="Go on delivering what is recorded from now on.")] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="Deliver what was recorded without a key, too.")] = False,
    take_over: Annotated[
        list[str] | None,
        typer.Option("--take-over", metavar="FINGERPRINT", help="Deliver what a key that is gone has left, too."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Seconds to go on for (60; without end with --watch).")
    ] = None,
) -> None:
    """Deliver what waits in the journal.

    Whichever program recorded it. The exit code is 1 when something is left or was refused.
    """
    from .. import _runtime
    from . import _sync

    _check_settings()
    if not watch and not _runtime.get().settings.hub and _open() is None:
        print(f"Nothing was recorded yet in {_journal()}.")
        return
    raise typer.Exit(_sync.run(_sync.Wanted(watch, adopt, take_over or (), timeout)))


@app.command()
def ui(
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; other machines can read it if you name yours.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = False,
) -> None:
    """Look at everything in a browser, on this machine.

    Example: pltrack ui --open
    """
    from . import _ui

    _check_settings()
    raise typer.Exit(_ui.run(host=host, port=port, browser=browser))


hub = typer.Typer(no_args_is_help=True, help="Look after the hub, the PostgreSQL database that machines share.")
app.add_typer(hub, name="hub")


@hub.command()
def upgrade() -> None:
    """Create the tables of the hub that PLTRACK_HUB names, or bring them up to date."""
    from .. import _runtime
    from .._journal.hub import Hub, shown
    from .._journal.schema import VERSION

    _check_settings()
    url = _runtime.get().settings.hub
    if not url:
        complain("there is no hub: set PLTRACK_HUB=postgresql://...")
        raise typer.Exit(2)
    before = Hub.upgrade(url)
    what = "is up to date" if before == VERSION else f"now has schema {VERSION}"
    print(f"The hub {shown(url)} {what}.")


@app.command()
def erase(  # noqa: PLR0917 -- typer turns them into options
    user: Annotated[str | None, typer.Option("--user", help="What this user's sessions recorded.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="What a session recorded, and those in it.")] = None,
    request: Annotated[str | None, typer.Option("--request", help="One request: our id or PromptLayer's.")] = None,
    before: Annotated[datetime | None, typer.Option("--before", help="What was recorded before this moment.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Erase requests for good.

    From the journal's files, whichever program recorded them; where several options are given, all must hold.
    PromptLayer's ids of what was delivered are printed: its API cannot delete them. The exit code is 1 when traces
    may be left.
    """
    from . import _erasing

    wanted = {"user": user, "session": session, "request": request, "before": before}
    if all(value is None for value in wanted.values()):
        complain("say what to erase: --user, --session, --request or --before")
        raise typer.Exit(2)
    if _open() is None:
        print(f"Nothing was recorded yet in {_journal()}.")
        return
    raise typer.Exit(_erasing.run(wanted, ask=not yes, as_json=as_json))


@app.command()
def demo() -> None:
    """See it work on a fake model: no account, no network."""
    from .demo import run

    raise typer.Exit(run())


def _check_settings() -> None:
    """Raise SettingError for an environment variable that cannot be used."""
    from .. import _runtime

    _runtime.configure()


def _journal() -> str:
    from .. import _runtime

    return str(_runtime.get().lane.path)


def _open() -> Store | None:
    """Return the journal, None where there is none yet: looking does not make one."""
    from .. import _runtime

    _check_settings()
    lane = _runtime.get().lane
    if not lane.path.exists():
        return None
    from .._journal.store import Store as Journal

    Journal.open(lane.path).close()  # what cannot be read is said; to set it aside is for programs that write
    store = lane.store()
    if lane.in_memory:
        raise typer.Exit(1)  # why was logged
    return store


def _found(wanted: str) -> Entry | None:
    from .. import _entries

    store = _open()
    return None if store is None else _entries.find(store, wanted)


def _is_whole_id(wanted: str) -> bool:
    from .. import _entries

    return _entries.is_whole_id(wanted)
