"""How tables look to dlt: columns with their types and descriptions, and how rows are merged."""

from collections.abc import Mapping, Sequence
from typing import cast

import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema, TLoaderMergeStrategy, TTableSchemaColumns, TWriteDispositionDict

from ..catalog import AUDIT, CONTACTS, CURRENT, PROFILES, TABLES, USERS, Table, Type

SOURCE = "autopilothq"

ARROW: dict[Type, pa.DataType] = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
}


REPLACED = (USERS, AUDIT, PROFILES, CONTACTS, *CURRENT)
# The ways to merge, the best first: messages stay as they were stored first, all else is replaced. An upsert of rows
# that a killed load put into staging twice is refused by PostgreSQL.
STRATEGIES: dict[bool, tuple[TLoaderMergeStrategy, ...]] = {
    False: ("insert-only", "delete-insert"),
    True: ("delete-insert", "upsert"),
}


def merge(strategy: TLoaderMergeStrategy) -> TWriteDispositionDict:
    """A write disposition with this strategy."""
    return cast(TWriteDispositionDict, {"disposition": "merge", "strategy": strategy})


def disposition(table: str, supported: Sequence[str]) -> TWriteDispositionDict:
    """How rows are merged into a table where these strategies are supported; raises where none of them fits."""
    strategies = STRATEGIES[TABLES.get(table) in REPLACED]
    if TABLES.get(table) in CURRENT and "delete-insert" in supported:
        # All rows go and the new ones come in one transaction; dlt's own `replace` is atomic on few destinations.
        return cast(TWriteDispositionDict, {**merge("delete-insert"), "destination_scope": "1 = 1"})
    for strategy in strategies:
        if strategy in supported and TABLES.get(table) not in CURRENT:
            return merge(strategy)
    raise CannotMerge(
        f"Expected a destination that can merge ({' or '.join(strategies)}), but this one can only append.\n"
        "Loading there would store messages twice: use DuckDB or a warehouse."
    )


class CannotMerge(Exception):
    """The destination cannot keep rows unique."""


def columns(table: Table, types: Mapping[str, Type]) -> TTableSchemaColumns:
    """dlt's hints for columns of these types, in this order."""
    described = {column.name: column.description for column in table.columns}
    hints: dict[str, TColumnSchema] = {}
    for name, column_type in types.items():
        # Keys are never null, but the engine's Parquet cannot say so: told here, dlt would write every file again.
        hints[name] = {"name": name, "data_type": column_type, "nullable": True}
        if name in described:
            hints[name]["description"] = described[name]
    return hints


def arrow_schema(types: Mapping[str, Type]) -> pa.Schema:
    """The same columns for Arrow."""
    return pa.schema([(name, ARROW[of]) for name, of in types.items()])
