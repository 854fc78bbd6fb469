"""What a load does about adopted rows: it makes cut texts whole, and keeps values that no message has.

Cut texts are those that Segment had cut (docs/contract/adopt.md#cut-text). The mended rows come with the rows of the
load, in the same package, and replace the stored ones. So texts are whole by the time their file counts as loaded;
if the load fails, the file is read again.

Adopted rows of `users` and `accounts` are older than any message (docs/contract/adopt.md#users-and-accounts). When such
a row is made again from messages, values that no message has are taken from the stored row.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog import ADOPTED, AUDIT, resource_of
from ..display import plural
from ..errors import NotSupported
from ..projection import Deduplicated, ExistingTables, ReadTable, TableRows, engine, ordered_columns
from ..warehouses.dataset import Dataset
from ..warehouses.dlt_internals.clients import declare_transactions
from .plan import PlannedLoad
from .row_files import RowFiles

_OWN = frozenset({"id", "received_at", "uuid_ts"})
# Destinations whose transactions must be declared to dlt. SQLite has them too; a lake's table changes atomically.
TRANSACTIONAL = frozenset({"duckdb", "postgres"})
# Whether PostgreSQL generates cells of a table, so that a row cannot be inserted again unchanged, or other tables refer
# to its rows, whose deletion might delete theirs.
_BOUND = """SELECT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = r.tableoid AND (attgenerated <> '' OR attidentity = 'a'))
    OR EXISTS (SELECT FROM pg_constraint WHERE confrelid = r.tableoid) FROM"""


def adopted_version(table: str, version: str) -> str:
    """Returns the version of an adopted file or table for `_audit`, which marks it as adopted."""
    return f"{ADOPTED}{table} {version}"


# ---- cut texts -------------------------------------------------------------------------------------------------------


def _has_adopted_files(load: PlannedLoad) -> bool:
    """Returns whether adopted files count as loaded, so that there may be adopted rows; queries nothing."""
    return any(version.startswith(ADOPTED) for _, version in load.target.loads)


def check_nothing_to_mend(load: PlannedLoad, has_duplicates: bool) -> None:
    """Raises NotSupported if messages that come again may have the whole texts of adopted rows.

    Workers cannot mend these rows, because they do not see what is stored.
    """
    if has_duplicates and _has_adopted_files(load):
        raise NotSupported(
            "Expected a load in this process, because messages that are stored already, or come twice in this load, may"
            " have whole texts for adopted rows, and workers do not mend cut texts.\nLoad without an engine."
        )


def rows_of_messages(load: PlannedLoad, deduplicated: Deduplicated, files: RowFiles) -> Iterator[TableRows]:
    """Yields the rows of the tables of messages, together with the stored rows that this load mends."""
    dataset, hints = load.target.dataset, files.hints
    if dataset is None or not load.report.lines or not _has_adopted_files(load):
        yield from deduplicated.tables()
        return
    tables = [name for name in hints.existing if resource_of(name) in load.extraction.resources]
    deduplicated.find_mends(dataset.read, tables, _loads_of_messages(dataset))
    for table, rows in deduplicated.mended().items():
        lengths = deduplicated.mended_lengths(table)
        if why := _obstacle(table, lengths, dataset, files):
            load.context.warn(f"Texts of {plural(rows, 'row')} of {table} stay cut: {why}.")
            deduplicated.drop_mends(table)
        else:
            hints.mended.add(table)
    if hints.mended and dataset.kind in TRANSACTIONAL and load.extraction.pipeline is not None:
        declare_transactions(load.extraction.pipeline.destination)
    yield from deduplicated.with_mended_rows(dataset.read)


def _loads_of_messages(dataset: Dataset) -> set[datetime]:
    """Returns the times of the loads that made rows from messages."""
    return {
        row["loaded_at"]
        for batch in dataset.read(AUDIT.name, ["version", "loaded_at"])
        for row in batch.to_pylist()
        if row["loaded_at"] is not None and not row["version"].startswith(ADOPTED)
    }


def _obstacle(table: str, lengths: Mapping[str, int], dataset: Dataset, files: RowFiles) -> str | None:
    """Returns why rows of a table cannot be mended, or None if they can.

    Mending replaces whole rows, so other cells could be lost. `lengths` has the length of the longest whole text by
    column: if the column has no room for it, the row would not be stored at all.
    """
    if files.are_seen(table):
        return "a step of yours, or a schema contract, would see these rows again"
    if dataset.kind not in (*TRANSACTIONAL, "filesystem") and dataset.dialect != "sqlite":
        return f"it is untested whether {dataset.kind} loses rows if a load is killed while it replaces them"
    if dataset.widths.get(table, 0) > len(files.hints.existing[table]):
        return "the table has columns of other types than loads make, which would be lost"
    room = dataset.lengths() if dataset.kind == "postgres" else {}
    is_narrow = {name: length > room.get((table.lower(), name.lower()), length) for name, length in lengths.items()}
    if narrow := [name for name in sorted(is_narrow) if is_narrow[name]]:
        return f"{', '.join(narrow)} {'has' if len(narrow) == 1 else 'have'} no room for the whole texts"
    if dataset.kind == "postgres" and any(bound for (bound,) in dataset.stream(_BOUND, table, "r LIMIT 1")):
        return "PostgreSQL generates a column of the table, or a foreign key refers to its rows"
    return None


# ---- older values ----------------------------------------------------------------------------------------------------


def with_older_rows(
    load: PlannedLoad, rows: TableRows, existing: ExistingTables, stored: ReadTable | None, scratch: Path
) -> TableRows:
    """Returns rows of `users` or `accounts`, each completed with the values that only its adopted row has."""
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
    # `Dataset.rows` would query the columns of all tables, which loads avoid and SQLite cannot do.
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
