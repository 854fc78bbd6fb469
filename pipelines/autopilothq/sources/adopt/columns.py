"""The columns of adopted tables: the forms in which their values are buffered, and the contract's types that they get.

Values are buffered in a form: one of the contract's types, JSON text (`json`), or text of a file that has only text
(`loose`, from CSV).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import duckdb

from ...catalog import CUT, Type
from ...projection import SQL_TYPES, engine
from ...projection.types import BOOLEAN, FLOAT, INTEGER, TIME_TEXT, ColumnValues, merge_values
from ...segment.message import TIMESTAMP_FIELDS

Form = Type | Literal["json", "loose"]
CELLS_PER_QUERY = 50
CELL_PREFIX = "c:"  # begins the names of columns in buffered rows, so that none is equal to `seq`
LOST_PREFIX = "l:"  # begins the names of columns whose values are discarded, before their index
_FORMS: dict[str, tuple[Form, str]] = {
    "VARCHAR": ("text", "{}"),
    "BOOLEAN": ("bool", "{}"),
    "DOUBLE": ("double", "{}"),
    "FLOAT": ("double", "{}::DOUBLE"),
    "TIMESTAMP WITH TIME ZONE": ("timestamp", "{}"),
    "JSON": ("json", "nullif({}::VARCHAR, 'null')"),
    **dict.fromkeys(("BIGINT", "INTEGER", "SMALLINT", "TINYINT"), ("bigint", "{}::BIGINT")),
    **dict.fromkeys(("UINTEGER", "USMALLINT", "UTINYINT"), ("bigint", "{}::BIGINT")),
    **dict.fromkeys(("HUGEINT", "UHUGEINT", "UBIGINT"), ("json", "{}::VARCHAR")),
    **dict.fromkeys(("DATE", "TIME", "UUID", "ENUM", "INTERVAL"), ("text", "{}::VARCHAR")),
    **dict.fromkeys(
        ("TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S"),
        ("timestamp", "({}::TIMESTAMP AT TIME ZONE 'UTC')"),
    ),
}
# A decimal in a type. Names and labels in quotes, which may look like one, are matched first.
_DECIMAL = re.compile(r"""("(?:[^"]|"")*"|'(?:[^']|'')*')|DECIMAL\((\d+),(\d+)\)""")
_LEAST_DIGITS = 18  # the engine writes decimals this wide as JSON with all digits; below 16 digits, it writes a float
_BITS: dict[Form, int] = {"timestamp": TIME_TEXT, "bigint": INTEGER, "double": FLOAT, "bool": BOOLEAN}
# SQL for a value's type bit, by form, where the form does not determine it; below, SQL for a value as JSON text.
_BIT_SQL: dict[Form, str] = {"text": "text_bit({})", "loose": "loose_bit({})", "json": "json_bit({})"}
_JSON_SQL: dict[Form, str] = {
    "text": "to_json({})::VARCHAR",
    "loose": "to_json({})::VARCHAR",
    "json": "{}",
    "bigint": "{}::VARCHAR",
    "double": "number_json({})",
    "bool": "{}::VARCHAR",
    "timestamp": "moment_json({})",
}
_NONE: Mapping[str, str] = MappingProxyType({})
# SQL for whether a value neither is nor contains NaN or an infinity, for the forms that can have these.
_FINITE_SQL: dict[Form, str] = {"json": "is_finite_json({})", "double": "isfinite({})"}
_MISFIT_REASONS: dict[Type, str] = {"text": "not_text", "timestamp": "not_a_time"}
ADOPT_MACROS = files(__package__).joinpath("adopt_macros.sql").read_text(encoding="utf-8")


def form_of(sql_type: str) -> tuple[Form, str]:
    """Returns the form of a column of one of the engine's types, and a template of SQL that converts a value to it.

    Example: `form_of("DECIMAL(38,6)") == ("json", "{}::VARCHAR")`.
    """
    base = sql_type if sql_type.endswith("]") else re.sub(r"\(.*", "", sql_type, flags=re.DOTALL).strip()
    if base == "DECIMAL":
        return "json", f"{_with_all_digits(sql_type)}::VARCHAR"
    return _FORMS.get(base) or ("json", f"to_json({_with_all_digits(sql_type, _LEAST_DIGITS)})::VARCHAR")


