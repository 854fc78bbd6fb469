"""Hands the rows of a load over to dlt: as Parquet files, or as Arrow tables if anything in between sees the rows.

Files go into the load package as they are. A user's `add_map`, a transformer or a schema contract get Arrow tables.
"""

import itertools
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import dlt
import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog import AUDIT, EVENTS_RESOURCE, TABLES, Table, Type, event_table, resource_of
from ..errors import NotSupported
from ..projection import SQL_TYPES, TableRows, engine, ordered_columns
from ..projection.context import declared_types
from ..warehouses.dlt_internals import TTableSchemaColumns
from ..warehouses.dlt_internals import resources as dlt_resources
from ..warehouses.hints import arrow_schema
from ..warehouses.resolve import makes_dlt_columns_nullable, reads_files_here
from . import user_hints
from .load_folder import hand_over_file, ready_file
from .table_hints import TableHints

CELLS_PER_BATCH = 1_000_000  # cells of each Arrow table that a user's steps see
_TABLE = b"autopilothq_table"  # a key in the metadata of Arrow tables: the table that the rows are for


class RowFiles:
    """The rows of one attempt of a load, by table, with the hints for them."""

    def __init__(self, hints: TableHints) -> None:
        self.hints = hints
        self._extraction = hints.extraction
        self._folder = hints.target.folder
        self._numbers = itertools.count()
        self._ready: dict[str, list[tuple[Path, TableRows]]] = {}

    def write(self, rows: TableRows) -> None:
        """Writes rows of a selected table into a file; a table's rows may come in several parts."""
        rows = self.shaped(rows)
        # Only files that the destination reads on this machine stay uncompressed.
        rows.write(str(self.add(rows)), compressed=not reads_files_here(self._extraction.pipeline))

    def shaped(self, rows: TableRows) -> TableRows:
        """Returns rows of a selected table as they are written: with all columns, in the destination's form."""
        resource = self._extraction.resources[resource_of(rows.table)]
        in_schema = self._extraction.schema_columns(rows.table)
        user_hints.check_columns(resource, rows)
        if not self.are_seen(rows.table):  # a step may fill them
            with_dlts = not makes_dlt_columns_nullable(self._extraction.pipeline)
            user_hints.check_nulls(resource, rows, in_schema, with_dlts)
        rows = _with_copies(rows, self.hints.copies(rows.table, rows.columns))
        rows = _in_order(rows, in_schema)
        return rows if self.hints.is_zoned(rows.table) else _in_utc(rows)

    def add(self, rows: TableRows) -> Path:
        """Adds shaped rows; returns the path of the file to write them to."""
        path = ready_file(self._folder, next(self._numbers), rows.table)
        self._ready.setdefault(rows.table, []).append((path, rows))
        return path

    def other_tables(self) -> list[str]:
        """Returns the tables with rows that are not in the catalogue."""
        return [table for table in self._ready if table not in TABLES]

    def items(self, table: str) -> Iterator[Any]:
        """Yields a table's rows as dlt takes them."""
        known = TABLES.get(table)
        for ready, rows in self._ready.get(table, ()):
            path = hand_over_file(ready)
            if self.are_seen(table):
                yield from self._arrow_tables(path, rows)
            elif known is None:  # dlt takes the table's name and columns from the last argument, as from rows
                yield dlt.mark.with_file_import(str(path), "parquet", rows.row_count, cast(Any, rows))
            elif rows.row_count:
                hints = self.hints.make(known, rows.columns)
                yield dlt.mark.with_file_import(str(path), "parquet", rows.row_count, hints)
            else:
                yield self.empty(known, rows.columns)

    def are_seen(self, table: str) -> bool:
        """Returns whether anything but the destination sees a table's rows."""
        name = resource_of(table)
        resource = self._extraction.resources[name]
        if self._extraction.pipeline is None or name in self._extraction.feeds or dlt_resources.has_row_steps(resource):
            return True
        return self._adds_columns or not dlt_resources.allows_evolution(resource, self._extraction.schema, table)

    @cached_property
    def _adds_columns(self) -> bool:
        return dlt_resources.adds_columns()  # dlt adds them to Arrow tables, but not to files

    def _arrow_tables(self, path: Path, rows: TableRows) -> Iterator[Any]:
        """Yields the rows as Arrow tables, without declared types, because a user's step may change the types."""
        known = TABLES.get(rows.table)
        feeds = resource_of(rows.table) in self._extraction.feeds
        if feeds and known is not None and self._extraction.pipeline is not None:
            # Hints on an item would reach the transformers as well.
            hints = self.hints.make(known, rows.columns, typed=False)
            self._extraction.resources[known.name].apply_hints(
                columns=hints["columns"], write_disposition=hints["write_disposition"]
            )
        for cells in _batches(path, rows):
            if self._extraction.pipeline is None or feeds:
                yield cells
            elif known is None:
                yield dlt.mark.with_table_name(cells, dlt_resources.OwnName(rows.table))
            else:
                yield dlt.mark.with_hints(cells, self.hints.make(known, rows.columns, typed=False))

    def empty(self, table: Table, types: Mapping[str, Type]) -> Any:
        """Returns an item that makes a table without rows."""
        rows = arrow_schema(types).empty_table()
        if self._extraction.pipeline is None:
            return rows
        return dlt.mark.with_hints(rows, self.hints.make(table, types, file_format=self._empty_format(table)))

    def audit_item(self, audit: pa.Table) -> Any:
        """Returns the rows of `_audit` as an item for dlt."""
        if self._extraction.pipeline is None:
            return audit
        if not self.hints.is_zoned(AUDIT.name):
            of = pa.timestamp("us")  # in UTC; dlt would take the zone of its own configuration
            fields = [field.with_type(of) if pa.types.is_timestamp(field.type) else field for field in audit.schema]
            audit = audit.cast(pa.schema(fields))
        file_format = None if audit.num_rows else self._empty_format(AUDIT)
        return dlt.mark.with_hints(audit, self.hints.make(AUDIT, declared_types(AUDIT), file_format=file_format))

    def _empty_format(self, table: Table) -> Any:
        dlt_resources.expect_no_rows(table.name)
        return self.hints.empty_format()

    def columns_of(self, item: Any) -> TTableSchemaColumns:
        """Returns the columns of an item of `other_events`."""
        table = event_table(event_table_of(item))
        if isinstance(item, TableRows):
            return self.hints.columns(table, item.columns)
        names = item.schema.names if isinstance(item, pa.Table) else ()
        return self.hints.columns(table, dict.fromkeys(names, "text"), typed=False)


