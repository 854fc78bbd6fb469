"""The shape of tables in each kind of destination, as Segment creates them there; derived from `catalog.NATIVE`."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..catalog import (
    DELIVERY_LOGS,
    EVENT_TABLE_NAMES,
    FORWARDS,
    LATEST,
    MESSAGE_TABLES,
    NATIVE,
    OTHER_NATIVE,
    SUPPRESSIONS,
    TABLES,
    Native,
    Type,
    key_of,
)

# A hint for tables with the shape that `shape_of` returns. dlt creates all other tables as usual.
SEGMENT_TABLE_HINT = "x-segment-table"
# A hint for dlt's tables whose files are loaded without staging, if the destination can do that. Load packages from
# versions without this hint may have rows in staging when they are resumed.
DIRECT_HINT = "x-direct"
TABLE_HINTS = {SEGMENT_TABLE_HINT: True, DIRECT_HINT: True}
# A hint for a column that repeats another one; its value is the name of the other column.
COPY_HINT = "x-copy-of"
# The rows that a complete scan replaces, in SQL.
ALL_ROWS = "1 = 1"
# Tables that this package creates from the catalogue, in dlt's types and without a key, in all destinations.
_LOGS = (*(table.name for table in DELIVERY_LOGS), FORWARDS.name)
_PLAIN = (SUPPRESSIONS.name, *_LOGS)
# The column by which `send` looks up the rows of each request.
_LOG_INDEX = "message_id"
_MESSAGE_TABLES = frozenset((*(table.name for table in MESSAGE_TABLES), *EVENT_TABLE_NAMES))


class TableShape(NamedTuple):
    """How a table differs from what dlt would make.

    `types` has the destination's types of the columns for which dlt would choose others. `key` is the primary key,
    empty if there is none. Each column in `indexes` has an index of its own. `copies` maps each column that repeats
    another to that other column. `view` is the name of the view over the table, None if there is none.
    """

    types: Mapping[str, str] = {}
    key: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    copies: Mapping[str, str] = {}
    view: str | None = None


def native_of(kind: str) -> Native:
    """Returns how Segment's tables look in a kind of destination, given dlt's short or full name for it.

    Example: `native_of("dlt.destinations.postgres").types == {"double": "numeric"}`.
    """
    return NATIVE.get(kind.rpartition(".")[2], OTHER_NATIVE)


def shape_of(table: str, columns: Mapping[str, Type], kind: str) -> TableShape:
    """Returns the shape of a table with these columns in a kind of destination (dlt's name for it).

    Example: `shape_of("tracks", {"id": "text", "n": "double"}, "postgres").types == {"n": "numeric"}`.
    """
    native = native_of(kind)
    if table in _PLAIN:
        return TableShape(indexes=(_LOG_INDEX,) if table in _LOGS and native.indexed else ())
    return TableShape(
        {name: native.types[of] for name, of in columns.items() if of in native.types},
        key_of(table) if native.keyed else (),
        tuple(name for name in native.indexed if name in columns),
        copies_of(table, columns, native),
        native.view.format(table) if native.view and holds_messages(table) else None,
    )


def copies_of(table: str, columns: Collection[str], native: Native) -> dict[str, str]:
    """Returns the columns of a table that repeat others, each with the column that it repeats."""
    has_messages = holds_messages(table) or any(table == made.table.name for made in LATEST)
    return {copy: of for copy, of in native.copies.items() if of in columns} if has_messages else {}


def copy_description(of: str) -> str:
    """Returns the description of a column that repeats another."""
    return f"The same as {of}, as Segment's tables call it."


def avoid_view_name(table: str, native: Native, existing: Collection[str]) -> str:
    """Returns the name of an event's table, with a suffix if the view of another table has that name.

    `existing` are the dataset's tables, which keep their names.
    Example: `avoid_view_name("tracks_view", native_of("bigquery"), ()) == "tracks_view_table"`, because `tracks_view`
    is the view over `tracks`.
    """
    suffix = native.view.format("") if native.view else ""
    of = table.removesuffix(suffix)
    taken = of != table and table not in existing and (of in existing or of in _MESSAGE_TABLES)
    return f"{table}_table" if taken else table


def holds_messages(table: str) -> bool:
    """Returns whether a table has a row for each message of some kind or event."""
    return table in _MESSAGE_TABLES or table not in TABLES
