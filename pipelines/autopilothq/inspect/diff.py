"""Two schemas -> what differs, and what that means for queries."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlglot import exp
from sqlglot.errors import SqlglotError

from .. import catalog
from ..warehouses.native import shape_of

Change = Literal["missing", "extra", "type", "key"]
Family = Literal["text", "number", "boolean", "time", "date", "other"]


class Type(NamedTuple):
    """A column's type as a destination spells it, and in the terms that decide whether comparisons hold."""

    name: str
    family: Family
    exact: bool = True  # of numbers: no rounding
    length: int | None = None  # of text: the most characters
    zoned: bool = True  # of times


class Table(NamedTuple):
    """What queries rely on in a table: its columns, its primary key (empty: none), and whether it is a view."""

    columns: Mapping[str, Type]
    key: tuple[str, ...] = ()
    is_view: bool = False


Schema = Mapping[str, Table]


@dataclass(frozen=True)
class Difference:
    """What a query meets in the one schema that was written for the other; `column` is empty for a whole table."""

    table: str
    column: str
    change: Change
    breaks: bool
    meaning: str


class Words(NamedTuple):
    """What it means that something is missing, or is there beyond."""

    missing_table: str
    missing_column: str
    extra_table: str
    extra_column: str


SWITCH = Words(
    "queries of it fail: no message of it was loaded",
    "queries that name it fail: no loaded message has it",
    "new: no query for the other schema names it",
    "new: no query for the other schema names it, but `SELECT *` has a column more",
)
SWITCH_UNLOADED = SWITCH._replace(
    missing_table="queries of it fail, unless it comes with a message: load the archive, then compare again",
    missing_column="queries that name it fail, unless it comes with a message: load the archive, then compare again",
)
CATALOGUE = Words(
    "queries of it fail: no load made it, or another program dropped it",
    "queries that name it fail: another program made or changed this table",
    "not of the catalogue: an event of your own, or another program's",
    "not of the catalogue: a property or trait of your own",
)
NOT_YET = "comes with its first row"
UPGRADE = "autopilothq schema upgrade"
# What Segment's loader writes for itself.
REPLACED = {
    "loaded_at": "queries that name it fail: it is the clock of Segment's own loader; read `uuid_ts` instead",
    "uuid": "queries that name it fail: it is a number of Segment's own loader; read `id` instead",
}
# Tables that loads make of others, with the message whose first one brings both.
MADE_OF = {made.table.name: (made.messages.name, made.kind) for made in catalog.LATEST}
NO_MESSAGE = "queries of it fail: no {} message was loaded, and it comes with the first"
NOT_MADE = f"queries of it fail: it is made of `{{}}`, which an earlier version did not do; {UPGRADE} makes it"
VIEW = "queries of it fail: it is a view, which no load makes; create it here as it is there"

# What a change of type means in a dialect where it is more than a rounding or a name: for exact numbers that are floats
# here, and for times without a zone that have one here. Each is what the database says of a query.
_FLOATED = {
    "postgres": f"round(x, 2) and mod(x, 5) fail on it, and sums are not exact; {UPGRADE} makes it numeric",
    "redshift": "MOD fails on it, and sums are not exact; cast it to numeric in the queries",
}
_ZONED_NOW = {"redshift": "DATEDIFF and DATEADD fail on it; convert it in the queries: x AT TIME ZONE 'UTC'"}
# Databases that let a query select all columns of a table that it groups by its primary key, and no others.
_GROUPED_BY_KEY = ("postgres",)

_TIMES = frozenset({*exp.DataType.TEMPORAL_TYPES} - {exp.DType.DATE, exp.DType.DATE32})
_ZONED = frozenset({exp.DType.TIMESTAMPTZ, exp.DType.TIMESTAMPLTZ})
_FLOATS = frozenset(exp.DataType.FLOAT_TYPES)


def type_of(name: str, dialect: str | None, length: int | None = None) -> Type:
    """A destination's type in comparable terms.

    Example: `type_of("character varying", "postgres", 512) == Type("character varying(512)", "text", length=512)`.
    """
    shown = f"{name}({length})" if length and "(" not in name else name
    try:
        parsed = exp.DataType.build(name, dialect=dialect).this
    except (SqlglotError, ValueError):
        return Type(shown, "other")
    if parsed in (exp.DType.BOOLEAN, exp.DType.BIT):
        return Type(shown, "boolean")
    if parsed in exp.DataType.TEXT_TYPES:
        return Type(shown, "text", length=length)
    if parsed in exp.DataType.NUMERIC_TYPES:
        return Type(shown, "number", exact=parsed not in _FLOATS)
    if parsed in _TIMES:
        # ClickHouse's and BigQuery's only times are points in time, whatever they are called.
        return Type(shown, "time", zoned=parsed in _ZONED or dialect in ("clickhouse", "bigquery"))
    return Type(shown, "date") if parsed in exp.DataType.TEMPORAL_TYPES else Type(shown, "other")


