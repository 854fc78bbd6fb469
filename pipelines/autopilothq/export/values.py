"""Writes numbers as JSON with all their digits, and refuses values that no message can have."""

from collections.abc import Callable, Collection
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..warehouses.dataset import CALENDAR, Columns, Dataset, cell_text, unfit_error

Encoder = Callable[[Any], str]
_WHOLE = ("hugeint", "uhugeint", "ubigint", "uinteger", "usmallint", "utinyint", "bignum")
_OTHERS = ("decimal", "numeric", "float", "real")
_SECOND = 1_000_000
_FIRST, _LAST = -62_135_596_800 * _SECOND, 253_402_300_800 * _SECOND - 1  # of the calendar, in microseconds since 1970
_OR_PARQUET = ", or export Parquet (--format parquet)"


def number_encoders(dataset: Dataset, columns: Columns) -> dict[str, Encoder]:
    """Returns the columns of numbers that are read as text, each with the function that makes JSON of a number's text.

    They have types of DuckDB and PostgreSQL that the contract lacks, or whose values its types may not hold.
    """
    if dataset.kind not in ("duckdb", "postgres"):
        return {}
    names = {column: native.name.lower() for column, native in columns.items() if not native.name.endswith("]")}
    found: dict[str, Encoder] = {column: str for column, name in names.items() if name.startswith(_WHOLE)}
    return found | {column: number_json for column, name in names.items() if name.startswith(_OTHERS)}


def number_json(text: str) -> str:
    """Returns a number as JSON: as a float where that has the same value, otherwise with all its digits.

    Example: `number_json("2.50") == "2.5"`, `number_json("12345678901234567890.10") == "12345678901234567890.10"`.
    """
    short = repr(float(text))
    return short if short == text or Decimal(short) == Decimal(text) else f"{Decimal(text):f}"


def check_values(batch: pa.RecordBatch, numbers: Collection[str], table: str) -> None:
    """Raises RunError if a cell has a value that JSON or the calendar lacks, such as NaN or an infinity.

    `numbers` are the columns that have numbers as text.
    """
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        expected, unfit = CALENDAR, None
        if pa.types.is_timestamp(column.type):
            times = column.cast(pa.int64())
            unfit = pc.or_(pc.less(times, _FIRST), pc.greater(times, _LAST))
        elif pa.types.is_floating(column.type):
            expected, unfit = "a finite number", pc.invert(pc.is_finite(column))
        elif name in numbers:
            expected, unfit = "a finite number", pc.match_substring(column, "n", ignore_case=True)  # NaN, inf, Infinity
        if unfit is not None and pc.any(unfit).as_py():
            raise unfit_error(expected, f"{name} of {table}", cell_text(column.filter(unfit)[0]), _OR_PARQUET)
