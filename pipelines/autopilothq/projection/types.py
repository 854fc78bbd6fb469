"""The single table of types: what each type is in SQL and in Arrow, and which values make a column of that type."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa

from ..catalog import Type


class TypeForms(NamedTuple):
    """The forms of one type.

    `to_text` and `from_text` are SQL templates: values pass as text, without loss, when they are pivoted from rows into
    columns. `row_bytes` is the most bytes that a value takes in a row of PostgreSQL: longer text is stored elsewhere,
    with a pointer of 18 bytes; numeric has a header of 5 bytes and 2 for each 4 of up to 17 digits; all others have up
    to 8 bytes after up to 7 of alignment.
    """

    sql: str
    arrow: pa.DataType
    to_text: str
    from_text: str
    row_bytes: int


TYPES: dict[Type, TypeForms] = {
    "text": TypeForms("VARCHAR", pa.string(), "{}", "{}::VARCHAR", 24),
    "bigint": TypeForms("BIGINT", pa.int64(), "{}::VARCHAR", "{}::BIGINT", 15),
    "double": TypeForms("DOUBLE", pa.float64(), "{}::VARCHAR", "{}::DOUBLE", 17),
    "bool": TypeForms("BOOLEAN", pa.bool_(), "{}::VARCHAR", "{}::BOOLEAN", 15),
    "timestamp": TypeForms(
        "TIMESTAMPTZ", pa.timestamp("us", "UTC"), "epoch_us({})::VARCHAR", "make_timestamptz({}::BIGINT)", 15
    ),
}
SQL_TYPES: dict[Type, str] = {name: forms.sql for name, forms in TYPES.items()}
ARROW: dict[Type, pa.DataType] = {name: forms.arrow for name, forms in TYPES.items()}

# The type of a JSON value as a bit, from the macro `type_bit`; a column's bits are the union of its values' bits.
TEXT, TIME_TEXT, INTEGER, FLOAT, BOOLEAN, ARRAY = 1, 2, 4, 8, 16, 32


class ColumnValues(NamedTuple):
    """A summary of a column's values: their type bits, and how many values there are."""

    bits: int
    value_count: int


def merge_values(*parts: Mapping[str, ColumnValues]) -> dict[str, ColumnValues]:
    """Returns the summary of each column's values over all parts of a load, whichever workers examined them.

    The bits of a part without values come from the column's type, so they count only if no part has values.

    Example: `merge_values({"a": ColumnValues(INTEGER, 2)}, {"a": ColumnValues(FLOAT, 1)})` gives
    `{"a": ColumnValues(INTEGER | FLOAT, 3)}`.
    """
    merged: dict[str, ColumnValues] = {}
    for part in parts:
        for column, values in part.items():
            before = merged.get(column, values._replace(value_count=0))
            counted = [each for each in (before, values) if each.value_count] or [before, values]
            merged[column] = ColumnValues(counted[0].bits | counted[-1].bits, before.value_count + values.value_count)
    return merged


def type_of_bits(bits: int) -> Type:
    """Returns the type of a column that has values with these bits (docs/contract/warehouse.md#values).

    Example: `type_of_bits(INTEGER | FLOAT) == "double"`; any other mixture is text.
    """
    pure: dict[int, Type] = {TIME_TEXT: "timestamp", INTEGER: "bigint", BOOLEAN: "bool"}
    return "double" if bits in (FLOAT, INTEGER | FLOAT) else pure.get(bits, "text")


def type_case(template: str, types: Iterable[Type]) -> str:
    """Returns an SQL CASE over the column `type`; `{}` in the template stands for the type's name.

    Example: `type_case("as_{}(value)", ["bool"]) == "CASE type WHEN 'bool' THEN as_bool(value) END"`.
    """
    cases = " ".join(f"WHEN '{name}' THEN {template.format(name)}" for name in sorted(set(types)))
    return f"CASE type {cases} END"
