"""Merges of the staged rows only a load's own.

Two loads at the same time stage their rows in the same tables. One of them that merged the other's rows would leave out
their columns that its schema does not know, and the other one would find its rows stored. So the statements that merge
take only rows with the times at which the load stores its own.
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
from ..warehouses.dlt_internals.clients import information_schema, narrow_merges, schema_components
from ..warehouses.native import SEGMENT_TABLE_HINT
from .earlier_load import BOOK_TIMES, rows_noted, stored_at

_MOST_TIMES = 20  # of the rows of one load: one for each of its sources
_LEAST_DIGITS = 3  # of a second, with which times are told apart: LOST_DIGITS
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_DIALECTS = ("duckdb", "postgres")  # in which it is tested that the stored times are the same
_EXACT_COLUMNS = """
SELECT table_name, column_name FROM {columns}
WHERE table_schema = %s AND (table_catalog = %s OR %s IS NULL) AND column_name IN ({names})
    AND lower(data_type) = 'timestamp with time zone' AND coalesce(datetime_precision, 6) = 6"""


def merge_only_own_rows() -> None:
    """Makes dlt merge only rows that the same load has staged, in DuckDB and PostgreSQL."""
    narrow_merges(_condition)


def _condition(client: SqlJobClientBase, table: str, files: Sequence[Path]) -> str | None:
    """Returns the SQL condition for a load's rows, "" if it has none; None if it cannot tell them by their times."""
    hints = cast(Mapping[str, Any], client.schema.tables[table])
    if not stores_exact_times(client) or not is_known_by_time(hints, table):
        return None
    found = _times_of(table, files)
    if found is None or not _is_staged_exactly(client, table, files[0].parent.parent):
        return None
    times = ", ".join(f"TIMESTAMPTZ '{at.isoformat()}'" for at in sorted(found))
    return f"{client.sql_client.escape_column_name(stored_at(table))} IN ({times})" if times else ""


def stores_exact_times(client: JobClientBase) -> bool:
    """Returns whether a destination stores times with all their digits, unless a column has another type."""
    return client.capabilities.sqlglot_dialect in _DIALECTS


# The columns of staging tables that keep times as they come, by the load and the dataset: of the last load only.
_exact_columns: dict[tuple[Path, str], Collection[tuple[str, str]]] = {}


def _is_staged_exactly(client: SqlJobClientBase, table: str, load: Path) -> bool:
    """Returns whether a staging table keeps times as they come, with all digits and the time zone.

    Whoever created it may have had other hints than this load: staging tables outlive datasets and pipelines, and
    several may share them.
    """
    key = load, str(client.sql_client.staging_dataset_name)
    exact = _exact_columns.get(key)
    if exact is None:
        try:
            exact = _find_exact_columns(client)
        except (DatabaseException, DestinationConnectionError):
            return False  # more rows are merged then, as in other destinations; jobs try to connect again
        _exact_columns.clear()
        _exact_columns[key] = exact
    return (client.sql_client.make_qualified_table_name_path(table, quote=False)[-1], stored_at(table)) in exact


def _find_exact_columns(client: SqlJobClientBase) -> Collection[tuple[str, str]]:
    """Returns the staging tables and their columns of times that keep them so."""
    sql, names = client.sql_client, sorted({"uuid_ts", *BOOK_TIMES.values()})
    with nullcontext() if sql.native_connection else client, sql.with_staging_dataset():
        catalogue, schema, _ = schema_components(sql)
        columns = information_schema(sql, "COLUMNS")
        query = _EXACT_COLUMNS.format(columns=columns, names=", ".join(["%s"] * len(names)))
        found = sql.execute_sql(query, schema, catalogue, catalogue, *names) or ()
    return {(str(table), str(column)) for table, column in found}


def _times_of(table: str, files: Sequence[Path]) -> Collection[datetime] | None:
    """Returns the times at which a load's rows are stored; None if unknown.

    Of files that are not Parquet, such as dlt makes for tables without rows, the load's note tells the times.
    """
    if all(path.suffix == ".parquet" for path in files):
        return rows_by_time(table, files)
    package = files[0].parent.parent
    return {datetime.fromisoformat(at) for at, _ in rows_noted(package.parents[2], package.name)} or None


def is_known_by_time(hints: Mapping[str, Any], table: str) -> bool:
    """Returns whether it is a table of this package whose times are not rounded, as users may have requested."""
    precision = hints.get("columns", {}).get(stored_at(table), {}).get("precision")
    return bool(hints.get(SEGMENT_TABLE_HINT)) and (precision is None or precision >= _LEAST_DIGITS)


def rows_by_time(table: str, files: Sequence[Path]) -> Mapping[datetime, int] | None:
    """Returns how many rows a table's Parquet files have by the time at which they are stored; None if unknown.

    Steps of a user may have changed the times, even into texts, or into some that are beyond Python's calendar.
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