def _with_all_digits(sql_type: str, least: int = 0) -> str:
    """Returns a template of SQL that casts a value's decimals to at least `least` digits, one of them before the point.

    Without a digit before the point, the engine would write .5 for 0.5. Of 38 digits after it, the last one is lost.
    """
    wider = _DECIMAL.sub(lambda found: found[1] or _wider(int(found[2]), int(found[3]), least), sql_type)
    return "{}" if wider == sql_type else f"{{}}::{wider.replace('{', '{{').replace('}', '}}')}"


def _wider(width: int, scale: int, least: int) -> str:
    return f"DECIMAL({min(max(width + (width == scale), least), 38)},{min(scale, 37)})"


def cell(form: Form, type_: Type, name: str, of_messages: bool = False) -> str:
    """Returns SQL that converts a value in a form to a type; null if that would lose anything.

    `of_messages` is true for the timestamps of messages, which are read in any notation that senders use.
    """
    if type_ == "text":
        return {"json": f"storable_text({name})", "double": f"finite({name})::VARCHAR"}.get(
            form, f"storable({as_plain_text(form, name)})"
        )
    if form == type_:
        return {"timestamp": f"moment({name})", "double": f"finite({name})"}.get(type_, name)
    if type_ == "timestamp" and (of_messages or form in ("text", "loose", "json")):
        return f"{'text_moment' if of_messages else 'stamp'}({as_plain_text(form, name)})"
    if form == "loose":
        return f"loose_{type_}({name})"
    return f"as_{type_}({_JSON_SQL[form].format(name)})"


def json_value(form: Form, name: str) -> str:
    """Returns SQL that converts a value in a form to JSON text."""
    return _JSON_SQL[form].format(name)


def as_plain_text(form: Form, name: str) -> str:
    """Returns SQL that converts a value in a form to text."""
    return name if form in ("text", "loose") else f"as_text({_JSON_SQL[form].format(name)})"


def cell_name(column: str) -> str:
    """Returns the quoted name of a column in buffered rows."""
    return engine.name(CELL_PREFIX + column)


def aliased(column: str) -> str:
    """Returns a column's quoted name in queries whose rows also have `seq`, their number."""
    return engine.name("seq:" if column == "seq" else column)


class LostColumn(NamedTuple):
    """A column with values that are discarded, with the reason.

    All its values are discarded if its name gives no column, or one that is taken; otherwise only ids that are not
    text, or times that the source cannot hand over. `name` is its name in the adopted table, `column` the one in
    `_discards`.
    """

    name: str
    form: Form
    column: str
    reason: str


class DiscardedValues(NamedTuple):
    """The values of a column that are discarded: those that meet a condition.

    `column` is the column's name in `_discards`, `name` its quoted name in buffered rows; `reason` and `condition` are
    SQL.
    """

    column: str
    name: str
    form: Form
    reason: str
    condition: str = "true"


