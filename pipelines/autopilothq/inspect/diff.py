"""Compares two schemas, and explains what each difference means for queries that were written for one of them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlglot import exp
from sqlglot.errors import SqlglotError

from .. import catalog
from ..projection.types import SQL_TYPES
from ..warehouses.native import shape_of

Change = Literal["missing", "extra", "type", "key"]
Family = Literal["text", "number", "boolean", "time", "date", "other"]


class ColumnType(NamedTuple):
    """A column's type as a destination spells it, and the properties that decide whether comparisons hold."""

    name: str
    family: Family
    exact: bool = True  # of numbers: no rounding
    length: int | None = None  # of text: the maximum, in characters
    zoned: bool = True  # of times


class SchemaTable(NamedTuple):
    """What queries rely on in a table: its columns, its primary key (empty: none), and whether it is a view."""

    columns: Mapping[str, ColumnType]
    key: tuple[str, ...] = ()
    is_view: bool = False


Schema = Mapping[str, SchemaTable]


@dataclass(frozen=True)
class Difference:
    """A difference that affects a query written for another schema; `column` is empty for a whole table."""

    table: str
    column: str
    change: Change
    breaks: bool
    meaning: str


class DifferenceMessages(NamedTuple):
    """What missing and extra tables and columns mean for queries."""

    missing_table: str
    missing_column: str
    extra_table: str
    extra_column: str


SWITCH = DifferenceMessages(
    "queries of it fail: no message of it was loaded",
    "queries that name it fail: no loaded message has it",
    "new: no query for the other schema names it",
    "new: no query for the other schema names it, but `SELECT *` returns one more column",
)
SWITCH_UNLOADED = SWITCH._replace(
    missing_table="queries of it fail, unless it comes with a message: load the archive, then compare again",
    missing_column="queries that name it fail, unless it comes with a message: load the archive, then compare again",
)
CATALOGUE = DifferenceMessages(
    "queries of it fail: no load made it, or another program dropped it",
    "queries that name it fail: another program made or changed this table",
    "not of the catalogue: an event of your own, or another program's",
    "not of the catalogue: a property or trait of your own",
)
NOT_YET = "comes with its first row"
UPGRADE = "autopilothq schema upgrade"
# Columns that Segment's loader writes for itself.
LOADER_COLUMNS = {
    "loaded_at": "queries that name it fail: it is the clock of Segment's own loader; read `uuid_ts` instead",
    "uuid": "queries that name it fail: it is a number of Segment's own loader; read `id` instead",
}
# Tables that loads derive from others: the table and the type of the messages that create both.
DERIVED_FROM = {latest.table.name: (latest.messages.name, latest.kind) for latest in catalog.LATEST}
NO_MESSAGE = "queries of it fail: no {} message was loaded, and it comes with the first"
NOT_DERIVED = f"queries of it fail: it is made of `{{}}`, which an earlier version did not do; {UPGRADE} makes it"
VIEW = "queries of it fail: it is a view, which no load makes; create it here as it is there"

# What a change of type breaks, by dialect: of exact numbers to floats, and of times without a zone to times with one.
# Each was observed in the database. In other dialects such a change affects only rounding or names.
_INEXACT_NOW = {
    "postgres": f"round(x, 2) and mod(x, 5) fail on it, and sums are not exact; {UPGRADE} makes it numeric",
    "redshift": "MOD fails on it, and sums are not exact; cast it to numeric in the queries",
}
_ZONED_NOW = {"redshift": "DATEDIFF and DATEADD fail on it; convert it in the queries: x AT TIME ZONE 'UTC'"}
# Databases that let a query select any column of a table if it groups by its primary key.
_GROUPED_BY_KEY = ("postgres",)

_TIMES = frozenset({*exp.DataType.TEMPORAL_TYPES} - {exp.DType.DATE, exp.DType.DATE32})
_ZONED = frozenset({exp.DType.TIMESTAMPTZ, exp.DType.TIMESTAMPLTZ})
_FLOATS = frozenset(exp.DataType.FLOAT_TYPES)


def type_of(name: str, dialect: str | None, length: int | None = None) -> ColumnType:
    """Returns a destination's type in comparable terms.

    Example: `type_of("character varying", "postgres", 512)` returns
    `ColumnType("character varying(512)", "text", length=512)`.
    """
    shown = f"{name}({length})" if length and "(" not in name else name
    try:
        parsed = exp.DataType.build(name, dialect=dialect).this
    except (SqlglotError, ValueError):
        return ColumnType(shown, "other")
    if parsed in (exp.DType.BOOLEAN, exp.DType.BIT):
        return ColumnType(shown, "boolean")
    if parsed in exp.DataType.TEXT_TYPES:
        return ColumnType(shown, "text", length=length)
    if parsed in exp.DataType.NUMERIC_TYPES:
        return ColumnType(shown, "number", exact=parsed not in _FLOATS)
    if parsed in _TIMES:
        # ClickHouse and BigQuery have only times with a zone, whatever their types are called.
        return ColumnType(shown, "time", zoned=parsed in _ZONED or dialect in ("clickhouse", "bigquery"))
    return ColumnType(shown, "date") if parsed in exp.DataType.TEMPORAL_TYPES else ColumnType(shown, "other")


