"""dlt's filesystem destination, with new rows appended to Delta tables by their keys.

dlt lets the Delta library merge, which reads whole rows of the table into memory: 1.3 GB for two million rows. An
`insert-only` merge needs only the keys, which are streamed here. On a disk, dlt writes its own files in place, so a
kill may cut one off; such a file counts as missing. Everything else is dlt's own.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from dlt.common.destination.typing import PreparedTableSchema
from dlt.destinations import filesystem

from ..display import visible
from ..projection import engine
from .configured_once import ConfiguredOnce
from .dlt_internals import (
    DeltaLoadFilesystemJob,
    DestinationUndefinedEntity,
    FilesystemClient,
    LoadJob,
    StorageSchemaInfo,
)
from .dlt_internals.clients import client_of, hooked, table_of
from .hints import REPLACED
from .merging import keys_of
from .native import SEGMENT_TABLE_HINT

# DuckDB's settings. Keys that do not fit in memory spill to disk.
ENGINE: dict[str, Any] = {"memory_limit": "500MB", "threads": 2, "preserve_insertion_order": False}
_ALWAYS_REPLACED = frozenset(table.name for table in REPLACED)  # these are merged by dlt
REPLACED_AT_ONCE = 50_000  # rows, some 200 MB
KILL_POINT_ROWS_REPLACED = f"{__name__}:_replace_stored"  # for tests/faults
KILL_POINT_ROWS_APPENDED = f"{__name__}:AppendNew.run"  # for tests/faults

_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")


class lake(ConfiguredOnce, filesystem):  # noqa: N801 - destinations are named like functions
    """A lake as a destination, named `filesystem` in dlt's configuration."""

    @property
    def destination_type(self) -> str:
        """dlt's name for this type of destination."""
        return "dlt.destinations.filesystem"

    @property
    def client_class(self) -> type[FilesystemClient]:
        """The client that appends new rows by their keys."""
        return LakeClient


@hooked
class LakeClient(FilesystemClient):
    """Loads Parquet files into `insert-only` Delta tables without the library's merge."""

    _incomplete: frozenset[str] = frozenset()  # paths of dlt's files that a kill cut off

    def create_dataset(self) -> None:
        """Creates the dataset's folder, which may exist already: the lock of the first load is in it."""
        self.fs_client.makedirs(self.dataset_path, exist_ok=True)

    def initialize_storage(self, truncate_tables: Iterable[str] | None = None) -> None:
        """Creates the dataset, or empties tables.

        After each load, and before one with `refresh`, dlt turns to the staging tables. A lake has none, so an empty
        staging dataset would be created for nothing, and `dlt pipeline NAME drop` fails at one without a schema.
        """
        if truncate_tables is None:
            if not self._in_staging:
                super().initialize_storage()
        elif names := list(truncate_tables):
            super().initialize_storage(names)

    @property
    def _in_staging(self) -> bool:
        return self.dataset_name == self.create_dataset_names(self.schema, self.config)[1]

    def update_stored_schema(self, *args: Any, **kwargs: Any) -> Any:
        """Stores the schema; a staging dataset has none."""
        return {} if self._in_staging else super().update_stored_schema(*args, **kwargs)

    def drop_tables(self, *tables: str, delete_schema: bool = True) -> None:
        """Drops tables, and the stored schemas if there are any: dlt fails in a staging dataset, which has none."""
        has_schemas = self.fs_client.isdir(self.get_table_dir(self.schema.version_table_name))
        super().drop_tables(*tables, delete_schema=delete_schema and has_schemas)

    def get_load_job_class(self, table: PreparedTableSchema, file_path: str) -> type[LoadJob]:
        """Returns the job that loads a file."""
        job: type[LoadJob] = super().get_load_job_class(table, file_path)
        if table["write_disposition"] != "merge" or job is not DeltaLoadFilesystemJob:
            return job
        if table.get("x-merge-strategy") == "insert-only":
            return AppendNew
        is_mended = table.get(SEGMENT_TABLE_HINT) and table["name"] not in _ALWAYS_REPLACED
        return MendRows if is_mended else job

    # ---- dlt's own files ---------------------------------------------------------------------------------------------

    def get_storage_versions(self) -> tuple[int, int]:
        """Returns the initial and current version of dlt's layout; (1, 1), which dlt upgrades, if they are cut off."""
        if is_complete(self.fs_client.cat_file(self.init_file_path)):
            versions: tuple[int, int] = super().get_storage_versions()
            return versions
        warn_incomplete(self.init_file_path)
        return 1, 1

    def get_stored_state(self, pipeline_name: str) -> Any:
        """Returns the newest state of a pipeline, or None."""
        state_table = self.schema.state_table_name
        return self._read_complete(state_table, lambda: super(LakeClient, self).get_stored_state(pipeline_name))

    def find_schema(self, usual: Callable[..., StorageSchemaInfo | None], *args: Any, **kwargs: Any) -> Any:
        """Returns the stored schema with a hash, or the newest with a name; None if there is none."""
        return self._read_complete(self.schema.version_table_name, lambda: usual(*args, **kwargs))

    def dlt_files(self, usual: Callable[..., Iterator[tuple[str, list[str]]]], *args: Any) -> Any:
        """Yields the path of each complete file of one of dlt's tables, and the parts of its name."""
        return (found for found in usual(*args) if found[0] not in self._incomplete)

    def _read_complete(self, table: str, read: Callable[[], _Found]) -> _Found:
        """Returns the result of `read`, which reads files of dlt's table. If it fails, skips incomplete files."""
        try:
            return read()
        except ValueError:
            files: dict[str, bytes] = self.fs_client.cat(self.list_table_files(table))
            cut = frozenset(path for path, text in files.items() if not is_complete(text))
            if cut <= self._incomplete:
                raise
            for path in cut - self._incomplete:
                warn_incomplete(path)
            self._incomplete |= cut
            return read()


