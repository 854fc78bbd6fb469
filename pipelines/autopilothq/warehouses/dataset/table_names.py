"""The names in a dataset that a new table cannot have."""

from typing import NamedTuple

from ..sql_files import sql_file
from .interface import Dataset
from .sql import SqlDataset

_QUERIES = {"duckdb": "table_names_duckdb.sql", "postgres": "table_names_postgres.sql"}
_OTHER_QUERY = """
    SELECT lower(table_name), CASE WHEN table_type LIKE '%%VIEW' THEN 'view' ELSE 'messages' END
    FROM {tables} WHERE table_schema = %s"""


class TableNames(NamedTuple):
    """The names in a dataset that a new table cannot have.

    Those of tables of `messages`, whichever pipeline has made them, of `views`, and, in DuckDB and PostgreSQL, of
    `others`: tables of somebody else, and in PostgreSQL indexes, sequences and types.
    """

    messages: frozenset[str] = frozenset()
    views: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


def table_names(dataset: Dataset) -> TableNames:
    """Returns the names in a dataset that a new table cannot have; none in a lake, where tables are folders."""
    if not isinstance(dataset, SqlDataset):
        return TableNames()
    query = sql_file(_QUERIES[dataset.kind]) if dataset.kind in _QUERIES else _OTHER_QUERY
    found: dict[str, set[str]] = {"messages": set(), "view": set(), "other": set()}
    for name, what in dataset.sql.by_schema(query):
        found[what].add(name)
    return TableNames(*map(frozenset, found.values()))
