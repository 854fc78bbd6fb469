"""`users` and `accounts`: one row per person or group, with the last value of each trait.

(docs/contract/warehouse.md#identity)
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import duckdb

from ..catalog import Latest, Type
from ..errors import RunError
from . import engine, texts
from .cells import MOST_BYTES
from .columns import VALUE_BYTES_SQL, row_bytes
from .context import NUMBER_OF_KIND, ProjectionContext, ReadTable, TableRows, declared_types, ordered_columns
from .fit import fit_messages
from .mend import mend_texts, mended_columns
from .tables import PIVOTED, TableBuilder, pivoted_cell
from .types import SQL_TYPES, TYPES

PARTS_GATHERED = 16  # parts whose messages are copied in one pass over all messages
MANY_TRAITS = 200  # more traits than this are aggregated as one row per value
_RECENCY = "(coalesce(received_at, TIMESTAMPTZ '0001-01-01'), id)"
_VALUES = "(id VARCHAR, received_at TIMESTAMPTZ, message VARCHAR, name VARCHAR, type VARCHAR, value VARCHAR)"
_SQL = engine.queries("users.sql")


def latest_rows(
    context: ProjectionContext, latest: Latest, builder: TableBuilder, stored: ReadTable | None = None
) -> TableRows | None:
    """Returns the rows of `users` (`accounts`) that messages of this load are about, or None if there are none.

    Each has the last value of each trait by `received_at`. A row is made from all identifies (groups) about the person
    (the group), including stored ones, so neither the order in which messages are loaded nor a killed load matters. If
    the table does not exist yet, the persons of all stored messages get rows, too.
    """
    if not find_changed(context, latest):
        return None
    number = NUMBER_OF_KIND[latest.kind]
    return make_latest(context, latest, builder.rows(number), stored, mended_columns(context, number))


def find_changed(context: ProjectionContext, latest: Latest) -> int:
    """Creates the table `latest_ids` of the users (groups) whose rows this load makes; returns how many there are."""
    if not any(kind == latest.kind for kind, _ in context.cells.columns):
        return 0
    context.con.execute(_SQL["changed"].format(key=latest.key), {"kind": latest.kind, "table_name": latest.table.name})
    return engine.count(context.con, "latest_ids")


def make_latest(
    context: ProjectionContext,
    latest: Latest,
    fresh: TableRows,
    stored: ReadTable | None = None,
    mended: Collection[str] = (),
    types: Mapping[str, Type] = MappingProxyType({}),
) -> TableRows:
    """Returns the rows of the persons in `latest_ids`, from this load's messages (`fresh`) and the stored ones.

    `mended` are the columns of stored messages in which this load makes texts whole; `types` has columns that the table
    will have in addition to its existing ones. If memory runs out, the rows are made once more, in small parts.
    """
    requested = {**types, **context.existing.get(latest.table.name, {})}
    try:
        return _make_latest(context, latest, fresh, stored, mended, requested)
    except duckdb.Error as error:
        if context.cells.has_long_lines or not engine.lacks_memory(error):
            raise
    context.cells.has_long_stored_rows = True
    texts.prepare_for_long_lines(context)
    return _make_latest(context, latest, fresh, stored, mended, requested)


def _make_latest(
    context: ProjectionContext,
    latest: Latest,
    fresh: TableRows,
    stored: ReadTable | None,
    mended: Collection[str],
    requested: Mapping[str, Type],
) -> TableRows:
    in_parts = context.cells.has_long_lines
    gathered = "latest_gathered" if in_parts else "latest_messages"
    types = _gather_messages(context, latest, fresh, stored, gathered)
    mend_texts(context, gathered, NUMBER_OF_KIND[latest.kind], mended)
    types = {**types, **fit_messages(context, latest, gathered, _traits(latest, types), requested)}
    table = f"{latest.table.name}_rows"  # stays in the engine: the rows are written later
    (_make_rows_in_parts if in_parts else _make_rows)(context, latest, table, types)
    columns = latest_columns(latest, types)
    return TableRows(latest.table.name, columns, context.con.sql(f"FROM {table}"), engine.count(context.con, table))


def _make_rows_in_parts(context: ProjectionContext, latest: Latest, table: str, types: Mapping[str, Type]) -> None:
    """Creates a table of the rows from `latest_gathered`, for one part of the persons at a time."""
    for part in _parts(context, latest, types):
        if part % PARTS_GATHERED == 0:
            some = _SQL["some"].format(key=latest.key, lowest=part, highest=part + PARTS_GATHERED - 1)
            texts.create_table(context, "latest_some", some)
        context.con.execute(_SQL["part"].format(key=latest.key, part=part))
        _make_rows(context, latest, "latest_rows", types)
        (texts.insert if part else texts.create_table)(context, table, "FROM latest_rows")


def _parts(context: ProjectionContext, latest: Latest, types: Mapping[str, Type]) -> range:
    """Splits the persons whose rows are made into parts of about MOST_BYTES; returns the numbers of the parts."""
    context.con.execute("CREATE OR REPLACE TABLE last_messages (id VARCHAR)")
    traits = _traits(latest, types)
    for columns in engine.batched(traits, MANY_TRAITS) if traits else [()]:
        last = [f"arg_max(id, {_RECENCY})"]
        last += [f"arg_max(id, {_RECENCY}) FILTER ({engine.name(column)} IS NOT NULL)" for column in columns]
        context.con.execute(_SQL["last_messages"].format(key=latest.key, last_ids=", ".join(last)))
    size = " + ".join(f"coalesce(strlen({engine.name(column)}), 0)" for column in types if types[column] == "text")
    context.con.execute(_SQL["parts"].format(key=latest.key, bytes=size, room=MOST_BYTES))
    [(last_part,)] = context.con.execute("SELECT coalesce(max(part), 0)::BIGINT FROM latest_parts").fetchall()
    return range(last_part + 1)


def latest_columns(latest: Latest, types: Mapping[str, Type]) -> dict[str, Type]:
    """Returns the columns of `users` (`accounts`), given the columns of the messages that its rows are made from."""
    return ordered_columns(declared_types(latest.table) | _traits(latest, types))


def _traits(latest: Latest, types: Mapping[str, Type]) -> dict[str, Type]:
    """Returns the columns of messages that are traits."""
    return {column: type_ for column, type_ in types.items() if latest.has_trait(column)}


def _gather_messages(
    context: ProjectionContext, latest: Latest, fresh: TableRows, stored: ReadTable | None, table: str
) -> Mapping[str, Type]:
    """Creates a table of this load's messages and the stored ones about the same persons; returns its columns."""
    existing = context.existing.get(latest.messages.name, {}) if stored is not None else {}
    _check_read(latest, existing)
    types = {**fresh.columns, **existing}
    nulls = "".join(
        f", NULL::{SQL_TYPES[types[name]]} AS {engine.name(name)}" for name in types.keys() - fresh.columns.keys()
    )
    texts.create_table(context, table, f"SELECT *{nulls} FROM ({fresh.relation.sql_query()})")
    if stored is None or not existing:
        return types
    # If `users` (`accounts`) exists, only stored messages about this load's persons matter.
    has_table = latest.table.name in context.existing
    query = "FROM stored s" + (f" SEMI JOIN latest_ids i ON i.id = s.{latest.key}" if has_table else "")
    with engine.streamed(context.con, stored(latest.messages.name, list(existing))) as has_any:
        if has_any:
            texts.insert(context, table, query)
    if not has_table:
        context.con.execute(_SQL["all"].format(key=latest.key, gathered=table))
    return types


