"""Runs queries over several tables, with names as the destination spells them."""

from collections.abc import Sequence
from typing import Any

from .delta import DeltaDataset, quoted
from .interface import Dataset, Row
from .sql import SqlDataset


def table_path(dataset: Dataset, table: str) -> list[str]:
    """Returns the parts of a table's name as the destination has it, unquoted."""
    return dataset.sql.path(table) if isinstance(dataset, SqlDataset) else [dataset.name, table]


def spelling_of(dataset: Dataset, table: str, column: str) -> str:
    """Returns a column's name as the destination has it, unquoted."""
    return dataset.sql.spelling(table, column) if isinstance(dataset, SqlDataset) else column


def qualified_name(dataset: Dataset, table: str) -> str:
    """Returns a table's quoted name for a statement, with each `%` doubled."""
    return dataset.sql.table(table) if isinstance(dataset, SqlDataset) else quoted(table)


def rows_of_statement(dataset: Dataset, statement: str) -> list[Row]:
    """Returns the rows of a complete query, whose names come from `table_path` and `spelling_of`."""
    if isinstance(dataset, DeltaDataset):
        with dataset.answer(statement) as (_, answers):
            return [tuple(row) for rows in answers for row in rows]
    escaped = statement.replace("%", "%%")
    return list(dataset.sql.stream(escaped, ())) if isinstance(dataset, SqlDataset) else []


def count_shared(dataset: Dataset, table: str, by: str, others: Sequence[str]) -> dict[Any, int]:
    """Counts the rows of a table whose id is also in one of the other tables, by the values of the column `by`."""
    column, id_ = dataset.quoted(table, by), dataset.quoted(table, "id")
    ids = " UNION ALL ".join(
        f"SELECT {dataset.quoted(other, 'id')} FROM {qualified_name(dataset, other)}" for other in others
    )
    statement = (
        f"SELECT {column}, count(*) FROM {qualified_name(dataset, table)} WHERE {id_} IN ({ids}) GROUP BY {column}"
    )
    return dict(rows_of_statement(dataset, statement.replace("%%", "%")))
