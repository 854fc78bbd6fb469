"""The tasks that make rows: `RowsTask` for a partition of messages, `LatestTask` for a partition of persons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import duckdb
import pyarrow.parquet as pq

from ...catalog import LATEST, Latest, Type
from ...projection import ENVIRONMENT_ERRORS, FileCount, TableRows
from ...projection.cells import ParsedCells
from ...projection.context import NUMBER_OF_KIND
from ...projection.partition import LatestFiles, PartitionRows, StoredColumns, latest_of_partition, open_deduplicated
from ...projection.tables import TablePlan
from ...warehouses.selection import MessageSelection
from .partition_tasks import PartitionInput
from .tasks import CannotBecomeRows, WorkerContext, refused_messages
from .work_folder import WorkFolder

UNSHAPED = "unshaped"
"""The view that `RowShape.sql` reads."""


class RowShape(NamedTuple):
    """How the rows of a table are written for the destination: its columns, and SQL over the view `UNSHAPED`."""

    columns: Mapping[str, Type]
    sql: str


class WrittenRows(NamedTuple):
    """A file of rows in the work folder, and how many there are."""

    name: str
    row_count: int


@dataclass
class PartitionFiles:
    """The rows of a partition: files by table, the files from which `users` and `accounts` are made, and counts.

    `limits` are the numbers of discarded values, by reason and table.
    """

    rows: dict[str, WrittenRows] = field(default_factory=dict)
    latest: dict[str, LatestFiles] = field(default_factory=dict)
    counts: list[FileCount] = field(default_factory=list)
    rejects: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    limits: list[tuple[str, str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class RowPlans:
    """How the rows of all partitions are made: the plan of each table by its number, and how its rows are written.

    Rows of tables that are not in `shapes` are not written.
    """

    tables: Mapping[int, TablePlan]
    shapes: Mapping[str, RowShape]


@dataclass(frozen=True)
class RowsTask:
    """Makes the rows of a deduplicated partition. `files` names the file that lists the load's files.

    `counted` are the messages that earlier loads have counted, by file.
    """

    context: WorkerContext
    partition: PartitionInput
    state: Mapping[str, str]
    plans: RowPlans
    files: str
    counted: Mapping[int, MessageSelection]

    @property
    def name(self) -> str:
        """What it does."""
        return f"The rows of partition {self.partition.number}"

    def run(self) -> PartitionFiles | CannotBecomeRows:
        """Returns the files of rows, or the messages that cannot become rows."""
        folder = self.context.folder
        with self.context.engine() as (con, scratch):
            cells = self.context.fetched(self.partition.cells, scratch)
            saved = {table: folder.get(name, scratch) for table, name in self.state.items()}
            try:
                rows = open_deduplicated(self.context.load, con, scratch, cells, saved, self.plans.tables)
                return self._write(con, rows, scratch)
            except ENVIRONMENT_ERRORS:
                raise
            except Exception:  # noqa: BLE001 - raised again unless messages cause it
                with self.context.engine() as (again, elsewhere):
                    return refused_messages(self.context.load.open(again, elsewhere, cells), again, elsewhere)

    def _write(self, con: duckdb.DuckDBPyConnection, rows: PartitionRows, scratch: str) -> PartitionFiles:
        done = PartitionFiles()
        writer = _RowWriter(self.context.folder, self.plans.shapes, str(self.partition.number), scratch)
        for made in rows.tables():
            writer.write(con, made)
        for latest in LATEST:
            plan, folder = self.plans.tables[NUMBER_OF_KIND[latest.kind]], f"{scratch}/{latest.table.name}"
            found = rows.partition_latest(latest, plan, folder, self.context.load.partitions)
            done.latest[latest.table.name] = self._put_files(found, latest)
        names = pq.read_table(self.context.folder.get(self.files, scratch))["file"].to_pylist()
        for book in (rows.rejects(names), rows.discards()):
            if book is not None:
                writer.write(con, book)
        done.rows = writer.written
        done.counts = rows.counts(self.counted)
        done.rejects = rows.rejects_by_reason()
        done.causes = rows.reject_causes()
        done.limits = rows.discarded()
        return done

    def _put_files(self, files: LatestFiles, latest: Latest) -> LatestFiles:
        """Puts the files of each partition of persons into the work folder."""
        folder, number, prefix = self.context.folder, self.partition.number, f"latest/{latest.table.name}"
        return LatestFiles(*(
            {part: folder.put_all(paths, f"{prefix}/{part}/{number}-{what}") for part, paths in by_part.items()}
            for what, by_part in files._asdict().items()
        ))  # fmt: skip


@dataclass(frozen=True)
class LatestTask:
    """Makes the rows of `users` (`accounts`) for a partition of persons from their messages, and their discards.

    `types` are the types of the messages' columns, `stored` are the stored messages about these persons.
    """

    context: WorkerContext
    latest: Latest
    partition: int
    files: LatestFiles
    types: Mapping[str, Type]
    stored: StoredColumns | None
    shapes: Mapping[str, RowShape]

    @property
    def name(self) -> str:
        """What it does."""
        return f"The rows of partition {self.partition} of {self.latest.table.name}"

    def run(self) -> PartitionFiles:
        """Returns the files of rows."""
        done = PartitionFiles()
        with self.context.engine() as (con, scratch):
            get_all = self.context.folder.get_all
            opened = self.context.load.open(con, scratch, ParsedCells())
            ids, messages = (get_all(by_part.get(self.partition, ()), scratch) for by_part in self.files)
            stored = self.stored and self.stored._replace(files=get_all(self.stored.files, scratch))
            made = latest_of_partition(opened, self.latest, ids, messages, self.types, stored)
            books = PartitionRows(opened, {})
            prefix = f"{self.latest.table.name}-{self.partition}"
            writer = _RowWriter(self.context.folder, self.shapes, prefix, scratch)
            for rows in (made, books.discards()):
                if rows is not None:
                    writer.write(con, rows)
            done.rows = writer.written
            done.limits = books.discarded()
        return done


@dataclass(frozen=True)
class _RowWriter:
    """Writes rows into the work folder in the shape of the destination's tables. Names of files begin with `prefix`."""

    folder: WorkFolder
    shapes: Mapping[str, RowShape]
    prefix: str
    scratch: str
    written: dict[str, WrittenRows] = field(default_factory=dict, init=False)

    def write(self, con: duckdb.DuckDBPyConnection, rows: TableRows) -> None:
        """Writes rows of a table that has a shape."""
        if (shape := self.shapes.get(rows.table)) is None:
            return
        rows.relation.create_view(UNSHAPED, replace=True)
        path = f"{self.scratch}/{self.prefix}-rows.parquet"
        TableRows(rows.table, shape.columns, con.sql(shape.sql), rows.row_count).write(path)
        if row_count := pq.read_metadata(path).num_rows:
            name = f"rows/{self.prefix}-{rows.table}.parquet"
            self.written[rows.table] = WrittenRows(self.folder.put(path, name), row_count)
