"""Messages -> the tables of the warehouse, with rejects, discards and the books (spec: warehouse)."""

from .columns import unreserved
from .context import LINES_PER_FILE, SQL_TYPES, ExistingTables, FileCount, ReadTable, TableRows, ordered_columns
from .deduplicate import Deduplicated
from .parse import ENVIRONMENT_ERRORS, Projection
from .people import DuePeople, People
from .snapshot import Snapshot

__all__ = [
    "ENVIRONMENT_ERRORS",
    "LINES_PER_FILE",
    "SQL_TYPES",
    "Deduplicated",
    "DuePeople",
    "ExistingTables",
    "FileCount",
    "People",
    "Projection",
    "ReadTable",
    "Snapshot",
    "TableRows",
    "ordered_columns",
    "unreserved",
]  # fmt: skip
