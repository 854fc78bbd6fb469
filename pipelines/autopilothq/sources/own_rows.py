"""Restricts a load's merge to the rows that the load staged itself.

Two loads at the same time stage their rows in the same tables. If one merged the other's rows, it would leave out the
columns that its schema does not know, and the other would find its rows stored already. So the statements that merge
only take rows with the times at which the load stores its own.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ..utc import to_utc
from ..warehouses.dlt_internals import DatabaseException, DestinationConnectionError, JobClientBase, SqlJobClientBase
from ..warehouses.dlt_internals.clients import narrow_merges
from ..warehouses.dlt_internals.information_schema import information_schema, schema_components
from ..warehouses.native import SEGMENT_TABLE_HINT
from .earlier_load import BOOK_TIMES, rows_noted, stored_at

_MOST_TIMES = 20  # distinct times of the rows of one load; each of its sources has one
_LEAST_DIGITS = 3  # decimals of a second that are needed to distinguish times, as in LOST_DIGITS
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_DIALECTS = ("duckdb", "postgres")  # tests show that these store times unchanged
_EXACT_COLUMNS = """
SELECT table_name, column_name FROM {columns}
WHERE table_schema = %s AND (table_catalog = %s OR %s IS NULL) AND column_name IN ({names})
    AND lower(data_type) = 'timestamp with time zone' AND coalesce(datetime_precision, 6) = 6"""


def merge_only_own_rows() -> None:
    """Makes dlt merge only rows that the same load has staged, in DuckDB and PostgreSQL."""
    narrow_merges(_condition)


def _condition(client: SqlJobClientBase, table: str, files: Sequence[Path]) -> str | None:
    """Returns the SQL condition for a load's rows; None if their times are unknown, or may not be stored exactly."""
    hints = cast(Mapping[str, Any], client.schema.tables[table])
    if not stores_exact_times(client) or not is_known_by_time(hints, table):
        return None
    found = _times_of(table, files)
    if found is None or not _is_staged_exactly(client, table, files[0].parent.parent):
        return None
    if not found:
        return "1 = 0"  # even without rows, a merge deletes those of a snapshot
    times = ", ".join(f"TIMESTAMPTZ '{at.isoformat()}'" for at in sorted(found))
    return f"{client.sql_client.escape_column_name(stored_at(table))} IN ({times})"


def stores_exact_times(client: JobClientBase) -> bool:
    """Returns whether a destination stores times with all their digits, unless a column has another type."""
    return client.capabilities.sqlglot_dialect in _DIALECTS


# The columns of staging tables that keep times exactly, by load and dataset; only those of the last load.
_exact_columns: dict[tuple[Path, str], Collection[tuple[str, str]]] = {}


def _is_staged_exactly(client: SqlJobClientBase, table: str, load: Path) -> bool:
    """Returns whether a staging table keeps times exactly, with all digits and the time zone.

    The load that created it may have had other hints than this one: staging tables outlive datasets and pipelines, and
    several of these may share them.
    """
    key = load, str(client.sql_client.staging_dataset_name)
    exact = _exact_columns.get(key)
    if exact is None:
        try:
            exact = _find_exact_columns(client)
        except (DatabaseException, DestinationConnectionError):
            return False  # all staged rows are merged then, as in other destinations; jobs will connect again
        _exact_columns.clear()
        _exact_columns[key] = exact
    return (client.sql_client.make_qualified_table_name_path(table, quote=False)[-1], stored_at(table)) in exact


def _find_exact_columns(client: SqlJobClientBase) -> Collection[tuple[str, str]]:
    """Returns the columns of times in staging tables that keep them exactly, as pairs of table and column."""
    sql, names = client.sql_client, sorted({"uuid_ts", *BOOK_TIMES.values()})
    with nullcontext() if sql.native_connection else client, sql.with_staging_dataset():
        catalogue, schema, _ = schema_components(sql)
        columns = information_schema(sql, "COLUMNS")
        query = _EXACT_COLUMNS.format(columns=columns, names=", ".join(["%s"] * len(names)))
        found = sql.execute_sql(query, schema, catalogue, catalogue, *names) or ()
    return {(str(table), str(column)) for table, column in found}


def _times_of(table: str, files: Sequence[Path]) -> Collection[datetime] | None:
    """Returns the times at which a load's rows are stored; None if unknown.

    For files that are not Parquet (dlt writes such files for tables without rows), the times come from the load's
    record.
    """
    if all(path.suffix == ".parquet" for path in files):
        return rows_by_time(table, files)
    package = files[0].parent.parent
    return {datetime.fromisoformat(at) for at, _ in rows_noted(package.parents[2], package.name)} or None


def is_known_by_time(hints: Mapping[str, Any], table: str) -> bool:
    """Returns whether a load of this package made a table, and its times are not rounded by a user's hint."""
    precision = hints.get("columns", {}).get(stored_at(table), {}).get("precision")
    return bool(hints.get(SEGMENT_TABLE_HINT)) and (precision is None or precision >= _LEAST_DIGITS)


def rows_by_time(table: str, files: Sequence[Path]) -> Mapping[datetime, int] | None:
    """Returns the number of rows in a table's Parquet files, by the time at which they are stored; None if unknown.

    A user's steps may have changed the times, even into texts or into times beyond Python's calendar.
    """
    counts, column = Counter[datetime](), stored_at(table)
    for path in files:
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names or not pa.types.is_timestamp(file.schema_arrow.field(column).type):
                return None
            for batch in file.iter_batches(columns=[column]):
                try:
                    times = [(each["values"].as_py(), each["counts"].as_py()) for each in batch[column].value_counts()]
                    counts.update({to_utc(time or _NO_TIME): count for time, count in times})
                except (OverflowError, ValueError):
                    return None
    return None if len(counts) > _MOST_TIMES or _NO_TIME in counts else counts
