"""Files of earlier schemas beside the journal: nothing is written there any more, what is left is delivered."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import JournalError
from . import files
from .store import Store

log = logging.getLogger("pltrack")


def stores(path: Path) -> list[Store]:
    """Open the older files around a journal."""
    found: list[Store] = []
    for file in files.older(path):
        try:
            found.append(Store.open_older(file))
        except files.OtherSchemaError:  # this schema's own, or of a program that is newer
            continue
        except JournalError as error:
            log.error("pltrack: %s; what is left in it is not delivered", error)
    return found
