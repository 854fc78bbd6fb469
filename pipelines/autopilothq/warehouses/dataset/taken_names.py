"""The names in a dataset that no new table can have, because something else has them."""

from typing import NamedTuple

from ..sql_files import sql_file
from .interface import Dataset
from .sql import SqlDataset

_QUERIES = {"duckdb": "taken_names_duckdb.sql", "postgres": "taken_names_postgres.sql"}


class TakenNames(NamedTuple):
    """Names in a dataset that no new table can have.

    Those of `views`, and `others`: in DuckDB and PostgreSQL of tables that are none of messages, and in PostgreSQL of
    indexes, sequences and types.
    """

    views: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


def taken_names(dataset: Dataset) -> TakenNames:
    """Returns the names in a dataset that no new table can have."""
    if not isinstance(dataset, SqlDataset) or dataset.kind not in _QUERIES:
        return TakenNames(frozenset(dataset.views()))
    found = dataset.sql.by_schema(sql_file(_QUERIES[dataset.kind]))
    views = frozenset(name.lower() for name, is_view in found if is_view)
    return TakenNames(views, frozenset(name for name, is_view in found if not is_view) - views)