# What the catalogue's types are, wherever they go.
_CATALOGUE: dict[catalog.Type, Type] = {
    "text": Type("text", "text"),
    "bigint": Type("bigint", "number"),
    "double": Type("double", "number", exact=False),
    "bool": Type("bool", "boolean"),
    "timestamp": Type("timestamp", "time"),
}
LATER = frozenset(table.name for table in catalog.TABLES.values() if table not in catalog.ALWAYS)


def schema_of_catalogue(kind: str = "", dialect: str | None = None) -> Schema:
    """The catalogue's tables as loads make them in a kind of destination, by dlt's name and SQLGlot's of its SQL.

    Example: `schema_of_catalogue("postgres", "postgres")["tracks"].key == ("id",)`.
    """
    return {table.name: _table_of_catalogue(table, kind, dialect) for table in catalog.TABLES.values()}


def _table_of_catalogue(table: catalog.Table, kind: str, dialect: str | None) -> Table:
    shape = shape_of(table.name, {column.name: column.type for column in table.columns}, kind)
    columns = {column.name: _CATALOGUE[column.type] for column in table.columns}
    columns |= {name: type_of(native, dialect) for name, native in shape.types.items()}
    columns |= {copy: columns[of] for copy, of in shape.copies.items()}
    return Table(columns, shape.key)


def differences(
    wanted: Schema, there: Schema, words: Words, not_yet: Collection[str] = (), dialect: str | None = None
) -> list[Difference]:
    """What queries that were written for `wanted` meet in `there`; in the order of `wanted`, extra things last.

    Tables of `not_yet` may be missing. Names are compared as they are. `dialect` is SQLGlot's name of the SQL of
    `there`: what a change of type means depends on it.
    """
    found: list[Difference] = []
    for name, table in wanted.items():
        if name in there:
            found += _columns(name, table.columns, there[name].columns, words, dialect)
            found += _keys(name, table, there[name], dialect)
        else:
            found.append(Difference(name, "", "missing", *_missing(name, wanted, there, words, not_yet)))
    found += [Difference(name, "", "extra", False, words.extra_table) for name in there if name not in wanted]
    return found


def _missing(name: str, wanted: Schema, there: Schema, words: Words, not_yet: Collection[str]) -> tuple[bool, str]:
    """Whether it breaks queries that a table is missing, and why it is."""
    messages, kind = MADE_OF.get(name, ("", ""))
    if messages in there:
        return True, NOT_MADE.format(messages)
    if name in not_yet:
        return False, NOT_YET
    if wanted[name].is_view:
        return True, VIEW
    return True, NO_MESSAGE.format(kind) if kind and words is SWITCH else words.missing_table


def _columns(
    table: str, wanted: Mapping[str, Type], there: Mapping[str, Type], words: Words, dialect: str | None
) -> Iterator[Difference]:
    for column, of in wanted.items():
        if column not in there:
            missing = words.missing_column if words is CATALOGUE else REPLACED.get(column, words.missing_column)
            yield Difference(table, column, "missing", True, missing)
        elif verdict := _retyped(of, there[column], dialect):
            yield Difference(table, column, "type", *verdict)
    for column in there:
        if column not in wanted:
            yield Difference(table, column, "extra", False, words.extra_column)


def _keys(name: str, wanted: Table, there: Table, dialect: str | None) -> Iterator[Difference]:
    """The difference that a primary key is missing."""
    if not wanted.key or wanted.key == there.key or there.is_view:
        return
    columns = ", ".join(wanted.key)
    breaks = dialect in _GROUPED_BY_KEY
    fail = f"queries that group by {columns} and select other columns fail, and " if breaks else ""
    made = f"; {UPGRADE} makes it" if breaks else ""
    yield Difference(
        name, "", "key", breaks, f"PRIMARY KEY ({columns}): {fail}the database does not keep it unique{made}"
    )


def _retyped(wanted: Type, there: Type, dialect: str | None) -> tuple[bool, str] | None:
    """Whether a change of type breaks queries, and what it means; None where there is no change to speak of."""
    change = f"{wanted.name} -> {there.name}"
    if wanted.family != there.family or (wanted.family == "other" and wanted.name.lower() != there.name.lower()):
        return True, f"{change}: comparisons fail or mean something else, cast it in the queries"
    if wanted.length != there.length:
        if there.length is None or (wanted.length and wanted.length < there.length):
            return False, f"{change}: whole, where the other schema cuts it; what is not cut compares as before"
        return True, f"{change}: longer text does not fit"
    if wanted.exact != there.exact:
        if wanted.exact and dialect in _FLOATED:
            return True, f"{change}: {_FLOATED[dialect]}"
        return False, f"{change}: numbers compare as before, beyond 15 digits they are rounded in one of them"
    if wanted.zoned != there.zoned:
        if there.zoned and dialect in _ZONED_NOW:
            return True, f"{change}: {_ZONED_NOW[dialect]}"
        return False, f"{change}: the same points in time where the session's time zone is UTC"
    return None
