"""Turns messages into the warehouse's tables, with rejects, discards and the books (docs/contract/warehouse.md)."""

from .cells import LINES_PER_FILE
from .columns import escape_reserved
from .context import ExistingTables, FileCount, ReadTable, RefusedIds, SharedContext, TableRows, ordered_columns
from .parse import ENVIRONMENT_ERRORS
from .people import DuePeople, People
from .projection import Deduplicated, Projection
from .snapshot import Snapshot, SnapshotTarget
from .types import SQL_TYPES

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
    "RefusedIds",
    "SharedContext",
    "Snapshot",
    "SnapshotTarget",
    "TableRows",
    "escape_reserved",
    "ordered_columns",
]  # fmt: skip
