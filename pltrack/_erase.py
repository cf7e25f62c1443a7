"""Erasing what was recorded, for good: from the journal's files, and from what is on its way out of this process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from . import _runtime
from .errors import JournalError

if TYPE_CHECKING:
    from ._journal.erasing import Wanted

_TIMEOUT = 15.0
_LOOK_EVERY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was erased here, and what is left elsewhere: PromptLayer has no way to delete a request by its API."""

    requests: int
    notes: int
    sessions: int
    promptlayer_ids: tuple[int, ...]  # PromptLayer still has these
    in_flight: int = 0  # erased while being sent: PromptLayer may have these under ids that nobody knows
    files_removed: tuple[str, ...] = ()  # set aside earlier and unreadable, so removed as a whole
    left: str = ""  # why deleted bytes may still be in the journal's files; empty when they are gone


def erase(
    *,
    user: str | None = None,
    session: str | None = None,
    request: str | int | None = None,
    before: datetime | float | None = None,
    timeout: float = _TIMEOUT,
) -> Erased:
    """Erase requests with all that was said in and about them: of a user, a session, one, or before a moment.

    Where several are given, all must hold. `request` is our id or PromptLayer's; `before` a datetime or a time in
    seconds. Waits at most `timeout` seconds for what is being sent, and again for other processes that use the file.
    """
    from ._journal import erasing

    runtime, wanted = _runtime.get(), _wanted(user, session, request, before)
    lane = runtime.lane
    if not lane.in_use and not lane.path.exists():
        return Erased(requests=0, notes=0, sessions=0, promptlayer_ids=())
    store = lane.store()
    if not lane.is_written(timeout):
        raise JournalError(f"nothing was erased: {lane.path} could not be written within {timeout:g} s")
    if lane.is_split:
        raise JournalError(
            f"nothing was erased: {lane.stuck_by or 'records are being moved from memory into the file'}"
        )
    found = [erasing.erase(store, wanted, held=False)]
    under_way = _wait(wanted, time.monotonic() + timeout)
    found.append(erasing.erase(store, wanted, held=True))
    deadline = time.monotonic() + timeout
    left = erasing.scrub(store, deadline)
    removed: list[str] = []
    for path in erasing.set_aside(lane.path):
        more = erasing.erase_set_aside(path, wanted, deadline)
        if more is None:
            removed.append(str(path))
        else:
            found.append(more)
    return Erased(
        requests=sum(each.requests for each in found),
        notes=sum(each.notes for each in found),
        sessions=sum(each.sessions for each in found),
        promptlayer_ids=tuple(sorted({pl_id for each in found for pl_id in each.pl_ids})),
        in_flight=under_way,
        files_removed=tuple(removed),
        left=left,
    )


def count(
    *,
    user: str | None = None,
    session: str | None = None,
    request: str | int | None = None,
    before: datetime | float | None = None,
) -> Erased:
    """Count what `erase` would erase."""
    from ._journal import erasing

    found = erasing.look(_runtime.get().lane.store(), _wanted(user, session, request, before))
    return Erased(
        requests=found.requests, notes=found.notes, sessions=found.sessions, promptlayer_ids=tuple(sorted(found.pl_ids))
    )


def _wait(wanted: Wanted, deadline: float) -> int:
    """Wait until no courier holds any of it; return how many one still does.

    What this process's courier has not sent yet it lets go of at once.
    """
    from threading import Event

    from ._journal import erasing

    lane = _runtime.get().lane
    pause = Event()
    unsent: set[int] = set()
    while held := set(erasing.held(lane.store(), wanted)) - unsent:
        if lane.running_courier is not None:
            unsent.update(lane.running_courier.let_go(held))
        if time.monotonic() >= deadline:
            return len(held - unsent)
        pause.wait(_LOOK_EVERY)
    return 0


def _wanted(
    user: str | None, session: str | None, request: str | int | None, before: datetime | float | None
) -> Wanted:
    from ._journal.erasing import Wanted

    if user is None and session is None and request is None and before is None:
        raise ValueError("erase() needs to know what: user=, session=, request= or before=")
    for name, value in (("user", user), ("session", session)):
        if value is not None and (not isinstance(value, str) or not value):
            raise ValueError(f"{name}: expected text, got {value!r}")
    moment = before.timestamp() if isinstance(before, datetime) else before
    if moment is not None and (isinstance(moment, bool) or not isinstance(moment, int | float)):
        raise ValueError(f"before: expected a datetime or seconds, got {before!r}")
    if request is None:
        return Wanted(user, session, None, None, moment)
    if isinstance(request, bool) or not isinstance(request, str | int) or not str(request):
        raise ValueError(f"request: expected our id or PromptLayer's, got {request!r}")
    number = int(request) if str(request).isdigit() and len(str(request)) < 19 else None
    return Wanted(user, session, None if number is not None else str(request), number, moment)
