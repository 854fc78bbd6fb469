"""The names in a dataset that a new table cannot have."""

from collections.abc import Collection
from typing import NamedTuple

import pyarrow as pa

from ..dlt_internals import DLT_NAME_PREFIX, FilesystemClient
from .delta import DeltaDataset, open_table, table_folders
from .interface import Dataset
from .sql import SqlDataset
from .sql_schema import taken_names

_IN_ALL_MESSAGES = ("id", "received_at", "uuid_ts", "event", "event_text")


class TableNames(NamedTuple):
    """The names in a dataset that a new table cannot have.

    `messages` are tables of messages, whichever pipeline created them. `others`, which are known in DuckDB, PostgreSQL,
    SQLite and lakes, are other programs' tables; in PostgreSQL also indexes, sequences and types. A table of messages
    has a text `id` and a time `received_at`, and requires no column that messages may lack.
    """

    messages: frozenset[str] = frozenset()
    views: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


def table_names(dataset: Dataset, made: Collection[str] = ()) -> TableNames:
    """Returns the names in a dataset that a new table cannot have.

    `made` are tables that loads created. In a lake they are skipped, because reading each takes requests.
    """
    if isinstance(dataset, DeltaDataset):
        return _names_in_lake(dataset.client, made)
    if not isinstance(dataset, SqlDataset):
        return TableNames()
    return TableNames(*map(frozenset, taken_names(dataset.sql, dataset.kind).values()))


def _names_in_lake(client: FilesystemClient, made: Collection[str]) -> TableNames:
    others = [name for name in table_folders(client) if name not in made and not name.startswith(DLT_NAME_PREFIX)]
    found = {name: _is_of_messages(client, name) for name in others}
    messages, rest = (frozenset(name for name, is_one in found.items() if is_one is of) for of in (True, False))
    return TableNames(messages, others=rest)


def _is_of_messages(client: FilesystemClient, name: str) -> bool | None:
    """Returns whether a folder is a table of messages, None if it is no table.

    A table that cannot be opened, because it is damaged or needs a newer library, is somebody else's.
    """
    try:
        table = open_table(client, name)
        return None if table is None else _holds_messages(pa.schema(table.schema().to_arrow()))
    except Exception as error:
        if type(error).__name__ != "DeltaError":  # the library need not be installed
            raise
        return False


def _holds_messages(schema: pa.Schema) -> bool:
    """Returns whether a table with this schema can hold messages."""
    types = {field.name: field.type for field in schema}
    required = {field.name for field in schema if not field.nullable}
    return (
        types.get("id") == pa.string()
        and pa.types.is_timestamp(types.get("received_at", pa.null()))
        and required <= set(_IN_ALL_MESSAGES)
    )
