"""The protocol that a class implements so that its messages become the tables of the warehouse.

An origin finds out what is new, reads it as lines of Segment messages, and may have rows of its own alongside. The load
does the rest: exactly-once storage, rejects, discards, audit, selection of tables, deletion of people.
`autopilothq.source` turns an origin into a dlt source; `docs/origin.md` has a complete example.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from ..catalog import COLUMN_RESERVE, EVENT_TABLE_NAMES, EVENTS_RESOURCE, KINDS, LATEST, TABLES, TRACKS, Limits, Type
from ..errors import NotSupported
from ..projection import Snapshot, SnapshotTarget, TableRows, escape_reserved
from ..segment.identity import HashedIds
from ..segment.message import Batch
from ..warehouses.dataset import Dataset
from ..warehouses.dlt_internals import logger
from .report import LoadReport, ProgressCallback

__all__ = ["MESSAGE_RESOURCES", "Batch", "LoadContext", "Origin", "PipelineContext", "TableRows", "Work"]

MESSAGE_RESOURCES = (
    *EVENT_TABLE_NAMES,
    TRACKS.name,
    *(table.name for _, table, _ in KINDS),
    *(made.table.name for made in LATEST),
    EVENTS_RESOURCE,
)
"""The resources of all tables that messages fill; `other_events` stands for the tables of all other events."""


class Work(Protocol):
    """A unit of work that is either read completely or read again: a file, or a scan of an API.

    A NamedTuple or a dataclass will do.

    Example: `class Dump(NamedTuple): url: str; version: str; size: int`.
    """

    @property
    def url(self) -> str:
        """Its permanent name, which `_audit` shows as `file`."""

    @property
    def version(self) -> str:
        """A text that changes when its content does, such as an etag, or its size and modification time."""

    @property
    def size(self) -> int:
        """Its size in bytes, as far as it is known before it is read. Used for the progress and in `_audit`."""


W = TypeVar("W", bound=Work)
_Load = TypeVar("_Load")


def planned(load: _Load | None) -> _Load:
    """Returns what an origin's `plan` has prepared. Raises RuntimeError if `plan` was not called before."""
    if load is None:
        raise RuntimeError("Expected `plan` to be called before.")
    return load


@runtime_checkable
class ContinuedWork(Work, Protocol):
    """Work that continues where an earlier load stopped, under the same `url` and `version`."""

    @property
    def audited(self) -> Mapping[str, object] | None:
        """Its row in `_audit`, to which the counts of this load are added; None if there is none."""


@dataclass(frozen=True)
class PipelineContext:
    """The pipeline that a load belongs to, as far as an origin needs to know it.

    `dataset` reads the tables of the destination. `working_folder` is kept between loads on this machine, and may be
    empty on another one. `load_id` is dlt's id of this load: `_dlt_loads` has it once the load is complete.
    `complete_loads` are the ids of the complete loads that count: those that do not lack rows.
    """

    dataset: Dataset
    working_folder: Path
    load_id: str
    complete_loads: Collection[str] = frozenset()


