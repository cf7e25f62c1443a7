"""`pltrack sync`: a courier over the whole journal, until nothing is left that it could deliver."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _runtime
from ._screen import complain, console, line

if TYPE_CHECKING:
    from .._courier.loop import Courier
    from .._journal.store import Store
    from .._runtime import Runtime

_TIMEOUT = 60.0
_LOOK_EVERY = 0.2
_CLOSE_TIMEOUT = 3.0


class Counts(NamedTuple):
    """Requests and notes of the journal by what became of them."""

    delivered: int
    refused: int
    left: int
    sending: int
    without_key: int
    orphans: int


def run(*, watch: bool, adopt: bool, timeout: float | None) -> int:
    """Deliver; return the exit code: 1 when something is left or was refused."""
    _runtime.configure(delivery="background")
    runtime = _runtime.get()
    store = runtime.lane.store()
    if runtime.lane.in_memory:
        return 1  # why was logged
    before = _counts(store)
    if not runtime.destinations:
        if before.left or watch:
            complain("there is no PromptLayer key: set PROMPTLAYER_API_KEY")
        return int(bool(before.left or watch))
    if adopt and (adopted := store.adopt(runtime.fingerprint)):
        print(f"Adopted {adopted} request(s) that were recorded without a key.")
    ended = _deliver(runtime, before, watch, timeout)
    runtime.lane.courier().close(_CLOSE_TIMEOUT)  # what is under way is given back before it is counted
    after = _counts(store)
    _report(before, after, ended)
    return int(after.left > 0 or after.refused > before.refused)


def _deliver(runtime: Runtime, before: Counts, watch: bool, timeout: float | None) -> str:
    """Run the courier; return why it was stopped: done, timeout, paused or stopped."""
    store, courier = runtime.lane.store(), runtime.lane.courier()
    courier.patience = 0.0  # no waiting for the processes that wrote the rows
    deadline = time.monotonic() + (timeout if timeout is not None else float("inf") if watch else _TIMEOUT)
    for fingerprint in runtime.destinations:
        store.hurry(destination=fingerprint)
    told = threading.Event()
    with _stoppable(), runtime.listening(told.set), _progress(before) as moved:
        courier.start()
        courier.wake()
        try:
            while (left := deadline - time.monotonic()) > 0:
                told.clear()
                moved(_counts(store))
                if not watch and (ended := _ended(runtime, store, courier)):
                    return ended
                told.wait(min(left, _LOOK_EVERY))
        except KeyboardInterrupt:
            return "stopped"
    return "timeout"


def _ended(runtime: Runtime, store: Store, courier: Courier) -> str:
    """Say why there is nothing more to do; the empty string while there is."""
    if all(each.paused for each in courier.lines.values()):
        return "paused"
    going = [name for name, each in courier.lines.items() if not each.paused]
    # A row that is under way when first looked for may be due again when looked for next: look on both sides.
    under_way = _counts(store).sending
    if under_way or store.next_due(going, runtime.owner, courier.patience) is not None or _counts(store).sending:
        return ""
    return "done"


def _counts(store: Store) -> Counts:
    totals = store.totals()
    by_state = totals.states
    return Counts(
        delivered=by_state.get("delivered", 0),
        refused=by_state.get("failed", 0),
        left=sum(by_state.get(state, 0) for state in ("pending", "sending", "waiting")),
        sending=by_state.get("sending", 0),
        without_key=totals.keyless,
        orphans=totals.orphans,
    )


def _report(before: Counts, after: Counts, ended: str) -> None:
    refused = after.refused - before.refused
    print(f"{max(0, after.delivered - before.delivered)} delivered, {refused} refused, {after.left} left.")
    if refused:
        complain("PromptLayer refused some; `pltrack ls` and `pltrack show ID` have its words")
    if not after.left:
        return
    status = _runtime.status()
    if ended == "paused":
        complain(f"delivery is paused: {status.paused_reason}")
    elif ended == "timeout":
        complain(f"time is up{f': {line(status.last_error)}' if status.last_error else ''}; run it again to go on")
    if after.without_key:
        complain(f"{after.without_key} request(s) were recorded without a key: `pltrack sync --adopt` delivers them")
    if after.orphans:
        complain(f"{after.orphans} note(s) are about requests that this journal does not know")
    if ended == "done" and not after.without_key and not after.orphans:
        complain("what is left was recorded under a key that is not set here (see PLTRACK_PREVIOUS_API_KEYS)")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let a service manager's SIGTERM end it as Ctrl-C does: what is under way is written down."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(before: Counts) -> Iterator[Any]:
    """Show on a terminal how far it is; elsewhere nothing."""
    screen = console(stderr=True)
    spinner = screen.status("delivering") if screen.is_terminal else None

    def moved(now: Counts) -> None:
        if spinner is not None:
            spinner.update(f"{now.delivered - before.delivered} delivered, {now.left} left")

    with spinner if spinner is not None else nullcontext():
        yield moved
