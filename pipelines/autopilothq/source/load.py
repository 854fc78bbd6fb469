"""A load of one origin, and the resources that share it.

A source has a resource a table, so that `with_resources` chooses tables. What they share is a `Load`: the first of them
that dlt asks for rows reads the origin, and all of them hand out what the warehouse made of it.
"""

import dataclasses
import itertools
import shutil
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from typing import Any, Protocol, TypeVar, cast

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dlt.common.schema.typing import TTableSchemaColumns, TWriteDispositionDict
from dlt.common.storages.load_package import load_package_state
from dlt.destinations import filesystem
from dlt.extract import DltResource
from dlt.extract.items import DataItemWithMeta

from ..catalog import (
    ALWAYS,
    AUDIT,
    BOOKS,
    COLUMN_RESERVE,
    EVENT_DESCRIPTION,
    EVENT_TABLES,
    KINDS,
    MAX_EVENT_TABLES,
    TABLES,
    TRACKS,
    USERS,
    Table,
    Type,
    event_table,
)
from ..identity import Hashes
from ..messages import Batch
from ..warehouse import (
    LINES,
    NOT_THE_LINES,
    SQL_TYPES,
    FileCount,
    Known,
    Rows,
    Settled,
    Warehouse,
    ordered,
    unreserved,
    values,
)
from ..warehouse import Stored as StoredRows
from .lake import Lake
from .refused import Refused
from .stored import Stored
from .tables import (
    REPLACED,
    SOURCE,
    STRATEGIES,
    arrow_schema,
    columns,
    disposition,
    keys_are_declared,
    limits_of,
    shortened,
    supported,
)

EVENTS_RESOURCE = "other_events"  # the tables of events that the catalogue does not know
WORKERS = 2
COUNTED = ("lines", "stored", "duplicates", "rejected")
NAMED = 10  # tables or events are named in a warning
HOME = "autopilothq"  # the folder of loads, below the pipeline's working folder

# What a load has ready, in a folder of its own below HOME.
_WAITING = "waiting"
_READY = "ready"  # how files of rows are named, and when dlt has them
_HANDED_OVER = "rows"
_BEGUN = "begun"

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
class Report:
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

    def then(self, part: "Report") -> "Report":
        """Both together, `part` being the next load of the same run."""
        added = ("bytes_done", *COUNTED, "discards", "people")
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
    """What a person should know of values that no table had room for; `tables` as `Settled.beyond_limits` has them."""
    some = [f"{name} ({count:,})" for name, count in itertools.islice(tables.items(), NAMED)]
    more = f" and {len(tables) - NAMED:,} more" if len(tables) > NAMED else ""
    what = "messages of events without a table" if reason == "too_many_tables" else "values beyond a limit"
    return f"{reason}: {what}, in _discards: {', '.join(some)}{more}"


def ignore(report: Report) -> None:
    """No one watches."""


def _begin(pipeline: dlt.Pipeline) -> tuple[Path, bool]:
    """A new folder for a load, and whether one may have been killed before.

    A killed one's folder is there still, and goes now. Of what happened on other machines nothing is known here.
    """
    home = Path(pipeline.working_dir, HOME)
    new_machine = not home.exists()
    home.mkdir(parents=True, exist_ok=True)
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


