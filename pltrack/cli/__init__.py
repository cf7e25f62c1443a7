"""The `pltrack` command: look at the journal, score, deliver, and see it all work without an account."""

from ._app import app, main

__all__ = ["app", "main"]
