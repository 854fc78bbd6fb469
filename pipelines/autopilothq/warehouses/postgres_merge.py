"""The jobs that merge rows from the staging dataset into the contract's tables in PostgreSQL.

Floats are `numeric` in these tables, which the fast copy (Arrow's floats in binary) cannot write. In the staging
dataset they are floats, as dlt creates them, and become `numeric` by way of their shortest text when rows are merged. A
direct cast would round them to 15 digits.
"""

from collections.abc import Sequence
from typing import Any

from dlt.common.destination.typing import PreparedTableSchema

from .dlt_internals import (
    SqlClientBase,
    SqlMergeFollowupJob,
    SqlStagingReplaceFollowupJob,
    get_columns_names_with_prop,
)
from .merging import SCOPE, keys_of

# A hint for a table: whether a trigger or a rule may leave out rows without an error.
MAY_OMIT = "x-may-omit"


class _StatementParts:
    """The parts of a statement that moves a table's rows from staging: names of tables, keys, columns and cells."""

    def __init__(self, table: Any, client: SqlClientBase[Any]) -> None:
        self.table, self.staged = client.get_qualified_table_names(table["name"])
        names = {name: client.escape_column_name(name) for name in get_columns_names_with_prop(table, "name")}
        cells = names | {
            name: f"{quoted}::text::numeric"
            for name, quoted in names.items()
            if table["columns"][name].get("data_type") == "double"
        }
        self.may_omit = bool(table.get(MAY_OMIT))
        self.keys = list(map(client.escape_column_name, keys_of(table)))
        self.key = ", ".join(self.keys)
        self.columns = ", ".join(names.values())
        self.cells = ", ".join(cells.values())

    def same_key(self) -> str:
        """Returns the SQL condition that the rows `d` and `s` have the same key."""
        return " AND ".join(f"d.{key} = s.{key}" for key in self.keys)

    def checked(self, *statements: str) -> list[str]:
        """Returns the statements, which store rows, and if some may be left out, one that raises an error for these.

        All run in one transaction. The error has the class of errors about a row's values, so that the missing row is
        found and rejected like one that the database refuses.
        """
        if not self.may_omit:
            return list(statements)
        missing = f"SELECT FROM {self.staged} s WHERE NOT EXISTS (SELECT FROM {self.table} d WHERE {self.same_key()})"
        error = "MESSAGE = 'a trigger or a rule of the table leaves out the row', ERRCODE = 'check_violation'"
        return [*statements, f"DO $$ BEGIN IF EXISTS ({missing}) THEN RAISE USING {error}; END IF; END $$;"]


class MergeNew(SqlMergeFollowupJob):
    """Inserts the rows whose keys the table does not have, into a table with a unique index on the key."""

    @classmethod
    def generate_sql(cls, table_chain: Sequence[PreparedTableSchema], sql_client: SqlClientBase[Any]) -> list[str]:
        """Returns the statement."""
        parts = _StatementParts(table_chain[0], sql_client)
        rows = f"SELECT {parts.cells} FROM {parts.staged} s"
        return parts.checked(
            f"INSERT INTO {parts.table} ({parts.columns}) {rows} ON CONFLICT ({parts.key}) DO NOTHING;"
        )


class Merge(SqlMergeFollowupJob):
    """Inserts the rows whose keys the table does not have, into a table without a unique index on the key."""

    @classmethod
    def generate_sql(cls, table_chain: Sequence[PreparedTableSchema], sql_client: SqlClientBase[Any]) -> list[str]:
        """Returns the statement."""
        parts = _StatementParts(table_chain[0], sql_client)
        insert = f"INSERT ({parts.columns}) VALUES ({parts.cells})"
        into = f"MERGE INTO {parts.table} d USING {parts.staged} s ON {parts.same_key()}"
        return parts.checked(f"{into} WHEN NOT MATCHED THEN {insert};")


class MergeReplacing(SqlMergeFollowupJob):
    """Replaces rows with the same keys, or all rows if dlt's hints say so."""

    @classmethod
    def generate_sql(cls, table_chain: Sequence[PreparedTableSchema], sql_client: SqlClientBase[Any]) -> list[str]:
        """Returns the statements."""
        parts = _StatementParts(table_chain[0], sql_client)
        table: Any = table_chain[0]
        old = table.get(SCOPE) or f"EXISTS (SELECT 1 FROM {parts.staged} s WHERE {parts.same_key()})"
        return parts.checked(f"DELETE FROM {parts.table} AS d WHERE {old};", _insert_once(parts))


class Replace(SqlStagingReplaceFollowupJob):
    """Replaces all rows."""

    @classmethod
    def generate_sql(cls, table_chain: Sequence[PreparedTableSchema], sql_client: SqlClientBase[Any]) -> list[str]:
        """Returns the statements."""
        parts = _StatementParts(table_chain[0], sql_client)
        return parts.checked(f"TRUNCATE TABLE {parts.table};", _insert_once(parts))


def _insert_once(parts: _StatementParts) -> str:
    """Returns the statement that inserts each row once: a killed load may have put a file into staging twice."""
    rows = f"SELECT DISTINCT ON ({parts.key}) {parts.cells} FROM {parts.staged} s"
    return f"INSERT INTO {parts.table} ({parts.columns}) {rows};"
