"""The old PromptLayer guide's handler, for those who pass callbacks by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ._checks import checked_tags
from ._handler import Handler


class PromptLayerCallbackHandler(Handler):
    """Tracks the calls that it is passed to; inside a session it adds to the session's record of them.

    Args:
        pl_id_callback: called with PromptLayer's request id when it arrives, on a thread of its own; with our own
            id (text) where it cannot arrive in this process. Every verb and `track.*` takes either.
        pl_tags: tags for these calls.
    """

    def __init__(
        self,
        pl_id_callback: Callable[[Any], Any] | None = None,
        pl_tags: Iterable[str] | None = None,
    ) -> None:
        if pl_id_callback is not None and not callable(pl_id_callback):
            raise TypeError(
                f"pl_id_callback: expected a function of the request id, got {type(pl_id_callback).__name__}"
            )
        super().__init__(None, checked_tags("pl_tags", pl_tags or ()), pl_id_callback)
