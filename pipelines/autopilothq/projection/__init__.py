"""Messages -> the tables of the warehouse, with rejects, discards and the books (spec: warehouse)."""

from .columns import unreserved
from .context import LINES, SQL_TYPES, FileCount, Known, Rows, Stored, ordered
from .deduplicate import Settled
from .parse import NOT_THE_LINES, Warehouse
from .people import Due, People
from .snapshot import Things

__all__ = [
    "LINES", "NOT_THE_LINES", "SQL_TYPES", "Due", "FileCount", "Known", "People", "Rows", "Settled", "Stored",
    "Things", "Warehouse", "ordered", "unreserved",
]  # fmt: skip
