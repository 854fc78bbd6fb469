"""The names in a dataset that no new table can have, because something else has them."""

from ..sql_files import sql_file
from .interface import Dataset
from .sql import SqlDataset

_QUERIES = {"duckdb": "taken_names_duckdb.sql", "postgres": "taken_names_postgres.sql"}


def taken_names(dataset: Dataset) -> set[str]:
    """Returns the names of views; in DuckDB and PostgreSQL also of tables that are none of messages.

    In PostgreSQL those of indexes, sequences and types, too.
    """
    if isinstance(dataset, SqlDataset) and dataset.kind in _QUERIES:
        return {name for (name,) in dataset.sql.by_schema(sql_file(_QUERIES[dataset.kind]))}
    return dataset.views()