def _check_read(latest: Latest, existing: Mapping[str, Type]) -> None:
    """Raises RunError if stored messages cannot be ordered or grouped, because somebody changed a column's type."""
    for column in (latest.key, "received_at"):
        if existing and column not in existing:
            raise RunError(
                f"Expected the column {column} of {latest.messages.name} to be"
                f" {declared_types(latest.messages)[column]}, because {latest.table.name} is made with it, but somebody"
                " changed its type.\nChange it back (ALTER TABLE ... ALTER COLUMN ... TYPE ... USING ...) and check its"
                " values: text made of JSON keeps its quotes. Or drop the column: the next run creates it again, empty."
            )


def _make_rows(context: ProjectionContext, latest: Latest, table: str, types: Mapping[str, Type]) -> None:
    """Creates a table of the rows of persons in `latest_ids` from `latest_messages`, whose columns are `types`."""
    make = _make_rows_of_values if len(_traits(latest, types)) > MANY_TRAITS else _make_rows_of_messages
    make(context, latest, table, types)


def _make_rows_of_messages(context: ProjectionContext, latest: Latest, table: str, types: Mapping[str, Type]) -> None:
    """Makes the rows with one aggregate per column."""
    context.reserve()
    cells = {"id": latest.key, "received_at": "max(received_at)", "uuid_ts": context.loaded_at_sql}
    cells |= {column: f"arg_max({engine.name(column)}, {_RECENCY})" for column in _traits(latest, types)}
    select = ", ".join(
        f"({cells[column]})::{SQL_TYPES[type_]} AS {engine.name(column)}"
        for column, type_ in latest_columns(latest, types).items()
    )
    context.con.execute(_SQL["rows"].format(table=table, select=select, key=latest.key))


