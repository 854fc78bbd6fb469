"""Makes `users` and `accounts` from adopted tables: from all messages about them, and from their own, older rows."""

from collections.abc import Iterator, Mapping

from ...catalog import LATEST, TABLES, Latest, Type
from ...projection import TableRows, engine, ordered_columns, texts
from ...projection.cells import MOST_BYTES
from ...projection.context import ProjectionContext, declared_types
from ...projection.types import SQL_TYPES
from ...projection.users import PARTS_GATHERED, latest_columns, make_latest
from .columns import aliased
from .kept import SQL, Adoption, keys
from .row_width import AdoptedColumns, without_too_wide
from .rows import discard_misfits, table_columns

KILL_POINT_OWN_ROWS_MADE = f"{__name__}:_with_own_rows"  # for tests/faults


def latest_rows_of(adoption: Adoption, fresh: Mapping[str, TableRows]) -> Iterator[TableRows]:
    """Yields the rows of `users` and `accounts`; `fresh` are the rows of this load by table."""
    for latest in LATEST:
        of_messages = fresh.get(latest.messages.name)
        columns = _own_columns(adoption, latest, of_messages)
        made = _rows_of_messages(adoption, latest, of_messages, {} if columns is None else columns.ordered)
        if columns is not None:
            made = _with_own_rows(adoption, latest, made, columns)
        if made is not None:
            yield _not_refused(adoption, made)


def is_of_messages(adoption: Adoption, name: str) -> bool:
    """Returns whether adopted messages may have made rows of `users` or `accounts`."""
    return any(latest.table.name == name and latest.messages.name in adoption.buffered for latest in LATEST)


def _own_columns(adoption: Adoption, latest: Latest, fresh: TableRows | None) -> AdoptedColumns | None:
    """Returns the columns of a table's own adopted rows, with types that messages fit, too; None if it has no rows."""
    context, name = adoption.context, latest.table.name
    if name not in adoption.buffered:
        return None
    columns = table_columns(adoption, name, declared_types(latest.table), [adoption.buffered[name]])
    of_messages = {} if fresh is None else {**fresh.columns, **context.existing.get(latest.messages.name, {})}
    made = latest_columns(latest, of_messages)
    return columns.with_types(_common_types(columns, made, context.existing.get(name, {})))


def _rows_of_messages(
    adoption: Adoption, latest: Latest, fresh: TableRows | None, types: Mapping[str, Type]
) -> TableRows | None:
    """Returns the rows of all users or groups in adopted messages, even if these messages are stored already."""
    buffered = adoption.buffered.get(latest.messages.name)
    if fresh is None or buffered is None:
        return None
    con = adoption.context.con
    rows = buffered.select({latest.key: "text"}, {latest.key: "id"})
    con.execute(
        f"CREATE OR REPLACE TABLE latest_ids AS SELECT DISTINCT id FROM ({rows}) ANTI JOIN rejects USING (seq)"
        " WHERE blank_as_null(id) IS NOT NULL"
    )
    if not engine.count(con, "latest_ids"):
        return None
    return make_latest(adoption.context, latest, fresh, adoption.stored, types=types)


def _with_own_rows(adoption: Adoption, latest: Latest, made: TableRows | None, columns: AdoptedColumns) -> TableRows:
    """Returns the rows completed with values of the table's own adopted rows, where messages have none.

    In a stored row, only null cells change.
    """
    context, name = adoption.context, latest.table.name
    con, buffered = context.con, adoption.buffered[name]
    con.execute(SQL["within"].format(keys=keys(name), duplicates="duplicates"))
    discard_misfits(adoption, buffered, name, columns.types, "duplicates")
    every: dict[str, Type] = {**columns.ordered, **(made.columns if made else {}), **context.existing.get(name, {})}
    cells = ", ".join(f"NULL::{SQL_TYPES[type_]} AS {engine.name(column)}" for column, type_ in every.items())
    texts.create_table(context, "layers", f'SELECT NULL::INTEGER AS "layer:", {cells} WHERE false')
    named = [columns.names.get(column, column) for column in columns.types]
    own = ", ".join(f"{aliased(column)} AS {engine.name(column)}" for column in named)
    rows = buffered.select(columns.types, columns.names)
    kept = f'SELECT {own}, 1 AS "layer:" FROM ({rows}) ANTI JOIN duplicates USING (seq) ANTI JOIN rejects USING (seq)'
    texts.insert(context, "layers", kept)
    if made is not None:
        texts.insert(context, "layers", f'SELECT *, 0 AS "layer:" FROM ({made.relation.sql_query()})')
    if adoption.stored is not None and name in context.existing:
        con.execute(SQL["layer_ids"])
        with engine.streamed(con, adoption.stored(name, list(context.existing[name]))) as has_any:
            if has_any:
                texts.insert(context, "layers", SQL["stored_layer"])
    return _first_of_layers(adoption, name, ordered_columns(every))


