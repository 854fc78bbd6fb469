"""Two schemas -> what differs, and what that means for queries."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlglot import exp
from sqlglot.errors import SqlglotError

from .. import catalog

Change = Literal["missing", "extra", "type"]
Family = Literal["text", "number", "boolean", "time", "date", "other"]


class Type(NamedTuple):
    """A column's type as a destination spells it, and in the terms that decide whether comparisons hold."""

    name: str
    family: Family
    exact: bool = True  # of numbers: no rounding
    length: int | None = None  # of text: the most characters
    zoned: bool = True  # of times


Schema = Mapping[str, Mapping[str, Type]]


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
# What Segment's loader writes for itself.
REPLACED = {
    "loaded_at": "queries that name it fail: it is the clock of Segment's own loader; read `uuid_ts` instead",
    "uuid": "queries that name it fail: it is a number of Segment's own loader; read `id` instead",
}

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


def schema_of_catalogue() -> Schema:
    """The catalogue's tables and types."""
    return {
        table.name: {column.name: _CATALOGUE[column.type] for column in table.columns}
        for table in catalog.TABLES.values()
    }


def differences(wanted: Schema, there: Schema, words: Words, not_yet: Collection[str] = ()) -> list[Difference]:
    """What queries that were written for `wanted` meet in `there`; in the order of `wanted`, extra things last.

    Tables of `not_yet` may be missing. Names are compared as they are.
    """
    found: list[Difference] = []
    for table, columns in wanted.items():
        if table in there:
            found += _columns(table, columns, there[table], words)
        elif table in not_yet:
            found.append(Difference(table, "", "missing", False, NOT_YET))
        else:
            found.append(Difference(table, "", "missing", True, words.missing_table))
    found += [Difference(table, "", "extra", False, words.extra_table) for table in there if table not in wanted]
    return found


def _columns(table: str, wanted: Mapping[str, Type], there: Mapping[str, Type], words: Words) -> Iterator[Difference]:
    for column, of in wanted.items():
        if column not in there:
            missing = words.missing_column if words is CATALOGUE else REPLACED.get(column, words.missing_column)
            yield Difference(table, column, "missing", True, missing)
        elif verdict := _retyped(of, there[column]):
            yield Difference(table, column, "type", *verdict)
    for column in there:
        if column not in wanted:
            yield Difference(table, column, "extra", False, words.extra_column)


def _retyped(wanted: Type, there: Type) -> tuple[bool, str] | None:
    """Whether a change of type breaks comparisons, and what it means; None where there is no change to speak of."""
    change = f"{wanted.name} -> {there.name}"
    if wanted.family != there.family or (wanted.family == "other" and wanted.name.lower() != there.name.lower()):
        return True, f"{change}: comparisons fail or mean something else, cast it in the queries"
    if wanted.length != there.length:
        if there.length is None or (wanted.length and wanted.length < there.length):
            return False, f"{change}: whole, where the other schema cuts it; what is not cut compares as before"
        return True, f"{change}: longer text does not fit"
    if wanted.exact != there.exact:
        return False, f"{change}: numbers compare as before, beyond 15 digits they are rounded in one of them"
    if wanted.zoned != there.zoned:
        return False, f"{change}: the same points in time where the session's time zone is UTC"
    return None