def _make_rows_of_values(context: ProjectionContext, latest: Latest, table: str, types: Mapping[str, Type]) -> None:
    """Makes the rows from one row per value, because hundreds of aggregates at once would need much memory."""
    traits, columns = _traits(latest, types), latest_columns(latest, types)
    context.reserve(len(columns))
    context.con.execute(f"CREATE OR REPLACE TABLE latest_values {_VALUES}")
    for part in engine.batched(traits.items(), MANY_TRAITS):
        structs = ", ".join(
            f"{{'name': {engine.literal(PIVOTED + column)}, 'type': '{type_}',"
            f" 'value': {TYPES[type_].to_text.format(engine.name(column))}}}"
            for column, type_ in part
        )
        context.con.execute(_SQL["values"].format(key=latest.key, structs=structs))
    context.con.execute(_SQL["last_values"])
    _discard_too_wide(context, latest, columns, traits)
    cells = {"id": "id", "received_at": "m.received_at", "uuid_ts": context.loaded_at_sql}
    cells |= {column: pivoted_cell(column, type_) for column, type_ in traits.items()}
    select = ", ".join(f"{cells[column]} AS {engine.name(column)}" for column in columns)
    names = ", ".join(engine.literal(PIVOTED + column) for column in traits)
    context.con.execute(_SQL["rows_of_values"].format(table=table, select=select, key=latest.key, names=names))


def _discard_too_wide(
    context: ProjectionContext, latest: Latest, columns: Collection[str], traits: Collection[str]
) -> None:
    """Discards the values that a row of the destination has no room for."""
    if context.limits.row_bytes is None:
        return
    declared = declared_types(latest.table)
    existing = context.existing.get(latest.table.name, {})
    sql = _SQL["too_wide"].format(
        bytes=VALUE_BYTES_SQL,
        existing=", ".join(engine.literal(PIVOTED + column) for column in traits if column in existing) or "''",
        declared=", ".join(engine.literal(PIVOTED + column) for column in declared),
        room=context.limits.row_bytes - row_bytes(declared.values(), len(columns)),
    )
    context.con.execute(sql)
    names = {"table_name": latest.table.name, "start": len(PIVOTED) + 1}
    texts.insert(context, "discards_of_latest", _SQL["discard_too_wide"], names)
    context.con.execute(_SQL["delete_too_wide"])
