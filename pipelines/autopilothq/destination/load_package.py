"""The code that the dlt destinations share: reading files of load packages, their outcome, and the settings."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

from dlt.common.schema import TTableSchema

from ..display import plural
from ..errors import InvalidSetting
from ..warehouses.dlt_internals import (
    Destination,
    JsonlFileBatchIterator,
    ParquetFileBatchIterator,
    resolve_configuration,
)
from .counts import Counts
from .dispatch import DEFERRED
from .errors import DeliveryFailed
from .settings import check_configuration

_ROWS = 1000  # rows that are read at once
_VARIANT_SEPARATORS = ("▶", "__")  # of dlt's naming conventions: `plan▶v_text`, `plan__v_text`


def path_of_file(items: Any, table: TTableSchema, section: str) -> str:
    """Returns the path of the file that dlt hands over, with rows of a table.

    Raises InvalidSetting if dlt is configured to hand over rows instead, or moved their nested values to other tables.
    """
    if not isinstance(items, str):
        raise InvalidSetting(
            f"{section}.batch_size must be 0, so that dlt hands over whole files: the delivery log records which of"
            " their rows were sent. Leave the setting out"
        )
    if _is_taken_apart(table):
        raise InvalidSetting(
            f"Rows must be whole, but dlt took the nested values of {table.get('parent', table['name'])!r} out of them."
            " Set max_table_nesting=0 on that resource (dlt remembers another number), drop the load that waits"
            " (dlt pipeline NAME abort-packages), and run it again"
        )
    return items


def _is_taken_apart(table: TTableSchema) -> bool:
    """Returns whether dlt moves nested values of a table's rows to other tables, or made the table for such values.

    If a resource itself declares a table with a parent, its rows are whole.
    """
    is_nested = "parent" in table and "resource" not in table
    return is_nested or bool((table.get("x-normalizer") or {}).get("max_nesting"))


def rows_of(path: str, table: TTableSchema) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file of a load package, with each value under the name that it came with."""
    columns, variants = list(table["columns"]), _variants(table)
    if path.endswith(".parquet"):
        texts = {name for name, column in table["columns"].items() if column.get("data_type") == "json"}
        for batch in ParquetFileBatchIterator(path, _ROWS, 0, columns):
            yield from (_without_variants(_with_json(row, texts), variants) for row in batch.to_pylist())
    else:
        for rows in JsonlFileBatchIterator(path, _ROWS, 0, columns):
            yield from (_without_variants(row, variants) for row in rows)


def _variants(table: TTableSchema) -> dict[str, str]:
    """Returns dlt's variant columns, which hold a column's values of other types, each with that column's name."""
    columns, found = table["columns"], dict[str, str]()
    for name in (name for name, column in columns.items() if column.get("variant")):
        bases = (name.rpartition(f"{separator}v_")[0] for separator in _VARIANT_SEPARATORS)
        if base := next((base for base in bases if base in columns), None):
            found[name] = found.get(base, base)
    return found


def _without_variants(row: dict[str, Any], variants: Mapping[str, str]) -> dict[str, Any]:
    """Moves the values of variant columns to the columns that they belong to, and returns the row."""
    for name in variants.keys() & row.keys():
        value = row.pop(name)
        if value is not None:
            row[variants[name]] = value
    return row


def _with_json(row: dict[str, Any], columns: AbstractSet[str]) -> dict[str, Any]:
    """Parses these columns, whose objects and arrays dlt writes into Parquet as JSON, and returns the row."""
    for name in columns & row.keys():
        if isinstance(row[name], str):
            with suppress(ValueError):  # a text in a user's Arrow table that is not JSON
                row[name] = json.loads(row[name])
    return row


def finish_file(counts: Counts, send_again: bool, done: str, log: logging.Logger) -> None:
    """Raises DeliveryFailed if dlt must send the file again; otherwise logs warnings for rows that were not sent.

    `done` is the participle for the message, such as `delivered`.
    """
    if send_again:
        # Reasons of failed rows come before those of unknown ones, and the reason of rows that wait for them is last.
        reasons = sorted(counts.reasons, key=lambda each: (each[1] == DEFERRED, each[0]))
        why = next(reason for status, reason in reasons if status in ("failed", "unknown"))
        number = counts.failed + counts.unsettled
        raise DeliveryFailed(f"{number:,} of {plural(counts.messages, 'row')} could not be {done}: {why}")
    for (status, why), number in counts.reasons.items():
        log.warning("%s %s: %s", plural(number, "row"), status, why)


def resolve_options(section: str, factory: Callable[..., "Destination[Any, Any]"], explicit: dict[str, Any]) -> Any:
    """Returns a destination's options in dlt's configuration. Those in `explicit` that are not None take precedence.

    Example: `resolve_options("destination.autopilothq", autopilot, {"tries": 2}).tries == 2`.
    """
    check_configuration(section, factory)
    given = {name: value for name, value in explicit.items() if value is not None}
    return resolve_configuration(factory().spec(), sections=tuple(section.split(".")), explicit_value=given)
