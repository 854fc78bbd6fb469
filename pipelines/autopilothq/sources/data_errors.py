"""Distinguishes errors that values of rows cause from those of connections, permissions, tables and disks.

The class or the code of a driver's error takes precedence over dlt's classification of it.
"""

import re
from collections.abc import Collection

import duckdb

from ..warehouses.dlt_internals import DestinationTransientException, DestinationUndefinedEntity

# Whether a row causes an error, by the prefix of its SQLSTATE; the longest prefix counts. True: data exceptions,
# violated constraints, limits of a row. False: connections, permissions, missing tables or columns, disk space, locks.
# None: either is possible, as for columns that must not be null or refer to another table, if a trigger raises, or if
# a partition is missing (which has the state of a violated constraint).
_STATES: dict[str, bool | None] = {
    "0A": False, "22": True, "23": True, "23502": None, "23503": None, "44": True, "54": True, "54001": None,
    "54011": False, "54023": False, "08": False, "25": False, "28": False, "3D": False, "3F": False, "40": False,
    "42": False, "53": False, "55": False, "57": False, "58": False, "F0": False,
}  # fmt: skip
_DUCKDB: dict[type[Exception], bool] = {
    duckdb.ConversionException: True,
    duckdb.ConstraintException: True,
    duckdb.OutOfRangeException: True,
    duckdb.IOException: False,
    duckdb.CatalogException: False,
    duckdb.BinderException: False,
    duckdb.ConnectionException: False,
    duckdb.OutOfMemoryException: False,
    duckdb.FatalException: False,
    duckdb.InterruptException: False,
    duckdb.TransactionException: False,
}
# The Delta library's errors about a table: another writer's commit, a missing or append-only table, other columns.
_OF_DELTA_TABLES = {"CommitFailedError", "DeltaProtocolError", "SchemaMismatchError", "TableNotFoundError"}
# How its other errors begin if a table causes them, not values: a file is gone, or columns differ only in case.
_OF_A_DELTA_TABLE = re.compile(
    "(External error: |Generic DeltaTable error: |Parquet error: )*(Failed to fetch metadata|Schema error|Kernel error)"
)
_UNTRANSLATABLE = "22P05"
_NO_PARTITION = "no partition of relation"


def sqlstate(error: BaseException) -> str:
    """Returns the SQLSTATE of a driver's error, or an empty text if it has none."""
    return str(getattr(error, "pgcode", None) or getattr(error, "sqlstate", None) or "")


def lacks_characters(chain: Collection[BaseException]) -> bool:
    """Returns whether an error, given with its causes, is PostgreSQL's for a character that an encoding lacks.

    The server's texts do not show it, as they may be in any language.
    """
    return any(sqlstate(error) == _UNTRANSLATABLE for error in chain)


def is_data(chain: Collection[BaseException]) -> bool | None:
    """Returns whether values of rows caused an error, given with its causes; None if the errors do not show it."""
    for error in chain:
        if getattr(error, "pgcode", "") is None:
            return False  # not the server's answer to a statement: there was no connection, or it broke
        if type(error).__name__ in _OF_DELTA_TABLES or _OF_A_DELTA_TABLE.match(str(error)):
            return False
        if state := sqlstate(error):
            prefixes = [state[:length] for length in range(len(state), 1, -1)]
            caused_by_rows = next((_STATES[prefix] for prefix in prefixes if prefix in _STATES), None)
            return None if _NO_PARTITION in str(error) else caused_by_rows
        if isinstance(error, duckdb.Error):
            caused_by_rows = next((is_row for kind, is_row in _DUCKDB.items() if isinstance(error, kind)), None)
            return None if caused_by_rows and "NOT NULL" in str(error) else caused_by_rows
    never = (OSError, MemoryError, DestinationUndefinedEntity, DestinationTransientException)
    return False if any(isinstance(error, never) for error in chain) else None
