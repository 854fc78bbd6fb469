"""Checks whether somebody changed the types of columns that commands read."""

from collections.abc import Collection

from ..catalog import AUDIT, COMMON, DISCARDS, EVENT, EVENT_TABLES, MESSAGE_TABLES, REJECTS
from ..display import shortened
from ..errors import RunError
from ..warehouses.dataset import Columns, Dataset, unknown_types
from ..warehouses.dlt_internals import LOADS_TABLE_NAME, VERSION_TABLE_NAME

_TIMES_OF_BOOKS = {
    AUDIT.name: "loaded_at",
    REJECTS.name: "rejected_at",
    DISCARDS.name: "discarded_at",
    LOADS_TABLE_NAME: "inserted_at",
    VERSION_TABLE_NAME: "inserted_at",
}
_EXPECTED = {column.name: column.type for column in COMMON + EVENT} | dict.fromkeys(
    _TIMES_OF_BOOKS.values(), "timestamp"
)
# DuckDB cannot compare its types of other units, such as `TIMESTAMP_NS`, with times that have a zone.
_TIMES = ("timestamp", "timestamp with time zone", "timestamp without time zone")
_TABLES = tuple(table.name for table in (*EVENT_TABLES, *MESSAGE_TABLES))
TIMES = ("received_at", "uuid_ts")
_OF_MODELS = ("anonymous_id", "user_id", "timestamp", *TIMES)
_UNITED = ("id", "event")
"""Columns that models only combine (UNION ALL) and count. PostgreSQL does not combine text with another type."""


def check_types(dataset: Dataset, tables: Collection[str], columns: Collection[str]) -> None:
    """Raises RunError if one of these columns of the contract has a type from which its values cannot be read."""
    unknown = {of: found.name for of, found in unknown_types(dataset).items() if not found.is_text}
    for table, existing in dataset.columns().items():
        for column in columns if table in tables else ():
            if is_changed(dataset, existing, column) or (table, column) in unknown:
                made = unknown.get((table, column), existing[column].name)
                raise RunError(
                    f"Expected the column {column} of {shortened(table)} in {dataset.title}, to be"
                    f" {_EXPECTED[column]}, but somebody made it {shortened(made)}.\n"
                    "Change its type back (ALTER TABLE ... ALTER COLUMN ... TYPE ... USING ...) and check its values:"
                    " text made of JSON keeps its quotes. If values were lost, drop the table and load its messages"
                    " again. If it is another program's table, rename it."
                )


def check_types_of_books(dataset: Dataset, tables: Collection[str] = tuple(_TIMES_OF_BOOKS)) -> None:
    """Raises RunError if somebody changed the type of the times of one of these bookkeeping tables, or of dlt's."""
    for table in tables:
        check_types(dataset, (table,), (_TIMES_OF_BOOKS[table],))


def check_types_of_models(dataset: Dataset, tables: Collection[str] = _TABLES) -> None:
    """Raises RunError if a model of these tables would fail, or count wrongly, because somebody changed a type."""
    check_types(dataset, tables, (*_OF_MODELS, *(_UNITED if dataset.kind == "postgres" else ())))


def is_changed(dataset: Dataset, existing: Columns, column: str) -> bool:
    """Returns whether a table has this column of the contract, but with a type from which its values cannot be read.

    False in all destinations but DuckDB and PostgreSQL, because their names for types are not all known.
    """
    if column not in existing or dataset.kind not in ("duckdb", "postgres"):
        return False
    native = existing[column]
    return native.name.lower() not in _TIMES if _EXPECTED[column] == "timestamp" else not native.is_text
