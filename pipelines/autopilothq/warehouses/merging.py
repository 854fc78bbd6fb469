"""Reads from dlt's hints how the rows of a table are merged."""

from collections.abc import Sequence
from typing import Any

from dlt import Schema
from dlt.common.destination.typing import PreparedTableSchema

from .dlt_internals import get_columns_names_with_prop, get_dedup_sort_tuple
from .native import ALL_ROWS, SEGMENT_TABLE_HINT

# dlt's hints: the condition for rows that are merged, and the condition for rows that are deleted first.
_FILTER, SCOPE = "x-merge-source-filter", "x-merge-destination-scope"
_DEDUPLICATED = "x-stage-data-deduplicated"  # set by whoever guarantees that each key comes once


def changing_hint(table: Any) -> str | None:
    """Returns a hint that makes a merge select or replace rows by more than their key; None if there is none."""
    if table.get(SCOPE) not in (None, ALL_ROWS):
        return SCOPE
    return next((hint for hint in (_FILTER, _DEDUPLICATED) if table.get(hint)), None)


def merges_by_key_alone(table_chain: Sequence[PreparedTableSchema]) -> bool:
    """Returns whether rows of one of the contract's tables are merged by its key, and a user has added no hints."""
    return _merges_by_key(table_chain) and dedup_order(table_chain[0]) is None


def _merges_by_key(table_chain: Sequence[PreparedTableSchema]) -> bool:
    table: Any = table_chain[0]
    return (
        len(table_chain) == 1
        and bool(table.get(SEGMENT_TABLE_HINT))
        and not table.get(_FILTER)
        and table.get(SCOPE) in (None, ALL_ROWS)
        and not get_columns_names_with_prop(table, "hard_delete")
    )


def deduplicates_staging(table: PreparedTableSchema, schema: Schema) -> bool:
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
    """Returns whether a merge does nothing but replace rows of one table that have the same primary key.

    Of several new rows with the same key it takes the first by `dedup_order`.
    """
    hints: Any = table
    return (
        _merges_by_key([table])
        and deduplicates_staging(table, schema)
        and not hints.get(SCOPE)
        and not get_columns_names_with_prop(hints, "merge_key")
    )


def dedup_order(table: Any) -> tuple[str, str] | None:
    """Returns the column and `asc` or `desc` of a user's hint `dedup_sort`, or None if there is none."""
    return get_dedup_sort_tuple(table)


def keys_of(table: Any) -> list[str]:
    """Returns the columns of a table's key."""
    return get_columns_names_with_prop(table, "primary_key")
