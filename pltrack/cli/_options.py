"""Options that several commands have."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .._journal.browsing import Filters

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wanted = Annotated[str, typer.Argument(metavar="ID", help="Our id or its end, PromptLayer's id, or 'last'.")]
Tag = Annotated[str, typer.Option("--tag", help="Those with this tag.")]
Session = Annotated[str, typer.Option("--session", help="Those of a session and the ones in it: its id or name.")]
User = Annotated[str, typer.Option("--user", help="Those of this user's sessions.")]
Model = Annotated[str, typer.Option("--model", help="Those that asked this model.")]
Status = Annotated[str, typer.Option("--status", help="How the call ended: success, warning or error.")]
State = Annotated[
    str, typer.Option("--state", help="Delivery: pending, sending, delivered, failed or forwarded (at the hub).")
]
Text = Annotated[str, typer.Option("--text", help="Those in whose content this text is.")]
Since = Annotated[str, typer.Option("--since", help="An age such as 90s, 15m, 2h, 3d, 1w, or a date and time.")]

_ENDS = ("SUCCESS", "WARNING", "ERROR")
_STATES = ("pending", "sending", "delivered", "failed", "forwarded")


def filters(  # noqa: PLR0917 -- in the order of the options
    tag: str, session: str, user: str, model: str, status: str, state: str, text: str, since: str
) -> Filters:
    """Return what was asked for; a word that means nothing is an error of usage."""
    from .._journal.browsing import Filters

    return Filters(
        tag=tag,
        session=session,
        user=user,
        model=model,
        status=_one_of("--status", status.upper(), _ENDS),
        state=_one_of("--state", state.lower(), _STATES),
        text=text,
        since=_moment(since) if since else None,
    )


def _one_of(option: str, given: str, known: tuple[str, ...]) -> str:
    if given and given not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known).lower()}", param_hint=option)
    return given


def _moment(text: str) -> float:
    if age := _AGE.fullmatch(text):
        return time.time() - float(age[1]) * _SECONDS[age[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise typer.BadParameter("expected an age (15m, 2h, 3d) or a date", param_hint="--since") from None
