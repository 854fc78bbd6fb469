"""A load of one origin, and the resources that share it.

A source has a resource a table, so that `with_resources` chooses tables. What they share is a `Load`: the first of them
that dlt asks for rows reads the origin, and all of them hand out what the warehouse made of it.
"""

import dataclasses
import itertools
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from threading import RLock
from time import monotonic
from typing import Any, Protocol, TypeVar, cast

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dlt.destinations import filesystem
from dlt.sources import DltResource

from .. import private
from ..catalog import (
    ACCOUNTS,
    ALWAYS,
    AUDIT,
    BOOKS,
    COLUMN_RESERVE,
    DISCARDS,
    EVENT_DESCRIPTION,
    EVENT_TABLES,
    KINDS,
    LATEST,
    MAX_EVENT_TABLES,
    OTHER_LIMITS,
    OTHER_NATIVE,
    TABLES,
    TRACKS,
    USERS,
    Limits,
    Table,
    Type,
    event_table,
)
from ..errors import CannotMerge, NotSupported
from ..projection import (
    ENVIRONMENT_ERRORS,
    LINES_PER_FILE,
    SQL_TYPES,
    Deduplicated,
    ExistingTables,
    FileCount,
    Projection,
    TableRows,
    engine,
    ordered_columns,
    unreserved,
)
from ..projection import ReadTable as StoredRows
from ..segment.identity import HashedIds
from ..segment.message import Batch
from ..warehouses import dlt_internals
from ..warehouses.dataset import Dataset, Loaded
from ..warehouses.delta_dataset import DeltaDataset
from ..warehouses.dlt_internals import TTableSchemaColumns, TWriteDispositionDict, logger
from ..warehouses.duckdb import kept_open
from ..warehouses.hints import (
    REPLACED,
    STRATEGIES,
    arrow_schema,
    capabilities_of,
    column_hints,
    keys_are_declared,
    limits_of,
    merge_disposition,
    merge_strategies,
    shorten_identifier,
)
from ..warehouses.native import COPY_HINT, SEGMENT_TABLE_HINT, beside_views, copies_of, native_of
from ..warehouses.selection import ALL_MESSAGES, MessageSelection, covers, messages_of, select, to_text, union
from . import user_hints
from .event_filter import only
from .refused import RefusedMessages

EVENTS_RESOURCE = "other_events"  # the tables of events that the catalogue does not know
WORKERS = 2
FEW_LINES = 10_000
COUNTED = ("lines", "stored", "duplicates", "rejected")
CELLS_PER_BATCH = 1_000_000  # of the Arrow tables that a user's steps see
NAMED = 10  # tables or events are named in a warning
HOME = "autopilothq"  # the folder of loads, below the pipeline's working folder

# What a load has ready, in a folder of its own below HOME.
_WAITING = "waiting"
_READY = "ready"  # how files of rows are named, and when dlt has them
_HANDED_OVER = "rows"
_BEGUN = "begun"
_TAKEN = "taken"  # in dlt's state: resources whose rows were taken to their end, once at least

Files = set[tuple[str, str]]
"""Files by name and version."""


class Read(Protocol):
    """Something that is read as a whole, or again: a file, or a scan of an API."""

    @property
    def url(self) -> str:
        """Its name for ever."""

    @property
    def version(self) -> str:
        """Changes when what is in it does."""

    @property
    def size(self) -> int:
        """Its bytes, as far as they are known before it is read."""


F = TypeVar("F", bound=Read)


@dataclass
class LoadReport:
    """What a load has done so far; complete once the source was extracted."""

    files: int = 0
    files_known: int = 0
    files_done: int = 0
    bytes: int = 0
    bytes_done: int = 0
    lines: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    lines_skipped: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    discards: int = 0
    beyond_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_examples: dict[str, list[str]] = field(default_factory=dict)
    contacts: int = 0
    contacts_total: int | None = None
    people: int = 0
    people_total: int | None = None
    cut_off: str | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def then(self, part: "LoadReport") -> "LoadReport":
        """Both together, `part` being the next load of the same run."""
        added = ("bytes_done", *COUNTED, "lines_skipped", "discards", "people")
        counts = {name: getattr(self, name) + getattr(part, name) for name in added}
        rows = _sum(self.rows, part.rows) | {AUDIT.name: 1}  # the run's, which each load replaces
        return dataclasses.replace(
            part,
            **counts,
            rows=rows,
            rejects=_sum(self.rejects, part.rejects),
            beyond_limits={
                reason: _sum(self.beyond_limits.get(reason, {}), part.beyond_limits.get(reason, {}))
                for reason in self.beyond_limits | part.beyond_limits
            },
            warnings=[*self.warnings, *part.warnings],
            people_total=part.people_total if self.people_total is None else self.people_total,
        )


def _sum(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in first | second}


def limit_warning(reason: str, tables: Mapping[str, int]) -> str:
    """Describes values that no table had room for, for a person; `tables` is `Deduplicated.beyond_limits`."""
    some = [f"{name} ({count:,})" for name, count in itertools.islice(tables.items(), NAMED)]
    more = f" and {len(tables) - NAMED:,} more" if len(tables) > NAMED else ""
    what = "messages of events without a table" if reason == "too_many_tables" else "values beyond a limit"
    return f"{reason}: {what}, in _discards: {', '.join(some)}{more}"