# The catalogue's types, in any destination.
_CATALOGUE_TYPES = {name: type_of(sql, "duckdb")._replace(name=name) for name, sql in SQL_TYPES.items()}
LATER = frozenset(table.name for table in catalog.TABLES.values() if table not in catalog.ALWAYS)


def schema_of_catalogue(kind: str = "", dialect: str | None = None) -> Schema:
    """Returns the catalogue's tables as loads make them in a kind of destination.

    `kind` is dlt's name of it, and `dialect` SQLGlot's name of its SQL.

    Example: `schema_of_catalogue("postgres", "postgres")["tracks"].key == ("id",)`.
    """
    return {table.name: _table_of_catalogue(table, kind, dialect) for table in catalog.TABLES.values()}


def _table_of_catalogue(table: catalog.Table, kind: str, dialect: str | None) -> SchemaTable:
    return table_as_loaded(table.name, {column.name: column.type for column in table.columns}, kind, dialect)


def table_as_loaded(name: str, types: Mapping[str, catalog.Type], kind: str, dialect: str | None) -> SchemaTable:
    """Returns a table with columns of these types as loads make it in a kind of destination."""
    shape = shape_of(name, types, kind)
    columns = {column: _CATALOGUE_TYPES[of] for column, of in types.items()}
    columns |= {column: type_of(native, dialect) for column, native in shape.types.items()}
    columns |= {copy: columns[of] for copy, of in shape.copies.items()}
    return SchemaTable(columns, shape.key)


def differences(
    queried: Schema,
    actual: Schema,
    messages: DifferenceMessages,
    not_yet: Collection[str] = (),
    dialect: str | None = None,
) -> list[Difference]:
    """Returns what differs in `actual` for queries written for `queried`, in the order of `queried`, extras last.

    Tables in `not_yet` may be missing. Names are compared as they are. `dialect` is SQLGlot's name of the SQL of
    `actual`: the meaning of a change of type depends on it.
    """
    found: list[Difference] = []
    for name, table in queried.items():
        if name in actual:
            found += _columns(name, table.columns, actual[name].columns, messages, dialect)
            found += _keys(name, table, actual[name], dialect)
        else:
            found.append(Difference(name, "", "missing", *_missing(name, queried, actual, messages, not_yet)))
    found += [Difference(name, "", "extra", False, messages.extra_table) for name in actual if name not in queried]
    return found


def _missing(
    name: str, queried: Schema, actual: Schema, messages: DifferenceMessages, not_yet: Collection[str]
) -> tuple[bool, str]:
    """Returns whether a missing table breaks queries, and why it is missing."""
    source, kind = DERIVED_FROM.get(name, ("", ""))
    if source in actual:
        return True, NOT_DERIVED.format(source)
    if name in not_yet:
        return False, NOT_YET
    if queried[name].is_view:
        return True, VIEW
    return True, NO_MESSAGE.format(kind) if kind and messages is SWITCH else messages.missing_table


def _columns(
    table: str,
    queried: Mapping[str, ColumnType],
    actual: Mapping[str, ColumnType],
    messages: DifferenceMessages,
    dialect: str | None,
) -> Iterator[Difference]:
    replaced = {} if messages is CATALOGUE else LOADER_COLUMNS
    for column, of in queried.items():
        if column not in actual:
            yield Difference(table, column, "missing", True, replaced.get(column, messages.missing_column))
        elif verdict := _type_change(of, actual[column], dialect):
            yield Difference(table, column, "type", *verdict)
    for column in actual:
        if column not in queried:
            yield Difference(table, column, "extra", False, messages.extra_column)


def _keys(name: str, queried: SchemaTable, actual: SchemaTable, dialect: str | None) -> Iterator[Difference]:
    """Yields the difference of a missing primary key."""
    if not queried.key or queried.key == actual.key or actual.is_view:
        return
    columns = ", ".join(queried.key)
    breaks = dialect in _GROUPED_BY_KEY
    fail = f"queries that group by {columns} and select other columns fail, and " if breaks else ""
    upgrade = f"; {UPGRADE} makes it" if breaks else ""
    yield Difference(
        name, "", "key", breaks, f"PRIMARY KEY ({columns}): {fail}the database does not keep it unique{upgrade}"
    )


def _type_change(queried: ColumnType, actual: ColumnType, dialect: str | None) -> tuple[bool, str] | None:
    """Returns whether a change of type breaks queries, and what it means; None if comparisons do not change."""
    change = f"{queried.name} -> {actual.name}"
    if queried.family != actual.family or (queried.family == "other" and queried.name.lower() != actual.name.lower()):
        return True, f"{change}: comparisons fail or mean something else; cast it in the queries"
    if queried.length != actual.length:
        if actual.length is None or (queried.length and queried.length < actual.length):
            return (
                False,
                f"{change}: whole, where the other schema cuts texts; those that it does not cut compare as before",
            )
        return True, f"{change}: longer text does not fit"
    if queried.exact != actual.exact:
        if queried.exact and dialect in _INEXACT_NOW:
            return True, f"{change}: {_INEXACT_NOW[dialect]}"
        return False, f"{change}: numbers compare as before, but one of the two rounds them beyond 15 digits"
    if queried.zoned != actual.zoned:
        if actual.zoned and dialect in _ZONED_NOW:
            return True, f"{change}: {_ZONED_NOW[dialect]}"
        return False, f"{change}: the same points in time where the session's time zone is UTC"
    return None
