"""The interface for reading and writing the tables of a destination.

| implementation | destinations | implemented with |
|---|---|---|
| `sql.SqlDataset` | those that answer SQL | dlt's SQL client |
| `delta.DeltaDataset` | Delta tables in a bucket or a folder | DuckDB in process to read, the Delta library to write |

A statement is passed in two pieces, before and after the table's name. `{column}` in a template is a column of the
table, `%s` is a value, and names quoted by `Dataset.quoted` may be inserted.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from ...catalog import Table
from ...projection import ExistingTables
from ...utc import to_utc
from ..dlt_internals import TDataType
from ..hints import SOURCE

Row = tuple[Any, ...]
_COLUMN = re.compile(r"\{([^{}]+)\}")


class NativeType(NamedTuple):
    """A column's type: the destination's name for it, and dlt's, which is text if dlt does not know the type."""

    name: str
    type: TDataType

    @property
    def is_text(self) -> bool:
        """Whether values are compared as texts in DuckDB and PostgreSQL; a type that a user defined may be."""
        name = self.name.lower()
        return name.startswith(("varchar", "character", "text", "enum", "user-defined")) and not name.endswith("]")


Columns = dict[str, NativeType]


class UnknownType(NamedTuple):
    """A type that dlt reports as text, but that differs from plain text: unknown to dlt, or with an inexact collation.

    `is_text` tells whether the database classes the type as a string type.
    Example: `UnknownType("uuid", False)`, `UnknownType("citext", True)`.
    """

    name: str
    is_text: bool


class Dataset(ABC):
    """The tables of one dataset in a destination. Names of tables and columns are in lower case.

    Example: `open_dataset(pipeline).rows("count(*), max({received_at})", "tracks") == [(3, datetime(...))]`.
    """

    kind: str
    """dlt's name of the destination's type, for example `postgres`."""
    dialect: str | None
    """SQLGlot's name of the dialect that `stream` takes."""
    name: str
    """The dataset's name, as the destination has it."""
    target: str
    """The destination and the dataset in it, without secrets, as dlt's state records it."""
    title: str
    """The destination and the dataset in it, for messages."""
    schema_name = SOURCE
    """The name of the dlt schema that has the tables: for a resource run without its source, the pipeline's schema."""

    def __init__(self) -> None:
        self.widths: dict[str, int] = {}
        """The number of columns, whatever their types, of each table that `tables` was called for."""
        self.zoned: set[str] = set()
        """The tables among them that have a column of times with a time zone."""
        self.column_names: dict[str, set[str]] = {}
        """The columns of these tables, in destinations where dlt does not check whether they still exist."""

    # ---- metadata ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def exists(self) -> bool:
        """Returns whether the dataset was ever loaded into."""

    @abstractmethod
    def columns(self) -> dict[str, Columns]:
        """Returns the columns of all tables and views, including dlt's own."""

    @abstractmethod
    def tables(self, names: Sequence[str]) -> ExistingTables:
        """Returns the tables among these that exist, with the contract's types of their columns."""

    def lacks(self, table: str) -> bool:
        """Returns whether a table does not exist. Raises the destination's error if the user may not read it."""
        return table not in self.tables([table])

    def unreadable(self) -> list[str]:
        """Returns the tables that exist but that the user may not read, if the destination lists them."""
        return []

    def lengths(self) -> dict[tuple[str, str], int]:
        """Returns the maximum length of text columns, by table and column, if the destination limits it."""
        return {}

    def keys(self) -> dict[str, tuple[str, ...]]:
        """Returns the primary keys of the tables, in the order of their columns."""
        return {}

    def comments(self) -> dict[tuple[str, str | None], str]:
        """Returns the comments by table and column; the column is None for the comment of a table or view itself."""
        return {}

    def views(self) -> set[str]:
        """Returns the names of the views."""
        return set()

    def parts(self) -> "Sequence[Dataset]":
        """Returns this dataset, and the staging dataset if it exists."""
        return [self]

    @abstractmethod
    def complete_loads(self) -> set[str]:
        """Returns the ids of dlt's completed loads."""

    # ---- reading -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, table: str, columns: Sequence[str], ids: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yields columns of a table that `tables` has found, in the contract's types.

        With `ids`, only the rows with these ids are needed; others may be yielded, too, where reading all is quicker.
        Raises RunError if the type of a column cannot hold one of its values.
        """

    @abstractmethod
    def stream(self, before: str, table: str, after: str = "", values: Sequence[Any] = ()) -> Iterator[Row]:
        """Yields the rows of the statement `{before} {table} {after}`, whose `%s` are the values."""

    @abstractmethod
    def quoted(self, table: str, column: str) -> str:
        """Returns a column's quoted name for a statement."""

    @abstractmethod
    def text_type(self) -> str:
        """Returns the destination's type of text."""

    def template(self, table: str, text: str) -> str:
        """Returns a text with `{column}` replaced by the quoted name of that column of the table."""
        return _COLUMN.sub(lambda found: self.quoted(table, found[1]), text)

    def rows(self, select: str, table: str, rest: str = "", *values: Any) -> list[Row]:
        """Returns the rows of `SELECT {select} FROM {table} {rest}`, both templates; times are in UTC.

        Returns no rows if there is no such table.
        """
        if table not in self.columns():
            return []
        before, after = self.template(table, f"SELECT {select} FROM"), self.template(table, rest)
        return [tuple(map(in_utc, row)) for row in self.stream(before, table, after, values)]

    # ---- writing -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def create(self, table: Table) -> None:
        """Creates a table of the catalogue, and the dataset, if they are missing."""

    @abstractmethod
    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Inserts rows, with a cell for each column of the catalogue's table."""

    @abstractmethod
    def update(self, table: str, changes: Mapping[str, Any], where: str, values: Sequence[Any]) -> None:
        """Sets columns of the rows that meet `where`: SQL with quoted names, and a `%s` for each of the values."""

    @abstractmethod
    def delete(self, table: str, where: str, values: Sequence[Any]) -> None:
        """Deletes the rows that meet `where`: SQL with quoted names, and a `%s` for each of the values."""

    def transaction(self) -> AbstractContextManager[Any]:
        """Returns a context whose writes all take effect together, or not at all.

        It has no effect if the destination has no transactions over several tables.
        """
        return nullcontext()

    def locked(self, table: str) -> AbstractContextManager[bool]:  # noqa: ARG002
        """Holds a lock on a table during the block, if the destination has such locks.

        Yields False if another connection has the lock, otherwise True.
        """
        return nullcontext(True)

    def compact(self, table: str) -> None:  # noqa: B027
        """Merges a table's many files into few, if each write adds a file."""

    @abstractmethod
    def drop_copies(self) -> None:
        """Keeps one copy of each row that a killed load stored twice."""


def placeholders(values: Collection[Any]) -> str:
    """Returns the placeholders for a list of values. Example: `placeholders("ab") == "%s, %s"`."""
    return ", ".join(["%s"] * len(values))


def cast_to_text(dataset: Dataset, table: str, column: str) -> str:
    """Returns the SQL that reads a column as text."""
    return f"CAST({dataset.quoted(table, column)} AS {dataset.text_type()})"


def in_utc(value: Any) -> Any:
    """Returns a time in UTC, the zone of times that have none; returns any other value unchanged."""
    return to_utc(value) if isinstance(value, datetime) else value
