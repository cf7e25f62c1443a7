"""Which file is whose: additions of a newer version grow a journal in place, a breaking schema has a file beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.schema import CreateColumn

from ..errors import JournalError
from .schema import READS_SINCE, VERSION, meta, tables

_COLUMNS = "select m.name, c.name from sqlite_master m, pragma_table_info(m.name) c where m.type = 'table'"
_INDEXES = "select name from sqlite_master where type = 'index'"
_BESIDE = re.compile(r"-v(\d+)$")


class OtherSchemaError(JournalError):
    """The file belongs to versions of pltrack with another schema: they may write it, this one may not."""

    def __init__(self, path: Path | None, schema: str) -> None:
        super().__init__(f"the journal {path} has schema {schema}, this pltrack writes schema {VERSION}")
        self.schema = int(schema) if schema.isdigit() else 0


def beside(path: Path) -> Path:
    """Return the file that this schema writes where `path` belongs to another one."""
    return path.with_name(f"{path.stem}-v{VERSION}{path.suffix}")


def older(path: Path) -> Iterator[Path]:
    """Yield the files around a journal that earlier schemas may have written, oldest name first."""
    if READS_SINCE < VERSION:
        others = path.parent.glob(f"{path.stem}-v*{path.suffix}")
        numbers = {int(found[1]): file for file in others if (found := _BESIDE.search(file.stem))}
        yield from filter(Path.exists, [path])
        yield from (file for number, file in sorted(numbers.items()) if number < VERSION)


def prepare(db: Connection, path: Path | None, *, as_older: bool) -> None:
    """Make the tables and say whose they are, or add what they lack; raise OtherSchemaError for another's file."""
    meta.create(db, checkfirst=True)
    if not as_older:
        db.execute(insert(meta).values(key="schema", value=str(VERSION)).on_conflict_do_nothing())
    schema = str(db.scalar(select(meta.c.value).where(meta.c.key == "schema")))
    mine = schema.isdigit() and (READS_SINCE <= int(schema) < VERSION if as_older else int(schema) == VERSION)
    if not mine:
        raise OtherSchemaError(path, schema)
    tables.create_all(db)
    _grow(db)


def _grow(db: Connection) -> None:
    """Add the columns and indexes that an earlier version of this schema did not have."""
    columns = {(table, column) for table, column in db.exec_driver_sql(_COLUMNS)}
    indexes = set(db.exec_driver_sql(_INDEXES).scalars())
    for table in tables.sorted_tables:
        for column in table.columns:
            if (table.name, column.name) not in columns:
                told = str(CreateColumn(column).compile(dialect=db.dialect))
                # What was written before, and what older programs still write, has no value for it.
                told = told if column.server_default is not None else told.replace(" NOT NULL", "")
                db.exec_driver_sql(f"alter table {table.name} add column {told}")
        for index in table.indexes:
            if index.name not in indexes:
                index.create(db)
