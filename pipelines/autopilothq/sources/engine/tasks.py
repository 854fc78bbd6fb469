"""The common parts of a load's tasks. A task is plain data without secrets.

Each task gets files from the work folder, works in its own engine on the worker's disk, and puts files with fixed names
into the work folder. It returns only names and counts.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow.parquet as pq

from ...projection import RefusedIds, engine, unreadable
from ...projection.cells import CELL_FILES, ParsedCells
from ...projection.context import ProjectionContext
from ...projection.line_reader import LineReader
from ...projection.parse import Parser
from ...projection.partition import PartitionedLoad
from ...projection.projection import write_all_rows
from ...segment.identity import NOBODY, HashedIds
from ...warehouses import suppression_key
from .work_folder import WorkFolder


class CannotBecomeRows(NamedTuple):
    """The messages that cannot become rows: their errors, by message id."""

    messages: Mapping[str, str]


@dataclass(frozen=True)
class WorkerContext:
    """What all tasks of a load share: the work folder, the load, and the ids of what is left out.

    `suppressed` is the name of the file with the suppression list; None if the list is empty.
    """

    folder: WorkFolder
    load: PartitionedLoad
    refused: RefusedIds
    suppressed: str | None

    def suppressed_ids(self, scratch: str) -> HashedIds:
        """Returns the hashed ids of deleted persons. The list's key comes from the worker's own settings."""
        if self.suppressed is None:
            return NOBODY
        table = pq.read_table(self.folder.get(self.suppressed, scratch))
        return suppression_key.hashes(zip(table["salt"].to_pylist(), table["hash"].to_pylist(), strict=True))

    def fetched(self, cells: ParsedCells, scratch: str) -> ParsedCells:
        """Returns the cells with their files fetched to this machine."""
        files: dict[str, Any] = {what: self.folder.get_all(getattr(cells, what), scratch) for what in CELL_FILES}
        return dataclasses.replace(cells, **files)

    @contextmanager
    def engine(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
        """Opens an engine of one thread, and a folder on this machine's disk.

        Raises EngineError if this machine does not see the work folder.
        """
        self.folder.check()
        try:
            with self.folder.scratch() as scratch:
                con = engine.connect(scratch, self.load.memory, threads=1)
                try:
                    yield con, scratch
                finally:
                    con.close()
        finally:
            if not self.folder.is_there():  # the load has ended meanwhile, and no file may remain
                self.folder.delete()


def refused_messages(opened: ProjectionContext, con: duckdb.DuckDBPyConnection, scratch: str) -> CannotBecomeRows:
    """Returns the messages that caused the current exception; raises it again if none did."""
    with closing(LineReader(con)) as reader:
        canary = Parser(str(new_folder(scratch, "canary"))).parse_canary(reader)
    found = unreadable.find_unreadable(opened, canary, write_all_rows)
    if not found:
        raise  # noqa: PLE0704 - it is called while an exception is handled
    return CannotBecomeRows(found)


def new_folder(scratch: str, name: str) -> Path:
    """Creates a folder, and returns its path."""
    path = Path(scratch, name)
    path.mkdir()
    return path