def _common_types(columns: AdoptedColumns, made: Mapping[str, Type], existing: Mapping[str, Type]) -> dict[str, Type]:
    """Returns types for the new columns that have one type in the table's own rows and another in rows of messages."""
    return {
        column: "double" if {type_, made[column]} == {"bigint", "double"} else "text"
        for column, type_ in columns.ordered.items()
        if column not in existing and made.get(column, type_) != type_
    }


def _first_of_layers(adoption: Adoption, name: str, columns: Mapping[str, Type]) -> TableRows:
    """Returns a row for each id with the first value of each column, except rows that are already stored like this.

    Adopted rows that change nothing in a stored row become duplicates.
    """
    context, table = adoption.context, f"{name}_with_own_rows"
    cells = {"id": "id", "uuid_ts": context.loaded_at_sql}
    values = [column for column in columns if column not in cells]
    cells |= {column: f'arg_min({engine.name(column)}, "layer:")' for column in values}
    select = ", ".join(
        f"({cells[column]})::{SQL_TYPES[type_]} AS {engine.name(column)}" for column, type_ in columns.items()
    )
    compared = ", ".join(map(engine.name, ("id", *values)))
    for part, layers in enumerate(_parts_of_layers(context, columns)):
        sql = SQL["first_of_layers"].format(layers=layers, select=select, compared=compared)
        context.con.execute(f"CREATE OR REPLACE TABLE first_of_layers AS {sql}")
        context.con.execute(SQL["unchanged"].format(keys=keys(name), layers=layers, compared=compared))
        rows = f'SELECT *, ({part}::BIGINT << 32) + row_number() OVER () AS "row:" FROM first_of_layers'
        (texts.insert if part else texts.create_table)(context, table, rows)
    kept = context.con.sql(_fitting(adoption, name, columns, table))
    return TableRows(name, columns, kept, engine.count(context.con, table))


def _parts_of_layers(context: ProjectionContext, columns: Mapping[str, Type]) -> Iterator[str]:
    """Yields the names of tables with all layers of some ids: of all ids, or of a few if there are long texts."""
    if not context.cells.has_long_lines:
        yield "layers"
        return
    con, size = context.con, " + ".join(f"coalesce(strlen({engine.name(c)}::VARCHAR), 0)" for c in columns)
    con.execute(SQL["layer_parts"].format(bytes=size, room=MOST_BYTES))
    [(last,)] = con.execute("SELECT coalesce(max(part), 0)::BIGINT FROM layer_parts").fetchall()
    for part in range(last + 1):
        if part % PARTS_GATHERED == 0:
            some = SQL["some_layers"].format(lowest=part, highest=part + PARTS_GATHERED - 1)
            texts.create_table(context, "some_layers", some)
        con.execute(SQL["layers_of_part"].format(part=part))
        yield "layers_of_part"


def _fitting(adoption: Adoption, name: str, columns: Mapping[str, Type], table: str) -> str:
    """Returns a query of a table's rows without values that are too long for the destination, and discards these."""
    declared = {column.name for column in TABLES[name].columns}
    undeclared = {column: column for column in columns if column not in declared}
    cells = {column: f"{engine.name(column)} AS {aliased(column)}" for column in columns}
    rows = f'SELECT "row:" AS seq, {", ".join(cells.values())} FROM {table}'
    fitting = without_too_wide(adoption.context, name, AdoptedColumns(columns, undeclared), rows)
    return f"SELECT {', '.join(f'{aliased(column)} AS {engine.name(column)}' for column in columns)} FROM ({fitting})"


def _not_refused(adoption: Adoption, rows: TableRows) -> TableRows:
    """Returns the rows without those that the destination refuses."""
    refused = adoption.refused.get(rows.table, {})
    if not refused:
        return rows
    relation = rows.relation.filter(f"NOT {engine.is_one_of('id', refused)}")
    return rows._replace(relation=relation, row_count=len(relation))
