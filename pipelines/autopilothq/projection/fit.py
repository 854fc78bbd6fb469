"""Fits rows of `users` and `accounts` to their table, whose columns may have other types than those of the messages.

That is so if rows of the table were adopted: a trait may have been a number there, and a text in later messages.
"""

from collections.abc import Mapping

from ..catalog import Type
from . import engine, texts
from .context import ProjectionContext, TableRows

_MOMENT = "'\"' || strftime({} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ') || '\"'"
_SQL = engine.queries("fit.sql")


def with_types(context: ProjectionContext, rows: TableRows, types: Mapping[str, Type]) -> TableRows:
    """Returns the rows with the types that some columns must have; discards the values that do not fit."""
    other = {column: types[column] for column, type_ in rows.columns.items() if types.get(column, type_) != type_}
    if not other:
        return rows
    cells: dict[str, str] = {}
    for column, type_ in other.items():
        cell = engine.name(column)
        value = (_MOMENT if rows.columns[column] == "timestamp" else "to_json({})::VARCHAR").format(cell)
        cells[column] = f"as_{type_}({value})"
        misfits = _SQL["discard_unfit"].format(
            made=rows.relation.sql_query(), value=value, cell=cell, fitting=cells[column]
        )
        texts.insert(context, "discards_of_latest", misfits, {"table_name": rows.table, "column_name": column})
    replaced = ", ".join(f"{cell} AS {engine.name(column)}" for column, cell in cells.items())
    relation = context.con.sql(f"SELECT * REPLACE ({replaced}) FROM ({rows.relation.sql_query()})")
    return rows._replace(columns={**rows.columns, **other}, relation=relation)