def is_complete(text: bytes) -> bool:
    """Returns whether the text of one of dlt's files is valid JSON; it is not if a kill cut it off."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@cache
def warn_incomplete(path: str) -> None:
    """Logs a warning that one of dlt's files is incomplete, once per file."""
    _log.warning("dlt's file %s is incomplete, and is left out", visible(path))


class AppendNew(DeltaLoadFilesystemJob):
    """Appends the rows whose keys the table does not have; the keys in the files are unique."""

    def run(self) -> None:
        """Loads the files, all of them or none."""
        try:
            table = client_of(self).load_open_table("delta", self.load_table_name)
        except DestinationUndefinedEntity:
            super().run()
            return
        with TemporaryDirectory() as folder, duckdb.connect(config=ENGINE | {"temp_directory": folder}) as con:
            con.execute("SET TimeZone = 'UTC'")
            self.load(con, table, keys_of(table_of(self)))

    def load(self, con: duckdb.DuckDBPyConnection, table: Any, keys: Sequence[str]) -> None:
        """Loads the files into an existing table."""
        append_new(con, table, self.file_paths, keys)


class MendRows(AppendNew):
    """Appends new rows, and replaces the few stored rows that have the key of a row in the files.

    The library's merge holds the incoming rows in memory, so it gets only the replacements. If a load is killed between
    the commits, the next load makes the same replacements again.
    """

    def load(self, con: duckdb.DuckDBPyConnection, table: Any, keys: Sequence[str]) -> None:
        """Loads the files into an existing table."""
        _replace_stored(con, table, self.file_paths, keys)
        append_new(con, table, self.file_paths, keys)


def _replace_stored(con: duckdb.DuckDBPyConnection, table: Any, files: Sequence[str], keys: Sequence[str]) -> None:
    """Replaces the rows of a Delta table whose keys are in Parquet files, up to REPLACED_AT_ONCE in a commit."""
    rows, key_list = _find_stored(con, table, files, keys)
    types = pa.schema(table.schema().to_arrow())
    names = {name for name, *_ in con.execute(f"DESCRIBE FROM {rows}").fetchall()}
    columns = [field for field in types if field.name in names]
    select = ", ".join(engine.name(field.name) for field in columns)
    replacements = con.execute(f"SELECT {select} FROM {rows} SEMI JOIN stored_keys USING ({key_list})")
    same_key = " AND ".join(f"target.{engine.name(key)} = source.{engine.name(key)}" for key in keys)
    for part in replacements.to_arrow_reader(REPLACED_AT_ONCE):
        source = pa.Table.from_batches([part]).cast(pa.schema(columns))
        merge = table.merge(source, same_key, source_alias="source", target_alias="target")
        merge.when_matched_update_all().execute()


def append_new(con: duckdb.DuckDBPyConnection, table: Any, files: Sequence[str], keys: Sequence[str]) -> None:
    """Appends the rows of Parquet files whose keys a Delta table does not have, in one commit or none.

    Raises deltalake's CommitFailedError if another writer committed in the meantime.
    """
    from deltalake import CommitProperties, write_deltalake

    rows, key_list = _find_stored(con, table, files, keys)
    new = con.sql(f"FROM {rows} ANTI JOIN stored_keys USING ({key_list})")
    if new.limit(1).fetchall():
        # Another writer may have committed these keys since this check: then the append fails, and dlt retries.
        alone = CommitProperties(max_commit_retries=0)
        write_deltalake(table, new.to_arrow_reader(), mode="append", schema_mode="merge", commit_properties=alone)


def _find_stored(
    con: duckdb.DuckDBPyConnection, table: Any, files: Sequence[str], keys: Sequence[str]
) -> tuple[str, str]:
    """Creates the table `stored_keys`: the files' keys that a Delta table has. Returns SQL for the rows and keys."""
    rows = engine.parquet_files(files, union_by_name="true", hive_partitioning="false")
    key_list = ", ".join(map(engine.name, keys))
    types = pa.schema(table.schema().to_arrow())
    stored = pa.RecordBatchReader.from_stream(table.scan(columns=list(keys)))
    # The stream has text as string_view, which Arrow cannot compare yet.
    con.register("stored", stored.cast(pa.schema([types.field(key) for key in keys])))
    found = f"FROM stored SEMI JOIN (SELECT {key_list} FROM {rows}) USING ({key_list})"
    con.execute(f"CREATE OR REPLACE TABLE stored_keys AS {found}")
    return rows, key_list
