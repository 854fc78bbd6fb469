"""Keeps values of adopted rows of `users` and `accounts`, which are older than any message.

(docs/contract/adopt.md#users-and-accounts) When such a row is made again from messages, values that no message has are
taken from the stored row.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog import AUDIT
from ..errors import NotSupported
from ..projection import ExistingTables, ReadTable, TableRows, engine, ordered_columns
from ..warehouses.dataset import Dataset
from .plan import PlannedLoad

ADOPTED = "adopted "  # begins the versions of adopted files and tables in `_audit`; the table's name follows
_OWN = frozenset({"id", "received_at", "uuid_ts"})


def adopted_version(table: str, version: str) -> str:
    """Returns the version of an adopted file or table for `_audit`, which marks it as adopted."""
    return f"{ADOPTED}{table} {version}"


def with_older_rows(
    load: PlannedLoad, rows: TableRows, existing: ExistingTables, stored: ReadTable | None, scratch: Path
) -> TableRows:
    """Returns rows of `users` or `accounts`, with the values that only the adopted rows of that table have added."""
    dataset, types = load.target.dataset, existing.get(rows.table)
    if stored is None or dataset is None or not types or not _has_adopted_rows(dataset, existing, rows.table):
        return rows
    path = str(scratch / f"older-{rows.table}.parquet")
    if not _write(path, stored(rows.table, list(types))):
        return rows
    columns = ordered_columns({**types, **rows.columns})
    cells = {
        name: f"made.{engine.name(name)}" if name in rows.columns else f"older.{engine.name(name)}" for name in columns
    }
    cells |= {
        name: f"coalesce(made.{engine.name(name)}, older.{engine.name(name)})"
        for name in rows.columns.keys() & types.keys() - _OWN
    }
    select = ", ".join(f"{cell} AS {engine.name(name)}" for name, cell in cells.items())
    # `query` makes a view of that name, which is looked up when the rows are written: each table needs its own.
    view = f"made_{rows.table}"
    join = f"{view} made LEFT JOIN {engine.parquet_files([path])} older ON older.id = made.id"
    relation = rows.relation.query(view, f"SELECT {select} FROM {join}")
    return rows._replace(columns=columns, relation=relation)


def check_not_adopted(load: PlannedLoad, table: str) -> None:
    """Raises NotSupported if rows of a table were adopted: workers do not know the values that only these rows have."""
    dataset = load.target.dataset
    existing: ExistingTables = {} if dataset is None else dataset.tables([table, AUDIT.name])
    if dataset is not None and table in existing and _has_adopted_rows(dataset, existing, table):
        raise NotSupported(
            f"Expected a load in this process, because rows of {table} were adopted, and workers do not keep them.\n"
            "Load without an engine."
        )


def _has_adopted_rows(dataset: Dataset, existing: ExistingTables, table: str) -> bool:
    if AUDIT.name not in existing:
        return False
    # Not by `Dataset.rows`: it would query the columns of all tables, which no load does and SQLite cannot do.
    where = dataset.template(AUDIT.name, "WHERE {version} LIKE %s")
    return bool(next(iter(dataset.stream("SELECT 1 FROM", AUDIT.name, where, [f"{ADOPTED}{table} %"])), None))


def _write(path: str, batches: Iterable[pa.RecordBatch]) -> bool:
    """Writes batches as they come; returns whether there were any."""
    stream = iter(batches)
    first = next(stream, None)
    if first is None:
        return False
    with pq.ParquetWriter(path, first.schema) as writer:
        for batch in itertools.chain([first], stream):
            writer.write_batch(batch)
    return True