def no_progress(report: LoadReport) -> None:
    """No one watches."""


def _begin(pipeline: dlt.Pipeline) -> tuple[Path, bool]:
    """A new folder for a load, and whether one may have been killed before.

    A killed one's folder is there still, and goes now. Of what happened on other machines nothing is known here.
    """
    home = Path(pipeline.working_dir, HOME)
    new_machine = not home.exists()
    if new_machine:  # dlt makes the pipeline's folder as the umask has it, and puts rows there
        private.narrow(Path(pipeline.working_dir))
    private.folder(home)
    left = list(home.iterdir())
    folder = Path(mkdtemp(dir=home))
    weakref.finalize(pipeline, shutil.rmtree, folder, ignore_errors=True)
    for old in left:
        shutil.rmtree(old, ignore_errors=True)
    return folder, new_machine or bool(left)


def handed_over(pipeline: dlt.Pipeline) -> dict[str, list[Path]]:
    """The Parquet files of each table that the pipeline's last load handed over to dlt.

    They are there as long as the load's source is, whatever became of the load.
    """
    files: dict[str, list[Path]] = {}
    for path in Path(pipeline.working_dir, HOME).glob(f"*/{_WAITING}/{_HANDED_OVER}-*"):
        files.setdefault(path.name.split("-", 2)[2], []).append(path)
    return files


def handed_over_at(pipeline: dlt.Pipeline) -> datetime:
    """When that load began, as its rows have it."""
    [path] = Path(pipeline.working_dir, HOME).glob(f"*/{_WAITING}/{_BEGUN}")
    return datetime.fromisoformat(path.read_text())


def drop_files(pipeline: dlt.Pipeline) -> None:
    """Removes what a complete load kept on the disk: the next one would take it for that of a killed load."""
    for folder in Path(pipeline.working_dir, HOME).glob("*/"):
        shutil.rmtree(folder, ignore_errors=True)


