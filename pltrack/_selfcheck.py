"""Whether LangChain still calls us, found out with a fake model in a context of its own."""

from __future__ import annotations

import sys
import time
from contextvars import Context, ContextVar
from typing import Any
from uuid import UUID

from . import _runtime
from ._blueprint import messages, outputs
from ._handler import Handler
from ._runtime import guarded

_MODELS = ("langchain_core.language_models.chat_models", "langchain_core.language_models.llms")
_EVERY = 60.0
_UNREACHED = (
    "LangChain does not call the handler of sessions any more: what runs in them is not recorded. Pass "
    "pltrack.PromptLayerCallbackHandler() in callbacks=, and look for a newer pltrack"
)
_MISHEARD = (
    "LangChain's events have a shape that this version does not know: calls may be missing or incomplete. Look for a "
    "newer pltrack"
)


class _Witness(Handler):
    """A session's handler that only notes what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    @guarded
    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **event: Any) -> None:
        self.heard += map(_words, messages[0])

    @guarded
    def on_llm_end(self, response: Any, *, run_id: UUID, **event: Any) -> None:
        result = outputs.snap_result(response, run_id)
        self.heard += [each[:2] for each in result.candidates] if result else []


def _words(message: Any) -> Any:
    return messages.snap(message)[:2]


def look(variable: ContextVar[Any], *, at_once: bool = False) -> bool | None:
    """Find out whether LangChain calls the handler in `variable`, and say so; once a minute unless `at_once`.

    Returns None where nothing can be said: it is too early, no model was ever loaded, or LangChain itself fails.
    """
    health = _runtime.nearby().health
    now = time.monotonic()
    loaded = any(name in sys.modules for name in _MODELS)
    if not loaded or (health.looked_at and now - health.looked_at < _EVERY and not at_once):
        return None
    health.looked_at = now
    try:
        fault = Context().run(_fault, variable)  # an empty one: no handler of the program's is in it
    except (ImportError, AttributeError, TypeError) as error:
        fault = f"whether LangChain calls the handler of sessions cannot be found out ({type(error).__name__}: {error})"
    except Exception:  # noqa: BLE001 -- a setting that LangChain refuses fails the program's own calls, too
        return None
    health.hook_ok = not fault
    if fault:
        health.warn(fault)
    return not fault


def _fault(variable: ContextVar[Any]) -> str:
    from langchain_core.callbacks.manager import CallbackManager
    from langsmith.run_helpers import tracing_context

    witness = _Witness()
    variable.set(witness)
    with tracing_context(enabled=False):
        handlers = CallbackManager.configure().handlers
        if not any(each is witness for each in handlers):
            return _UNREACHED
        if len(handlers) > 1:  # others would hear of a call that the program did not make
            return ""
        from langchain_core.language_models.fake_chat_models import FakeListChatModel

        FakeListChatModel(responses=["!"], cache=False).invoke("?")
    return "" if witness.heard == [("human", "?"), ("ai", "!")] else _MISHEARD
