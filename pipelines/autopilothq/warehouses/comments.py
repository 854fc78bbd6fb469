"""Comments on tables and columns in the database, for people who look at it with other tools.

dlt writes descriptions of columns to Snowflake, BigQuery and Databricks itself; DuckDB and PostgreSQL get them here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..catalog import TABLES, Table, event_table
from ..projection import engine
from .dlt_internals import SqlClientBase, TPartialTableSchema
from .native import SEGMENT_TABLE_HINT

COMMENTED = ("duckdb", "postgres")


def comment_statements(client: SqlClientBase[Any], table: TPartialTableSchema) -> Iterator[str]:
    """Yields the COMMENT statements for new columns of a table, and for the table if it is new.

    Columns of events that the catalogue does not know get no comments: they are mostly those of `tracks` again, in what
    may be hundreds of tables.
    """
    if not table.get(SEGMENT_TABLE_HINT) or client.is_staging_dataset_active:
        return
    name, columns = str(table["name"]), table["columns"]
    known = TABLES.get(name)
    texts = {column: str(hints["description"]) for column, hints in columns.items() if known and "description" in hints}
    # Only a new table is created with its key columns: an existing one has them already.
    about = (known or event_table(name)) if set((known or event_table(name)).key) & columns.keys() else None
    yield from comments_on(client, name, texts, about.description if about else None)


def catalogue_comments(client: SqlClientBase[Any], table: Table) -> Iterator[str]:
    """Yields the COMMENT statements for a table of the catalogue and all its columns."""
    texts = {column.name: column.description for column in table.columns}
    return comments_on(client, table.name, texts, table.description)


def comments_on(
    client: SqlClientBase[Any], name: str, columns: Mapping[str, str], table: str | None = None, kind: str = "TABLE"
) -> Iterator[str]:
    """Yields the COMMENT statements for a table or a view, and for its columns."""
    literal = engine.literal  # a plain literal; dlt's has escapes
    qualified = client.make_qualified_table_name(name)
    if table:
        yield f"COMMENT ON {kind} {qualified} IS {literal(table)}"
    for column, text in columns.items():
        yield f"COMMENT ON COLUMN {qualified}.{client.escape_column_name(column)} IS {literal(text)}"