class Load:
    """The loads of one origin, shared by the resources of its source.

    Each extraction is a load of its own, which begins with nothing: a source that is extracted once more, because its
    load failed or for another pipeline, is read once more. So is each iteration without a pipeline: what it gives is
    what a load into an empty dataset would.

    `find` is told which files are loaded already, and gives those that are not, with the number of the others. `read`
    gives their lines. `beside` gives rows that the origin has beside those of messages; it is asked when all lines were
    read. `memory` is what the engine may use before it turns to the disk, in MB. `table_format` is dlt's.
    `max_event_tables` is how many tables of events the dataset may have beside those of the catalogue. `messages` are
    those that are wanted. Where `reads_again`, a file can be read again for the tables that were not selected before,
    or for rows that were not handed over; other origins keep marks of their own, and all they found must be taken.
    """

    def __init__(
        self,
        find: Callable[[Files], tuple[Sequence[F], int]],
        read: Callable[[Sequence[F]], Iterator[Batch]],
        memory: int,
        progress: Callable[[LoadReport], None],
        beside: "Callable[[Load, Dataset], Iterator[TableRows]] | None" = None,
        table_format: Any = None,
        max_event_tables: int = MAX_EVENT_TABLES,
        messages: MessageSelection = ALL_MESSAGES,
        reads_again: bool = False,
    ) -> None:
        self._find = find
        self._read_files: Callable[[Sequence[Any]], Iterator[Batch]] = read
        self._memory = memory
        self._progress = progress
        self._beside = beside
        self.table_format = table_format
        self._max_event_tables = max_event_tables
        self._messages = messages
        self._reads_again = reads_again
        self._lock = RLock()
        self._extraction: tuple[Any, ...] | None = None
        self.resources: list[str] = []
        self._hints: dict[str, Any] = {}
        self._added: dict[str, Any] = {}  # the hints that came with a resource's rows
        self._reset()

    def _reset(self) -> None:
        for name, added in self._added.items():
            dlt_internals.take_back(self._extracted[name], self._hints[name], added)
        self._hints = {}
        self._added = {}
        self._extracted: Mapping[str, DltResource] = {}
        self.report = LoadReport()
        self._files: Sequence[Read] = []
        self._unfinished: dict[int, str] = {}
        self._ready: dict[str, list[tuple[str, TableRows]]] = {}
        self._written = itertools.count()
        self._audit: list[dict[str, Any]] = []
        self.before: dict[str, dict[str, Any]] = {}  # a file's row of `_audit` that this load adds to
        self.known: ExistingTables = {}
        self.forgotten = HashedIds()
        self._skipped: Counter[int] = Counter()
        self._replaced: Collection[str] = ()
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._whole: set[str] = set()

    def prepare(self, name: str) -> None:
        """Reads the origin once an extraction, for the first of its resources: `name` is the one that asks.

        A resource that asks again begins a new one.
        """
        with self._lock:
            load_id = dlt_internals.extraction()
            # A source that is iterated without a pipeline is known by itself.
            pipeline = dlt_internals.running_pipeline() if load_id else None
            extraction = (pipeline.working_dir, load_id) if pipeline else (dlt.current.source(),)
            if self._extraction is None or extraction != self._extraction or name in self._begun:
                self._extraction = None
                self._reset()
                self._load_id = load_id
                self._prepare(pipeline)
                self._extraction = extraction
            self._begun.add(name)

    def _prepare(self, pipeline: dlt.Pipeline | None) -> None:
        started = monotonic()
        self.loaded_at = datetime.now(UTC)
        self._pipeline = pipeline
        self._schema = dlt.current.source_schema()
        self.shorten = partial(shorten_identifier, naming=self._schema.naming)
        self._select()
        if pipeline is None:
            self._begin_alone()
            destination = None
        else:
            destination = self._begin(pipeline)
        self._destination = destination
        self._files, self.report.files_known = self._find(self._loaded())
        self.report.files = len(self._files)
        self.report.bytes = sum(file.size for file in self._files)
        self._progress(self.report)
        while not self._project():
            pass
        for rows in self._beside(self, destination) if self._beside is not None and destination is not None else ():
            self._write(rows)
        self.report.discards = self.report.rows.get(DISCARDS.name, 0)
        for name, errors in self._refused.left_out.items():
            why = next(iter(errors.values()))
            self.report.warnings.append(f"Rows left out of {name}: {len(errors):,}; {why}")
        self.report.seconds = monotonic() - started
        self._progress(self.report)

    def _select(self) -> None:
        """Learns from dlt which of the resources are extracted, and what their users want of them."""
        source = dlt.current.source()
        extracted = {resource.name: resource for resource in source.resources.extracted}
        ours = {name: each for name, each in extracted.items() if dlt_internals.claimed(each, self)}
        for name, each in ours.items():
            if name != (own := dlt_internals.claimed(each, self)):
                raise NotSupported(
                    f"Expected the resource {own} by its own name, but it is called {name}: the books of what is loaded"
                    f" go by it.\nLeave with_name out, and rename in a view: CREATE VIEW {name} AS FROM {own}"
                )
            user_hints.check_hints(each, TABLES.get(name))
            if (each.limit is not None or each.incremental is not None) and not self._reads_again:
                raise NotSupported(
                    f"Expected all rows of {name} to be taken, but it has a limit or an incremental: what is left out"
                    " would not be asked for again.\nLeave it out, or use the settings of this source."
                )
        self._extracted = ours
        self._hints = {name: dlt_internals.hints(each) for name, each in ours.items()}
        self._feeds = {parent for each in extracted.values() for parent in dlt_internals.parents(each)}
        if EVENTS_RESOURCE in self._feeds & source.selected_resources.keys():
            raise NotSupported(
                f"Expected {EVENTS_RESOURCE} not to be selected, because a transformer takes its rows, which dlt would"
                f" write into the tables of the events.\nDeselect it: source.{EVENTS_RESOURCE}.selected = False"
            )
        self._selected = select(ours.keys() - {AUDIT.name}, self._messages)

    def _begin_alone(self) -> None:
        """Begins an iteration without a pipeline: nothing is known, and nothing is written anywhere."""
        self._format: Any = None
        self._supported: Sequence[str] = ("insert-only", "delete-insert")
        self._keys = False
        self._native = OTHER_NATIVE
        self.folder = mkdtemp(prefix=HOME)
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._loads: Mapping[tuple[str, str], Loaded] = {}
        self._dropped: Collection[str] = ()
        self._anew = True
        self._refused = RefusedMessages("")

    def _begin(self, pipeline: dlt.Pipeline) -> Dataset:
        """Begins a load into a pipeline's destination; raises before anything is written if that cannot be done."""
        dlt_internals.dataset_of_run(pipeline)
        self._format = dlt.current.resource().table_format
        self._supported = merge_strategies(pipeline, self._format)
        self._keys = keys_are_declared(pipeline)
        self._native = native_of(pipeline.destination.destination_type)
        if dlt_internals.has_import_schema(pipeline):
            self._take_import_schema()
        for name in (TRACKS.name, USERS.name, *self._extracted.keys() & TABLES.keys()):
            self.disposition(name)
        folder, killed = _begin(pipeline)
        self.folder = str(folder / _WAITING)
        Path(self.folder).mkdir()
        Path(self.folder, _BEGUN).write_text(self.loaded_at.isoformat())
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        destination = DeltaDataset(pipeline) if isinstance(pipeline.destination, filesystem) else Dataset(pipeline)
        destination.schema_name = self._schema.name
        with kept_open(pipeline):
            self.forgotten = destination.forgotten()  # first of all, because it may refuse the load
            if killed:
                destination.drop_copies()
            self._refused = self._take_refused(pipeline, destination)
            self._loads = destination.loaded_files() if self._reads_again else {}
            self._replace(destination)
            self._check_latest()
        return destination

    def _take_import_schema(self) -> None:
        """What people changed in an import schema of their own goes before the catalogue."""
        for name, resource in self._extracted.items():
            if name in TABLES:
                user_hints.check_schema(self._schema, TABLES[name])
            if name in self._schema.tables and (words := self._schema.tables[name].get("description")):
                resource.apply_hints(additional_table_hints={"description": words, SEGMENT_TABLE_HINT: True})

    def _replace(self, destination: Dataset) -> None:
        """Finds out whether dlt will drop, empty or replace tables: then everything is read again.

        What was stored is still there while this is asked, and must count as gone.
        """
        dropped, emptied = dlt_internals.dropped_tables()
        replaced = {name for name, each in self._extracted.items() if user_hints.is_replaced(each)}
        dropped |= self._dropped_before()
        self._dropped = dropped
        self._anew = bool(dropped or emptied or replaced)
        gone = dropped | emptied | replaced
        if self._anew and AUDIT.name not in gone | self._extracted.keys() and destination.tables([AUDIT.name]):
            raise NotSupported(
                f"Expected _audit among the selected resources, because {', '.join(sorted(gone))} is to be replaced:"
                " it would go on saying that their rows are stored.\nSelect _audit too."
            )
        self._replaced = replaced | ({AUDIT.name} if self._anew else set())

    def _dropped_before(self) -> set[str]:
        """The resources that `dlt pipeline ... drop` took away: it takes their state away too."""
        state = dlt.current.source_state()
        taken = self._extracted.keys() & state.get(_TAKEN, ())
        return (
            {name for name in taken if _TAKEN not in dlt.current.resource_state(name)} if self._reads_again else set()
        )

    def _note_taken(self) -> None:
        if self._reads_again and self._pipeline is not None:
            state = dlt.current.source_state()
            state[_TAKEN] = sorted({*state.get(_TAKEN, ()), *self._extracted})
            for name in self._extracted:
                dlt.current.resource_state(name)[_TAKEN] = True

    def _check_latest(self) -> None:
        for made in LATEST:
            name, messages = made.table.name, made.messages.name
            if name in self._extracted and messages not in self._extracted and not self._anew:
                raise NotSupported(
                    f"Expected {messages} among the selected resources, because {name} is: a row of it is made of all"
                    f" {messages} that are stored.\nSelect both, or neither."
                )

    def _loaded(self) -> Files:
        """The files of which all that is selected is loaded."""
        if self._anew:
            return set()
        return {file for file, loaded in self._loads.items() if covers(loaded.selected, self._selected)}

    def _complete(self, destination: Dataset) -> set[str]:
        """The complete loads, but those of files whose discards were not selected: they are to be found again."""
        discards = {DISCARDS.name: ALL_MESSAGES}
        without = {loaded.load_id for loaded in self._loads.values() if not covers(loaded.selected, discards)}
        return destination.complete_loads() - without

    def _project(self) -> bool:
        """Reads all lines and makes the rows of each table of them.

        Where messages cannot become rows, whatever the reason, these are noted as refused, and all must be done once
        more without them: then it is not done.
        """
        self._warehouse = Projection(self.loaded_at, self.folder, self._memory, WORKERS, self.shorten, self.event_table)
        try:
            self._read()
            # Few lines are dealt with so fast that nobody is kept out of a DuckDB file for long.
            with kept_open(self._pipeline if self.report.lines <= FEW_LINES else None):
                self._settle()
        except ENVIRONMENT_ERRORS:
            raise
        except Exception:
            found = self._warehouse.unreadable()
            if not found.keys() - self._refused.messages.keys():
                raise
            self._refused.messages |= found
            self._refused.load_id = self._load_id
            if self._pipeline is not None:
                self._refused.write(self._pipeline)
            self._begin_again()
            return False
        finally:
            self._warehouse.close()
        return True

    def _begin_again(self) -> None:
        for path in Path(self.folder).iterdir():
            if path.name != _BEGUN:
                path.unlink() if path.is_file() else shutil.rmtree(path)
        self._ready.clear()
        self._unfinished.clear()
        self._skipped.clear()
        done = LoadReport(files=self.report.files, files_known=self.report.files_known, bytes=self.report.bytes)
        self.report.__dict__.update(done.__dict__)

    def _settle(self) -> None:
        destination = self._destination
        if destination is None or self._pipeline is None:
            settled = self._warehouse.settle(max_event_tables=self._max_event_tables, refused=self._refused.messages)
            self._take(settled, None)
            return
        there = self._event_tables()
        # No more of the events that somebody made up than may get a table.
        wanted = self._warehouse.tables(len(there) + self._max_event_tables + NAMED)
        known = destination.tables([*wanted, *there, *TABLES])
        self.known = {name: columns for name, columns in known.items() if name not in self._dropped}
        # Nothing that is there counts as stored where tables are to be replaced: merging drops what is there twice.
        read = None if self._anew else self._refused.unseen(destination.read, self.known)
        settled = self._warehouse.settle(
            self.known,
            read if self.report.lines else None,  # else there is nothing to look for among those that are stored
            self._complete(destination),
            self.forgotten,
            self.limits,
            destination.widths,
            there,
            self._max_event_tables,
            refused=self._refused.messages,
            refused_made={USERS.name: self._refused.users, ACCOUNTS.name: self._refused.accounts},
            lines=self._lines,
        )
        self._take(settled, read)

    def event_table(self, slug: str) -> str:
        """The name that an event's table has in this load's destination."""
        return beside_views(self.shorten(slug), self._native, self._schema.tables)

    def _event_tables(self) -> set[str]:
        """The tables of the dataset whose events the catalogue does not know."""
        names = self._schema.data_table_names()
        return {name for name in names if name not in TABLES and not name.startswith("_")}

    def _take_refused(self, pipeline: dlt.Pipeline, destination: Dataset) -> RefusedMessages:
        """What the destination refused in loads before this one, unless a complete load left it out already."""
        refused = RefusedMessages.read(pipeline)
        if refused.load_id is not None and refused.load_id in destination.complete_loads():
            return RefusedMessages(refused.place)
        if refused:
            refused.load_id = self._load_id
            refused.write(pipeline)
        return refused

    def _read(self) -> None:
        """Adds the batches, some side by side; the first one alone, because it teaches the warehouse their shapes."""
        busy: set[Future[None]] = set()
        first = True
        with ThreadPoolExecutor(WORKERS) as pool:
            for whole in self._read_files(self._files):
                batch, skipped = only(whole, self._messages_of, self.event_table)
                self._skipped += skipped
                if len(busy) >= WORKERS:
                    done, busy = wait(busy, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                if first and batch.lines.num_rows:
                    self._warehouse.add(batch)
                    first = False
                else:
                    busy.add(pool.submit(self._warehouse.add, batch))
                if self._refused:
                    pq.write_table(batch.lines, f"{self.folder}/lines-{next(self._written)}", compression="zstd")
                self._account(whole)
            for future in busy:
                future.result()

    def _lines(self, numbers: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """The lines with these numbers in the load, as they were read."""
        wanted = pa.array(numbers, pa.int64())
        for path in Path(self.folder).glob("lines-*"):
            for batch in pq.ParquetFile(path).iter_batches():
                number = pc.add(pc.multiply(batch["file"].cast(pa.int64()), LINES_PER_FILE), batch["line"])
                found = pa.record_batch({"number": number, "text": batch["text"]}).filter(pc.is_in(number, wanted))
                yield from zip(found["number"].to_pylist(), found["text"].to_pylist(), strict=True)

    def _account(self, batch: Batch) -> None:
        self.report.lines += batch.lines.num_rows
        self.report.bytes_done += batch.bytes
        self.report.files_done += len(batch.ended)
        self._unfinished |= {number: why for number, why in batch.ended if why is not None}
        self._progress(self.report)

    def _take(self, settled: Deduplicated, read: StoredRows | None) -> None:
        """The rows of each table as a Parquet file; counts into the report."""
        for rows in settled.tables():
            self._write(rows)
        made = list(settled.latest(read))
        names = [file.url for file in self._files]
        for found in (*made, settled.rejects(names), settled.discards()):
            if found is not None:
                self._write(found)
        counts = {count.number: count for count in settled.counts()}
        self._audit = [self._audit_row(number, counts.get(number)) for number in range(len(self._files))]
        for column in COUNTED:
            setattr(self.report, column, sum(getattr(count, column) for count in counts.values()))
        self.report.lines_skipped = self._skipped.total()
        self.report.lines += self.report.lines_skipped
        self.report.rejects = settled.rejects_by_reason()
        self.report.beyond_limits = settled.beyond_limits()
        self.report.bytes = sum(file.size for file in self._files)
        self.report.unfinished = {names[number]: why for number, why in self._unfinished.items()}
        if self._audit:
            self.report.rows[AUDIT.name] = len(self._audit)

    def _write(self, rows: TableRows) -> None:
        name = rows.table if rows.table in TABLES else EVENTS_RESOURCE
        if name not in self._extracted:
            return  # it is loaded when it is selected
        user_hints.check_columns(self._extracted[name], rows)
        path = f"{self.folder}/{_READY}-{next(self._written)}-{rows.table}"
        rows = self._refused.without(rows, TABLES[rows.table].key if rows.table in TABLES else ("id",))
        rows = _with_copies(rows, self._copies(rows.table, rows.columns))
        rows = _in_order(rows, self._schema_columns(rows.table))
        rows = rows if self._is_zoned(rows.table) else _in_utc(rows)
        rows.write(path)
        self._ready.setdefault(rows.table, []).append((path, rows))
        self.report.rows[rows.table] = self.report.rows.get(rows.table, 0) + rows.number

    def _is_zoned(self, table: str) -> bool:
        """Whether times of a table have a time zone: tables that are there keep theirs."""
        return self._native.zoned or (self._destination is not None and table in self._destination.zoned)

    def _copies(self, table: str, columns: Collection[str]) -> dict[str, str]:
        """The columns of a table that repeat others: of a new table, or made by a load before."""
        there = self._schema_columns(table)
        return {
            copy: of
            for copy, of in copies_of(table, columns, self._native).items()
            if table not in self.known or COPY_HINT in there.get(copy, {})
        }

    def _schema_columns(self, table: str) -> TTableSchemaColumns:
        there = self._schema.tables.get(table)
        return there["columns"] if there else {}

    def _audit_row(self, number: int, count: FileCount | None) -> dict[str, Any]:
        file = self._files[number]
        count = count or FileCount(number, 0, 0, 0, 0, None, None)
        # A file that could not be read to its end is not the version that was listed: it is read again next time.
        unfinished = f" unfinished {self.loaded_at.isoformat()}" if number in self._unfinished else ""
        before, messages = self._before(file), self._messages_of(number)
        loaded = union(before.selected, select(self._selected, messages)) if before else self._selected
        row = {
            "file": file.url,
            "version": file.version + unfinished,
            "size": file.size,
            **{key: value for key, value in count._asdict().items() if key != "number"},
            "lines": count.lines + self._skipped[number],
            "loaded_at": self.loaded_at,
            "skipped": self._skipped[number],
            "tables": to_text(loaded, set(self.resources) - {AUDIT.name}) if self._reads_again else None,
        }
        if before:
            # What an earlier load stored of the file is no duplicate now.
            stored = before.stored
            if messages != messages_of(before.selected):
                stored = min(stored + count.stored, count.lines - count.rejected)
            row |= {"stored": stored, "duplicates": count.lines - count.rejected - stored}
        return row | _with(row, self.before[file.url]) if file.url in self.before else row

    def _before(self, file: Read) -> Loaded | None:
        """What is loaded of a file already."""
        return None if self._anew else self._loads.get((file.url, file.version))

    def _messages_of(self, number: int) -> MessageSelection:
        """The messages of a file that are wanted, with those that are loaded already, so that all are counted."""
        before = self._before(self._files[number])
        return self._messages | messages_of(before.selected) if before else self._messages

    @contextmanager
    def handing_over(self, name: str) -> Iterator[None]:
        """Notes that a resource's rows were taken, and whether to their end."""
        ended, whole = self._ended, self._whole
        try:
            yield
            whole.add(name)
        finally:
            ended.add(name)

    def rows(self, table: str) -> Iterator[Any]:
        """A table's rows: as files that dlt takes over, or as Arrow tables where somebody wants to see them."""
        known = TABLES.get(table)
        name = table if known else EVENTS_RESOURCE
        for ready, rows in self._ready.get(table, ()):
            path = Path(ready).with_name(Path(ready).name.replace(_READY, _HANDED_OVER, 1))
            if not path.exists():
                Path(ready).rename(path)
            if self._are_seen(name, table):
                yield from self._batches(path, rows)
            elif known is None:
                yield dlt.mark.with_file_import(str(path), "parquet", rows.number, cast(Any, rows))
            elif rows.number:
                yield dlt.mark.with_file_import(str(path), "parquet", rows.number, self.hints(known, rows.columns))
            else:
                yield self.empty(known, rows.columns)

    def _are_seen(self, name: str, table: str) -> bool:
        """Whether anything but the destination looks at a table's rows."""
        resource = self._extracted[name]
        if self._pipeline is None or name in self._feeds or dlt_internals.sees_rows(resource):
            return True
        return not dlt_internals.lets_all_pass(resource, self._schema, table)

    def _batches(self, path: Path, rows: TableRows) -> Iterator[Any]:
        """The rows as Arrow tables. Their types are those of the values: a user's step may make others of them."""
        schema = arrow_schema(rows.columns)
        known = TABLES.get(rows.table)
        most = max(1_000, CELLS_PER_BATCH // max(1, len(rows.columns)))
        feeds = (rows.table if known else EVENTS_RESOURCE) in self._feeds
        if feeds and known is not None and self._pipeline is not None:
            # What comes with an item goes to the transformers too.
            hints = self.hints(known, rows.columns, typed=False)
            self._extracted[known.name].apply_hints(
                columns=hints["columns"], write_disposition=hints["write_disposition"]
            )
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(most) if rows.number else iter((schema.empty_table(),))
            for batch in batches:
                cells = pa.table(batch.columns, names=batch.schema.names).select(schema.names).cast(schema)
                cells = cells.replace_schema_metadata({_TABLE: rows.table})
                if self._pipeline is None or feeds:
                    yield cells
                elif known is None:
                    yield dlt.mark.with_table_name(cells, rows.table)
                else:
                    yield dlt.mark.with_hints(cells, self.hints(known, rows.columns, typed=False))

    def empty(self, table: Table, types: Mapping[str, Type]) -> Any:
        """A table without rows."""
        rows = arrow_schema(types).empty_table()
        if self._pipeline is None:
            return rows
        return dlt.mark.with_hints(rows, self.hints(table, types, file_format=self.empty_format()))

    def hints(self, table: Table, types: Mapping[str, Type], typed: bool = True, **more: Any) -> Any:
        """A table's columns, and how rows are merged into it in this load's destination."""
        of = self.columns(table, types, typed)
        made = dlt.mark.make_hints(columns=of, write_disposition=self.disposition(table.name), **more)
        self._added[table.name] = made
        return made

    def columns(self, table: Table, types: Mapping[str, Type], typed: bool = True) -> TTableSchemaColumns:
        """A table's columns, as this load's destination wants them; what their user said of them stays.

        Without types where the rows tell them: a user's step may have made others.
        """
        copies = self._copies(table.name, types)
        types = (
            types if copies.keys() <= types.keys() else ordered_columns({**types, **dict.fromkeys(copies, "timestamp")})
        )
        made = column_hints(table, types, self._keys, self._is_zoned(table.name), copies)
        resource = self._extracted.get(table.name)
        own = dict(user_hints.own_columns(resource)) if resource is not None else {}
        edited = self._pipeline is not None and dlt_internals.has_import_schema(self._pipeline)
        for name, column in made.items():
            if not typed:
                column.pop("data_type")
            if edited and self._schema_columns(table.name).get(name, {}).get("description"):
                column.pop("description", None)
            for key in own.get(name, {}).keys() - {"name", "data_type"}:
                column.pop(key, None)  # type: ignore[misc]
        return made

    def disposition(self, table: str) -> TWriteDispositionDict:
        """How rows are merged into a table of this load's destination, or that they replace what is there."""
        if table in self._replaced:
            return {"disposition": "replace"}
        resource = self._extracted.get(table)
        wanted = user_hints.strategy(resource) if resource is not None else None
        if wanted in (None, STRATEGIES[TABLES.get(table) in REPLACED][0]):
            return merge_disposition(table, self._supported)
        if wanted not in self._supported:
            raise CannotMerge(f"Expected one of {', '.join(self._supported)} to merge {table}, but got {wanted}.")
        return merge_disposition(table, (wanted,))

    def waits(self) -> bool:
        """Whether resources are being taken still."""
        return bool(self._extracted.keys() - {AUDIT.name} - self._ended)

    def audit(self) -> pa.Table | None:
        """The books of the files, None where there are none.

        They have no file where rows of it were not taken to their end: it is read again.
        """
        cut = sorted(self._extracted.keys() - {AUDIT.name} - self._whole)
        if cut and self._audit:
            self.report.warnings.append(
                f"No file counts as loaded, because the rows of {', '.join(cut)} were not taken to their end: the next"
                " load reads them again."
            )
            logger.warning(self.report.warnings[-1])
            self.tell()
        if not cut:
            self._note_taken()
        rows = [] if cut else [{**row, "load_id": self._load_id} for row in self._audit]
        if not rows and not self._anew:
            return None
        return pa.Table.from_pylist(rows, arrow_schema({column.name: column.type for column in AUDIT.columns}))

    @property
    def limits(self) -> Limits:
        """What a table of this load's destination can have."""
        return OTHER_LIMITS if self._pipeline is None else limits_of(self._pipeline)

    def column(self, name: str) -> str:
        """The name that a column has in this load's destination."""
        return self.shorten(unreserved(name, self.limits))

    def room(self, table: str) -> dict[str, Any]:
        """The columns that a table of the catalogue has already (`there`), and for how many more it has `room`."""
        destination = self._destination
        there = {} if destination is None else destination.tables([table]).get(table, {})
        width = len(there) if destination is None else max(destination.widths.get(table, 0), len(there))
        missing = {column.name for column in TABLES[table].columns} - there.keys()
        return {"there": there, "room": max(0, self.limits.columns - COLUMN_RESERVE - width - len(missing))}

    def tell(self) -> None:
        """Tells who watches how far it is."""
        self._progress(self.report)

    def book(self, audit: pa.Table, table: Table, types: Mapping[str, Type]) -> Any:
        """The books as an item for dlt."""
        if self._pipeline is None:
            return audit
        if not self._is_zoned(table.name):
            of = pa.timestamp("us")  # in UTC; dlt would take the zone of its own configuration
            fields = [field.with_type(of) if pa.types.is_timestamp(field.type) else field for field in audit.schema]
            audit = audit.cast(pa.schema(fields))
        more = {} if audit.num_rows else {"file_format": self.empty_format()}
        return dlt.mark.with_hints(audit, self.hints(table, types, **more))

    def columns_of(self, rows: Any) -> TTableSchemaColumns:
        """The columns of rows of `other_events`."""
        table = event_table(event_table_of(rows))
        if isinstance(rows, TableRows):
            return self.columns(table, rows.columns)
        names = rows.schema.names if isinstance(rows, pa.Table) else ()
        return self.columns(table, dict.fromkeys(names, "text"), typed=False)

    def has(self, table: str) -> bool:
        """Whether a table is there, or has rows in this load."""
        return table in self.known or table in self.report.rows

    def empty_format(self) -> Any:
        """The format of files without rows: Parquet, but not where ADBC loads it, because that refuses them."""
        if self._pipeline is None:
            return "parquet"
        able = capabilities_of(self._pipeline)
        selected = able.loader_file_format_selector is not None
        refused = selected and not self._format and "insert_values" in (able.supported_loader_file_formats or ())
        return "insert_values" if refused else "parquet"

    def others(self) -> list[str]:
        """The tables with rows that no resource of their own stands for."""
        return [table for table in self._ready if table not in TABLES]


def _with(row: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The counts of a row of `_audit` with those that an earlier load had."""
    counts = {name: row[name] + before[name] for name in ("size", *COUNTED)}
    clocks = {"first_received_at": min, "last_received_at": max}
    found = {name: [clock for clock in (row[name], before[name]) if clock] for name in clocks}
    return counts | {name: choose(found[name], default=None) for name, choose in clocks.items()}


def _in_order(rows: TableRows, there: TTableSchemaColumns) -> TableRows:
    """The rows with the columns of the schema first, missing ones null: otherwise dlt would write the file again."""
    columns = {name: cast(Type, column["data_type"]) for name, column in there.items() if "data_type" in column}
    columns |= rows.columns
    cells = [
        engine.name(name) if name in rows.columns else f"NULL::{SQL_TYPES[of]} AS {engine.name(name)}"
        for name, of in columns.items()
    ]
    return rows._replace(columns=columns, relation=rows.relation.project(", ".join(cells)))


def _with_copies(rows: TableRows, copies: Mapping[str, str]) -> TableRows:
    """The rows with columns that repeat others."""
    if not copies:
        return rows
    cells = [f"{engine.name(of)} AS {engine.name(copy)}" for copy, of in copies.items()]
    types = ordered_columns({**rows.columns, **{copy: rows.columns[of] for copy, of in copies.items()}})
    return rows._replace(columns=types, relation=rows.relation.project(", ".join(["*", *cells])))


def _in_utc(rows: TableRows) -> TableRows:
    """The rows with times without a zone."""
    cells = [
        f"{name} AT TIME ZONE 'UTC' AS {name}" if of == "timestamp" else name
        for name, of in zip(map(engine.name, rows.columns), rows.columns.values(), strict=True)
    ]
    return rows._replace(relation=rows.relation.project(", ".join(cells)))


def resources(load: Load) -> list[DltResource]:
    """One resource a table of messages, and one for all tables of other events."""
    tables = (*EVENT_TABLES, TRACKS, *(table for _, table, _ in KINDS), *(made.table for made in LATEST))
    return [*(resource(load, table) for table in tables), _others(load), *books(load)]


def books(load: Load) -> list[DltResource]:
    """The books; `_audit` comes last, because the others must be there before it says so."""
    return [resource(load, table) for table in BOOKS]


def resource(load: Load, table: Table) -> DltResource:
    types: dict[str, Type] = {column.name: column.type for column in table.columns}
    if "uuid_ts" in types:
        types = ordered_columns(types, table.key)

    # Columns come with the rows alone: what the resource declared would stand before what turns up in a new table.
    def rows() -> Iterator[Any]:
        load.prepare(table.name)
        with load.handing_over(table.name):
            if table is AUDIT:
                while load.waits():
                    yield None  # dlt goes on with the others
                if (audit := load.audit()) is not None:
                    yield load.book(audit, table, types)
            else:
                yield from load.rows(table.name)
            if table in ALWAYS and not load.has(table.name):
                yield load.empty(table, types)

    dlt_internals.claim(rows, load, table.name)
    load.resources.append(table.name)
    made = dlt.resource(
        rows,
        name=table.name,
        primary_key=table.key,
        write_disposition=merge_disposition(table.name, STRATEGIES[table in REPLACED][:1]),
        table_format=load.table_format,
        file_format="parquet",
        table_name=table.name,
    )()
    return made.apply_hints(additional_table_hints={"description": table.description, SEGMENT_TABLE_HINT: True})


def _others(load: Load) -> DltResource:
    """Tables that turn up: dlt takes their names and columns from the rows."""

    def rows() -> Iterator[Any]:
        load.prepare(EVENTS_RESOURCE)
        with load.handing_over(EVENTS_RESOURCE):
            for name in load.others():
                yield from load.rows(name)

    dlt_internals.claim(rows, load, EVENTS_RESOURCE)
    load.resources.append(EVENTS_RESOURCE)
    made = dlt.resource(
        rows,
        name=EVENTS_RESOURCE,
        columns=load.columns_of,
        primary_key="id",
        write_disposition=lambda rows: load.disposition(event_table_of(rows)),
        table_format=load.table_format,
        file_format="parquet",
        table_name=event_table_of,
    )()
    return made.apply_hints(additional_table_hints={"description": EVENT_DESCRIPTION, SEGMENT_TABLE_HINT: True})


def event_table_of(rows: Any) -> str:
    """The table that rows of `other_events` are for.

    Arrow tables have it in their metadata; what a user's step made of them has it in the column `event`.
    """
    if isinstance(rows, TableRows):
        return rows.table
    metadata = getattr(getattr(rows, "schema", None), "metadata", None) or {}
    if _TABLE in metadata:
        return str(metadata[_TABLE].decode())
    try:
        event = rows["event"]
        return str(event if isinstance(event, str) else event[0])
    except (KeyError, IndexError, TypeError) as error:
        raise NotSupported(
            f"Expected the column event in what a step makes of {EVENTS_RESOURCE}, but it has gone: it says which table"
            " the rows are for."
        ) from error


_TABLE = b"autopilothq_table"
