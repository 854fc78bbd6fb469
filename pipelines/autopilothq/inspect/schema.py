"""Describes tables, from the catalogue or from a destination, and as dlt's schema."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple, cast

from dlt import Schema
from dlt.common.schema.typing import TColumnSchema, TTableSchema

from .. import catalog
from ..projection import ordered_columns
from ..warehouses.dlt_internals import TDataType, new_table
from ..warehouses.hints import SOURCE
from ..warehouses.native import SEGMENT_TABLE_HINT


class ColumnInfo(NamedTuple):
    """A column; `type` is dlt's name of its type and `native` the destination's.

    `native`, `first_came` (when a load first had the column) and `null_share` are None without a destination.
    """

    name: str
    type: TDataType
    description: str = ""
    native: str | None = None
    first_came: datetime | None = None
    null_share: float | None = None


class Statistics(NamedTuple):
    """The number of rows of a table, and when the first and the last were received, if the table has that time."""

    rows: int
    first_received_at: datetime | None
    last_received_at: datetime | None


class TableInfo(NamedTuple):
    """A table with its columns in order; `key` are the columns that make a row unique, empty if unknown."""

    name: str
    description: str
    columns: tuple[ColumnInfo, ...]
    key: tuple[str, ...] = ()
    statistics: Statistics | None = None

    def has(self, column: str) -> bool:
        """Returns whether there is a column of that name."""
        return any(column == other.name for other in self.columns)


def catalogue() -> list[TableInfo]:
    """Returns the catalogue's tables, with the columns of a new table (docs/contract/warehouse.md#columns)."""
    return [
        TableInfo(
            table.name,
            table.description,
            tuple(ColumnInfo(column.name, column.type, column.description) for column in _in_order(table)),
            table.key,
        )
        for table in catalog.TABLES.values()
    ]


def _in_order(table: catalog.Table) -> Iterable[catalog.Column]:
    columns = {column.name: column for column in table.columns}
    if not {key.name for key in catalog.KEYS} <= columns.keys():
        return table.columns
    return [columns[name] for name in ordered_columns({column.name: column.type for column in table.columns})]


def table_info(
    name: str, columns: Iterable[ColumnInfo], statistics: Statistics | None = None, comment: str = ""
) -> TableInfo:
    """Returns a table of a destination, with descriptions of it and of its columns.

    These are the catalogue's. What the catalogue does not know keeps the given descriptions: the database's comments.
    """
    columns = tuple(columns)
    known = catalog.TABLES.get(name)
    if known is None and {"event", "event_text"} <= {column.name for column in columns}:
        known = catalog.event_table(name)
    texts = {column.name: column.description for column in known.columns} if known else {}
    return TableInfo(
        name,
        known.description if known else comment,
        tuple(column._replace(description=texts.get(column.name, column.description)) for column in columns),
        known.key if known else (),
        statistics,
    )


def dlt_schema(tables: Iterable[TableInfo]) -> Schema:
    """Returns the tables as dlt's schema. Statistics from a destination are hints that begin with `x-`."""
    schema = Schema(SOURCE)
    for table in tables:
        columns = [_column_hints(column, column.name in table.key) for column in table.columns]
        hints = new_table(table.name, write_disposition="merge", columns=columns)
        if table.description:
            hints["description"] = table.description
        if table.name not in {own.name for own in (catalog.SUPPRESSIONS, *catalog.DELIVERY_LOGS, catalog.FORWARDS)}:
            hints.update(cast(TTableSchema, {SEGMENT_TABLE_HINT: True}))
        if table.statistics:
            live = {name.replace("_", "-"): value for name, value in table.statistics._asdict().items()}
            hints.update(cast(TTableSchema, _custom_hints(live)))
        schema.update_table(hints, normalize_identifiers=False)
    return schema


def _column_hints(column: ColumnInfo, key: bool) -> TColumnSchema:
    hints: TColumnSchema = {"name": column.name, "data_type": column.type, "nullable": not key}
    if column.description:
        hints["description"] = column.description
    if key:
        hints["primary_key"] = True
    live = {"native-type": column.native, "first-came": column.first_came, "null-share": column.null_share}
    hints.update(cast(TColumnSchema, _custom_hints(live)))
    return hints


def _custom_hints(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values that are not None as custom hints for dlt, times as text."""
    return {
        f"x-{name}": value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None
    }
