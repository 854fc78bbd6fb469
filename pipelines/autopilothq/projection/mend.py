"""Mends adopted rows: replaces texts that Segment has cut with the whole texts from the messages of these rows.

(docs/contract/adopt.md#cut-text) A message's text is compared with the one stored for the same id and column. The
destination's columns are streamed; only the long texts of this load and the mended rows are buffered.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from ..catalog import CUT, LINK, MESSAGE_TABLES, PROPERTIES, event_table
from ..segment.message import EXTRA
from ..utc import epoch_ms
from . import engine, texts
from .cells import MOST_BYTES, split_by_size
from .columns import plan_existing_columns, row_values
from .context import ProjectionContext, TableRows, ordered_columns

TEXTS_PER_QUERY = 100
MOST_IDS = 20_000  # ids that the destination is asked for; if there are more, the whole table is read instead
_NEEDED = ("id", "received_at", "uuid_ts")
_NEVER = frozenset({"id", "event"})
_SQL = engine.queries("mend.sql")


ReadRows = Callable[[str, Sequence[str], Sequence[str]], Iterable[pa.RecordBatch]]
"""Reads columns of a destination's table: at least the rows with the given ids, or all rows if no id is given."""


class _TextColumns(NamedTuple):
    """A destination table's text columns.

    `cells` maps a column of the table to the SQL of a message's value. `in_rows` maps the name that values buffered as
    rows have to the column of the table.
    """

    cells: Mapping[str, str]
    in_rows: Mapping[str, str]


def find_mends(
    context: ProjectionContext, stored: ReadRows, tables: Collection[str], loads: Iterable[datetime]
) -> None:
    """Finds the cut texts in `tables` of the destination that messages of this load make whole, and notes them.

    The tables must be in `context.existing`. `loads` are the times of the loads whose rows were made from messages:
    their texts are whole already.
    """
    numbers = [
        table_number
        for table_number, name in enumerate(context.tables.names)
        if name in tables and context.existing[name].keys() >= {*_NEEDED}
    ]
    _find_whole_texts(context, numbers)
    milliseconds = pa.table({"ms": pa.array(map(epoch_ms, loads), pa.int64())})
    with engine.registered(context.con, loads_of_messages=milliseconds):
        for table_number in numbers:
            ids = _ids(context, f"SELECT DISTINCT id FROM whole_texts WHERE table_number = {table_number}")
            for columns in engine.batched(_columns(context, "whole_texts", table_number), TEXTS_PER_QUERY):
                cells = ", ".join(_cell(column, engine.name(column)) for column in columns)
                any_cut = " OR ".join(f"length({engine.name(column)}) = {CUT}" for column in columns)
                sql = _SQL["cut_texts"].format(table_number=table_number, cells=cells, any_cut=any_cut, cut=CUT)
                batches = stored(context.tables.names[table_number], [*_NEEDED, *columns], ids)
                with engine.streamed(context.con, batches) as has_any:
                    if has_any:
                        texts.insert(context, "mends", sql)


def _ids(context: ProjectionContext, query: str) -> list[str]:
    """Returns the ids that a query selects, or none (read all rows) if there are more than MOST_IDS."""
    found = context.con.execute(f"{query} LIMIT {MOST_IDS + 1}").fetchall()
    return [id_ for (id_,) in found] if len(found) <= MOST_IDS else []


def _find_whole_texts(context: ProjectionContext, numbers: Iterable[int]) -> None:
    """Fills `whole_texts` with the texts of this load that are longer than what Segment keeps of them."""
    con = context.con
    con.execute(_SQL["first_messages"])
    columns, rows = context.extras_in_columns(), row_values(context, "first_messages")
    for table_number in numbers:
        where = context.tables.where_of_rows(table_number)
        found = _text_columns(context, table_number, columns.get(table_number, ()), rows.get(table_number, ()))
        for part in engine.batched(found.cells.items(), TEXTS_PER_QUERY):
            cells = ", ".join(_cell(column, sql) for column, sql in part)
            sql = _SQL["whole_cells"].format(table_number=table_number, cells=cells, where=where, cut=CUT)
            texts.insert(context, "whole_texts", sql)
        if found.in_rows:
            named = pa.table({"column": list(found.in_rows), "name": list(found.in_rows.values())})
            with engine.registered(con, text_columns=named):
                sql = _SQL["whole_rows"].format(table_number=table_number, where=where, cut=CUT)
                texts.insert(context, "whole_texts", sql)


def _cell(column: str, sql: str) -> str:
    return f"{{'name': {engine.literal(column)}, 'text': {sql}}}"