class Load:
    """The loads of one origin, shared by the resources of its source.

    Each extraction is a load of its own, which begins with nothing: a source that is extracted once more, because its
    load failed or for another pipeline, is read once more.

    `find` is told which files are loaded already, and gives those that are not, with the number of the others. `read`
    gives their lines. `beside` gives rows that the origin has beside those of messages; it is asked when all lines were
    read. `memory` is what the engine may use before it turns to the disk, in MB. `table_format` is dlt's.
    `max_event_tables` is how many tables of events the dataset may have beside those of the catalogue.
    """

    def __init__(
        self,
        find: Callable[[Files], tuple[Sequence[F], int]],
        read: Callable[[Sequence[F]], Iterator[Batch]],
        memory: int,
        progress: Callable[[Report], None],
        beside: "Callable[[Load, Stored], Iterator[Rows]] | None" = None,
        table_format: Any = None,
        max_event_tables: int = MAX_EVENT_TABLES,
    ) -> None:
        self._find = find
        self._read_files: Callable[[Sequence[Any]], Iterator[Batch]] = read
        self._memory = memory
        self._progress = progress
        self._beside = beside
        self.table_format = table_format
        self._max_event_tables = max_event_tables
        self._extraction: tuple[str, str] | None = None
        self._reset()

    def _reset(self) -> None:
        self.report = Report()
        self._files: Sequence[Read] = []
        self._unfinished: dict[int, str] = {}
        self._ready: dict[str, list[tuple[str, Rows]]] = {}
        self._written = itertools.count()
        self._audit: list[dict[str, Any]] = []
        self.before: dict[str, dict[str, Any]] = {}  # a file's row of `_audit` that this load adds to
        self.known: Known = {}
        self.forgotten = Hashes()

    def prepare(self, pipeline: dlt.Pipeline) -> None:
        """Reads the origin once an extraction: all lines into the warehouse, settled against what is stored."""
        extraction = pipeline.working_dir, load_package_state()["load_id"]
        if extraction == self._extraction:
            return
        self._extraction = extraction
        self._reset()
        started = monotonic()
        self.loaded_at = datetime.now(UTC)
        self._pipeline = pipeline
        self._format = dlt.current.resource().table_format
        self._supported = supported(pipeline, self._format)
        self._keys = keys_are_declared(pipeline)
        for table in (TRACKS, USERS):
            self.disposition(table.name)
        folder, killed = _begin(pipeline)
        self.folder = str(folder / _WAITING)
        Path(self.folder).mkdir()
        Path(self.folder, _BEGUN).write_text(self.loaded_at.isoformat())
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        destination = Lake(pipeline) if isinstance(pipeline.destination, filesystem) else Stored(pipeline)
        if killed:
            destination.drop_copies()
        self.forgotten = destination.forgotten()
        self._refused = self._take_refused(destination)
        self._destination = destination
        self.shorten: Callable[[str], str] = partial(shortened, naming=dlt.current.source_schema().naming)
        self._files, self.report.files_known = self._find(destination.loaded_files())
        self.report.files = len(self._files)
        self.report.bytes = sum(file.size for file in self._files)
        self._progress(self.report)
        while not self._project():
            pass
        for rows in self._beside(self, destination) if self._beside else ():
            self._write(rows)
        self.report.discards = self.report.rows.get("_discards", 0)
        for name, errors in self._refused.left_out.items():
            why = next(iter(errors.values()))
            self.report.warnings.append(f"Rows left out of {name}: {len(errors):,}; {why}")
        self.report.seconds = monotonic() - started
        self._progress(self.report)

    def _project(self) -> bool:
        """Reads all lines and makes the rows of each table of them.

        Where messages cannot become rows, whatever the reason, these are noted as refused, and all must be done once
        more without them: then it is not done.
        """
        self._warehouse = Warehouse(self.loaded_at, self.folder, self._memory, WORKERS, self.shorten)
        try:
            self._read()
            self._settle()
        except NOT_THE_LINES:
            raise
        except Exception:
            found = self._warehouse.unreadable()
            if not found.keys() - self._refused.messages.keys():
                raise
            self._refused.messages |= found
            self._refused.load_id = load_package_state()["load_id"]
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
        done = Report(files=self.report.files, files_known=self.report.files_known, bytes=self.report.bytes)
        self.report.__dict__.update(done.__dict__)

    def _settle(self) -> None:
        destination = self._destination
        there = self._event_tables()
        # No more of the events that somebody made up than may get a table.
        wanted = self._warehouse.tables(len(there) + self._max_event_tables + NAMED)
        self.known = destination.tables([*wanted, *there, *TABLES])
        read = self._refused.unseen(destination.read, self.known)
        settled = self._warehouse.settle(
            self.known,
            read if self.report.lines else None,  # else there is nothing to look for among those that are stored
            destination.complete_loads(),
            self.forgotten.pairs(),
            limits_of(self._pipeline),
            destination.widths,
            there,
            self._max_event_tables,
            refused=self._refused.messages,
            refused_users=self._refused.users,
            lines=self._lines,
        )
        self._take(settled, read)

    def _event_tables(self) -> set[str]:
        """The tables of the dataset whose events the catalogue does not know."""
        schemas = self._pipeline.schemas
        names = schemas[SOURCE].data_table_names() if SOURCE in schemas else []
        return {name for name in names if name not in TABLES and not name.startswith("_")}

    def _take_refused(self, destination: Stored) -> Refused:
        """What the destination refused in loads before this one, unless a complete load left it out already."""
        refused = Refused.read(self._pipeline)
        if refused.load_id is not None and refused.load_id in destination.complete_loads():
            return Refused(refused.place)
        if refused:
            refused.load_id = load_package_state()["load_id"]
            refused.write(self._pipeline)
        return refused

    def _read(self) -> None:
        """Adds the batches, some side by side; the first one alone, because it teaches the warehouse their shapes."""
        busy: set[Future[None]] = set()
        first = True
        with ThreadPoolExecutor(WORKERS) as pool:
            for batch in self._read_files(self._files):
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
                self._account(batch)
            for future in busy:
                future.result()

    def _lines(self, numbers: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """The lines with these numbers in the load, as they were read."""
        wanted = pa.array(numbers, pa.int64())
        for path in Path(self.folder).glob("lines-*"):
            for batch in pq.ParquetFile(path).iter_batches():
                number = pc.add(pc.multiply(batch["file"].cast(pa.int64()), LINES), batch["line"])
                found = pa.record_batch({"number": number, "text": batch["text"]}).filter(pc.is_in(number, wanted))
                yield from zip(found["number"].to_pylist(), found["text"].to_pylist(), strict=True)

    def _account(self, batch: Batch) -> None:
        self.report.lines += batch.lines.num_rows
        self.report.bytes_done += batch.bytes
        self.report.files_done += len(batch.ended)
        self._unfinished |= {number: why for number, why in batch.ended if why is not None}
        self._progress(self.report)

    def _take(self, settled: Settled, read: StoredRows) -> None:
        """The rows of each table as a Parquet file; counts into the report."""
        for rows in settled.tables():
            self._write(rows)
        users = settled.users(read)
        names = [file.url for file in self._files]
        for found in (users, settled.rejects(names), settled.discards()):
            if found is not None:
                self._write(found)
        counts = {count.number: count for count in settled.counts()}
        self._audit = [self._audit_row(number, counts.get(number)) for number in range(len(self._files))]
        for column in COUNTED:
            setattr(self.report, column, sum(getattr(count, column) for count in counts.values()))
        self.report.rejects = settled.rejects_by_reason()
        self.report.beyond_limits = settled.beyond_limits()
        self.report.bytes = sum(file.size for file in self._files)
        self.report.unfinished = {names[number]: why for number, why in self._unfinished.items()}
        if self._audit:
            self.report.rows[AUDIT.name] = len(self._audit)

    def _write(self, rows: Rows) -> None:
        path = f"{self.folder}/{_READY}-{next(self._written)}-{rows.table}"
        rows = self._refused.without(rows, TABLES[rows.table].key if rows.table in TABLES else ("id",))
        rows = _in_order(rows, self._schema_columns(rows.table))
        rows.write(path)
        self._ready.setdefault(rows.table, []).append((path, rows))
        self.report.rows[rows.table] = self.report.rows.get(rows.table, 0) + rows.number

    def _schema_columns(self, table: str) -> TTableSchemaColumns:
        schemas = self._pipeline.schemas
        tables = schemas[SOURCE].tables if SOURCE in schemas else {}
        return tables[table]["columns"] if table in tables else {}

    def _audit_row(self, number: int, count: FileCount | None) -> dict[str, Any]:
        file = self._files[number]
        count = count or FileCount(number, 0, 0, 0, 0, None, None)
        # A file that could not be read to its end is not the version that was listed: it is read again next time.
        unfinished = f" unfinished {self.loaded_at.isoformat()}" if number in self._unfinished else ""
        row = {
            "file": file.url,
            "version": file.version + unfinished,
            "size": file.size,
            **{key: value for key, value in count._asdict().items() if key != "number"},
            "loaded_at": self.loaded_at,
        }
        return row | _with(row, self.before[file.url]) if file.url in self.before else row

    def rows(self, table: str) -> Iterator[DataItemWithMeta]:
        """A table's rows as files that dlt takes over."""
        for ready, rows in self._ready.pop(table, ()):
            known = TABLES.get(table)
            path = str(Path(ready).rename(Path(ready).with_name(Path(ready).name.replace(_READY, _HANDED_OVER, 1))))
            if known is None:
                yield dlt.mark.with_file_import(path, "parquet", rows.number, cast(Any, rows))
            elif rows.number:
                yield dlt.mark.with_file_import(path, "parquet", rows.number, self.hints(known, rows.columns))
            else:
                empty = self.hints(known, rows.columns, file_format=self.empty_format())
                yield dlt.mark.with_hints(arrow_schema(rows.columns).empty_table(), empty)

    def hints(self, table: Table, types: Mapping[str, Type], **more: Any) -> Any:
        """A table's columns, and how rows are merged into it in this load's destination."""
        return dlt.mark.make_hints(
            columns=self.columns(table, types), write_disposition=self.disposition(table.name), **more
        )

    def columns(self, table: Table, types: Mapping[str, Type]) -> TTableSchemaColumns:
        """A table's columns, as this load's destination wants them."""
        return columns(table, types, self._keys)

    def disposition(self, table: str) -> TWriteDispositionDict:
        """How rows are merged into a table of this load's destination."""
        return disposition(table, self._supported)

    def audit(self) -> pa.Table | None:
        """The books of the files, None where there are none."""
        if not self._audit:
            return None
        load_id = load_package_state()["load_id"]
        schema = arrow_schema({column.name: column.type for column in AUDIT.columns})
        return pa.Table.from_pylist([{**row, "load_id": load_id} for row in self._audit], schema)

    def column(self, name: str) -> str:
        """The name that a column has in this load's destination."""
        return self.shorten(unreserved(name, limits_of(self._pipeline)))

    def room(self, table: str) -> dict[str, Any]:
        """The columns that a table of the catalogue has already (`there`), and for how many more it has `room`."""
        there = self._destination.tables([table]).get(table, {})
        own = {column.name for column in TABLES[table].columns}
        width = max(self._destination.widths.get(table, 0), len(there)) + len(own - there.keys())
        return {"there": there, "room": max(0, limits_of(self._pipeline).columns - COLUMN_RESERVE - width)}

    def tell(self) -> None:
        """Tells who watches how far it is."""
        self._progress(self.report)

    def has(self, table: str) -> bool:
        """Whether a table is there, or has rows in this load."""
        return table in self.known or table in self.report.rows

    def empty_format(self) -> Any:
        """The format of files without rows: Parquet, but not where ADBC loads it, because that refuses them."""
        able = self._pipeline.destination.capabilities()
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


def _in_order(rows: Rows, there: TTableSchemaColumns) -> Rows:
    """The rows with the columns of the schema first, missing ones null: otherwise dlt would write the file again."""
    columns = {name: cast(Type, column["data_type"]) for name, column in there.items() if "data_type" in column}
    columns |= rows.columns
    cells = [
        values.name(name) if name in rows.columns else f"NULL::{SQL_TYPES[of]} AS {values.name(name)}"
        for name, of in columns.items()
    ]
    return rows._replace(columns=columns, relation=rows.relation.project(", ".join(cells)))


def resources(load: Load) -> list[DltResource]:
    """One resource a table of messages, and one for all tables of other events."""
    tables = (*EVENT_TABLES, TRACKS, *(table for _, table, _ in KINDS), USERS)
    return [*(resource(load, table) for table in tables), _others(load), *books(load)]


def books(load: Load) -> list[DltResource]:
    """The books; `_audit` comes last, because the others must be there before it says so."""
    return [resource(load, table) for table in BOOKS]


def resource(load: Load, table: Table) -> DltResource:
    types: dict[str, Type] = {column.name: column.type for column in table.columns}
    if "uuid_ts" in types:
        types = ordered(types, table.key)

    # Columns come with the rows alone: what the resource declared would stand before what turns up in a new table.
    def rows() -> Iterator[Any]:
        load.prepare(dlt.current.pipeline())
        if table is AUDIT:
            if (audit := load.audit()) is not None:
                yield dlt.mark.with_hints(audit, load.hints(table, types))
        else:
            yield from load.rows(table.name)
        if table in ALWAYS and not load.has(table.name):
            empty = load.hints(table, types, file_format=load.empty_format())
            yield dlt.mark.with_hints(arrow_schema(types).empty_table(), empty)

    made = dlt.resource(
        rows,
        name=table.name,
        primary_key=table.key,
        write_disposition=disposition(table.name, STRATEGIES[table in REPLACED][:1]),
        table_format=load.table_format,
        file_format="parquet",
        table_name=table.name,
    )()
    return made.apply_hints(additional_table_hints={"description": table.description})


def _others(load: Load) -> DltResource:
    """Tables that turn up: dlt takes their names and columns from the rows."""

    def rows() -> Iterator[Any]:
        load.prepare(dlt.current.pipeline())
        for name in load.others():
            yield from load.rows(name)

    made = dlt.resource(
        rows,
        name=EVENTS_RESOURCE,
        columns=lambda rows: load.columns(event_table(rows.table), rows.columns),
        primary_key="id",
        write_disposition=lambda rows: load.disposition(rows.table),
        table_format=load.table_format,
        file_format="parquet",
        table_name=lambda rows: rows.table,
    )()
    return made.apply_hints(additional_table_hints={"description": EVENT_DESCRIPTION})
