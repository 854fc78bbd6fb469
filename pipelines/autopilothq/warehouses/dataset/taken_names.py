"""The names in a dataset: those of tables, and those that no new table can have."""

from ..sql_files import sql_file
from .interface import Dataset
from .sql import SqlDataset
from .sql_schema import table_names


def tables_there(dataset: Dataset) -> set[str]:
    """Returns the names of the tables, whichever pipeline has made them; none in a lake, where no name is avoided."""
    return table_names(dataset.sql) if isinstance(dataset, SqlDataset) else set()


def taken_names(dataset: Dataset) -> set[str]:
    """Returns the names of views; in PostgreSQL of indexes, sequences and types, too."""
    if isinstance(dataset, SqlDataset) and dataset.kind == "postgres":
        return {name for (name,) in dataset.sql.by_schema(sql_file("taken_names_postgres.sql"))}
    return dataset.views()
