"""`pltrack sync`: a courier over the whole journal, until nothing is left that it could deliver."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _runtime
from .._records import open_of
from ..errors import JournalError
from ._screen import complain, console, line

if TYPE_CHECKING:
    from .._courier.forward import Forwarder
    from .._courier.loop import Courier
    from .._journal.store import Store
    from .._runtime import Runtime

_TIMEOUT = 60.0
_LOOK_EVERY = 0.2
_TRY_AGAIN = 1.0
_CLOSE_TIMEOUT = 3.0
_FINGERPRINT = re.compile("[0-9a-f]{16}")


Journals = Sequence[tuple["Store", Any]]  # stores with their couriers


class Wanted(NamedTuple):
    """What the command line asked for."""

    watch: bool = False
    adopt: bool = False
    take_over: Sequence[str] = ()
    timeout: float | None = None


class Counts(NamedTuple):
    """Requests and notes of the journal by what became of them."""

    delivered: int
    refused: int
    left: int
    sending: int
    without_key: int
    orphans: int
    paused: bool = False  # by hand


def run(wanted: Wanted) -> int:
    """Deliver; return the exit code: 1 when something is left or was refused."""
    _runtime.configure(delivery="background")
    runtime = _runtime.get()
    runtime.lane.store()
    if runtime.lane.in_memory:
        return 1  # why was logged
    try:
        with _journals(runtime, wanted) as journals:
            return _sync(runtime, journals, wanted)
    except KeyboardInterrupt:
        return 1
    except JournalError as error:
        complain(str(error))
        return 1


def _sync(runtime: Runtime, journals: Journals, wanted: Wanted) -> int:
    before = _counts(journals)
    if not runtime.destinations:
        if before.left or wanted.watch:
            complain("there is no PromptLayer key: set PROMPTLAYER_API_KEY")
        return int(bool(before.left or wanted.watch))
    if not _taken(journals, runtime.fingerprint, wanted):
        return 2
    ended = _deliver(runtime, journals, before, wanted)
    for _, courier in journals:
        courier.close(_CLOSE_TIMEOUT)  # what is under way is given back before it is counted
    after = _counts(journals)
    _report(before, after, ended)
    _report_elsewhere(journals, runtime.destinations)
    return int(after.left > 0 or after.refused > before.refused)


@contextmanager
def _journals(runtime: Runtime, wanted: Wanted) -> Iterator[Journals]:
    """Return what to deliver from: the journal and older ones; or the hub, once the journal was emptied into it."""
    from .._courier.loop import Courier

    hub_url, first = runtime.settings.hub, runtime.lane.courier()
    if isinstance(first, Courier):
        yield [(runtime.lane.store(), first), *runtime.lane.older]
        return
    hub = _opened(hub_url, wanted.watch)
    try:
        _hand_over(runtime, first, wanted.timeout)
        courier = Courier(lambda: hub, runtime.owner, runtime.told, lambda: None, lambda: runtime.settings)
        courier.serve(runtime.destinations.values())
        yield [(hub, courier), *runtime.lane.older]
    finally:
        hub.close()


def _opened(url: str, watch: bool) -> Store:
    """Open the hub; a worker that watches waits for one that is away."""
    from .._journal.hub import Hub

    said = False
    while True:
        try:
            return Hub.open(url)
        except JournalError as error:
            if not watch:
                raise
            if not said:
                complain(f"{error}; trying again")
            said = True
            time.sleep(_TRY_AGAIN)


def _hand_over(runtime: Runtime, forwarder: Forwarder, timeout: float | None) -> None:
    """Give the hub what programs of this machine have left in their journal."""
    local = [(runtime.lane.store(), forwarder)]
    forwarder.patience = 0.0
    deadline = time.monotonic() + (_TIMEOUT if timeout is None else timeout)
    told = threading.Event()
    with runtime.listening(told.set):
        forwarder.start()
        forwarder.wake()
        while _counts(local).left and not forwarder.waits_for("hub") and time.monotonic() < deadline:
            told.wait(_LOOK_EVERY)
            told.clear()


def _taken(journals: Journals, own: str, wanted: Wanted) -> bool:
    """Make this key's what was asked for; return False, and say why, where that cannot be."""
    for name in wanted.take_over:
        if not _FINGERPRINT.fullmatch(name):  # perhaps a key: it is not repeated
            complain("--take-over: expected a fingerprint of 16 characters, as the log and `pltrack sync` name it")
            return False
    for name in wanted.take_over:
        print(f"Took over {sum(store.adopt(own, name) for store, _ in journals)} request(s) of destination {name}.")
    if wanted.adopt and (adopted := sum(store.adopt(own) for store, _ in journals)):
        print(f"Adopted {adopted} request(s) that were recorded without a key.")
    return True


