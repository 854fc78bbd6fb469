"""The tables and columns that a database lists, as dlt's clients ask for them."""

from collections.abc import Iterator
from typing import Any, cast

from dlt.common.data_types import TDataType
from dlt.common.schema.typing import TColumnSchema, TColumnType, TTableSchemaColumns
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase

_SQLITE_COLUMNS = """
SELECT of.name, c.name, c.type FROM pragma_table_list AS of, pragma_table_info(of.name, of.schema) AS c
WHERE of.schema = %s ORDER BY 1, c.cid"""
_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = %s ORDER BY table_name, ordinal_position"""


def schema_components(client: SqlClientBase[Any]) -> tuple[str | None, str, list[str]]:
    """Returns the catalogue, the schema and the tables of a dataset as `information_schema` names them."""
    return client._get_information_schema_components()


def information_schema(client: SqlClientBase[Any], view: str) -> str:
    """Returns the qualified name of a view of `information_schema`. Example of a view: `COLUMNS`."""
    return client._qualify_info_schema_table_name(view)


def table_in_dataset(client: SqlClientBase[Any], name: str) -> str | None:
    """Returns dlt's name of a table that `information_schema` names; None if it is no table of the client's dataset.

    The names differ in ClickHouse, which has no schemas: there dlt puts the dataset's name before each table's, as in
    `autopilothq___tracks`, and makes a table without rows to mark the dataset as existing.
    """
    config: Any = getattr(client, "config", None)
    separator = getattr(config, "dataset_table_separator", None)
    if separator is None or not client.dataset_name:
        return name
    prefix = client.dataset_name + separator
    table = name.removeprefix(prefix)
    return table if name.startswith(prefix) and table != config.dataset_sentinel_table_name else None


def stored_columns(client: SqlJobClientBase) -> Iterator[tuple[str, str, str, TDataType | None]]:
    """Yields the table, the column, the native type and dlt's type of each column of a dataset.

    In databases of dlt's kind `sqlalchemy`, dlt's type is None. One of these, SQLite, has no `information_schema`.
    """
    if database := getattr(client.sql_client, "dialect_name", ""):
        _, schema, _ = schema_components(client.sql_client)
        query = _SQLITE_COLUMNS if database == "sqlite" else _COLUMNS
        for table, column, native in client.sql_client.execute_sql(query, schema) or ():
            yield table, column, native, None
        return
    for table, column, native, of in _stored_columns(client, []):
        yield table, column, native, of.get("data_type")


def columns_of_table(client: SqlJobClientBase, table: str) -> TTableSchemaColumns:
    """Returns the columns of a table that another program created, by its exact name."""
    found = _stored_columns(client, [table])
    return {column: cast(TColumnSchema, {**of, "name": column}) for _, column, _, of in found}


def _stored_columns(client: SqlJobClientBase, tables: list[str]) -> Iterator[tuple[str, str, str, TColumnType]]:
    catalogue, schema, _ = schema_components(client.sql_client)
    query, values = client._get_info_schema_columns_query(catalogue, schema, tables)
    for table, column, native, _, *numbers in client.sql_client.execute_sql(query, *values) or ():
        yield table, column, native, client._from_db_type(native, *(numbers or (None, None)))
