"""The task of the first half of a load: parses whole files into cells, and splits these into partitions."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import duckdb

from ...projection.cells import CELL_FILES, ParsedCells
from ...projection.line_reader import LineReader
from ...projection.parse import Parser, number_lines
from ...projection.partition import partition_cells, write_refused_lines
from ...segment.message import Batch
from ...warehouses.selection import MessageSelection
from ..event_filter import Filtered, filter_batch
from ..origin import WorkShare
from .tasks import WorkerContext, new_folder


@dataclass
class ParsedShare:
    """The result of a share of the work: cells by partition, files of lines that may be refused, and counts."""

    cells: dict[int, ParsedCells] = field(default_factory=dict)
    all_cells: ParsedCells = field(default_factory=ParsedCells)
    refused_lines: list[str] = field(default_factory=list)
    lines: int = 0
    bytes: int = 0
    ended: list[tuple[int, str | None]] = field(default_factory=list)
    skipped: Counter[int] = field(default_factory=Counter)
    named: set[str] = field(default_factory=set)

    def add(self, batch: Batch, filtered: Filtered, cells: ParsedCells) -> None:
        """Adds the counts of a batch as it was read, and the cells of its lines that were not skipped."""
        self.all_cells.extend(cells)
        self.lines += batch.lines.num_rows
        self.bytes += batch.bytes
        self.ended += batch.ended
        self.skipped += filtered.skipped
        self.named.update(filtered.named)


@dataclass(frozen=True)
class ParseTask:
    """Parses whole files into cells, split by a digest of the message's id. `requested` has a selection per file."""

    context: WorkerContext
    number: int
    share: WorkShare
    requested: Mapping[int, MessageSelection]

    @property
    def name(self) -> str:
        """What it does."""
        return f"Reading share {self.number}"

    def run(self) -> ParsedShare:
        """Reads and parses the share."""
        done = ParsedShare()
        with self.context.engine() as (con, scratch):
            with closing(LineReader(con)) as reader:
                parser = Parser(str(new_folder(scratch, "parsed")), key_bytes=self.context.load.limits.key_bytes)
                for number, whole in enumerate(self.share.read()):
                    filtered = filter_batch(whole, self.requested.__getitem__, self.context.load.event_table)
                    cells = parser.parse(reader, filtered.batch)
                    done.add(whole, filtered, cells)
                    if self.context.refused:
                        self._keep_refused(con, filtered.batch, cells, f"{scratch}/lines-{number}.parquet", done)
            partitioned = partition_cells(
                con, done.all_cells, self.context.load.partitions, str(new_folder(scratch, "cut"))
            )
            done.cells = {part: self._put_files(cells, part) for part, cells in partitioned.items()}
        done.all_cells = dataclasses.replace(done.all_cells, messages=[], extras=[], rejects=[], discards=[])
        return done

    def _keep_refused(
        self, con: duckdb.DuckDBPyConnection, batch: Batch, cells: ParsedCells, path: str, done: ParsedShare
    ) -> None:
        """Puts the lines of a batch that may be refused into the work folder; writes them to the file `path` first."""
        if write_refused_lines(con, number_lines(batch.lines), cells.messages, self.context.refused, path):
            name = f"lines/{self.number}-{len(done.refused_lines)}.parquet"
            done.refused_lines.append(self.context.folder.put(path, name))

    def _put_files(self, cells: ParsedCells, part: int) -> ParsedCells:
        """Puts the files of a partition into the work folder."""
        prefix = f"cells/{part}/{self.number}"
        put_all = self.context.folder.put_all
        files: dict[str, Any] = {what: put_all(getattr(cells, what), f"{prefix}-{what}") for what in CELL_FILES}
        return ParsedCells(**files)
