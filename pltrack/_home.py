"""Where the journal is when nobody says where."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

log = logging.getLogger("pltrack")


def default_journal() -> Path:
    """Return the journal's default place: the user's state folder, or the temporary one without a home."""
    import platformdirs

    try:
        folder = platformdirs.user_state_path("pltrack", appauthor=False)
        if folder.is_absolute() and not str(folder).startswith("/nonexistent"):
            return folder / "journal.db"
    except (RuntimeError, OSError):
        pass

    place = Path(tempfile.gettempdir()) / f"pltrack-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    log.warning("pltrack: there is no home folder, the journal is kept in %s", place)
    return place / "journal.db"
