"""Track every LangChain call in a scope with PromptLayer: never blocks, never loses a record, never lies.

from pltrack import pl_session

with pl_session(tags=["prod"]) as s:
    chain.invoke(...)
    s.score(90)
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import prompts, track
    from ._callback import PromptLayerCallbackHandler
    from ._erase import Erased, erase
    from ._handles import SessionHandle, session
    from ._lane import FlushResult
    from ._request import Request, UsageTotals, request
    from ._runtime import aflush, configure, flush, shutdown, status
    from ._session import Session, current_session, pl_session
    from ._status import Status
    from ._tracked import tracked
    from .errors import (
        JournalError,
        NoKeyError,
        PltrackError,
        PromptError,
        PromptNotFoundError,
        SettingError,
    )

# Name -> module: loaded when first asked for, so that `import pltrack` costs next to nothing.
_HOME = {
    "pl_session": "_session",
    "Session": "_session",
    "SessionHandle": "_handles",
    "current_session": "_session",
    "session": "_handles",
    "tracked": "_tracked",
    "PromptLayerCallbackHandler": "_callback",
    "Request": "_request",
    "UsageTotals": "_request",
    "request": "_request",
    "FlushResult": "_lane",
    "Status": "_status",
    "Erased": "_erase",
    "erase": "_erase",
    "configure": "_runtime",
    "flush": "_runtime",
    "aflush": "_runtime",
    "shutdown": "_runtime",
    "status": "_runtime",
    "PltrackError": "errors",
    "SettingError": "errors",
    "NoKeyError": "errors",
    "JournalError": "errors",
    "PromptError": "errors",
    "PromptNotFoundError": "errors",
    "prompts": "",
    "track": "",
}

__all__ = [
    "Erased",
    "FlushResult",
    "JournalError",
    "NoKeyError",
    "PltrackError",
    "PromptError",
    "PromptLayerCallbackHandler",
    "PromptNotFoundError",
    "Request",
    "Session",
    "SessionHandle",
    "SettingError",
    "Status",
    "UsageTotals",
    "aflush",
    "configure",
    "current_session",
    "erase",
    "flush",
    "pl_session",
    "prompts",
    "request",
    "session",
    "shutdown",
    "status",
    "track",
    "tracked",
]


class _Front(ModuleType):
    """The package itself, with the old way to set the key: `promptlayer.api_key = "pl_..."`."""

    @property
    def api_key(self) -> str | None:
        """The key that is in force, or None."""
        from ._runtime import get

        return get().settings.api_key or None

    @api_key.setter
    def api_key(self, value: str | None) -> None:
        from ._runtime import configure as set_it

        set_it(api_key=value)


sys.modules[__name__].__class__ = _Front


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pltrack")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'pltrack' has no attribute {name!r}")
    if not home:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "api_key"})
