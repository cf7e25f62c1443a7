"""The commands and their order; what they need is loaded inside them, so that `--help` is quick."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from typing import Annotated

import typer

from ..errors import JournalError, PltrackError, SettingError
from . import _delivering, _keeping, _looking, _prompts, _saying
from ._screen import complain, log_to_stderr

_HELP_LEAST = 52  # columns; help is not laid out for fewer unless it is told to

app = typer.Typer(
    name="pltrack",
    help="Look at what pltrack has recorded, say something about it, and deliver it to PromptLayer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # their tracebacks show the values of variables: recorded text
    rich_markup_mode=None,
)
for _command in (
    _keeping.demo,
    _looking.status,
    _keeping.doctor,
    _looking.ls,
    _looking.show,
    _saying.score,
    _saying.metadata,
    _saying.link,
    _delivering.sync,
    _delivering.retry,
    _delivering.pause,
    _delivering.resume,
    _keeping.erase,
    _looking.export,
    _keeping.ui,
):
    app.command()(_command)
app.add_typer(_prompts.app, name="prompts")
app.add_typer(_keeping.hub, name="hub")


def main() -> None:
    """Run the command line; errors of ours are one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a stream of somebody else's
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    columns = shutil.get_terminal_size().columns
    narrow = {"terminal_width": max(columns, 24)} if columns < _HELP_LEAST else {}
    try:
        app(prog_name="pltrack", **narrow)
    except PltrackError as error:
        complain(_with_remedy(error))
        sys.exit(2 if isinstance(error, SettingError) else 1)


def _with_remedy(error: PltrackError) -> str:
    if isinstance(error, JournalError) and "locked" in str(error):
        return f"{error}: another program holds it. Try again, or end that program"
    return str(error)


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
