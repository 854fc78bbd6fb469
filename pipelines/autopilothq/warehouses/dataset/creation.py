"""Creates tables of the catalogue outside of a load: delivery logs, the list of deleted persons, and the locks."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dlt.common.destination.typing import PreparedTableSchema

from ...catalog import Table, Type
from ..comments import COMMENTED, catalogue_comments
from ..dlt_internals import SqlJobClientBase
from ..native import shape_of
from .sql_schema import indexed_columns
from .sql_statements import Statements


def create_missing(
    statements: Statements, table: Table, kind: str, transaction: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Creates a table of the catalogue with its indexes, and the dataset, if they are missing."""
    with statements.open_in_dataset() as client:
        sql = client.sql_client
        if not sql.has_dataset():
            sql.create_dataset()
        indexes = shape_of(table.name, {}, kind).indexes
        with transaction() if indexes else nullcontext():
            sql.execute_sql(create_statement(client, table, "CREATE TABLE IF NOT EXISTS"))
            # An older version may have created the table without indexes.
            for column in set(indexes) - indexed_columns(statements, table.name) if indexes else ():
                # A hash index takes ids of any length; a B-tree at most 2,700 bytes of one.
                where = f"{sql.make_qualified_table_name(table.name)} USING hash ({sql.escape_column_name(column)})"
                sql.execute_sql(f"CREATE INDEX ON {where}")
        for statement in catalogue_comments(sql, table) if kind in COMMENTED else ():
            sql.execute_sql(statement)


def create_statement(client: SqlJobClientBase, table: Table, create: str = "CREATE TABLE") -> str:
    """Returns the statement that creates a table of the catalogue, in dlt's types and without a key."""
    sql = client.sql_client
    columns = [
        f"{sql.escape_column_name(column.name)} {native_type(client, column.name, column.type)}"
        for column in table.columns
    ]
    return f"{create} {sql.make_qualified_table_name(table.name)} ({', '.join(columns)})"


def native_type(client: SqlJobClientBase, column: str, of: Type) -> str:
    """Returns the destination's type of a column that has one of the contract's types and may be null."""
    table: PreparedTableSchema = {"name": "", "columns": {}, "write_disposition": "append"}
    found = str(client.capabilities.get_type_mapper().to_destination_type({"name": column, "data_type": of}, table))
    return f"Nullable({found})" if client.capabilities.sqlglot_dialect == "clickhouse" else found