def event_table_of(item: Any) -> str:
    """Returns the table that an item of `other_events` is for.

    Arrow tables have its name in their metadata; what a user's step made of them has it in the column `event`. Raises
    NotSupported if an item has neither.
    """
    if isinstance(item, TableRows):
        return item.table
    metadata = getattr(getattr(item, "schema", None), "metadata", None) or {}
    if _TABLE in metadata:
        return str(metadata[_TABLE].decode())
    try:
        event = item["event"]
        return str(event if isinstance(event, str) else next(iter(event)))  # in pandas, [0] is the row labelled 0
    except (KeyError, StopIteration, TypeError) as error:
        raise NotSupported(
            f"Expected a row with the column event in what a step makes of {EVENTS_RESOURCE}, but there is none: it"
            " says which table the rows are for.\nReturn that column too, and None if no row is left."
        ) from error


def _batches(path: Path, rows: TableRows) -> Iterator[pa.Table]:
    """Yields the rows of a file as Arrow tables; an empty one if there are none."""
    schema = arrow_schema(rows.columns)
    most = max(1_000, CELLS_PER_BATCH // max(1, len(rows.columns)))
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(most) if rows.row_count else (schema.empty_table(),):
            cells = pa.table(batch.columns, names=batch.schema.names).select(schema.names).cast(schema)
            yield cells.replace_schema_metadata({_TABLE: rows.table})


def _in_order(rows: TableRows, in_schema: TTableSchemaColumns) -> TableRows:
    """Returns the rows with the schema's columns first, missing ones as null; otherwise dlt would rewrite the file."""
    columns = {name: cast(Type, column["data_type"]) for name, column in in_schema.items() if "data_type" in column}
    columns |= rows.columns
    cells = [
        engine.name(name) if name in rows.columns else f"NULL::{SQL_TYPES[of]} AS {engine.name(name)}"
        for name, of in columns.items()
    ]
    return rows._replace(columns=columns, relation=rows.relation.project(", ".join(cells)))


def _with_copies(rows: TableRows, copies: Mapping[str, str]) -> TableRows:
    """Returns the rows with additional columns, which repeat others; `copies` has the original of each."""
    if not copies:
        return rows
    cells = [f"{engine.name(of)} AS {engine.name(copy)}" for copy, of in copies.items()]
    types = ordered_columns({**rows.columns, **{copy: rows.columns[of] for copy, of in copies.items()}})
    return rows._replace(columns=types, relation=rows.relation.project(", ".join(["*", *cells])))


def _in_utc(rows: TableRows) -> TableRows:
    """Returns the rows with their times as UTC without a time zone."""
    cells = [
        f"{name} AT TIME ZONE 'UTC' AS {name}" if of == "timestamp" else name
        for name, of in zip(map(engine.name, rows.columns), rows.columns.values(), strict=True)
    ]
    return rows._replace(relation=rows.relation.project(", ".join(cells)))
