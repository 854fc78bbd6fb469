"""The names in a dataset that a new table cannot have."""

from collections.abc import Collection
from typing import Any, NamedTuple

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
    return TableNames(*map(frozenset, taken_names(dataset.sql, dataset.kind, dataset.dialect).values()))


def _names_in_lake(client: FilesystemClient, made: Collection[str]) -> TableNames:
    messages, others = set[str](), set[str]()
    for name in table_folders(client):
        if name in made or name.startswith(DLT_NAME_PREFIX):
            continue
        try:
            table = open_table(client, name)
            if table is None:
                continue
            found = messages if _can_hold_messages(table) else others
        except Exception as error:
            if type(error).__name__ != "DeltaError":  # by name, as the library may be missing
                raise
            found = others  # it is damaged or needs a newer library: somebody else's
        found.add(name)
    return TableNames(frozenset(messages), others=frozenset(others))


def _can_hold_messages(table: Any) -> bool:
    """Returns whether a Delta table can hold messages."""
    schema = pa.schema(table.schema().to_arrow())
    types = {field.name: field.type for field in schema}
    required = {field.name for field in schema if not field.nullable}
    return (
        types.get("id") == pa.string()
        and pa.types.is_timestamp(types.get("received_at", pa.null()))
        and required <= set(_IN_ALL_MESSAGES)
    )
