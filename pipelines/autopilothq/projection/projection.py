"""Turns messages into the rows of tables: runs the steps of a load one after the other, in one process.

Each step is a function of plain data that a worker could also run: `parse` (lines to files of cells), `deduplicate`,
the values of columns (`columns.column_values`, whose type bits are merged), and the rows of one table
(`tables.table_rows`). docs/projection.md draws them.
"""

import dataclasses
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from types import MappingProxyType

from ..catalog import LATEST, MAX_EVENT_TABLES, MESSAGE_TABLES
from ..segment.message import Batch
from . import audit, engine, mend, unreadable
from . import deduplicate as steps
from .columns import discard_without_table, row_values
from .context import (
    CountedMessages,
    ExistingTables,
    FileCount,
    ProjectionContext,
    ReadTable,
    SharedContext,
    TableNumbers,
    TableRows,
    name_events,
)
from .line_reader import LineReader
from .parse import Parser
from .tables import TableBuilder, TablePlan
from .users import latest_rows

# Bytes of messages. A smaller load (a few thousand messages) is done before a second thread would have begun to work,
# and that thread would cost a tenth more processor time.
SMALL_LOAD = 128 << 10


class Projection:
    """One load: add all batches, deduplicate, take the rows of each table.

    `shared` is what is known before lines are read. `scratch` is an empty folder for cells and for whatever exceeds
    the memory; the caller deletes it. A small load uses only one of the `threads`. Example:

        projection = Projection(shared, scratch=folder)
        projection.add(batch)
        for rows in projection.deduplicate().tables():
            rows.write(f"{rows.table}.parquet")
    """

    def __init__(self, shared: SharedContext, scratch: str, threads: int = 2) -> None:
        self._threads = threads
        self._parser = Parser(scratch, threads, shared.limits.key_bytes)
        # While batches are added, the threads that add them are all the parallelism there is.
        con = engine.connect(scratch, shared.memory, threads=1)
        self._context = ProjectionContext(
            con=con, scratch=scratch, cells=self._parser.no_messages(con), **shared.shared_fields()
        )
        self._readers: list[LineReader] = []  # readers that no thread is using
        self._lock = threading.Lock()

    def close(self) -> None:
        """Frees the memory; the caller deletes the scratch folder."""
        self._close_readers()
        self._context.con.close()

    def add(self, batch: Batch) -> None:
        """Parses a batch of lines; several threads may add at the same time. See `Parser.parse`."""
        with self._lock:
            reader = self._readers.pop() if self._readers else LineReader(self._context.con)
        cells = self._parser.parse(reader, batch)
        with self._lock:
            self._readers.append(reader)
            self._context.cells.extend(cells)

    def _close_readers(self) -> None:
        while self._readers:
            self._readers.pop().close()

    def tables(self, most: int = 10_000) -> list[str]:
        """Returns the tables that lines added so far may fill: of messages, and of the `most` most frequent events."""
        events = self._context.cells.event_tables(most)
        return [*(table.name for table in MESSAGE_TABLES), *map(self._context.event_table, events)]

    def deduplicate(
        self,
        existing: ExistingTables | None = None,
        stored: ReadTable | None = None,
        complete: Collection[str] = (),
        left_out: steps.LeftOut = steps.NOTHING_LEFT_OUT,
        widths: Mapping[str, int] | None = None,
        event_tables: Collection[str] = (),
        max_event_tables: int = MAX_EVENT_TABLES,
    ) -> "Deduplicated":
        """Decides, after the last batch, which messages are kept: one of each id, and none that is stored already.

        Args:
            existing: The destination's tables, whose columns keep their types.
            stored: `stored(table, columns)` returns rows of these tables as Arrow batches; it is called for ids only,
                and for no more tables than necessary.
            complete: The ids of the loads that were not killed; discards that other loads may have lost are written
                again.
            left_out: The messages that are rejected: of deleted persons, and what the destination refused.
            widths: How many columns each of the destination's tables has.
            event_tables: The destination's tables of events, in addition to those of the catalogue.
            max_event_tables: How many of these there may be.
        """
        self._close_readers()
        threads = 1 if self._context.cells.size() < SMALL_LOAD else self._context.affordable_threads(self._threads)
        self._context = dataclasses.replace(self._context, existing=existing or {}, threads=threads)
        self._context.reserve()
        context = open_load(dataclasses.replace(self._context, widths=widths or {}))
        steps.leave_out(context, left_out)
        return deduplicate(context, stored, complete, event_tables, max_event_tables)

    def unreadable(self) -> dict[str, str]:
        """Returns the errors, by message id, of the messages for which `deduplicate` or making rows raises."""
        with closing(LineReader(self._context.con)) as reader:
            canary = self._parser.parse_canary(reader)
        return unreadable.find_unreadable(self._context, canary, write_all_rows)