class RowGroup(NamedTuple):
    """Files of a table that have the same columns in the same forms."""

    forms: Mapping[str, Form]
    lost: Sequence[LostColumn]
    paths: Sequence[str]

    @property
    def source(self) -> str:
        """The relation with the rows, in SQL."""
        return engine.parquet_files(self.paths)

    @property
    def row_json(self) -> str:
        """A row as JSON text, in SQL."""
        cells = (
            f"{engine.literal(column)}, {json_value(form, cell_name(column))}::JSON"
            for column, form in self.forms.items()
        )
        return f"json_object({', '.join(cells)})::VARCHAR"

    def cell(self, column: str, type_: Type) -> str:
        """Returns SQL that converts a column's value to a type; null if that would lose anything."""
        return cell(self.forms[column], type_, cell_name(column), column in TIMESTAMP_FIELDS)

    def aggregates(
        self, con: duckdb.DuckDBPyConnection, queried: Mapping[str, Sequence[str]]
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yields each column with the values of its aggregates over all rows; `queried` has their SQL, by column."""
        for part in engine.batched(queried.items(), CELLS_PER_QUERY):
            cells = ", ".join(sql for _, aggregates in part for sql in aggregates)
            values = iter(con.execute(f"SELECT {cells} FROM {self.source}").fetchone() or ())
            for column, aggregates in part:
                yield column, tuple(islice(values, len(aggregates)))

    def discards(self, discarded: Iterable[DiscardedValues]) -> str:
        """Returns a query (`seq`, `column`, `value` as JSON text, `reason`) of these values; it reads the rows once."""
        values = ", ".join(
            f"{{'column': {engine.literal(each.column)}, 'reason': {each.reason}, 'value': CASE WHEN {each.name} IS NOT"
            f" NULL AND {each.condition} THEN replace({json_value(each.form, each.name)}, chr(0), '\\u0000') END}}"
            for each in discarded
        )
        unnested = f"SELECT seq, unnest([{values}]) AS v FROM {self.source}"
        return f'SELECT seq, v."column", v.value, v.reason FROM ({unnested}) WHERE v.value IS NOT NULL'

    def misfits(self, column: str, type_: Type) -> DiscardedValues:
        """Returns the values of a column that cannot be converted to a type."""
        form, name = self.forms[column], cell_name(column)
        reason = engine.literal(_MISFIT_REASONS.get(type_, "does_not_fit"))
        if form in _FINITE_SQL:
            reason = f"CASE WHEN {_FINITE_SQL[form].format(name)} THEN {reason} ELSE 'not_a_number' END"
        return DiscardedValues(column, name, form, reason, f"{self.cell(column, type_)} IS NULL")


class BufferedTable(NamedTuple):
    """The rows of a table that are buffered in files, with `seq`, a row's number in the load."""

    name: str
    groups: Sequence[RowGroup]

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        return list(dict.fromkeys(column for group in self.groups for column in group.forms))

    def select(
        self, types: Mapping[str, Type], names: Mapping[str, str] = _NONE, more: Mapping[str, str] = _NONE
    ) -> str:
        """Returns a query of typed cells, with `seq`.

        `types` has the columns' types, `names` their names in the result if these differ, `more` the SQL of more cells.
        """
        parts = []
        for group in self.groups:
            cells = [
                f"{_cell_of(group, column, type_)} AS {aliased(names.get(column, column))}"
                for column, type_ in types.items()
            ]
            cells += [f"{sql} AS {engine.name(name)}" for name, sql in more.items()]
            parts.append(f"SELECT {', '.join(['seq', *cells])} FROM {group.source}")
        return " UNION ALL ".join(parts)


def _cell_of(group: RowGroup, column: str, type_: Type) -> str:
    return group.cell(column, type_) if column in group.forms else f"NULL::{SQL_TYPES[type_]}"


def values_of(
    con: duckdb.DuckDBPyConnection, table: BufferedTable, columns: Collection[str]
) -> dict[str, ColumnValues]:
    """Returns the type bits and the number of values of columns, including columns without values."""
    found: dict[str, ColumnValues] = {}
    for group in table.groups:
        measures = {column: _measures(group.forms[column], column) for column in columns if column in group.forms}
        measured = {column: ColumnValues(bits or 0, n) for column, (bits, n) in group.aggregates(con, measures)}
        found = merge_values(found, measured)
    return found


def _measures(form: Form, column: str) -> tuple[str, str]:
    """Returns SQL for the type bits of a column's values, and for their number."""
    name = cell_name(column)
    return str(_BITS[form]) if form in _BITS else f"bit_or({_BIT_SQL[form].format(name)})", f"count({name})"


def cut_texts(con: duckdb.DuckDBPyConnection, table: BufferedTable) -> dict[str, int]:
    """Returns, by column, how many texts have exactly as many characters as Segment keeps, and so may be cut."""
    found: Counter[str] = Counter()
    for group in table.groups:
        texts = {
            column: (f"count(*) FILTER (length({as_plain_text(form, cell_name(column))}) = {CUT})",)
            for column, form in group.forms.items()
            if form in ("text", "loose", "json")
        }
        for column, (count,) in group.aggregates(con, texts):
            found[column] += count
    return dict(+found)
