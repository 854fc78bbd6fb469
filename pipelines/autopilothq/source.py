"""The dlt sources: where an origin meets the warehouse and dlt's hints.

A source has a resource a table, so that `with_resources` chooses tables. What they share is a `Load`: the first of them
that dlt asks for rows reads the origin, and all of them hand out what the warehouse made of it.
"""

import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from typing import Any, cast

import dlt
import pyarrow as pa
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.exceptions import MissingDependencyException
from dlt.common.schema.typing import TColumnSchema, TLoaderMergeStrategy, TTableSchemaColumns, TWriteDispositionDict
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.common.storages.configuration import FilesystemConfiguration
from dlt.common.storages.fsspec_filesystem import fsspec_from_config
from dlt.common.storages.load_package import load_package_state
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase
from dlt.extract import DltResource
from dlt.extract.items import DataItemWithMeta

from .catalog import (
    AUDIT,
    BOOKS,
    EVENT_DESCRIPTION,
    EVENT_TABLES,
    KINDS,
    TABLES,
    TRACKS,
    USERS,
    Table,
    Type,
    event_table,
)
from .messages import Batch
from .origins import archive as archive_files
from .warehouse import SQL_TYPES, FileCount, Known, Rows, Settled, Warehouse, ordered, values

SOURCE = "autopilothq"
EVENTS_RESOURCE = "other_events"  # the tables of events that the catalogue does not know
ROWS_PER_READ = 100_000
WORKERS = 2

_ARROW: dict[Type, pa.DataType] = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
}


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
    rows: dict[str, int] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def _ignore(report: Report) -> None:
    """No one watches."""


@dlt.source(name=SOURCE, section=SOURCE, max_table_nesting=0)
def archive(
    archive_url: Any = dlt.config.value,  # str or a sequence of them; dlt injects no unions
    since: str | date | None = None,
    until: str | date | None = None,
    source_id: str | None = None,
    credentials: Any = None,
    memory: int = 400,
    progress: Any = _ignore,
) -> Iterable[DltResource]:
    """Segment's raw archive as the `autopilothq` schema.

    Args:
        archive_url: A file, a folder, a glob, or several; local or `s3://`, `gs://`, `az://`.
        since: The first day whose folder is read (UTC, included). Files outside of day folders are read whole.
        until: The last day whose folder is read (UTC, included).
        source_id: The one Segment source to read, where the archive has several.
        credentials: For files in a cloud, as dlt knows them; else the cloud's own ways.
        memory: What the engine may use before it turns to the disk, in MB.
        progress: Called with the `Report` after each step.

    Example: `pipeline.run(archive("s3://bucket/segment-logs/AbC123xYz9/", since="2019-03-01"))`.
    """
    urls = [archive_url] if isinstance(archive_url, str) else list(archive_url)

    def find() -> list[archive_files.File]:
        return _find(urls, _day(since), _day(until), source_id, credentials)

    return resources(Load(find, memory, progress))


def _day(day: str | date | None) -> date | None:
    if isinstance(day, datetime):
        return day.astimezone(UTC).date() if day.tzinfo else day.date()
    return date.fromisoformat(day) if isinstance(day, str) else day


def _find(
    urls: Sequence[str],
    since: date | None,
    until: date | None,
    source_id: str | None,
    credentials: Any,
) -> list[archive_files.File]:
    found: dict[str, archive_files.File] = {}
    for url in urls:
        fs = _filesystem(url, credentials) if "://" in url and not url.startswith("file:") else None
        for file in archive_files.find([url], since=since, until=until, source_id=source_id, fs=fs):
            found[file.url] = file
    return [found[url] for url in sorted(found)]


