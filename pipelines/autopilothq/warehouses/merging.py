"""How dlt's hints say that rows are merged."""

from collections.abc import Sequence
from typing import Any

from dlt import Schema
from dlt.common.destination.typing import PreparedTableSchema

from .dlt_internals import get_columns_names_with_prop, get_dedup_sort_tuple
from .native import ALL_ROWS, SEGMENT_TABLE_HINT

# dlt's hints for which rows are merged, and which are deleted first.
_FILTER, SCOPE = "x-merge-source-filter", "x-merge-destination-scope"
_DEDUPLICATED = "x-stage-data-deduplicated"  # whoever makes the rows vouches that there is one


def is_plain(table_chain: Sequence[PreparedTableSchema]) -> bool:
    """Returns whether rows of one of the contract's tables are merged only by its key, without more hints of a user."""
    return _is_plain_but_sorted(table_chain) and order_of(table_chain[0]) is None


def _is_plain_but_sorted(table_chain: Sequence[PreparedTableSchema]) -> bool:
    table: Any = table_chain[0]
    return (
        len(table_chain) == 1
        and bool(table.get(SEGMENT_TABLE_HINT))
        and not table.get(_FILTER)
        and table.get(SCOPE) in (None, ALL_ROWS)
        and not get_columns_names_with_prop(table, "hard_delete")
    )


def keeps_one_of_each(table: PreparedTableSchema, schema: Schema) -> bool:
    """Returns whether a merge takes only one of the rows in staging that have the same primary key."""
    hints: Any = table
    return (
        hints["write_disposition"] == "merge"
        and hints.get("x-merge-strategy", "delete-insert") == "delete-insert"
        and not hints.get(_DEDUPLICATED)
        and bool(keys_of(table))
        and not any(other.get("parent") == hints["name"] for other in schema.tables.values())
    )


def replaces_by_key(table: PreparedTableSchema, schema: Schema) -> bool:
    """Returns whether all that a merge does is to replace rows of one table that have the same primary key.

    Of several new ones that have it, it takes the first in the order of `order_of`.
    """
    hints: Any = table
    return (
        _is_plain_but_sorted([table])
        and keeps_one_of_each(table, schema)
        and not hints.get(SCOPE)
        and not get_columns_names_with_prop(hints, "merge_key")
    )


def order_of(table: Any) -> tuple[str, str] | None:
    """Returns the column, and `asc` or `desc`, of a user's hint which of several rows with the same key is taken."""
    return get_dedup_sort_tuple(table)


def keys_of(table: Any) -> list[str]:
    """Returns the columns of a table's key."""
    return get_columns_names_with_prop(table, "primary_key")
