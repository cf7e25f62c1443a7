"""The commands around it: see it work, find what is wrong, look in a browser, erase, the hub's tables."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from . import _place
from ._options import Json
from ._screen import complain

hub = typer.Typer(no_args_is_help=True, help="Look after the hub, the PostgreSQL database that machines share.")


def demo() -> None:
    """See it work on a fake model: no account, no network.

    Example: pltrack demo
    """
    from .demo import run

    raise typer.Exit(run())


def doctor(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Programs to look into for the old handler (this folder)."),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Check the key, the network, the clock, the journal and LangChain, each failure with its remedy.

    Python files and notebooks are searched for PromptLayer's old LangChain handler, which records nothing any more.
    Exit code 1 when something is wrong.

    Example: pltrack doctor src/
    """
    from . import _doctor

    raise typer.Exit(_doctor.run(paths or [Path()], as_json=as_json))


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

    _place.check_settings()
    raise typer.Exit(_ui.run(host=host, port=port, browser=browser))


def erase(
    *,
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

    Example: pltrack erase --user u-7
    """
    from . import _erasing

    wanted = {"user": user, "session": session, "request": request, "before": before}
    if all(value is None for value in wanted.values()):
        complain("say what to erase: --user, --session, --request or --before")
        raise typer.Exit(2)
    if _place.journal() is None:
        print(f"Nothing was recorded yet in {_place.name()}.")
        return
    raise typer.Exit(_erasing.run(wanted, ask=not yes, as_json=as_json))


@hub.command()
def upgrade() -> None:
    """Create the tables of the hub that PLTRACK_HUB names, or bring them up to date.

    Exit code 2 when PLTRACK_HUB is not set.

    Example: pltrack hub upgrade
    """
    from .. import _runtime
    from .._journal.hub import Hub, shown
    from .._journal.schema import VERSION

    _place.check_settings()
    url = _runtime.get().settings.hub
    if not url:
        complain("there is no hub: set PLTRACK_HUB=postgresql://...")
        raise typer.Exit(2)
    before = Hub.upgrade(url)
    what = "is up to date" if before == VERSION else f"now has schema {VERSION}"
    print(f"The hub {shown(url)} {what}.")