def _filesystem(url: str, credentials: Any) -> Any:
    """The file system of a bucket, with dlt's credentials or the cloud's own."""
    given = {"bucket_url": url} | ({} if credentials is None else {"credentials": credentials})
    config = FilesystemConfiguration()
    try:
        return fsspec_from_config(resolve_configuration(config, sections=("sources", SOURCE), explicit_value=given))[0]
    except ConfigFieldMissingException as error:
        raise archive_files.ArchiveError(
            f"Expected credentials for {url}, but there are none.\n"
            f"Put [sources.{SOURCE}.credentials] into .dlt/secrets.toml, or sign in to the cloud in its own way."
        ) from error
    except MissingDependencyException as error:
        extra = archive_files.EXTRAS.get(url.split("://", maxsplit=1)[0], "filesystem")
        raise archive_files.ArchiveError(
            f"Reading {url} needs a package that is not installed.\nInstall it: pip install 'dlt-autopilothq[{extra}]'"
        ) from error


def _begin(pipeline: dlt.Pipeline) -> tuple[Path, bool]:
    """A new folder for a load, and whether one may have been killed before.

    A killed one's folder is there still, and goes now. Of what happened on other machines nothing is known here.
    """
    home = Path(pipeline.working_dir, "autopilothq")
    new_machine = not home.exists()
    home.mkdir(parents=True, exist_ok=True)
    left = list(home.iterdir())
    folder = Path(mkdtemp(dir=home))
    weakref.finalize(pipeline, shutil.rmtree, folder, ignore_errors=True)
    for old in left:
        shutil.rmtree(old, ignore_errors=True)
    return folder, new_machine or bool(left)


