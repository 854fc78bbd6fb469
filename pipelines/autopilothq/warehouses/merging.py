"""How dlt's hints say that rows are merged."""

from collections.abc import Sequence
from typing import Any

from dlt import Schema
from dlt.common.destination.typing import PreparedTableSchema

from .dlt_internals import get_columns_names_with_prop, get_dedup_sort_tuple
from .native import ALL_ROWS, SEGMENT_TABLE_HINT

# dlt's hints for which rows are merged, and which are deleted first.
_FILTER, SCOPE = "x-merge-source-filter", "x-merge-destination-scope"


def is_plain(table_chain: Sequence[PreparedTableSchema]) -> bool:
    """Returns whether rows of one of the contract's tables are merged only by its key, without more hints of a user."""
    table: Any = table_chain[0]
    return (
        len(table_chain) == 1
        and bool(table.get(SEGMENT_TABLE_HINT))
        and not table.get(_FILTER)
        and table.get(SCOPE) in (None, ALL_ROWS)
        and not get_columns_names_with_prop(table, "hard_delete")
        and get_dedup_sort_tuple(table) is None
    )


def replaces_by_key(table: PreparedTableSchema, schema: Schema) -> bool:
    """Returns whether all that a merge does is to replace rows of one table that have the same primary key."""
    hints: Any = table
    return (
        is_plain([table])
        and hints["write_disposition"] == "merge"
        and hints.get("x-merge-strategy", "delete-insert") == "delete-insert"
        and not hints.get(SCOPE)
        and bool(keys_of(table))
        and not get_columns_names_with_prop(hints, "merge_key")
        and not any(other.get("parent") == hints["name"] for other in schema.tables.values())
    )


def keys_of(table: Any) -> list[str]:
    """Returns the columns of a table's key."""
    return get_columns_names_with_prop(table, "primary_key")
