"""Runs queries over several tables, with names as the destination spells them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from ...catalog import Type
from .delta import DeltaDataset, quoted
from .interface import Dataset, Row, cast_to_text
from .sql import SqlDataset, read_columns


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


def read_with_texts(
    dataset: Dataset, table: str, types: Mapping[str, Type], texts: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """Yields columns of a table that `tables` has found, in these types.

    `texts` are columns of other types that the database casts to text, so that numbers keep all digits.
    """
    if isinstance(dataset, SqlDataset):
        return read_columns(dataset, table, types, texts=texts)
    return dataset.read(table, list(types))


def count_shared(dataset: Dataset, table: str, by: str, others: Sequence[str]) -> dict[Any, int]:
    """Counts the rows of a table whose id is also in one of the other tables, by the values of the column `by`.

    If somebody changed the type of an `id` column, ids are compared as texts.
    """
    types = {dataset.columns()[each]["id"].name for each in (table, *others)}
    column, id_ = dataset.quoted(table, by), dataset.quoted if len(types) == 1 else partial(cast_to_text, dataset)
    ids = " UNION ALL ".join(f"SELECT {id_(other, 'id')} FROM {qualified_name(dataset, other)}" for other in others)
    where = f"WHERE {id_(table, 'id')} IN ({ids})"
    statement = f"SELECT {column}, count(*) FROM {qualified_name(dataset, table)} {where} GROUP BY {column}"
    return dict(rows_of_statement(dataset, statement.replace("%%", "%")))
