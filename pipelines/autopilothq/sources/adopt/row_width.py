"""Discards values of adopted rows that are too wide for the destination (docs/contract/warehouse.md#limits).

As in other loads, columns that the table has already get room first, then the others by name. A row loses the values of
all columns from the first one that does not fit.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ...catalog import Type
from ...projection import engine, ordered_columns
from ...projection.columns import row_bytes
from ...projection.context import ProjectionContext
from ...projection.types import TYPES
from .columns import CELLS_PER_QUERY, aliased, json_value
from .kept import SQL


class AdoptedColumns(NamedTuple):
    """The columns of one table: types by their names in the files, and the destination's names of undeclared ones."""

    types: Mapping[str, Type]
    names: Mapping[str, str]

    @property
    def ordered(self) -> dict[str, Type]:
        """The types of the columns by their names in the destination, in the order of a new table."""
        return ordered_columns({self.names.get(column, column): type_ for column, type_ in self.types.items()})

    def only(self, columns: Collection[str]) -> "AdoptedColumns":
        """Returns some of the columns, given by their names in the files."""
        return self._replace(types={column: type_ for column, type_ in self.types.items() if column in columns})

    def with_types(self, types: Mapping[str, Type]) -> "AdoptedColumns":
        """Returns the columns with other types, given by the destination's names."""
        named = {column: types.get(self.names.get(column, column), type_) for column, type_ in self.types.items()}
        return self._replace(types=named)


def without_too_wide(context: ProjectionContext, table: str, columns: AdoptedColumns, rows: str) -> str:
    """Returns a query of rows (`seq` and typed cells) without values that do not fit, and discards these."""
    limit = context.limits.row_bytes
    declared = [type_ for column, type_ in columns.types.items() if column not in columns.names]
    most = sum(TYPES[columns.types[column]].row_bytes for column in columns.names)
    room = 0 if limit is None else limit - row_bytes(declared, len(columns.types))
    if limit is None or most <= room:
        return rows
    known = context.existing.get(table, {})
    extras = sorted(columns.names, key=lambda column: (columns.names[column] not in known, column))
    name = engine.name(f"too wide of {table}")
    sizes = ", ".join(_size(columns.types[column], aliased(columns.names[column])) for column in extras)
    context.con.execute(SQL["too_wide"].format(name=name, sizes=sizes, rows=rows, room=room))
    if not engine.count(context.con, name):
        return rows
    positions = {column: position for position, column in enumerate(extras, 1)}
    for part in engine.batched(positions.items(), CELLS_PER_QUERY):
        values = ", ".join(
            f"{{'column': {engine.literal(column)}, 'position': {position},"
            f" 'value': {json_value(columns.types[column], aliased(columns.names[column]))}}}"
            for column, position in part
        )
        sql = SQL["discard_too_wide"].format(name=name, values=values, rows=rows)
        context.con.execute(sql, {"table_name": table})
    cells = [
        f'CASE WHEN "first:" IS NULL OR "first:" > {position} THEN {cell} END AS {cell}'
        for column, position in positions.items()
        for cell in [aliased(columns.names[column])]
    ]
    return f"SELECT * REPLACE ({', '.join(cells)}) FROM ({rows}) LEFT JOIN (FROM {name}) w USING (seq)"


def _size(type_: Type, cell: str) -> str:
    """Returns SQL for the bytes that a value takes in a row."""
    most = str(TYPES[type_].row_bytes)
    size = f"least(strlen({cell}) + 1, {most})" if type_ == "text" else most
    return f"if({cell} IS NULL, 0, {size})"
