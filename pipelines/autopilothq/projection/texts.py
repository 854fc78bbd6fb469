"""Writes tables of the engine that hold texts of messages, however long these texts are.

The engine reads a table in memory 2,048 rows at a time, with all their texts. If many lines are long
(`ParsedCells.has_long_lines`), the table is a view of Parquet files instead, which are read in small groups of rows.
"""

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from . import engine
from .cells import MOST_BYTES
from .context import ProjectionContext

SMALL_GROUPS = f"FORMAT parquet, ROW_GROUP_SIZE_BYTES {MOST_BYTES}"
# Tables of state.sql that hold texts of lines.
TEXT_TABLES = ("rejects", "discards", "discards_of_latest", "whole_texts", "mends")


def prepare_for_long_lines(context: ProjectionContext) -> None:
    """Turns the tables of texts into views of files, which `insert` may add to, if many lines are long.

    Otherwise does nothing.
    """
    if not context.cells.has_long_lines:
        return
    # Otherwise the engine would combine the small groups of rows into chunks of 2,048 rows again.
    context.con.execute("SET enable_caching_operators = false")
    # The right side of a join, which the engine then holds in memory, never has long texts.
    engine.join_as_written(context.con)
    for table in TEXT_TABLES:
        _write(context, table, f"FROM {table}")
        context.con.execute(f"DROP TABLE {table}")
        _create_view(context, table)


def create_table(
    context: ProjectionContext, table: str, query: str, parameters: Mapping[str, object] | None = None
) -> None:
    """Creates or replaces a table with the rows of a query."""
    if not context.cells.has_long_lines:
        context.con.execute(f"CREATE OR REPLACE TABLE {table} AS {query}", parameters)
        return
    before = list(Path(context.scratch).glob(f"{table}-*.parquet"))
    _write(context, table, query, parameters)
    for path in before:
        path.unlink()
    _create_view(context, table)


def insert(context: ProjectionContext, table: str, query: str, parameters: Mapping[str, object] | None = None) -> None:
    """Inserts a query's rows into a table; columns that the query lacks are null."""
    if context.cells.has_long_lines:
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