class Load:
    """One load of one origin, shared by the resources of its source."""

    def __init__(self, find: Callable[[], list[archive_files.File]], memory: int, progress: Callable[[Report], None]):
        self.report = Report()
        self._find = find
        self._memory = memory
        self._progress = progress
        self._settled: Settled | None = None
        self._files: list[archive_files.File] = []
        self._unfinished: dict[int, str] = {}
        self._ready: dict[str, Rows] = {}
        self._paths: dict[str, str] = {}
        self._known: Known = {}

    def prepare(self, pipeline: dlt.Pipeline) -> None:
        """Reads the origin once: all lines into the warehouse, settled against what the destination has."""
        if self._settled is not None:
            return
        started = monotonic()
        self.loaded_at = datetime.now(UTC)
        self._pipeline = pipeline
        self._supported = pipeline.destination.capabilities().supported_merge_strategies or ()
        disposition(TRACKS.name, self._supported)
        folder, killed = _begin(pipeline)
        self._folder = str(folder / "waiting")
        Path(self._folder).mkdir()
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        destination = Destination(pipeline)
        if killed:
            destination.drop_copies()
        known_files = destination.loaded_files()
        found = self._find()
        self._files = [file for file in found if (file.url, file.version) not in known_files]
        self.report.files = len(self._files)
        self.report.files_known = len(found) - len(self._files)
        self.report.bytes = sum(file.size for file in self._files)
        self._progress(self.report)
        # The destination may have no room for the whole of a long name (spec: Names).
        shorten = dlt.current.source_schema().naming.normalize_identifier
        self._warehouse = Warehouse(self.loaded_at, self._folder, self._memory, WORKERS, shorten)
        self._read()
        self._known = destination.tables([*self._warehouse.tables(), *TABLES])
        self._settled = self._warehouse.settle(self._known, destination.read, destination.complete_loads())
        self._take(self._settled, destination)
        self._warehouse.close()
        self.report.seconds = monotonic() - started
        self._progress(self.report)

    def _read(self) -> None:
        """Adds the batches, some side by side; the first one alone, because it teaches the warehouse their shapes."""
        busy: set[Future[None]] = set()
        first = True
        with ThreadPoolExecutor(WORKERS) as pool:
            for batch in archive_files.read(self._files):
                if len(busy) >= WORKERS:
                    done, busy = wait(busy, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                if first and batch.lines.num_rows:
                    self._warehouse.add(batch)
                    first = False
                else:
                    busy.add(pool.submit(self._warehouse.add, batch))
                self._account(batch)
            for future in busy:
                future.result()

    def _account(self, batch: Batch) -> None:
        self.report.lines += batch.lines.num_rows
        self.report.bytes_done += batch.bytes
        self.report.files_done += len(batch.ended)
        self._unfinished |= {number: why for number, why in batch.ended if why is not None}
        self._progress(self.report)

    def _take(self, settled: Settled, destination: "Destination") -> None:
        """The rows of each table as a Parquet file; counts into the report."""
        for rows in settled.tables():
            self._write(rows)
        users = settled.users(destination.read)
        names = [file.url for file in self._files]
        for found in (users, settled.rejects(names), settled.discards()):
            if found is not None:
                self._write(found)
        counts = {count.number: count for count in settled.counts()}
        self._audit = [self._audit_row(number, counts.get(number)) for number in range(len(self._files))]
        for column in ("lines", "stored", "duplicates", "rejected"):
            setattr(self.report, column, sum(row[column] for row in self._audit))
        self.report.rejects = settled.rejects_by_reason()
        self.report.discards = self.report.rows.get("_discards", 0)
        self.report.unfinished = {names[number]: why for number, why in self._unfinished.items()}
        if self._audit:
            self.report.rows[AUDIT.name] = len(self._audit)

    def _write(self, rows: Rows) -> None:
        path = f"{self._folder}/rows-{len(self._paths)}"
        rows = _in_order(rows, self._schema_columns(rows.table))
        rows.relation.to_parquet(path, compression="snappy")
        self._ready[rows.table] = rows
        self._paths[rows.table] = path
        self.report.rows[rows.table] = rows.number

    def _schema_columns(self, table: str) -> TTableSchemaColumns:
        schemas = self._pipeline.schemas
        tables = schemas[SOURCE].tables if SOURCE in schemas else {}
        return tables[table]["columns"] if table in tables else {}

    def _audit_row(self, number: int, count: FileCount | None) -> dict[str, Any]:
        file = self._files[number]
        count = count or FileCount(number, 0, 0, 0, 0, None, None)
        # A file that could not be read to its end is not the version that was listed: it is read again next time.
        unfinished = f" unfinished {self.loaded_at.isoformat()}" if number in self._unfinished else ""
        return {
            "file": file.url,
            "version": file.version + unfinished,
            "size": file.size,
            **{key: value for key, value in count._asdict().items() if key != "number"},
            "loaded_at": self.loaded_at,
        }

    def rows(self, table: str) -> Iterator[DataItemWithMeta]:
        """A table's rows as a file that dlt takes over."""
        rows = self._ready.pop(table, None)
        if rows is not None:
            known = TABLES.get(table)
            if known is None:
                hints: Any = rows
            else:
                hints = dlt.mark.make_hints(
                    columns=_columns(known, rows.columns), write_disposition=disposition(table, self._supported)
                )
            yield dlt.mark.with_file_import(self._paths[table], "parquet", rows.number, hints)

    def audit(self) -> pa.Table | None:
        """The books of the files, None where there are none."""
        if not self._audit:
            return None
        load_id = load_package_state()["load_id"]
        schema = _schema({column.name: column.type for column in AUDIT.columns})
        return pa.Table.from_pylist([{**row, "load_id": load_id} for row in self._audit], schema)

    def has(self, table: str) -> bool:
        """Whether a table is there, or has rows in this load."""
        return table in self._known or table in self.report.rows

    def empty_format(self) -> Any:
        """The format of files without rows: Parquet, but not where ADBC loads it, because that refuses them."""
        able = self._pipeline.destination.capabilities()
        selected = able.loader_file_format_selector is not None
        refused = selected and "insert_values" in (able.supported_loader_file_formats or ())
        return "insert_values" if refused else "parquet"

    def others(self) -> list[str]:
        """The tables with rows that no resource of their own stands for."""
        return [table for table in self._ready if table not in TABLES]


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
    """One resource a table of the catalogue, and one for all tables of other events."""
    names = [table.name for table in (*EVENT_TABLES, TRACKS, *(table for _, table, _ in KINDS), USERS, *BOOKS)]
    return [
        *(_resource(load, TABLES[name]) for name in names if name != AUDIT.name),
        _others(load),
        _resource(load, AUDIT),
    ]


def _resource(load: Load, table: Table) -> DltResource:
    types: dict[str, Type] = {column.name: column.type for column in table.columns}
    if table not in BOOKS:
        types = ordered(types)
    # Columns come with the rows alone: what the resource declared would stand before what turns up in a new table.
    hints = dlt.mark.make_hints(columns=_columns(table, types))

    def rows() -> Iterator[Any]:
        load.prepare(dlt.current.pipeline())
        if table is AUDIT:
            if (audit := load.audit()) is not None:
                yield dlt.mark.with_hints(audit, hints)
        else:
            yield from load.rows(table.name)
        if table in _ALWAYS and not load.has(table.name):
            empty = dlt.mark.make_hints(columns=_columns(table, types), file_format=load.empty_format())
            yield dlt.mark.with_hints(_schema(types).empty_table(), empty)

    resource = dlt.resource(
        rows,
        name=table.name,
        primary_key=table.key,
        write_disposition=_merge(_STRATEGIES[table in _REPLACED][0]),
        file_format="parquet",
        table_name=table.name,
    )()
    return resource.apply_hints(additional_table_hints={"description": table.description})


def _others(load: Load) -> DltResource:
    """Tables that turn up: dlt takes their names and columns from the rows."""

    def rows() -> Iterator[Any]:
        load.prepare(dlt.current.pipeline())
        for name in load.others():
            yield from load.rows(name)

    resource = dlt.resource(
        rows,
        name=EVENTS_RESOURCE,
        columns=lambda rows: _columns(event_table(rows.table), rows.columns),
        primary_key="id",
        write_disposition=_merge(_STRATEGIES[False][0]),
        file_format="parquet",
        table_name=lambda rows: rows.table,
    )()
    return resource.apply_hints(additional_table_hints={"description": EVENT_DESCRIPTION})


_ALWAYS = (TRACKS, *EVENT_TABLES, *BOOKS)
_REPLACED = (USERS, AUDIT)
# The ways to merge, the best first: messages stay as they were stored first, persons and files are replaced. An upsert
# of rows that a killed load put into staging twice is refused by PostgreSQL.
_STRATEGIES: dict[bool, tuple[TLoaderMergeStrategy, ...]] = {
    False: ("insert-only", "delete-insert"),
    True: ("delete-insert", "upsert"),
}


def _merge(strategy: TLoaderMergeStrategy) -> TWriteDispositionDict:
    return cast(TWriteDispositionDict, {"disposition": "merge", "strategy": strategy})


def disposition(table: str, supported: Sequence[str]) -> TWriteDispositionDict:
    """How rows are merged into a table where these strategies are supported; raises where none of them fits."""
    strategies = _STRATEGIES[TABLES.get(table) in _REPLACED]
    for strategy in strategies:
        if strategy in supported:
            return _merge(strategy)
    raise CannotMerge(
        f"Expected a destination that can merge ({' or '.join(strategies)}), but this one can only append.\n"
        "Loading there would store messages twice: use DuckDB or a warehouse."
    )


class CannotMerge(Exception):
    """The destination cannot keep rows unique."""


def _columns(table: Table, types: Mapping[str, Type]) -> TTableSchemaColumns:
    """dlt's hints for columns of these types, in this order."""
    described = {column.name: column.description for column in table.columns}
    columns: dict[str, TColumnSchema] = {}
    for name, column_type in types.items():
        # Keys are never null, but the engine's Parquet cannot say so: told here, dlt would write every file again.
        columns[name] = {"name": name, "data_type": column_type, "nullable": True}
        if name in described:
            columns[name]["description"] = described[name]
    return columns


def _schema(types: Mapping[str, Type]) -> pa.Schema:
    return pa.schema([(name, _ARROW[of]) for name, of in types.items()])


class Destination:
    """What the destination holds already, as far as a load must know it."""

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self._pipeline = pipeline
        self._known: dict[str, dict[str, Type]] = {}

    def loaded_files(self) -> set[tuple[str, str]]:
        """The files, with their versions, that a complete load stored; dlt's `_dlt_loads` says which are complete."""
        if not self.tables([AUDIT.name]):
            return set()
        with self._pipeline.sql_client() as client:
            audit, loads = (client.make_qualified_table_name(name) for name in (AUDIT.name, "_dlt_loads"))
            names = [client.escape_column_name(name) for name in ("file", "version", "load_id")]
            rows = client.execute_sql(
                f"SELECT {names[0]}, {names[1]} FROM {audit} WHERE {names[2]} IN"
                f" (SELECT {names[2]} FROM {loads} WHERE status = 0)"
            )
        return {(file, version) for file, version in rows or ()}

    def complete_loads(self) -> set[str]:
        """The ids of dlt's loads that were not killed."""
        if not self._known:
            return set()
        with self._pipeline.sql_client() as client:
            loads, load_id = client.make_qualified_table_name("_dlt_loads"), client.escape_column_name("load_id")
            return {row[0] for row in client.execute_sql(f"SELECT {load_id} FROM {loads} WHERE status = 0") or ()}

    def drop_copies(self) -> None:
        """Leaves one row where there are several of one key.

        A load that was killed goes on in the next run of dlt. A file that was loaded, but not yet noted as loaded, is
        then loaded into staging once more, and what merges from there inserts every copy.
        """
        schema = self._pipeline.schemas.get(SOURCE)
        if schema is None or self._pipeline.destination.capabilities().supports_transactions is False:
            return
        there = self.tables(schema.data_table_names())
        with self._pipeline.sql_client() as client:
            for name in there:
                keys = get_columns_names_with_prop(schema.tables[name], "primary_key")
                self._drop_copies(client, name, [client.escape_column_name(key) for key in keys])

    @staticmethod
    def _drop_copies(client: SqlClientBase[Any], name: str, keys: Sequence[str]) -> None:
        table, copies = client.make_qualified_table_name(name), client.make_qualified_table_name("_copies")
        twice = f"SELECT {', '.join(keys)} FROM {table} GROUP BY {', '.join(keys)} HAVING count(*) > 1"
        if not client.execute_sql(f"SELECT count(*) FROM ({twice}) t")[0][0]:  # type: ignore[index]
            return
        same = " AND ".join(f"t.{key} = c.{key}" for key in keys)
        client.execute_sql(f"DROP TABLE IF EXISTS {copies}")
        client.execute_sql(f"CREATE TABLE {copies} AS SELECT DISTINCT t.* FROM {table} t JOIN ({twice}) c ON {same}")
        with client.begin_transaction():
            client.execute_sql(f"DELETE FROM {table} t WHERE EXISTS (SELECT 1 FROM {copies} c WHERE {same})")
            client.execute_sql(f"INSERT INTO {table} SELECT * FROM {copies}")
        client.execute_sql(f"DROP TABLE {copies}")

    def tables(self, names: Sequence[str]) -> Known:
        """Those of the tables that are there, with the types of their columns."""
        with self._pipeline.destination_client() as client:
            if not isinstance(client, SqlJobClientBase) or not client.is_storage_initialized():
                return {}
            found = dict(client.get_storage_tables(list(dict.fromkeys(names))))
        self._known |= {name: _known_types(columns) for name, columns in found.items() if columns}
        return self._known

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a table, streamed."""
        schema = pa.schema([(column, _ARROW[self._known[table][column]]) for column in columns])
        with self._pipeline.sql_client() as client:
            select = ", ".join(map(client.escape_column_name, columns))
            with client.execute_query(f"SELECT {select} FROM {client.make_qualified_table_name(table)}") as cursor:
                for chunk in cursor.iter_arrow(chunk_size=ROWS_PER_READ):
                    yield from chunk.rename_columns(list(columns)).cast(schema).to_batches()


def _known_types(columns: TTableSchemaColumns) -> dict[str, Type]:
    return {
        name: cast(Type, column["data_type"]) for name, column in columns.items() if column.get("data_type") in _ARROW
    }
