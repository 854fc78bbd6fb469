"""Reads the columns of tables to adopt, and predicts their types, before all rows are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb

from ...catalog import Type
from ...projection import engine
from ...projection.types import SQL_TYPES, type_of_bits
from .buffer import BufferedRows, buffered_tables, column_names, lost_columns
from .columns import ADOPT_MACROS, Form, as_plain_text, cell_name, values_of
from .databases import AdoptedWork, DatabaseTable, close_databases
from .files import TableFile, folded_name
from .first_rows import buffer_first_rows
from .origin import AdoptedTables

SCHEMA_MEMORY = 400  # MB
_NUMBERS = ("decimal", "numeric", "hugeint", "uhugeint", "ubigint")  # types whose values come as JSON


class AdoptedColumn(NamedTuple):
    """A column of an adopted table.

    `type` is its type in the adopted table, None if it is unknown. If `guessed`, the values are text, and `type` is the
    type that they look like. `called` is its name here, None if it is dropped. `becomes` is its type as a new column.
    """

    type: str | None
    guessed: bool
    called: str | None
    becomes: Type


class AdoptedSchema(NamedTuple):
    """The columns of each table by their folded names, and the dialect of SQL that their types are spelled in.

    `lost` are the names of the columns whose values are discarded, by reason and table.
    """

    tables: Mapping[str, Mapping[str, AdoptedColumn]]
    dialect: str
    lost: Mapping[str, Mapping[str, Sequence[str]]]


def read_adopted_schema(origin: AdoptedTables) -> AdoptedSchema:
    """Returns the columns of the tables; for files, from the first rows of each table's first file."""
    works, _ = origin.works()
    first: dict[str, AdoptedWork] = {}
    for work in sorted(works, key=lambda work: work.size == 0):  # empty files last: exporters leave some
        first.setdefault(work.table, work)
    dialect = "duckdb"
    tables: dict[str, Mapping[str, AdoptedColumn]] = {}
    lost: dict[str, dict[str, list[str]]] = {}
    try:
        with TemporaryDirectory() as scratch, engine.connect(scratch, SCHEMA_MEMORY, 1) as con:
            con.execute(ADOPT_MACROS)
            for number, (table, work) in enumerate(first.items()):
                if isinstance(work, TableFile):
                    columns = _columns_of_file(con, work, number, Path(scratch))
                else:
                    columns = _columns_of_table(work)
                    dialect = work.database.dialect
                discarded = lost_columns(columns, column_names(columns, table))
                for name, (_, reason) in discarded.items():
                    lost.setdefault(reason, {}).setdefault(table, []).append(name)
                tables[table] = {folded_name(name): column for name, column in columns.items() if name not in discarded}
    finally:
        close_databases(works)
    return AdoptedSchema(tables, dialect, lost)


def _columns_of_table(table: DatabaseTable) -> dict[str, AdoptedColumn]:
    """Returns the columns by their names in the database."""
    names = column_names(table.columns, table.table)
    return {
        name: AdoptedColumn(type_, False, names.get(name), _type_of_form(table.database.form(type_), type_))
        for name, type_ in table.columns.items()
    }


def _type_of_form(form: Form, type_: str) -> Type:
    """Returns the type of a new column, as far as it can be known without values."""
    if form == "json":
        return "double" if type_.lower().startswith(_NUMBERS) and not type_.endswith("]") else "text"
    return "text" if form == "loose" else form


def _columns_of_file(
    con: duckdb.DuckDBPyConnection, file: TableFile, number: int, scratch: Path
) -> dict[str, AdoptedColumn]:
    buffered, source = buffer_first_rows(con, file, number, scratch)
    names = column_names(source.columns, file.table)
    seen = _seen(con, buffered)
    columns = {}
    for name in source.columns:
        called = names.get(name)
        found = seen.get(called or "", _NOTHING_SEEN)
        type_, guessed = source.types.get(name), False
        if file.format == "csv" or (file.format == "json" and found.json is None):
            type_, guessed = found.text, True
        elif file.format == "json":
            type_ = found.json
        elif found.text == SQL_TYPES["timestamp"]:  # Snowflake writes times as text
            type_, guessed = found.text, True
        columns[name] = AdoptedColumn(type_, guessed, called, found.becomes)
    return columns


class _Seen(NamedTuple):
    """The types of a column's values: the one that they become, and the one that they look like if they are texts.

    `json` is the type of JSON values other than texts, if there are any.
    """

    becomes: Type
    text: str | None
    json: str | None


_NOTHING_SEEN = _Seen("text", None, None)


def _seen(con: duckdb.DuckDBPyConnection, buffered: BufferedRows) -> dict[str, _Seen]:
    """Returns the types of the values of buffered rows, by column."""
    [table] = buffered_tables([buffered]).values()
    [group] = table.groups
    found, measures = {}, {}
    for name, values in values_of(con, table, table.columns).items():
        form, cell = group.forms[name], cell_name(name)
        found[name] = _Seen(type_of_bits(values.bits), None, None)
        if values.value_count and form in ("text", "loose", "json"):
            spelt = f"bit_or(loose_bit({as_plain_text(form, cell)}))"
            measures[name] = spelt, f"bool_or({cell}[1] IN ('[', '{{'))"
    for name, (bits, is_nested) in group.aggregates(con, measures):
        becomes = found[name].becomes
        typed = "JSON" if is_nested else SQL_TYPES[becomes] if becomes in ("bigint", "double", "bool") else None
        json = typed if group.forms[name] == "json" else None
        found[name] = _Seen(becomes, SQL_TYPES[type_of_bits(bits)], json)
    return found