def open_load(context: ProjectionContext, only: str = "true") -> ProjectionContext:
    """Opens the messages of parsed cells in the engine; returns the context with the numbers of their tables.

    `only` is an SQL condition that selects the messages.
    """
    events = name_events(context.cells.events, context.event_table)
    context = dataclasses.replace(context, tables=TableNumbers.of(events))
    steps.open_messages(context, events, only)
    return context


def deduplicate(
    context: ProjectionContext,
    stored: ReadTable | None = None,
    complete: Collection[str] = (),
    event_tables: Collection[str] = (),
    max_event_tables: int = MAX_EVENT_TABLES,
) -> "Deduplicated":
    """Decides which messages of an open load are kept, after `leave_out`; see `Projection.deduplicate`."""
    steps.find_duplicates(context)
    tables, without_table = steps.limit_tables(context, event_tables, max_event_tables)
    context = dataclasses.replace(context, tables=tables)
    discard_without_table(context)
    if stored is not None:
        steps.match_stored(context, stored)
        steps.discard_again(context, stored, complete)
        steps.drop_stored(context)
    return Deduplicated(context, without_table)


def write_all_rows(context: ProjectionContext, only: str, path: str) -> None:
    """Writes all rows of some messages, as if nothing were stored, to a single file that each table overwrites.

    It is called only to see whether it raises. `only` is an SQL condition that selects the messages.
    """
    made = deduplicate(open_load(context, only))
    for rows in (*made.tables(), *made.latest(), made.discards()):
        if rows is not None:
            rows.write(path)


class Deduplicated:
    """A deduplicated load: the rows of its tables, and its books."""

    def __init__(
        self,
        context: ProjectionContext,
        without_table: Mapping[str, int],
        plans: Mapping[int, TablePlan] = MappingProxyType({}),
    ) -> None:
        """`without_table` counts the messages of events that have no table of their own, by the event's slug.

        `plans` has the plans of tables whose columns are decided already, by table number.
        """
        self._context = context
        self._without_table = without_table
        self._builder = TableBuilder(context, row_values(context, "kept"), plans)

    def tables(self) -> Iterator[TableRows]:
        """Yields the rows of each table of messages that has any, the smallest first and `tracks` last."""
        return self._builder.tables()

    def find_mends(self, stored: mend.ReadRows, tables: Collection[str], loads: Iterable[datetime]) -> None:
        """Finds the cut texts in the destination that messages of this load make whole; see `mend.find_mends`."""
        mend.find_mends(self._context, stored, tables, loads)

    def drop_mends(self, table: str) -> None:
        """Forgets the mends of a table, so that its stored texts stay cut."""
        mend.drop_mends(self._context, table)

    def with_mended_rows(self, stored: mend.ReadRows) -> Iterator[TableRows]:
        """Yields the rows of `tables`, together with mended rows, which replace the stored ones."""
        return mend.with_mended_rows(self._context, stored, self.tables())

    def mended_lengths(self, table: str) -> dict[str, int]:
        """Returns the columns of a table that have mended texts, with the length of the longest in characters."""
        return mend.mended_lengths(self._context, table)

    def mended(self) -> dict[str, int]:
        """Returns how many rows of each table are mended."""
        return mend.mended_tables(self._context)

    def latest(self, stored: ReadTable | None = None) -> Iterator[TableRows]:
        """Yields the rows of the users and accounts that the messages are about; see `users.latest_rows`."""
        for latest in LATEST:
            if (rows := latest_rows(self._context, latest, self._builder, stored)) is not None:
                yield rows

    def counts(self, counted: CountedMessages = MappingProxyType({})) -> list[FileCount]:
        """Returns how many lines of each file were stored, duplicates or rejected; files without lines are left out."""
        return audit.count_files(self._context, counted)

    def rejects_by_reason(self) -> dict[str, int]:
        """Returns how many lines were rejected for each reason, the most frequent first."""
        return audit.rejects_by_reason(self._context)

    def reject_causes(self) -> dict[str, int]:
        """Returns how many lines that are not JSON have each likely cause, the most frequent first."""
        return audit.reject_causes(self._context)

    def rejects(self, files: Sequence[str]) -> TableRows | None:
        """Returns the rows of `_rejects`, or None if there are none; `files` are the names of the load's files."""
        return audit.rejects(self._context, files)

    def discards(self) -> TableRows | None:
        """Returns the rows of `_discards`, or None if there are none. Call it after taking the rows of all tables."""
        return audit.discards(self._context)

    def beyond_limits(self) -> dict[str, dict[str, int]]:
        """Returns how many values exceeded a limit, by reason and table. Call it after `discards`.

        For events without a table (`too_many_tables`) it counts messages, by the event's slug.
        """
        return audit.beyond_limits(self._context, self._without_table)
