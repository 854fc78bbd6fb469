"""The tasks that decide which messages of a partition are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import duckdb

from ...projection import ENVIRONMENT_ERRORS
from ...projection.cells import ParsedCells
from ...projection.context import ProjectionContext
from ...projection.deduplicate import LeftOut
from ...projection.partition import (
    NotPartitioned,
    PartitionValues,
    StoredColumns,
    count_candidates,
    deduplicate_partition,
    refused_lines_reader,
    save_state,
)
from .tasks import CannotBecomeRows, WorkerContext, new_folder, refused_messages


@dataclass(frozen=True)
class PartitionInput:
    """A partition: its number, its cells, and the files of lines that may be refused."""

    number: int
    cells: ParsedCells
    refused_lines: Sequence[str]

    def opened(self, context: WorkerContext, con: duckdb.DuckDBPyConnection, scratch: str) -> ProjectionContext:
        """Returns the partition's messages, opened in the engine `con`."""
        return context.load.open(con, scratch, context.fetched(self.cells, scratch))

    def left_out(self, context: WorkerContext, scratch: str) -> LeftOut:
        """Returns what the load leaves out, with the lines of this partition that may be refused."""
        lines = refused_lines_reader(context.folder.get_all(self.refused_lines, scratch))
        return LeftOut(context.suppressed_ids(scratch), context.refused, lines)


@dataclass(frozen=True)
class CountTask:
    """Counts the distinct messages that each table would have from a partition's cells."""

    context: WorkerContext
    partition: PartitionInput

    @property
    def name(self) -> str:
        """What it does."""
        return f"Counting the messages of partition {self.partition.number}"

    def run(self) -> dict[int, int]:
        """Returns the counts by the number of the table."""
        with self.context.engine() as (con, scratch):
            opened = self.partition.opened(self.context, con, scratch)
            return count_candidates(opened, self.partition.left_out(self.context, scratch))


class DeduplicatedPartition(NamedTuple):
    """What is known about a partition's values, and the files with the state of its messages, by table."""

    values: PartitionValues
    state: Mapping[str, str]


class NeededColumns(NamedTuple):
    """The columns of the destination's tables that are needed to deduplicate a partition."""

    tables: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class DeduplicateTask:
    """Decides which messages of a partition are kept, from its cells and stored ids, and summarizes their values.

    `stored` is None if nothing counts as stored. `complete` are the ids of completed loads.
    """

    context: WorkerContext
    partition: PartitionInput
    stored: Mapping[str, StoredColumns] | None
    complete: frozenset[str]

    @property
    def name(self) -> str:
        """What it does."""
        return f"Deduplicating partition {self.partition.number}"

    def run(self) -> DeduplicatedPartition | NeededColumns | CannotBecomeRows:
        """Returns the deduplicated partition, columns that it still needs, or messages that cannot become rows."""
        with self.context.engine() as (con, scratch):
            folder = self.context.folder
            opened = self.partition.opened(self.context, con, scratch)
            stored = None if self.stored is None else {
                table: columns._replace(files=folder.get_all(columns.files, scratch))
                for table, columns in self.stored.items()
            }  # fmt: skip
            try:
                left_out = self.partition.left_out(self.context, scratch)
                values = deduplicate_partition(opened, stored, self.complete, left_out)
            except NotPartitioned as error:
                return NeededColumns(*error.args)
            except ENVIRONMENT_ERRORS:
                raise
            except Exception:  # noqa: BLE001 - raised again unless messages cause it
                return refused_messages(opened, con, scratch)
            saved = save_state(opened, str(new_folder(scratch, "state")))
            prefix = f"state/{self.partition.number}"
            state = {table: folder.put(path, f"{prefix}-{table}.parquet") for table, path in saved.items()}
            return DeduplicatedPartition(values, state)