def _deliver(runtime: Runtime, journals: Journals, before: Counts, wanted: Wanted) -> str:
    """Run the couriers; return why they were stopped: done, timeout, paused or stopped."""
    watch, timeout = wanted.watch, wanted.timeout
    deadline = time.monotonic() + (timeout if timeout is not None else float("inf") if watch else _TIMEOUT)
    told = threading.Event()
    with _stoppable() as stops, runtime.listening(told.set), _progress(before, endless=watch) as moved:
        for store, courier in journals:
            for fingerprint in runtime.destinations:
                store.hurry(destination=fingerprint)
            courier.patience = 0.0  # no waiting for the processes that wrote the rows
            courier.start()
            courier.wake()
        while (left := deadline - time.monotonic()) > 0 and not stops:
            told.clear()
            with suppress(JournalError):  # the hub is away for a while; the courier says so
                moved(_counts(journals))
                ends = [] if watch else [_ended(runtime, *each) for each in journals]
                if ends and all(ends):
                    return max(ends)  # paused rather than done
            told.wait(min(left, _LOOK_EVERY))
    return "stopped" if stops else "timeout"


def _ended(runtime: Runtime, store: Store, courier: Courier) -> str:
    """Say why there is nothing more to do; the empty string while there is."""
    if all(each.halted or each.paused for each in courier.lines.values()):
        return "paused"
    from .._journal import orphans

    going = [name for name, each in courier.lines.items() if not (each.halted or each.paused)]
    if orphans.due(store, going, courier.patience) or courier.busy:
        return ""
    # A row that is under way when first looked for may be due again when looked for next: look on both sides.
    mine = [(store, courier)]
    under_way = _counts(mine).sending
    if under_way or store.next_due(going, runtime.owner, courier.patience) is not None or _counts(mine).sending:
        return ""
    return "done"


def _counts(journals: Journals) -> Counts:
    every = [store.totals() for store, _ in journals]
    by_state = sum((Counter(totals.states) for totals in every), Counter[str]())
    return Counts(
        delivered=by_state["delivered"],
        refused=by_state["failed"],
        left=open_of(by_state),
        sending=by_state["sending"],
        without_key=sum(totals.keyless for totals in every),
        orphans=sum(totals.orphans for totals in every),
        paused=any(totals.paused is not None for totals in every),
    )


def _report(before: Counts, after: Counts, ended: str) -> None:
    refused = after.refused - before.refused
    print(f"{max(0, after.delivered - before.delivered)} delivered, {refused} refused, {after.left} left.")
    if refused:
        complain("PromptLayer refused some; `pltrack ls` and `pltrack show ID` have its words")
    if not after.left:
        return
    status = _runtime.status()
    if after.paused:
        complain("delivery was paused by `pltrack pause`; `pltrack resume` lets it go on")
    elif ended == "paused":
        complain(f"delivery is paused: {status.paused_reason}")
    elif ended == "timeout":
        complain(f"time is up{f': {line(status.last_error)}' if status.last_error else ''}; run it again to go on")
    if after.without_key:
        complain(f"{after.without_key} request(s) were recorded without a key: `pltrack sync --adopt` delivers them")
    if after.orphans:
        complain(f"{after.orphans} note(s) are about requests that this journal does not know")


def _report_elsewhere(journals: Journals, served: Collection[str]) -> None:
    for name, count in sorted(pair for store, _ in journals for pair in store.left_for().items()):
        if name and name not in served:
            complain(
                f"{count} of them are for destination {name}, whose key is not set here: name it in "
                f"PLTRACK_PREVIOUS_API_KEYS, or deliver them under this key with `pltrack sync --take-over {name}`"
            )


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Let Ctrl-C and a service manager's SIGTERM ask for the end: what is under way is written down first.

    Nothing is raised, for that could be anywhere, also where errors are ignored; a second signal insists.
    """
    asked: list[int] = []

    def stop(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield asked
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def _progress(before: Counts, *, endless: bool) -> Iterator[Callable[[Counts], None]]:
    """Show on a terminal how far it is; elsewhere nothing."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _: None
        return
    told = "{task.fields[told]}"
    columns = (TextColumn(told),) if endless else (BarColumn(20), MofNCompleteColumn(), TextColumn(told))
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=before.left, told="delivering")

        def moved(now: Counts) -> None:
            done = now.delivered - before.delivered + now.refused - before.refused
            refused = f", {now.refused - before.refused} refused" if now.refused > before.refused else ""
            words = f"{now.delivered - before.delivered} delivered, {now.left} left{refused}" if endless else refused
            bar.update(task, completed=done, total=done + now.left, told=words.lstrip(", "))

        moved(before)
        yield moved
