"""Checks whether somebody changed the types of columns that commands read."""

from collections.abc import Collection

from ..catalog import COMMON, EVENT, EVENT_TABLES, MESSAGE_TABLES
from ..display import shortened
from ..errors import RunError
from ..warehouses.dataset import Dataset, NativeType, tables_of
from .diff import type_of

_EXPECTED = {column.name: column.type for column in COMMON + EVENT}
_FAMILIES = {"text": "text", "timestamp": "time"}
_NO_TEXT = ("json", "jsonb", "uuid")  # other types that are in no family, such as `citext`, may be compared as texts
TIMES = ("received_at", "uuid_ts")
_OF_MODELS = ("anonymous_id", "user_id", "timestamp", *TIMES)
_UNITED = ("id", "event")
"""Columns that models only unite and count. PostgreSQL unites no text with another type; DuckDB makes text of it."""


def check_types(dataset: Dataset, tables: Collection[str], columns: Collection[str]) -> None:
    """Raises RunError if a column of the contract among these has a type that its values cannot be read from.

    Only in DuckDB and PostgreSQL: the names that other destinations have for types are not all known.
    """
    if dataset.kind not in ("duckdb", "postgres"):
        return
    for table, existing in tables_of(dataset).items():
        for column in columns if table in tables else ():
            if column in existing and _is_changed(dataset, column, existing[column]):
                raise RunError(
                    f"Expected the column {column} of {shortened(table)} in {dataset.title}, to be"
                    f" {_EXPECTED[column]}, but somebody made it {shortened(existing[column].name)}.\n"
                    "Change its type back (ALTER TABLE ... ALTER COLUMN ... TYPE). If values were lost by the change,"
                    " drop the table and load its messages again."
                )


def check_types_of_models(dataset: Dataset) -> None:
    """Raises RunError if a model would fail, or count wrongly, because somebody changed a column's type."""
    tables = [table.name for table in (*EVENT_TABLES, *MESSAGE_TABLES)]
    check_types(dataset, tables, (*_OF_MODELS, *(_UNITED if dataset.kind == "postgres" else ())))


def _is_changed(dataset: Dataset, column: str, native: NativeType) -> bool:
    family = type_of(native.name, dataset.dialect).family
    return family != _FAMILIES[_EXPECTED[column]] and (family != "other" or native.name.lower() in _NO_TEXT)
