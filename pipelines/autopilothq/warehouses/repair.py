"""Recreates tables and columns that somebody dropped, before a load, with a warning.

dlt creates the tables and columns of its schema once and never checks them again, so every load would fail on one that
was dropped since. What is recreated is empty, and nothing is stored twice: without `_audit` or `_dlt_loads` all files
are read again, and stored messages stay as they are. A missing key column is an error, because the stored rows would
have no key.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any

import dlt
from dlt import Schema

from ..catalog import (
    AUDIT,
    AUTOPILOT_CURRENT,
    COMMON_NAMES,
    CONTACTS,
    CURRENT,
    EVENT_TABLES,
    ORTTO_PEOPLE,
    PROFILES,
    TABLES,
    TRACKS,
)
from ..errors import RunError
from ..projection.types import ARROW
from .books import check_books
from .dataset import Dataset, dataset_of, stored_schema
from .dlt_internals import (
    LOADS_TABLE_NAME,
    VERSION_TABLE_NAME,
    DatabaseException,
    SqlJobClientBase,
    TTableSchemaColumns,
    WithStagingDataset,
    is_complete_column,
)
from .dlt_internals.clients import client_for
from .hints import SOURCE
from .merging import keys_of

_log = logging.getLogger(__name__)

_SCANNED = {table.name for table in (*CURRENT, ORTTO_PEOPLE)}  # each complete scan brings all of their rows
_SCANNED_TOO = {table.name for table in (CONTACTS, TRACKS, *EVENT_TABLES)}  # scans and archives have rows of these


def repair_tables(into: dlt.Pipeline, schema_name: str = SOURCE) -> None:
    """Recreates missing tables and columns that dlt created. Raises RunError if a key's column is missing."""
    known = into.schemas[schema_name] if schema_name in into.schema_names else None
    with client_for(into, known or Schema(schema_name)) as client:
        if not isinstance(client, SqlJobClientBase):
            return
        check_books(client.sql_client)
        if not client.is_storage_initialized():
            return
        schema = _read_schema(client, schema_name, known)
        if schema is None:
            return
        stored = _stored_columns(client, schema)
        missing = _without_views(client, _missing(client, schema, stored))
        for table, columns in missing.items():
            if stored[table]:
                _refuse_keys(client, schema, table, columns)
        _recreate(client, schema, missing)
        for table, columns in missing.items():
            _log.warning(_warning(client, table, list(columns) if stored[table] else []))
        if isinstance(client, WithStagingDataset):
            _repair_staging(client, _stored_columns(client, schema) if missing else stored, schema)


def _read_schema(client: SqlJobClientBase, name: str, known: Schema | None) -> Schema | None:
    """Returns the stored schema. Raises RunError if a column of the table that has it is missing."""
    try:
        return stored_schema(client, name, known)
    except DatabaseException as error:
        client.schema = known or Schema(name)
        stored = dict(client.get_storage_tables([VERSION_TABLE_NAME]))
        missing = _missing(client, client.schema, stored).get(VERSION_TABLE_NAME)
        if not missing or not stored[VERSION_TABLE_NAME]:  # a user sees no columns of a table that it may not read
            raise
        of = _name(client, VERSION_TABLE_NAME)
        raise RunError(
            f"The column {min(missing)} of {of} is missing, and dlt cannot read the tables' schema without it.\n"
            f"Drop that table, and the next run creates it again: DROP TABLE {of};"
            f" {_read_again(client, VERSION_TABLE_NAME)}"
        ) from error


def has_lost(dataset: Dataset, made: Mapping[str, Collection[str]]) -> bool:
    """Returns whether a column of `made` (columns by table) is missing in a table that `dataset.tables` has read."""
    stored = dataset.column_names
    return any(table in stored and set(map(str.lower, columns)) - stored[table] for table, columns in made.items())


def _repair_staging(client: Any, final: Mapping[str, TTableSchemaColumns], known: Schema) -> None:
    """Recreates staging tables, with the types of the `final` ones; without a warning, as they hold no data."""
    with client.with_staging_dataset():
        schema = stored_schema(client, known.name, known) if client.is_storage_initialized() else None
        if schema is None:
            return
        staged = _stored_columns(client, schema)
        _recreate(client, schema, _missing(client, schema, staged))
    for table in schema.data_table_names():
        staged_columns = staged.get(table, {})
        final_columns = _in_files(client, schema, table, final.get(table, {}))
        types = [
            (staged_columns[name].get("data_type"), final_columns[name].get("data_type"))
            for name in staged_columns.keys() & final_columns.keys()
        ]
        if any(old != new and new in ARROW for old, new in types):
            cells = _staging_cells(client, final_columns, staged_columns)
            empty = f"SELECT {cells} FROM {_name(client, table)} WHERE 1 = 0"
            with client.with_staging_dataset():
                client.sql_client.drop_tables(table)
                client.sql_client.execute_sql(f"CREATE TABLE {_name(client, table)} AS {empty}")


def _in_files(client: Any, schema: Schema, table: str, stored: TTableSchemaColumns) -> TTableSchemaColumns:
    """Returns a table's columns with the types of dlt's files, which differ if somebody changed stored ones.

    The contract's own columns keep their types. In PostgreSQL a `numeric(10, 2)` gets floats: the bytes of an integer
    that is copied into a column of floats would be taken for a float.
    """
    known, made = TABLES.get(table), schema.tables[table]["columns"]
    declared = {column.name for column in known.columns} if known else COMMON_NAMES
    columns = {name: made.get(name, of) if name in declared else of for name, of in stored.items()}
    if client.capabilities.sqlglot_dialect == "postgres":
        for name, of in columns.items():
            if of.get("data_type") == "decimal" != made.get(name, {}).get("data_type"):
                columns[name] = {**of, "data_type": "double"}
    return columns


