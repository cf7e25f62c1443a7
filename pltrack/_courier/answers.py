"""What an answer means for the row that was sent. Pure: no clock, no network, no journal."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from .._journal.statements import LONGEST_WAIT
from .api import Answer

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 300.0


class Act(Enum):
    """What to do with a row after an answer."""

    DONE = "done"
    RETRY = "retry"  # later; nothing is wrong with the row
    LOOK = "look"  # later, and look first whether it arrived
    REFUSED = "refused"  # never again: the row itself is wrong
    PAUSE = "pause"  # the key is wrong: the whole destination stops
    UNLINK = "unlink"  # again without the prompt link
    SHRINK = "shrink"  # again with shorter texts


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, when, and why."""

    act: Act
    why: str = ""
    wait: float = 0.0
    pl_id: int | None = None
    blocks: bool = False  # nothing goes there before `wait` is over: the server said so


def judge(answer: Answer, attempts: int, *, linked: bool = False) -> Verdict:
    """Decide what happens to a row that was sent for the `attempts`-th time."""
    status = answer.status
    if 200 <= status < 300:
        return Verdict(Act.DONE, pl_id=request_id_of(answer))
    if status in (401, 403):
        return Verdict(Act.PAUSE, answer.words)
    if status == 404 and linked:
        return Verdict(Act.UNLINK, answer.words)
    if status == 413:
        return Verdict(Act.SHRINK, answer.words)
    if status == 504:  # a gateway gave up waiting: what stands behind it may have stored the request
        return Verdict(Act.LOOK, answer.words, backoff(attempts))
    if status in (408, 425, 429) or status >= 500 or (0 < status < 400):
        asked = answer.retry_after
        wait = backoff(attempts) if asked is None else min(asked, LONGEST_WAIT)
        return Verdict(Act.RETRY, answer.words, wait, blocks=asked is not None or status == 429)
    if status == 0:
        return Verdict(Act.LOOK if answer.maybe_arrived else Act.RETRY, answer.words, backoff(attempts))
    return Verdict(Act.REFUSED, answer.words)


def request_id_of(answer: Answer) -> int | None:
    """Find PromptLayer's id in an answer: `id` for /log-request, `request_id` elsewhere."""
    body = answer.body
    if not isinstance(body, dict):
        return None
    found = body.get("id", body.get("request_id"))
    fits = isinstance(found, int) and not isinstance(found, bool) and 0 < found < 2**63  # as the journal's column does
    return found if fits else None


def backoff(attempts: int) -> float:
    """Return seconds to wait: exponential with full jitter, so that many clients do not come back at once."""
    most = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(attempts, 12))
    return random.uniform(_FIRST_WAIT / 2, most)
