"""Whether LangChain calls us here: a real call of a fake model, in a session, recorded into a journal of its own."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .. import _runtime
from .._status import installed

_ASKED, _ANSWERED = "Is anybody there?", "pltrack is."


class Checked(NamedTuple):
    """What came of it; `works` is None where it could not be tried."""

    works: bool | None
    words: str


def check() -> Checked:
    """Make a call and look whether it was recorded; the runtime is not the user's any more after that."""
    with tempfile.TemporaryDirectory(prefix="pltrack-hook-", ignore_cleanup_errors=True) as folder:
        _runtime.shutdown(0.0)
        _runtime.configure(
            journal=Path(folder) / "journal.db", hub="", delivery="off", api_key="", require_key=False,
            sample_rate=1.0, capture="full", redact=True,
        )  # fmt: skip
        if not _runtime.is_enabled():
            return Checked(None, "pltrack is disabled: see PLTRACK_DISABLED and PLTRACK_ENABLED")
        try:
            return _called()
        except Exception as error:  # noqa: BLE001 -- whatever LangChain raises is what was to be found out
            return Checked(False, f"a call of LangChain's fake model failed: {type(error).__name__}: {error}")
        finally:
            _runtime.shutdown(0.0)


def _called() -> Checked:
    import logging

    from langchain_core.language_models.fake_chat_models import FakeListChatModel
    from langsmith.run_helpers import tracing_context

    from .. import _entries
    from .._session import pl_session

    logging.getLogger("pltrack").setLevel(logging.CRITICAL)  # that there is no key is no news here
    with tracing_context(enabled=False), pl_session("pltrack doctor"):
        FakeListChatModel(responses=[_ANSWERED], cache=False).invoke(_ASKED)
    _runtime.flush(5.0)
    status = _runtime.status()
    recorded = _entries.find(_runtime.get().lane.store(), "last") if status.recorded else None
    version = installed("langchain-core")
    if recorded is None:
        why = "; ".join(status.warnings) or "the call of a fake model in a session was not recorded"
        return Checked(False, f"{why} (langchain-core {version})")
    with suppress(KeyError, IndexError, TypeError):
        said = [recorded.body[side]["messages"][-1]["content"][0]["text"] for side in ("input", "output")]
        if said == [_ASKED, _ANSWERED] and not status.warnings:
            return Checked(True, f"a fake model's call was recorded (langchain-core {version})")
    return Checked(False, f"a fake model's call was recorded, but not as it was (langchain-core {version})")