def _text_columns(
    context: ProjectionContext, table_number: int, in_columns: Iterable[str], in_rows: Iterable[str]
) -> _TextColumns:
    """Returns the text columns of one table, declared or not, for which messages of this load can have values."""
    name = context.tables.names[table_number]
    existing = context.existing[name]
    is_event = table_number >= len(MESSAGE_TABLES)
    table = event_table(name) if is_event else MESSAGE_TABLES[table_number]
    declared = [column.name for column in (*table.columns, *((*PROPERTIES, *LINK) if is_event else ()))]
    own_texts = [column for column in declared if existing.get(column) == "text" and column not in _NEVER]
    cells = {column: engine.name(column) for column in own_texts}
    extras = {
        column: extra
        for column, extra in plan_existing_columns(context, name, in_columns, in_rows).taken.items()
        if extra.exists and extra.type == "text"
    }
    cells |= {
        extra.name: f"as_text({engine.name(EXTRA + column)})" for column, extra in extras.items() if extra.in_columns
    }
    return _TextColumns(cells, {column: extra.name for column, extra in extras.items() if extra.in_rows})


def _columns(context: ProjectionContext, table: str, table_number: int) -> list[str]:
    sql = f"SELECT DISTINCT name FROM {table} WHERE table_number = $table_number ORDER BY name"
    return [name for (name,) in context.con.execute(sql, {"table_number": table_number}).fetchall()]


def mended_columns(context: ProjectionContext, table_number: int) -> list[str]:
    """Returns the columns of a table that have mended texts."""
    return _columns(context, "mends", table_number)


def mended_tables(context: ProjectionContext) -> dict[str, int]:
    """Returns how many stored rows of each table are mended."""
    found = context.con.execute(_SQL["mended_tables"]).fetchall()
    return {context.tables.names[table_number]: rows for table_number, rows in found}


def mended_lengths(context: ProjectionContext, table: str) -> dict[str, int]:
    """Returns the columns of a table that have mended texts, with the length of the longest in characters."""
    table_number = context.tables.names.index(table)
    return dict(context.con.execute(_SQL["mended_lengths"], {"table_number": table_number}).fetchall())


def drop_mends(context: ProjectionContext, table: str) -> None:
    """Drops the mends of a table, so that its stored texts stay cut."""
    table_number = context.tables.names.index(table)
    texts.create_table(
        context, "mends", "FROM mends WHERE table_number <> $table_number", {"table_number": table_number}
    )


def mend_texts(context: ProjectionContext, table: str, table_number: int, columns: Collection[str]) -> None:
    """Mends the stored rows in `table`, a table of the engine, in parts with at most MOST_BYTES of whole texts."""
    if not columns:
        return
    con, names = context.con, {"mended": table, "table_number": table_number}
    sizes = con.sql(_SQL["sizes"].format(**names)).to_arrow_table()
    texts.create_table(context, "with_whole_texts", _SQL["unmended"].format(**names))
    seqs = sizes["seq"].to_numpy()
    for start, end in split_by_size(sizes["size"].to_numpy(), MOST_BYTES):
        con.execute(_SQL["part"].format(part=f"seq BETWEEN {seqs[start]} AND {seqs[end - 1]}", **names))
        for column in columns:
            con.execute(_SQL["mend_texts"].format(column=engine.name(column), literal=engine.literal(column)))
        texts.insert(context, "with_whole_texts", "FROM mended_part")
    texts.create_table(context, table, "FROM with_whole_texts")


def with_mended_rows(context: ProjectionContext, stored: ReadRows, made: Iterable[TableRows]) -> Iterator[TableRows]:
    """Yields the rows of this load for each table, with the mended rows, which replace the stored ones.

    Other stored rows stay as they are. `TableRows.row_count` counts both kinds.
    """
    mended = {name: context.tables.names.index(name) for name in mended_tables(context)}
    for rows in made:
        table_number = mended.pop(rows.table, None)
        yield rows if table_number is None else _mended_rows(context, stored, table_number, rows)
    for table_number in mended.values():
        yield _mended_rows(context, stored, table_number, None)


def _mended_rows(context: ProjectionContext, stored: ReadRows, table_number: int, made: TableRows | None) -> TableRows:
    name, table = context.tables.names[table_number], f"mended_{table_number}"
    existing = context.existing[name]
    touched = _SQL["touched_ids"].format(table_number=table_number, where=context.tables.where_of_rows(table_number))
    batches = stored(name, list(existing), _ids(context, f"FROM ({touched})"))
    with engine.streamed(context.con, batches) as has_any:
        if has_any:
            texts.create_table(context, table, _SQL["touched"].format(touched=touched))
    mend_texts(context, table, table_number, mended_columns(context, table_number))
    columns = ordered_columns({**existing, **(made.columns if made else {})})
    query = f"FROM {table}"
    if made is not None:
        query += f" UNION ALL BY NAME (FROM ({made.relation.sql_query()}) ANTI JOIN {table} USING (id))"
    cells = ", ".join(map(engine.name, columns))
    relation = context.con.sql(f"SELECT {cells} FROM ({query})")
    return TableRows(name, columns, relation, engine.count(context.con, f"({query})"))
