"""The names in a dataset that no new table can have, because something that is no table has them."""

from ..sql_files import sql_file
from .interface import Dataset
from .sql import SqlDataset


def taken_names(dataset: Dataset) -> set[str]:
    """Returns the names of views; in PostgreSQL of indexes, sequences and types, too."""
    if isinstance(dataset, SqlDataset) and dataset.kind == "postgres":
        return {name for (name,) in dataset.sql.by_schema(sql_file("taken_names_postgres.sql"))}
    return dataset.views()
