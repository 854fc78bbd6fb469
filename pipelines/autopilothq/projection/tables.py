"""Makes the rows of each table from the cells of the messages that are kept."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

import duckdb
import pyarrow as pa

from ..catalog import LINK, MESSAGE_TABLES, PROPERTIES, Type, event_table
from ..segment.message import EXTRA
from . import engine, texts
from .cells import MOST_BYTES, split_by_size
from .columns import (
    ColumnPlan,
    ExaminedValues,
    Extra,
    column_values,
    discard_columns,
    find_too_wide,
    gather_extras,
    plan_columns,
    room_of,
)
from .context import CELLS_AT_ONCE, ProjectionContext, TableRows, declared_types, ordered_columns
from .types import TYPES, ColumnValues, merge_values

GATHERED_ROWS = 50_000  # rows of small tables that are gathered in one table
GATHERED_BYTES = 16 << 20  # the same in bytes, if many lines are long
GATHERED_VALUES = 1_000_000  # values buffered as rows that are also gathered in one table
CELLS_TOGETHER = 200_000  # cells (rows times columns) of small tables that one statement examines
PIVOTED = "t:"  # prefix of the names of columns that are pivoted from rows
_TIMESTAMPS = ("received_at", "sent_at", "original_timestamp", "timestamp")


class TableMessages(NamedTuple):
    """The messages of one table: SQL conditions and names of columns, which can be sent to any worker.

    `source` is a table or view with a condition that selects the table's kept messages. `examined` are the values that
    the table may discard, which may include those of duplicates. `in_columns` are the extras (columns beyond the
    catalogue's) whose values are buffered as columns; `in_rows` has summaries of those that are buffered as rows.
    """

    table_number: int
    source: str
    examined: ExaminedValues
    in_columns: Sequence[str]
    in_rows: Mapping[str, ColumnValues]


class TableValues(NamedTuple):
    """A summary of the values of one table's messages.

    `declared` has the properties that the catalogue declares; `in_columns` and `in_rows` have the extras, depending on
    how their values are buffered.
    """

    declared: Mapping[str, ColumnValues]
    in_columns: Mapping[str, ColumnValues]
    in_rows: Mapping[str, ColumnValues]

    def merge(self, other: "TableValues") -> "TableValues":
        """Returns the summary of the values of both, for example of the messages of two workers."""
        return TableValues(*(merge_values(mine, theirs) for mine, theirs in zip(self, other, strict=True)))


class TablePlan(NamedTuple):
    """The columns of one table: the catalogue's with their types (`declared`), and the extras."""

    name: str
    declared: Mapping[str, Type]
    extras: ColumnPlan

    @property
    def types(self) -> dict[str, Type]:
        """The types of all columns, in the order of a new table."""
        return ordered_columns({**self.declared, **{extra.name: extra.type for extra in self.extras.taken.values()}})


class TableBuilder:
    """Makes the rows of one load's tables, each once. The messages' tables are numbered; see `TableNumbers`."""

    def __init__(
        self,
        context: ProjectionContext,
        row_values: Mapping[int, Mapping[str, ColumnValues]],
        plans: Mapping[int, TablePlan] = MappingProxyType({}),
    ) -> None:
        """`row_values` has the extras whose values are buffered as rows, by table number.

        `plans` has the plans of tables whose columns are decided already, from the values of all partitions.
        """
        self._context = context
        self._row_values = row_values
        self._plans = plans
        self._columns = context.extras_in_columns()
        self._gathered: Mapping[int, str] = MappingProxyType({})
        self._gathered_extras: Mapping[int, str] = MappingProxyType({})
        self._values: dict[int, TableValues] = {}
        self._makes_again = bool(engine.count(context.con, "discarded_again"))
        self._made: dict[int, TableRows] = {}

    def tables(self) -> Iterator[TableRows]:
        """Yields the rows of each table of messages that has any, the smallest first and `tracks` last."""
        for number, count in self.gather().items():
            yield self.rows(number, count)

    def gather(self) -> dict[int, int]:
        """Gathers the messages of small tables; returns each table's row count by number, `tracks` last."""
        counts = count_messages(self._context)
        tracks = sum(count for number, count in counts.items() if number == 0 or number >= len(MESSAGE_TABLES))
        self._gathered = gather_small_tables(self._context, counts)
        self._gather_extras()
        self._gather_values(counts)
        counts.pop(0, None)
        return counts | ({0: tracks} if tracks else {})

    def _gather_extras(self) -> None:
        """Gathers the values of small tables that are buffered as rows, if several tables have any."""
        cells, values = self._context.cells, self._row_values
        numbers = sorted(values.keys() & self._gathered.keys())
        total = sum(found.value_count for number in numbers for found in values[number].values())
        if len(numbers) > 1 and total <= GATHERED_VALUES and not cells.has_long_lines:
            with suppress(duckdb.OutOfMemoryException):
                self._gathered_extras = gather_extras(self._context, numbers)

    def _gather_values(self, counts: Mapping[int, int]) -> None:
        """Examines the values of the small tables that are gathered together."""
        for source in set(self._gathered.values()) if not self._plans else ():
            numbers = [number for number, gathered in self._gathered.items() if gathered == source]
            columns = {column for number in numbers for column in self._columns.get(number, ())}
            # Each message is examined for the columns of all these tables, though it has only those of its own.
            if len(columns) * sum(counts[number] for number in numbers) <= CELLS_TOGETHER:
                tables = [self.messages(number) for number in numbers]
                self._values |= zip(numbers, small_table_values(self._context, tables, source), strict=True)

    def values(self, number: int) -> TableValues:
        """Returns the summary of the values of a table's messages."""
        return self._values.get(number) or table_values(self._context, self.messages(number))

    def rows(self, number: int, count: int = 0) -> TableRows:
        """Returns the rows of the table with this number: an event's, a type of message's, or `tracks` (0)."""
        if number not in self._made:
            messages = self.messages(number)
            plan = self._plans.get(number) or plan_table(self._context, number, self.values(number))
            self._made[number] = table_rows(self._context, messages, plan, count)
        return self._made[number]

    def messages(self, number: int) -> TableMessages:
        """Returns the messages of a table."""
        where = self._context.tables.where_of_rows(number)
        gathered = self._gathered.get(number)
        source = f"{gathered or 'kept'} WHERE {where}"
        examined = ExaminedValues.of(where)
        if gathered and not self._makes_again:  # then only kept messages have discards
            examined = examined._replace(messages=source)
        if extras := self._gathered_extras.get(number):
            examined = examined._replace(extras=extras)
        return TableMessages(number, source, examined, self._columns.get(number, ()), self._row_values.get(number, {}))


def count_messages(context: ProjectionContext) -> dict[int, int]:
    """Returns how many messages are kept, by table number, in ascending order of the counts."""
    return dict(
        context.con.execute("SELECT table_number, count(*) FROM kept GROUP BY table_number ORDER BY 2").fetchall()
    )


def gather_small_tables(context: ProjectionContext, counts: Mapping[int, int]) -> dict[int, str]:
    """Copies the kept messages of small tables in one pass, so that no table needs a pass over all messages.

    Returns the name of the copy by table number: one table of the engine has all of them, or several tables do if many
    lines are long.
    """
    numbers, total = set[int](), 0
    most = GATHERED_ROWS
    if context.cells.has_long_lines:
        most = context.cells.rows_of_size(GATHERED_BYTES, sum(counts.values()))
    gathered = dict[int, str]()
    for number, count in counts.items():
        if total + count > most:
            if not context.cells.has_long_lines or count > most:
                break
            _gather(context, numbers, gathered)
            numbers, total = set[int](), 0
        total += count
        if number:
            numbers.add(number)
    _gather(context, numbers, gathered)
    return gathered


def _gather(context: ProjectionContext, numbers: Collection[int], gathered: dict[int, str]) -> None:
    """Copies the kept messages of the tables with these numbers, and notes in `gathered` where they are."""
    if numbers:
        table = f"gathered{len(set(gathered.values())) or ''}"
        try:
            where = context.tables.where_any(sorted(numbers))
            texts.create_table(context, table, f"SELECT * FROM kept WHERE {where}")
        except duckdb.OutOfMemoryException:  # there are many columns, and each takes a block
            return
        gathered |= dict.fromkeys(numbers, table)


def table_values(context: ProjectionContext, messages: TableMessages) -> TableValues:
    """Returns the summary of the values of one table's kept messages."""
    of_event = messages.table_number >= len(MESSAGE_TABLES)
    return TableValues(
        _declared_values(context, messages.source)[0] if of_event else {},
        column_values(context, messages.in_columns, messages.source).get(0, {}),
        messages.in_rows,
    )


def small_table_values(context: ProjectionContext, tables: Sequence[TableMessages], source: str) -> list[TableValues]:
    """Returns the same for several tables whose messages are gathered in `source`; one statement examines all."""
    columns = dict.fromkeys(column for messages in tables for column in messages.in_columns)
    declared = _declared_values(context, source, "table_number")
    found = column_values(context, columns, source, "table_number")
    return [
        TableValues(declared[number] if number >= len(MESSAGE_TABLES) else {}, found.get(number, {}), messages.in_rows)
        for number, messages in ((messages.table_number, messages) for messages in tables)
    ]


def _declared_values(
    context: ProjectionContext, source: str, table_number: str = "0"
) -> dict[int, dict[str, ColumnValues]]:
    """Counts the values of each property that the catalogue declares, grouped by the SQL expression `table_number`.

    Groups without rows have counts of zero.
    """
    names = [column.name for column in (*PROPERTIES, *LINK)]
    counts = ", ".join(f"count({engine.name(name)})" for name in names)
    found = context.con.execute(f"SELECT {table_number}, {counts} FROM {source} GROUP BY ALL").fetchall()
    values = defaultdict[int, dict[str, ColumnValues]](lambda: dict.fromkeys(names, ColumnValues(0, 0)))
    for table, *of_table in found:
        values[table] = {name: ColumnValues(0, count) for name, count in zip(names, of_table, strict=True)}
    return values


def plan_table(context: ProjectionContext, table_number: int, values: TableValues) -> TablePlan:
    """Decides the columns of one table from the summary of all its values; runs no SQL."""
    name = context.tables.names[table_number]
    existing = context.existing.get(name, {})
    if table_number < len(MESSAGE_TABLES):
        declared = declared_types(MESSAGE_TABLES[table_number])
    else:
        declared = declared_types(event_table(name))
        present = [c for c in (*PROPERTIES, *LINK) if values.declared[c.name].value_count or c.name in existing]
        declared |= {column.name: column.type for column in present}
    room = room_of(context, name, declared)
    return TablePlan(name, declared, plan_columns(context, name, values.in_columns, values.in_rows, room))


def table_rows(context: ProjectionContext, messages: TableMessages, plan: TablePlan, count: int) -> TableRows:
    """Returns the rows of one table, and discards the values that have no column or do not fit theirs."""
    discard_columns(context, messages.table_number, messages.examined, plan.extras)
    extras, types = plan.extras.taken, plan.types
    cells = {extra.name: _extra_cell(column, extra) for column, extra in extras.items()}
    cells |= {column: _declared_cell(column, type_, context.loaded_at_sql) for column, type_ in plan.declared.items()}
    select = ", ".join(f"{cells[column]} AS {engine.name(column)}" for column in types)
    has_rows = any(extra.in_rows for extra in extras.values())
    context.reserve(len(types) if has_rows else 0)
    sql = _join_pivoted(context, messages, plan, select) if has_rows else f"SELECT {select} FROM {messages.source}"
    return TableRows(plan.name, types, context.con.sql(sql), count)


def _declared_cell(column: str, type_: Type, loaded_at: str) -> str:
    name = engine.name(column)
    if column == "uuid_ts":
        return loaded_at
    if column in _TIMESTAMPS:
        return f"make_timestamptz(epoch_us({name}))"  # the engine's cast would look up the time zone's rules
    if type_ != "text":
        return f"as_{type_}({name})"
    return "slug" if column == "event" else name


def _extra_cell(column: str, extra: Extra) -> str:
    """Returns the SQL of an extra's value, which is buffered in a column or as a row, depending on the message."""
    cells = [f"as_{extra.type}({engine.name(EXTRA + column)})"] * extra.in_columns
    cells += [pivoted_cell(column, extra.type)] * extra.in_rows
    return engine.coalesce(cells)


def pivoted_cell(column: str, type_: Type) -> str:
    """Returns the SQL that types a pivoted value, which is text."""
    return TYPES[type_].from_text.format(engine.name(PIVOTED + column))


def _pivoted_cells(
    context: ProjectionContext, table_number: int, extras: str, types: Mapping[str, Type], without: str | None
) -> str:
    """Creates a view (`seq`, `name`, `value`) of the values buffered as rows, each as the text of its typed value."""
    table = pa.table({"column": list(types), "type": list(types.values())})
    with engine.registered(context.con, types=table):
        context.con.execute(f"CREATE TABLE types_{table_number} AS FROM types")
    but = f' ANTI JOIN {without} USING (seq, "column")' if without else ""
    texts = {type_: TYPES[type_].to_text.format(f"as_{type_}(value)") for type_ in sorted(set(types.values()))}
    cases = " ".join(f"WHEN '{type_}' THEN {text}" for type_, text in texts.items())
    context.con.execute(
        f"CREATE VIEW cells_{table_number} AS"
        f" SELECT seq, '{PIVOTED}' || \"column\" AS name, CASE type {cases} END AS value"
        f' FROM (FROM {extras}{but}) JOIN types_{table_number} USING ("column")'
    )
    return f"cells_{table_number}"


def _join_pivoted(context: ProjectionContext, messages: TableMessages, plan: TablePlan, select: str) -> str:
    """Returns a query of a table's rows that includes values buffered as rows; discards values without room.

    Many rows are made in parts and written to files, which the query then reads.
    """
    in_rows = {column: extra.type for column, extra in plan.extras.taken.items() if extra.in_rows}
    number, extras = messages.table_number, messages.examined.extras
    too_wide = find_too_wide(context, number, extras, plan.declared, plan.extras.taken)
    pivoted = _pivoted_cells(context, number, extras, in_rows, too_wide)
    rows = max(1, CELLS_AT_ONCE // len(plan.types))
    names = ", ".join(engine.literal(PIVOTED + column) for column in in_rows)
    queries = [
        f"SELECT {select} FROM (FROM {messages.source} AND {part}) m LEFT JOIN"
        f" (PIVOT (FROM {pivoted} WHERE {part}) ON name IN ({names}) USING first(value) GROUP BY seq) USING (seq)"
        for part in _parts(context, messages.source, rows)
    ]
    if len(queries) == 1:
        return queries[0]
    files = [f"{context.scratch}/{messages.table_number}-{part}-rows.parquet" for part in range(len(queries))]
    for path, query in zip(files, queries, strict=True):
        context.con.execute(f"COPY ({query}) TO {engine.literal(path)} (FORMAT parquet, ROW_GROUP_SIZE {rows})")
    return f"FROM {engine.parquet_files(files)}"


def _parts(context: ProjectionContext, source: str, most: int) -> list[str]:
    """Returns SQL conditions that split messages into parts of at most `most` messages.

    If many lines are long, a part also has at most MOST_BYTES of values that are buffered as rows.
    """
    sizes = "SELECT seq, 0 AS size"
    if context.cells.has_long_lines:
        sizes = "SELECT seq, coalesce(size, 0) AS size"
        source = (
            f"(FROM {source}) LEFT JOIN (SELECT seq, sum(strlen(value)) AS size FROM extras GROUP BY seq) USING (seq)"
        )
    found = context.con.sql(f"{sizes} FROM {source} ORDER BY seq").to_arrow_table()
    seqs = found["seq"].to_numpy()
    parts = split_by_size(found["size"].to_numpy(), MOST_BYTES, most)
    return [f"seq BETWEEN {seqs[start]} AND {seqs[end - 1]}" for start, end in parts] or ["true"]
