"""Names the values that a type cannot hold, so that none of them becomes another value unnoticed."""

import pyarrow as pa

from ...display import shortened
from ...errors import RunError
from ...projection.types import ARROW

CALENDAR = "a time of the years 1 to 9999"
EXPECTED = {
    ARROW["timestamp"]: CALENDAR,
    ARROW["bigint"]: "an integer of at most 64 bits",
    ARROW["double"]: "a number that a float can be",
}
INFINITE = (1 << 63) - 1
"""DuckDB's value for infinity, in any unit of time; its negative is minus infinity."""


def unfit_error(expected: str, column: str, value: str, or_else: str = "") -> RunError:
    """Returns the error for a value that cannot be read or written as it is; `column` also says where it is."""
    return RunError(
        f"Expected {expected} in the column {column}, but got {shortened(value)}.\n"
        f"Change this value, or make the column text (ALTER TABLE ... ALTER COLUMN ... TYPE ...){or_else}."
    )


def cell_text(cell: pa.Scalar) -> str:
    """Returns a cell as text, and DuckDB's infinities as words."""
    if pa.types.is_timestamp(cell.type) and abs(cell.value) == INFINITE:
        return "infinity" if cell.value > 0 else "-infinity"
    return str(cell.cast(pa.string()))
