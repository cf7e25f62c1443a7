"""The commands about delivery: now, again, not for a while."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from . import _place
from ._screen import complain

if TYPE_CHECKING:
    from .._journal.store import Store


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

    Example: pltrack sync --watch
    """
    from .. import _runtime
    from . import _sync

    _place.check_settings()
    if not watch and not _runtime.get().settings.hub and _place.journal() is None:
        print(f"Nothing was recorded yet in {_place.name()}.")
        return
    raise typer.Exit(_sync.run(_sync.Wanted(watch, adopt, take_over or (), timeout)))


def retry(
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Our ids or their ends, or PromptLayer's.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that was refused.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Only what was refused with this in its words: 422.")] = "",
) -> None:
    """Send again what PromptLayer has refused: requests, and what was said about them.

    They wait to be delivered by running programs or `pltrack sync`. Exit code 1 when nothing was found.

    Example: pltrack retry --all --reason 422
    """
    if bool(wanted) == everything:
        raise typer.BadParameter("say what to send again: ids, or --all")
    from . import _retrying

    raise typer.Exit(_retrying.run(wanted or (), reason))


def pause() -> None:
    """Stop delivery until `pltrack resume`, in every program that shares this journal or hub.

    Programs record on. Within a few seconds nothing is sent any more but what was on its way.

    Example: pltrack pause
    """
    from .._journal import pausing

    earlier = [pausing.pause(each) for each in _all_stores()]
    if earlier[0] is not None:
        print(f"Delivery from {_place.name()} was paused already, since {_moment(earlier[0])}.")
    else:
        print(f"Delivery from {_place.name()} is paused; `pltrack resume` lets it go on.")


def resume() -> None:
    """Let delivery go on after `pltrack pause`.

    Example: pltrack resume
    """
    from .._journal import pausing

    since = [pausing.resume(each) for each in _all_stores()]
    if since[0] is None:
        complain(f"delivery from {_place.name()} was not paused")
        return
    print(f"Delivery from {_place.name()} goes on; it was paused since {_moment(since[0])}.")


def _all_stores() -> list[Store]:
    """Return the hub, or the journal (which is made) with older files around it."""
    from .. import _runtime
    from .._journal import older

    there = _place.store()
    if there is not None and there.path is None:
        return [there]
    lane = _runtime.get().lane
    return [lane.store() if there is None else there, *older.stores(lane.path)]


def _moment(since: float) -> str:
    return f"{datetime.fromtimestamp(since, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
