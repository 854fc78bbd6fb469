"""Fits messages to `users` and `accounts`, whose columns may have other types than the messages have.

The types can differ if rows of the table were adopted: a trait may be a number there, and text in later messages.
"""

from collections.abc import Mapping

from ..catalog import Latest, Type
from . import engine, texts
from .context import ProjectionContext

_MOMENT = "'\"' || strftime({} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ') || '\"'"
_SQL = engine.queries("fit.sql")


def fit_messages(
    context: ProjectionContext, latest: Latest, messages: str, traits: Mapping[str, Type], requested: Mapping[str, Type]
) -> Mapping[str, Type]:
    """Converts the traits in a table of messages to the requested types; returns the new types of these traits.

    A value that does not fit becomes null, so that the last value that fits is used. If it is a person's last value, it
    is also discarded.
    """
    other = {column: requested[column] for column, type_ in traits.items() if requested.get(column, type_) != type_}
    if not other:
        return other
    cells: dict[str, str] = {}
    for column, type_ in other.items():
        cell = engine.name(column)
        value = (_MOMENT if traits[column] == "timestamp" else "to_json({})::VARCHAR").format(cell)
        cells[column] = f"as_{type_}({value})"
        misfits = _SQL["discard_unfit"].format(
            messages=messages, key=latest.key, cell=cell, value=value, fitting=cells[column]
        )
        texts.insert(context, "discards_of_latest", misfits, {"table_name": latest.table.name, "column_name": column})
    replaced = ", ".join(f"{cell} AS {engine.name(column)}" for column, cell in cells.items())
    texts.create_table(context, messages, f"SELECT * REPLACE ({replaced}) FROM {messages}")
    return other