@dataclass(frozen=True)
class LoadContext:
    """What a load passes to its origin.

    Attributes:
        loaded_at: When the load began; its rows have it in `uuid_ts`.
        selected: The resources that dlt extracts. Rows of other tables are ignored.
        loaded: `url` and `version` of all work whose rows are in every selected table already; empty unless the origin
            `reads_again`.
        pipeline: The pipeline; None if the source is iterated without one.
        scratch: An empty folder, which is deleted with the source.
        memory: The memory that the origin may use for rows besides messages, in MB.
        report: The counts so far. The origin may fill in those that only it knows, such as `contacts`.
        progress: Called with the report when its counts have changed.
        suppressed: The ids of deleted people. The load leaves out their messages; the origin must leave out its own
            rows about them.
        limits: The limits of the destination's tables.
        shorten: Shortens a name to what the destination accepts.
        dropped: The tables that dlt drops before it loads the rows.

    Example for an origin of files: `def plan(self, context): return context.new(self.all_files())`.
    """

    loaded_at: datetime
    selected: frozenset[str]
    loaded: Collection[tuple[str, str]]
    pipeline: PipelineContext | None
    scratch: Path
    memory: int
    report: LoadReport
    progress: ProgressCallback
    suppressed: HashedIds
    limits: Limits
    shorten: Callable[[str], str]
    dropped: Collection[str] = ()

    def new(self, work: Sequence[W]) -> list[W]:
        """Returns the work that is not loaded yet, and counts the rest as known in the report."""
        new = [each for each in work if (each.url, each.version) not in self.loaded]
        self.report.files_known = len(work) - len(new)
        return new

    def required_pipeline(self) -> PipelineContext:
        """Returns the pipeline. Raises NotSupported if there is none."""
        if self.pipeline is None:
            raise NotSupported(
                "Expected a pipeline, because this source continues from what it has loaded before.\n"
                "Run it with pipeline.run(...) instead of iterating it."
            )
        return self.pipeline

    def report_progress(self) -> None:
        """Calls `progress` with the report."""
        self.progress(self.report)

    def warn(self, text: str) -> None:
        """Logs a warning and adds it to the report."""
        logger.warning(text)
        self.report.warnings.append(text)

    def existing_columns(self, table: str) -> Mapping[str, Type]:
        """Returns the columns that a table has in the destination; none if it does not exist."""
        if self.pipeline is None or table in self.dropped:
            return {}
        return self.pipeline.dataset.tables([table]).get(table, {})

    def snapshot(self, table: str, received_at: datetime) -> Snapshot:
        """Returns an empty snapshot of a table of the catalogue, whose `rows` may be yielded from `Origin.finish`.

        `received_at` is when the scan of these records began.
        """
        scratch = self.scratch / table
        scratch.mkdir()
        return Snapshot(
            TABLES[table],
            received_at,
            self.loaded_at,
            str(scratch),
            self.memory,
            suppressed=self.suppressed,
            target=self._target(table),
        )

    def _target(self, table: str) -> SnapshotTarget:
        existing = self.existing_columns(table)
        width = len(existing)
        if self.pipeline is not None and table not in self.dropped:
            width = max(self.pipeline.dataset.widths.get(table, 0), width)
        missing = {column.name for column in TABLES[table].columns} - existing.keys()
        room = max(0, self.limits.columns - COLUMN_RESERVE - width - len(missing))
        return SnapshotTarget(partial(destination_column, self), existing, room)


def destination_column(context: LoadContext, name: str) -> str:
    """Returns a column's name in the destination."""
    return context.shorten(escape_reserved(name, context.limits))


class WorkShare(Protocol):
    """A part of an origin's work that a worker elsewhere can read: plain data without secrets, which can be pickled."""

    def read(self) -> Iterator[Batch]:
        """Yields the lines, with their files' numbers in the load. Runs in a worker."""


@runtime_checkable
class SharedOrigin(Protocol):
    """An origin whose work can be shared among workers."""

    def share(self, work: Sequence[Any], first: int) -> WorkShare:
        """Returns a share of consecutive pieces of a load's work; the first one has the number `first` in the load."""


class Origin(Protocol[W]):
    """Where messages come from. Subclass it, or write a class with the same attributes.

    One load calls `plan`, then `read` with what `plan` returned, then `finish`. The next load begins with `plan` again,
    on the same object or a new one, so what an origin must know of earlier loads belongs in the destination or in dlt's
    state of the source.

    Example: `WebhookDump` in docs/origin.md, which `autopilothq.source(WebhookDump(Path("dump")))` loads.
    """

    @property
    def tables(self) -> Sequence[str]:
        """The resources of the source, named after their tables: by default those of all messages.

        They include the tables whose rows `finish` yields, which must be in the catalogue.
        """
        return MESSAGE_RESOURCES

    @property
    def reads_again(self) -> bool:
        """Whether any work can be read again at any time.

        It can for an archive of files: `_audit` records what is loaded of each file, and a file is read again for
        tables that are selected later, or whose rows were dropped or not all taken. Otherwise, as for a scan of an API,
        the origin keeps cursors of its own (`dlt.current.source_state()`) and must not yield again what is loaded; then
        dlt must take all of its rows (no `add_limit`).
        """
        return False

    def plan(self, context: LoadContext) -> Sequence[W]:
        """Returns the work of this load: what the destination does not have yet.

        With `reads_again` that is `context.new(...)` of all existing work.
        """

    def read(self, work: Sequence[W]) -> Iterator[Batch]:
        """Yields the lines of the work; a file's number in a batch is its index in `work`.

        A load may call it a second time: if messages turn out not to fit into any row, it begins again without them.
        """

    def finish(self, context: LoadContext) -> Iterator[TableRows]:  # noqa: ARG002 - for those that have rows
        """Yields rows besides messages (contacts, lists, …) after all work is read. Called only in a pipeline."""
        return iter(())
