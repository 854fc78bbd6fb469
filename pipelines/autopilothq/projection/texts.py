"""Tables of the engine that hold texts of messages, however long these are.

The engine takes 2,048 rows at a time, and of a table in memory it needs all their texts at once. If many lines are long
(`ParsedCells.are_long`), such a table is a view of Parquet files, which are read in groups of rows that are small
enough.
"""

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from . import engine
from .cells import MOST_BYTES
from .context import ProjectionContext

SMALL_GROUPS = f"FORMAT parquet, ROW_GROUP_SIZE_BYTES {MOST_BYTES}"
# Tables of state.sql that hold texts of lines.
OF_LINES = ("rejects", "discards", "discards_of_latest", "whole_texts", "mends")


def open_tables(context: ProjectionContext) -> None:
    """Prepares the engine of a load with many long lines."""
    if not context.cells.are_long:
        return
    # Otherwise the engine gathers up to 2,048 rows again from parts that were made small because their texts are long.
    context.con.execute("SET enable_caching_operators = false")
    # The side of a join that the engine holds in memory is the right one, as it is written, which has no long texts.
    engine.join_as_written(context.con)
    for table in OF_LINES:
        _write(context, table, f"FROM {table}")
        context.con.execute(f"DROP TABLE {table}")
        _create_view(context, table)


def create_table(
    context: ProjectionContext, table: str, query: str, parameters: Mapping[str, object] | None = None
) -> None:
    """Creates or replaces a table with the rows of a query."""
    if not context.cells.are_long:
        context.con.execute(f"CREATE OR REPLACE TABLE {table} AS {query}", parameters)
        return
    before = list(Path(context.scratch).glob(f"{table}-*.parquet"))
    _write(context, table, query, parameters)
    for path in before:
        path.unlink()
    _create_view(context, table)


def insert(context: ProjectionContext, table: str, query: str, parameters: Mapping[str, object] | None = None) -> None:
    """Inserts the rows of a query, whose columns are some of the table's, into a table."""
    if context.cells.are_long:
        _write(context, table, query, parameters)
    else:
        context.con.execute(f"INSERT INTO {table} BY NAME {query}", parameters)


def _write(context: ProjectionContext, table: str, query: str, parameters: Mapping[str, object] | None = None) -> None:
    path = engine.literal(f"{context.scratch}/{table}-{uuid4().hex}.parquet")
    form = f"{engine.PARQUET}, {engine.UNCOMPRESSED}, ROW_GROUP_SIZE_BYTES {MOST_BYTES}"
    context.con.execute(f"COPY ({query}) TO {path} ({form})", parameters)


def _create_view(context: ProjectionContext, table: str) -> None:
    files = f"{engine.glob_literal(context.scratch)} || {engine.literal(f'/{table}-*.parquet')}"
    context.con.execute(f"CREATE OR REPLACE VIEW {table} AS FROM read_parquet({files}, union_by_name = true)")
