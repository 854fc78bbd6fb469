"""Reads the tables of a destination, with statistics. Creates and changes nothing."""

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from tempfile import TemporaryDirectory
from typing import Any

from .. import runner
from ..errors import BooksMisplaced, DatasetNotFound
from ..explain import explained
from ..warehouses.books import check_books
from ..warehouses.dataset import Columns, Dataset, dataset_of, in_utc, queryable_client, tables_of
from ..warehouses.dlt_internals import (
    VERSION_TABLE_NAME,
    Destination,
    DuckDbCredentials,
    JobClientBase,
    SqlJobClientBase,
)
from ..warehouses.resolve import make_destination, resolve_target
from ..warehouses.settings import TargetOptions
from .changed_types import check_types_of_books
from .diff import Schema, SchemaTable, type_of
from .schema import ColumnInfo, Statistics, TableInfo, table_info


def destination_of(target: TargetOptions) -> tuple[Destination[Any, Any], str]:
    """Returns the destination and the dataset of a load with these options, without connecting."""
    with explained():
        return make_destination(target, create=False)


def kind_of(target: TargetOptions) -> tuple[str, str | None]:
    """Returns dlt's name of the kind of destination, and SQLGlot's name of its SQL (or None), without connecting."""
    with explained():
        factory, _ = destination_of(target)
        return factory.destination_type.rpartition(".")[2], factory.capabilities().sqlglot_dialect


def reading_other(
    dataset: str, credentials: str, target: TargetOptions, wait: timedelta
) -> AbstractContextManager[Dataset]:
    """Returns a context manager that opens another dataset; without `credentials`, one in the database of `target`.

    The kind of destination is the scheme of the credentials if they are a URL, otherwise that of `target`.
    """
    scheme = credentials.partition("://")[0] if "://" in credentials else ""
    kind = {"postgresql": "postgres"}.get(scheme, scheme) or target.destination
    return reading(kind, credentials or target.credentials, dataset, exactly=True, wait=wait)


@contextmanager
def reading(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    exactly: bool = False,
    wait: timedelta = timedelta(),
    warn: Callable[[str], None] | None = None,
) -> Iterator[Dataset]:
    """Yields an open dataset; the options mean what they mean for a load.

    A DuckDB file is opened read-only. A load has to wait until it is closed; if a load has it open, this waits for it,
    up to `wait`. With `exactly`, dlt's naming rules are not applied to the name of the dataset. `warn` is called with a
    text if the bookkeeping tables are in a dataset that the options do not name, and so are not found. Raises
    DatasetNotFound, and RunError if the destination cannot be queried.
    """
    # The pipeline gets a temporary folder, so that the working folder of a running one is not touched.
    with explained(), TemporaryDirectory() as folder:
        pipeline = runner.pipeline(destination, credentials, dataset, pipelines_dir=folder, create=False, wait=wait)
        file = pipeline.destination.config_params.get("credentials")
        if isinstance(file, DuckDbCredentials):
            file.read_only = True
        client = queryable_client(pipeline)
        with client, _in_dataset(client, str(pipeline.dataset_name) if exactly else None):
            found = dataset_of(client)
            if not found.exists():
                hint = "Check the spelling." if exactly else "Load something first: autopilothq load archive URL"
                where = resolve_target(TargetOptions(destination, credentials, dataset)).path_or_url
                raise DatasetNotFound(f"There is no dataset {found.name} in {where}. {hint}")
            if warn:
                _check_books(client, warn)
            yield found


def _check_books(client: JobClientBase, warn: Callable[[str], None]) -> None:
    try:
        if isinstance(client, SqlJobClientBase):
            check_books(client.sql_client)
    except BooksMisplaced as error:
        warn(str(error))


def _in_dataset(client: JobClientBase, name: str | None) -> AbstractContextManager[Any]:
    """Directs the statements in the block to the dataset of that name, or for None to the client's own."""
    if name is None or not isinstance(client, SqlJobClientBase):
        return nullcontext()
    return client.sql_client.with_alternative_dataset_name(name)


def described_tables(dataset: Dataset, names: Sequence[str] = ()) -> list[TableInfo]:
    """Returns the tables of a dataset, or the named ones, with statistics. Reads each table once, completely."""
    first_seen, comments = _first_seen(dataset), dataset.comments()
    return [
        _described(dataset, name, columns, first_seen, comments)
        for name, columns in tables_of(dataset).items()
        if not names or name in names
    ]


def _described(
    dataset: Dataset,
    name: str,
    columns: Columns,
    first_seen: Mapping[tuple[str, str], datetime],
    comments: Mapping[tuple[str, str | None], str],
) -> TableInfo:
    quoted = {column: dataset.quoted(name, column) for column in columns}
    received_at = quoted.get("received_at", "NULL")
    counts = "".join(f", count({quoted[column]})" for column in columns)
    [(rows, first, last, *filled)] = dataset.stream(
        f"SELECT count(*), min({received_at}), max({received_at}){counts} FROM", name
    )
    return table_info(
        name,
        [
            ColumnInfo(
                column,
                of.type,
                comments.get((name, column), ""),
                of.name,
                first_seen.get((name, column)),
                1 - filled[i] / rows if rows else None,
            )
            for i, (column, of) in enumerate(columns.items())
        ],
        Statistics(rows, in_utc(first), in_utc(last)),
        comments.get((name, None), ""),
    )


def _first_seen(dataset: Dataset) -> dict[tuple[str, str], datetime]:
    """Returns when each column was created, by table and column: dlt stores every version of the schema."""
    check_types_of_books(dataset, [VERSION_TABLE_NAME])
    first_seen: dict[tuple[str, str], datetime] = {}
    for at, text in dataset.rows("{inserted_at}, {schema}", VERSION_TABLE_NAME, "ORDER BY {inserted_at}"):
        for table, hints in json.loads(_unpacked(text)).get("tables", {}).items():
            for column in hints.get("columns", {}):
                first_seen.setdefault((table.lower(), column.lower()), at)
    return first_seen


def schema_of(dataset: Dataset) -> Schema:
    """Returns the tables and types of a dataset, for a comparison."""
    lengths, keys, views = dataset.lengths(), dataset.keys(), dataset.views()
    return {
        table: SchemaTable(
            {column: type_of(of.name, dataset.dialect, lengths.get((table, column))) for column, of in columns.items()},
            keys.get(table, ()),
            table in views,
        )
        for table, columns in tables_of(dataset).items()
    }


def _unpacked(schema: str) -> str:
    """Returns a stored schema; dlt compresses those that are too long for a column of the destination."""
    return schema if schema.startswith("{") else zlib.decompress(base64.b64decode(schema)).decode()
