"""Extras, the columns beyond the catalogue's: which ones a table gets, their types, and what it has no room for.

(docs/contract/warehouse.md#limits) Their values are buffered as columns of the messages' files, or as rows if the line
was irregular. Each step takes data and returns data: each worker examines the values of its messages (`column_values`,
`row_values`), `types.merge_values` combines the results, `plan_columns` decides, and each worker makes the discards of
its messages.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from ..catalog import COLUMN_RESERVE, CONTEXT, LINK, PROPERTIES, Limits, Type
from ..segment.message import EXTRA
from . import engine, texts
from .context import ProjectionContext
from .types import TYPES, ColumnValues, merge_values, type_case, type_of_bits

COLUMNS_AT_ONCE = 100  # columns that one query examines
_SQL = engine.queries("columns.sql")

# The SQL of the bytes that a value takes in a row of the destination. Its type is in the column `type`, its text in
# `value`.
VALUE_BYTES_SQL = (
    f"CASE type WHEN 'text' THEN least(strlen(value) + 1, {TYPES['text'].row_bytes})"
    f" WHEN 'double' THEN {TYPES['double'].row_bytes} ELSE {TYPES['bigint'].row_bytes} END"
)


def row_bytes(declared: Collection[Type], columns: int) -> int:
    """Returns the most bytes of a row without extras: its header, a null bit per column, and the declared values."""
    return 24 + (columns + COLUMN_RESERVE) // 8 + sum(TYPES[type_].row_bytes for type_ in declared)


def escape_reserved(column: str, limits: Limits) -> str:
    """Returns a column's name, with `_` in front if the destination reserves that name.

    (docs/contract/warehouse.md#names) Example: `escape_reserved("xmin", LIMITS["postgres"]) == "_xmin"`.
    """
    taken = column in limits.reserved or column.startswith(limits.reserved_prefixes)
    return f"_{column}" if taken else column


class Extra(NamedTuple):
    """A column beyond the catalogue's that a table gets: its type, its name there, and how its values are buffered.

    `exists` tells whether the destination's table has it already.
    """

    type: Type
    name: str
    in_columns: bool
    in_rows: bool
    exists: bool


class ExaminedValues(NamedTuple):
    """The values that a table may discard: SQL sources of its messages, and of their extras buffered as rows.

    `messages` ends with a WHERE condition, so statements can append `AND …`.
    """

    messages: str
    extras: str

    @classmethod
    def of(cls, where: str) -> "ExaminedValues":
        """Returns the values of all messages that match an SQL condition."""
        messages = f"messages WHERE {where}"
        return cls(messages, f"(FROM extras SEMI JOIN (SELECT seq FROM {messages}) USING (seq))")


class ColumnPlan(NamedTuple):
    """The extras that a table gets, and those that it does not get, by reason.

    All are named as in the messages. `in_columns` and `in_rows` are the extras whose values are buffered as columns and
    as rows.
    """

    taken: Mapping[str, Extra]
    left_out: Mapping[str, Sequence[str]]
    in_columns: frozenset[str]
    in_rows: frozenset[str]


def plan_columns(
    context: ProjectionContext,
    table: str,
    in_columns: Mapping[str, ColumnValues],
    in_rows: Mapping[str, ColumnValues],
    room: int,
) -> ColumnPlan:
    """Decides which extras a table gets; existing columns keep their types, new ones get theirs from all values.

    `in_columns` and `in_rows` summarise the values that are buffered as columns and as rows. The table keeps the
    columns that it has in the destination and gets up to `room` more, those with the most values first. Runs no SQL.
    """
    existing = context.existing.get(table, {})
    values = merge_values(in_columns, in_rows)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for column in sorted(values, key=lambda column: (-values[column].value_count, column)):
        # The digest in a shortened name is so short that two names with the same one can be constructed.
        if (name := context.shorten(escape_reserved(column, context.limits))) not in taken:
            names[column] = name
            taken.add(name)
    new = [column for column, name in names.items() if name not in existing]
    beyond = dict.fromkeys(new[max(0, room) :])
    extras = {
        column: Extra(
            existing.get(names[column]) or type_of_bits(found.bits),
            names[column],
            column in in_columns,
            column in in_rows,
            names[column] in existing,
        )
        for column, found in values.items()
        if column in names and column not in beyond
    }
    same = [column for column in values if column not in names]
    left_out = {"same_column": same, "too_many_columns": list(beyond)}
    return ColumnPlan(extras, left_out, frozenset(in_columns), frozenset(in_rows))


def room_of(context: ProjectionContext, table: str, declared: Collection[str] = ()) -> int:
    """Returns how many more columns a table can get after the `declared` ones; may be negative."""
    existing = context.existing.get(table, {})
    new = len([column for column in declared if column not in existing])
    return context.limits.columns - COLUMN_RESERVE - max(context.widths.get(table, 0), len(existing)) - new


def plan_existing_columns(
    context: ProjectionContext, table: str, in_columns: Iterable[str], in_rows: Iterable[str]
) -> ColumnPlan:
    """Returns the plan of a table that keeps the columns that it has in the destination, and gets no others."""
    nothing = ColumnValues(0, 0)
    return plan_columns(context, table, dict.fromkeys(in_columns, nothing), dict.fromkeys(in_rows, nothing), room=0)


def column_values(
    context: ProjectionContext, columns: Collection[str], source: str, table_number: str = "0"
) -> dict[int, dict[str, ColumnValues]]:
    """Returns summaries of the values of extras that are columns of `source`, by table number and extra.

    `table_number` is the SQL expression to group by. Extras without values are left out.
    """
    found: dict[int, dict[str, ColumnValues]] = {}
    for part in engine.batched(columns, COLUMNS_AT_ONCE):
        # Planning the macro for each column takes far longer than examining the few values of most tables.
        listed = ", ".join(engine.name(EXTRA + column) for column in part)
        words = {"listed": listed, "count": len(part), "examined": source, "table_number": table_number}
        for table, number, bits, count in context.con.execute(_SQL["column_values"].format_map(words)).fetchall():
            found.setdefault(table, {})[part[number]] = ColumnValues(bits, count)
    return found


def row_values(context: ProjectionContext, messages: str) -> dict[int, dict[str, ColumnValues]]:
    """Returns summaries of the values of some messages that are buffered as rows, by table number and column.

    For `tracks`, these are only the values of the context. `messages` is a table or a view.
    """
    found: dict[int, dict[str, ColumnValues]] = {}
    if context.cells.extras:
        context.con.execute(f"CREATE OR REPLACE TEMP TABLE numbered AS SELECT seq, table_number, kind FROM {messages}")
        for table, column, bits, count in context.con.execute(_SQL["row_values"]).fetchall():
            found.setdefault(table, {})[column] = ColumnValues(bits, count)
    return found


def gather_extras(context: ProjectionContext, numbers: Sequence[int]) -> dict[int, str]:
    """Copies the values of some tables that are buffered as rows, so that no table has to read those of all others.

    Returns the SQL source of each table's values, by table number.
    """
    context.con.execute(_SQL["gather_extras"].format(where=context.tables.where_any(numbers)))
    return {number: f"(FROM gathered_extras WHERE table_number = {number})" for number in numbers}


def discard_columns(context: ProjectionContext, table_number: int, examined: ExaminedValues, plan: ColumnPlan) -> None:
    """Discards some of a table's values: those without a column, and those that do not fit theirs."""
    table = context.tables.names[table_number]
    for reason, left_out in plan.left_out.items():
        _discard_columns(
            context, table, examined.messages, [column for column in left_out if column in plan.in_columns], reason
        )
        _discard_rows(
            context, table, examined.extras, [column for column in left_out if column in plan.in_rows], reason
        )
    own = () if context.declared_fit else (*CONTEXT, *PROPERTIES, *LINK) if table_number else CONTEXT
    cells = {column.name: (engine.name(column.name), column.type) for column in own}
    extras = {column: extra for column, extra in plan.taken.items() if extra.in_columns}
    cells |= {column: (engine.name(EXTRA + column), extra.type) for column, extra in extras.items()}
    cells = {column: cell for column, cell in cells.items() if cell[1] != "text"}
    _discard_misfits(context, table, examined.messages, cells)
    _discard_row_misfits(context, table, examined.extras, plan.taken)


def _discard_columns(
    context: ProjectionContext, table: str, messages: str, columns: Collection[str], reason: str
) -> None:
    for column in columns:
        sql = _SQL["discard_column"].format(cell=engine.name(EXTRA + column), examined=messages)
        texts.insert(context, "discards", sql, {"table_name": table, "column_name": column, "reason": reason})


def _discard_rows(context: ProjectionContext, table: str, extras: str, columns: Sequence[str], reason: str) -> None:
    if columns:
        with engine.registered(context.con, left_out=pa.table({"column": columns})):
            sql = _SQL["discard_rows"].format(extras=extras)
            texts.insert(context, "discards", sql, {"table_name": table, "reason": reason})


def _discard_misfits(
    context: ProjectionContext, table: str, messages: str, cells: Mapping[str, tuple[str, Type]]
) -> None:
    """Discards values that cannot become their column's type; `cells` has their SQL and the type, by column."""
    for part in engine.batched(cells.items(), COLUMNS_AT_ONCE):
        # Counting with a filter for misfits would take up to three times as long.
        counts = ", ".join(f"count({cell}) - count(as_{type_}({cell}))" for _, (cell, type_) in part)
        found = context.con.execute(f"SELECT {counts} FROM {messages}").fetchone() or ()
        for (column, (cell, type_)), count in zip(part, found, strict=True):
            if count:
                misfit = f"{cell} IS NOT NULL AND as_{type_}({cell}) IS NULL"
                sql = _SQL["discard_misfits"].format(cell=cell, examined=messages, misfit=misfit)
                texts.insert(context, "discards", sql, {"table_name": table, "column_name": column})


def _discard_row_misfits(context: ProjectionContext, table: str, extras: str, taken: Mapping[str, Extra]) -> None:
    types = {column: extra.type for column, extra in taken.items() if extra.in_rows and extra.type != "text"}
    if types:
        misfit = type_case("as_{}(value) IS NULL", types.values())
        sql = _SQL["discard_row_misfits"].format(extras=extras, misfit=misfit)
        with engine.registered(context.con, types=pa.table({"column": list(types), "type": list(types.values())})):
            texts.insert(context, "discards", sql, {"table_name": table})


def find_too_wide(
    context: ProjectionContext,
    table_number: int,
    rows: str,
    declared: Mapping[str, Type],
    extras: Mapping[str, Extra],
) -> str | None:
    """Discards the values, among those buffered as rows, that a row of the destination has no room for.

    `rows` is the SQL source of these values. Returns the name of a table in the engine that lists the discarded values
    (`seq`, `column`), or None if there are none.
    """
    if context.limits.row_bytes is None:
        return None
    room = context.limits.row_bytes - row_bytes(declared.values(), len(declared) + len(extras))
    most = room // TYPES["text"].row_bytes
    if not context.con.execute(_SQL["has_wide_row"].format(extras=rows, values=most)).fetchone():
        return None
    name = f"too_wide_{table_number}"
    in_rows = {column: extra for column, extra in extras.items() if extra.in_rows}
    widths = {
        "column": list(in_rows), "type": [extra.type for extra in in_rows.values()],
        "new": [not extra.exists for extra in in_rows.values()],
    }  # fmt: skip
    with engine.registered(context.con, widths=pa.table(widths)):
        sql = _SQL["too_wide"].format(name=name, bytes=VALUE_BYTES_SQL, extras=rows, room=room)
        context.con.execute(sql)
    sql = _SQL["discard_too_wide"].format(name=name)
    texts.insert(context, "discards", sql, {"table_name": context.tables.names[table_number]})
    return name


def discard_without_table(context: ProjectionContext) -> None:
    """Discards the properties of messages whose events have no table of their own."""
    if 0 not in context.tables.events.values():
        return
    where = context.tables.where(0)
    cells = {
        column: engine.name(EXTRA + column)
        for (_, event), columns in context.cells.columns.items()
        if event is not None and context.tables.events[event] == 0
        for column in (name.removeprefix(EXTRA) for name in columns)
        if not column.startswith("context_")
    }
    for declared in (*PROPERTIES, *LINK):
        cell = engine.name(declared.name)
        cells[declared.name] = f"to_json({cell})::VARCHAR" if declared.type == "text" else cell
    for column, cell in cells.items():
        sql = _SQL["discard_without_table"].format(cell=cell, where=where)
        texts.insert(context, "discards", sql, {"column_name": column})
    texts.insert(context, "discards", _SQL["discard_rows_without_table"].format(where=where))
