"""Reads and writes the tables of a destination: `open_dataset` and `dataset_of` return a `Dataset`."""

from functools import partial

import dlt
from dlt import Schema

from ...catalog import LOCKS, TABLES
from ...errors import RunError
from ..dlt_internals import DLT_NAME_PREFIX, FilesystemClient, JobClientBase, SqlJobClientBase
from ..dlt_internals.clients import client_for
from ..requirements import no_warehouse
from .creation import create_statement
from .delta import DeltaDataset, required_columns
from .delta_versions import drop_old_versions, maintain
from .interface import Columns, Dataset, NativeType, Row, cast_to_text, in_utc, placeholders
from .loads import (
    AUDIT_COUNTS,
    MAX_SKEW,
    Loaded,
    audit_row,
    audit_sums,
    deleted_persons,
    first_event_of_others,
    last_load,
    loaded_files,
    newest,
)
from .queries import count_shared, qualified_name, read_with_texts, rows_of_statement, spelling_of, table_path
from .sql import (
    SqlDataset,
    are_named_alike,
    check_dataset_name,
    check_no_system_schema,
    connected,
    lacking_characters,
    let_rows_change,
    names_by_spelling,
    stored_schema,
    tables_that_hide_rows,
    writes_text,
)
from .sql_schema import partition_names
from .sql_statements import UNTIMED, Connections
from .table_names import TableNames, table_names
from .text_columns import check_exact_keys, check_text_columns, unknown_types
from .unfit import CALENDAR, cell_text, unfit_error

__all__ = [
    "AUDIT_COUNTS",
    "CALENDAR",
    "MAX_SKEW",
    "UNTIMED",
    "Columns",
    "Connections",
    "Dataset",
    "DeltaDataset",
    "Loaded",
    "NativeType",
    "Row",
    "SqlDataset",
    "TableNames",
    "TablesNotListed",
    "are_named_alike",
    "audit_row",
    "audit_sums",
    "cast_to_text",
    "cell_text",
    "check_dataset_name",
    "check_exact_keys",
    "check_no_system_schema",
    "check_text_columns",
    "connected",
    "count_shared",
    "create_statement",
    "dataset_of",
    "deleted_persons",
    "drop_old_versions",
    "first_event_of_others",
    "in_utc",
    "lacking_characters",
    "last_load",
    "let_rows_change",
    "loaded_files",
    "maintain",
    "newest",
    "open_dataset",
    "partitions_of",
    "placeholders",
    "qualified_name",
    "queryable_client",
    "read_with_texts",
    "required_columns",
    "rows_of_statement",
    "spelling_of",
    "stored_schema",
    "table_names",
    "table_path",
    "tables_of",
    "tables_that_hide_rows",
    "unfit_error",
    "unknown_types",
    "writes_text",
]


def open_dataset(pipeline: dlt.Pipeline, schema: Schema | None = None) -> Dataset:
    """Returns the dataset of a pipeline's schema, which opens a connection for each statement and closes it again.

    Without a schema, it is the dataset of the pipeline's first schema. Raises RunError if the destination's tables
    cannot be queried.
    """
    make = partial(client_for, pipeline, schema) if schema is not None else pipeline.destination_client
    client = make()
    dataset = SqlDataset(client, make) if isinstance(client, SqlJobClientBase) else dataset_of(client)
    if schema is not None:
        dataset.schema_name = schema.name
    return dataset


def dataset_of(client: JobClientBase, literals: bool = False) -> Dataset:
    """Returns the dataset of a client whose connection is open, and which the caller closes.

    `literals`: values are written into SQL statements instead of being passed as parameters, which is much faster for
    thousands of values. Raises RunError if the destination's tables cannot be queried.
    """
    if isinstance(client, SqlJobClientBase):
        return SqlDataset(client, literals=literals)
    if isinstance(client, FilesystemClient):
        return DeltaDataset(client)
    kind = client.config.destination_type.rpartition(".")[2]
    raise RunError(no_warehouse(kind))


class TablesNotListed(RunError):
    """A destination cannot list the tables that exist."""


def queryable_client(pipeline: dlt.Pipeline) -> JobClientBase:
    """Returns the client of a pipeline's destination. Raises TablesNotListed if it has no list of tables."""
    client = pipeline.destination_client()
    dataset_of(client)
    database = getattr(getattr(client, "sql_client", None), "dialect_name", "")  # of dlt's kind `sqlalchemy` alone
    if database:
        name = {"sqlite": "SQLite", "mysql": "MySQL"}.get(database, database)
        raise TablesNotListed(
            f"Expected a destination whose tables dlt can list, but it cannot list those of {name}.\n"
            f"Loads and `adopt` work there; to look at the tables ask {name} itself, or load into DuckDB too."
        )
    return client


def tables_of(dataset: Dataset) -> dict[str, Columns]:
    """Returns the tables and views of a dataset, the catalogue's first, without dlt's own tables and the locks."""
    found = dataset.columns()
    known = [name for name in TABLES if name in found and not name.startswith(LOCKS)]
    hidden = (DLT_NAME_PREFIX, LOCKS)
    others = sorted(name for name in found if name not in TABLES and not name.startswith(hidden))
    return {name: found[name] for name in (*known, *others)}


def partitions_of(dataset: Dataset) -> set[str]:
    """Returns the PostgreSQL tables that are partitions of a table in the same dataset, which thus has their rows."""
    if not isinstance(dataset, SqlDataset) or dataset.kind != "postgres":
        return set()
    names = names_by_spelling(dataset)
    return {names[spelt] for spelt in partition_names(dataset.sql) if spelt in names}