def _staging_cells(client: Any, columns: TTableSchemaColumns, staged: TTableSchemaColumns) -> str:
    """Returns a table's columns for a SELECT without rows, with the types that they have in dlt's files.

    PostgreSQL copies no value into a column of another type, such as `integer`. Others convert all values but floats.
    A column of a type that the contract does not have, such as `date`, keeps the type that it has in staging.
    """
    mapper, dialect = client.capabilities.get_type_mapper(), client.capabilities.sqlglot_dialect
    cells = []
    for name, final in columns.items():
        cell = quoted = client.sql_client.escape_column_name(name)
        column = final if final.get("data_type") in ARROW else staged.get(name, final)
        if (of := column.get("data_type")) in (ARROW if dialect == "postgres" else ("double",)):
            hints = {"data_type": of, "timezone": column.get("timezone")}
            cell = f"CAST(NULL AS {mapper.to_destination_type(hints, {})}) AS {quoted}"
        cells.append(cell)
    return ", ".join(cells)


def _recreate(client: SqlJobClientBase, schema: Schema, missing: Collection[str]) -> None:
    if missing:
        client.schema = schema
        client.update_stored_schema(only_tables=missing, force=True)


def _stored_columns(client: SqlJobClientBase, schema: Schema) -> dict[str, TTableSchemaColumns]:
    """Returns the columns that the tables of a schema have in the destination; none for a missing table."""
    return dict(client.get_storage_tables([*schema.data_table_names(seen_data_only=True), *schema.dlt_table_names()]))


def _missing(
    client: SqlJobClientBase, schema: Schema, stored: Mapping[str, TTableSchemaColumns]
) -> dict[str, TTableSchemaColumns]:
    """Returns the missing columns of each table that lacks any; all of its columns if the table is missing."""
    with_case = client.capabilities.generates_case_sensitive_identifiers()
    found: dict[str, TTableSchemaColumns] = {}
    for name, columns in stored.items():
        if not columns:
            found[name] = schema.tables[name]["columns"]
        elif new := schema.get_new_table_columns(name, columns, case_sensitive=with_case):
            found[name] = {str(column["name"]): column for column in new if is_complete_column(column)}
    return {name: columns for name, columns in found.items() if columns}


def _without_views(client: Any, missing: dict[str, TTableSchemaColumns]) -> dict[str, TTableSchemaColumns]:
    """Returns `missing` without names that are views: a load that has rows for one raises an error itself."""
    views = dataset_of(client).views() if missing else set()
    return {name: columns for name, columns in missing.items() if name.lower() not in views}


def _refuse_keys(client: SqlJobClientBase, schema: Schema, table: str, columns: TTableSchemaColumns) -> None:
    """Raises RunError if an existing table lacks one of its key's columns, or one that must not be null."""
    keys = keys_of(schema.tables[table])
    needed = [name for name, column in columns.items() if name in keys or not column.get("nullable", True)]
    if needed:
        name = _name(client, table)
        why = "rows cannot be told apart without it" if needed[0] in keys else "stored rows would have no value for it"
        raise RunError(
            f"The column {needed[0]} of {name} is missing, and {why}.\n"
            "If it is somebody else's table, rename it (ALTER TABLE ... RENAME TO ...). Otherwise drop the whole"
            f" table, and the next run creates it again: DROP TABLE {name}; {_read_again(client, table)}"
        )


def _warning(client: SqlJobClientBase, table: str, columns: list[str]) -> str:
    """Returns the warning that columns of a table were recreated; without `columns` the whole table was."""
    name = _name(client, table)
    if not columns:
        return f"The table {name} was missing and was created again, empty; {_read_again(client, table)}"
    several = f"columns {', '.join(columns)}" if len(columns) > 1 else f"column {columns[0]}"
    return (
        f"The {several} of {name} {'were' if len(columns) > 1 else 'was'} missing and created again, empty in the"
        f" stored rows; to get the values back, drop the table (DROP TABLE {name}); {_read_again(client, table)}"
    )


def _read_again(client: SqlJobClientBase, table: str) -> str:
    """Returns, as text, what brings a table's rows back, which depends on the sources whose tables the schema has."""
    schema = client.schema
    if table in (AUDIT.name, LOADS_TABLE_NAME):
        return "all files are read again, and nothing is stored twice"
    if table in (PROFILES.name, *schema.dlt_table_names()):
        return "nothing is lost by that"
    if table in _SCANNED:
        return "the next complete scan of the account fills it"
    again = f"DELETE FROM {_name(client, AUDIT.name)} makes the next run read the archive again,"
    if PROFILES.name in schema.tables:  # a source asks for what is new about each person since its last load
        column = schema.naming.normalize_identifier("schema_name")
        loads = f"DELETE FROM {_name(client, LOADS_TABLE_NAME)} WHERE {column} = '{schema.name}'"
        again = f"{loads} makes the next run of each source read again all that there still is,"
    again += " which stores what is missing and nothing twice"
    is_scanned = table in _SCANNED_TOO and any(each.name in schema.tables for each in AUTOPILOT_CURRENT)
    return f"the next complete scan stores what Autopilot's API still has; {again}" if is_scanned else again


def _name(client: Any, table: str) -> str:
    return str(client.sql_client.make_qualified_table_name(table))
