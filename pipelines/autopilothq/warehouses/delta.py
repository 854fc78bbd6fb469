"""dlt's filesystem destination, with new rows appended to Delta tables by their keys.

dlt lets the Delta library merge, which reads whole rows of the table into memory: 1.3 GB for two million rows. An
`insert-only` merge needs only the keys, and those are streamed here. On a disk dlt writes its own files in place, so a
kill cuts them off; such a file counts as missing. Everything else is dlt's own.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema.typing import TTableSchema
from dlt.destinations import filesystem

from ..display import visible
from ..projection import engine as values
from .configured_once import ConfiguredOnce
from .dlt_internals import (
    DeltaLoadFilesystemJob,
    DestinationUndefinedEntity,
    FilesystemClient,
    LoadJob,
    StorageSchemaInfo,
    client_of,
    get_columns_names_with_prop,
    hooked,
    table_of,
)
from .hints import REPLACED
from .native import SEGMENT_TABLE_HINT

# Keys that do not fit in memory are spilled to disk.
ENGINE: dict[str, Any] = {"memory_limit": "500MB", "threads": 2, "preserve_insertion_order": False}
_ALWAYS_REPLACED = frozenset(table.name for table in REPLACED)  # dlt merges these
REPLACED_AT_ONCE = 50_000  # rows: 200 MB
KILL_POINT_ROWS_REPLACED = f"{__name__}:replace_stored"  # for tests/faults
KILL_POINT_ROWS_APPENDED = f"{__name__}:AppendNew.run"  # for tests/faults

_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")


class lake(ConfiguredOnce, filesystem):  # noqa: N801 - destinations are named like functions
    """A lake as a destination, by the name `filesystem` in dlt's configuration."""

    @property
    def destination_type(self) -> str:
        """dlt's name for it."""
        return "dlt.destinations.filesystem"

    @property
    def client_class(self) -> type[FilesystemClient]:
        """The client that appends."""
        return LakeClient


@hooked
class LakeClient(FilesystemClient):
    """Loads Parquet files into `insert-only` Delta tables without the library's merge."""

    _incomplete: frozenset[str] = frozenset()  # files of dlt's

    def create_dataset(self) -> None:
        """Creates the dataset's folder, which may exist already: the lock of the first load is in it."""
        self.fs_client.makedirs(self.dataset_path, exist_ok=True)

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
        """Returns the versions of the layout in the file `init`; dlt's first one, which it upgrades, if that is cut."""
        if is_complete(self.fs_client.cat_file(self.init_file_path)):
            versions: tuple[int, int] = super().get_storage_versions()
            return versions
        warn_incomplete(self.init_file_path)
        return 1, 1

    def get_stored_state(self, pipeline_name: str) -> Any:
        """Returns the newest state of a pipeline, or None."""
        state_table = self.schema.state_table_name
        return self._of_complete(state_table, lambda: super(LakeClient, self).get_stored_state(pipeline_name))

    def find_schema(self, usual: Callable[..., StorageSchemaInfo | None], *asked: Any, **more: Any) -> Any:
        """Returns the stored schema of a hash, or the newest of a name, or None."""
        return self._of_complete(self.schema.version_table_name, lambda: usual(*asked, **more))

    def dlt_files(self, usual: Callable[..., Iterator[tuple[str, list[str]]]], *asked: Any) -> Any:
        """Yields the path of each complete file of one of dlt's tables, and the parts of its name."""
        return (found for found in usual(*asked) if found[0] not in self._incomplete)

    def _of_complete(self, table: str, read: Callable[[], _Found]) -> _Found:
        """Returns what dlt reads of its table's files, without those that turn out to be incomplete."""
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
    """Returns whether the text of one of dlt's files is JSON, as none is that a kill cut off."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@cache
def warn_incomplete(path: str) -> None:
    """Warns, once, that one of dlt's files is incomplete."""
    _log.warning("dlt's file %s is incomplete, and is left out", visible(path))


class AppendNew(DeltaLoadFilesystemJob):
    """Appends the rows of files whose keys the table does not have; the keys in the files are unique."""

    def run(self) -> None:
        """Loads the files, all of them or none."""
        try:
            table = client_of(self).load_open_table("delta", self.load_table_name)
        except DestinationUndefinedEntity:
            super().run()
            return
        keys = get_columns_names_with_prop(cast(TTableSchema, table_of(self)), "primary_key")
        with TemporaryDirectory() as folder, duckdb.connect(config=ENGINE | {"temp_directory": folder}) as engine:
            engine.execute("SET TimeZone = 'UTC'")
            self.load(engine, table, keys)

    def load(self, engine: duckdb.DuckDBPyConnection, table: Any, keys: Sequence[str]) -> None:
        """Loads the files into a table that exists."""
        append_new(engine, table, self.file_paths, keys)


class MendRows(AppendNew):
    """Also replaces the stored rows that have the key of a row in the files; these are few.

    The library's merge holds the incoming rows in memory, so it gets only those. If a load is killed between the
    commits, the next one replaces the same rows by the same ones again.
    """

    def load(self, engine: duckdb.DuckDBPyConnection, table: Any, keys: Sequence[str]) -> None:
        """Loads the files into a table that exists."""
        replace_stored(engine, table, self.file_paths, keys)
        append_new(engine, table, self.file_paths, keys)


def replace_stored(engine: duckdb.DuckDBPyConnection, table: Any, files: Sequence[str], keys: Sequence[str]) -> None:
    """Replaces the rows of a Delta table whose keys are in Parquet files, some at a time."""
    rows, by = _find_stored(engine, table, files, keys)
    types = pa.schema(table.schema().to_arrow())
    there = {name for name, *_ in engine.execute(f"DESCRIBE FROM {rows}").fetchall()}
    columns = [field for field in types if field.name in there]
    select = ", ".join(values.name(field.name) for field in columns)
    again = engine.execute(f"SELECT {select} FROM {rows} SEMI JOIN there USING ({by})")
    same = " AND ".join(f"target.{values.name(key)} = source.{values.name(key)}" for key in keys)
    for part in again.to_arrow_reader(REPLACED_AT_ONCE):
        source = pa.Table.from_batches([part]).cast(pa.schema(columns))
        merge = table.merge(source, same, source_alias="source", target_alias="target")
        merge.when_matched_update_all().execute()


def append_new(engine: duckdb.DuckDBPyConnection, table: Any, files: Sequence[str], keys: Sequence[str]) -> None:
    """Appends the rows of Parquet files whose keys a Delta table does not have, in one commit or none.

    Raises deltalake's CommitFailedError if another writer committed in the meantime.
    """
    from deltalake import CommitProperties, write_deltalake

    rows, by = _find_stored(engine, table, files, keys)
    new = engine.sql(f"FROM {rows} ANTI JOIN there USING ({by})")
    if new.limit(1).fetchall():
        # A commit between this check and the append may have brought the same keys: then dlt tries the file again.
        alone = CommitProperties(max_commit_retries=0)
        write_deltalake(table, new.to_arrow_reader(), mode="append", schema_mode="merge", commit_properties=alone)


def _find_stored(
    engine: duckdb.DuckDBPyConnection, table: Any, files: Sequence[str], keys: Sequence[str]
) -> tuple[str, str]:
    """Creates the table `there` of the files' keys that a Delta table has; returns SQL for the rows and their keys."""
    listed = ", ".join(map(values.glob_literal, files))
    rows = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
    by = ", ".join(map(values.name, keys))
    types = pa.schema(table.schema().to_arrow())
    stored = pa.RecordBatchReader.from_stream(table.scan(columns=list(keys)))
    # Streamed text has a type that Arrow cannot compare yet.
    engine.register("stored", stored.cast(pa.schema([types.field(key) for key in keys])))
    engine.execute(f"CREATE OR REPLACE TABLE there AS FROM stored SEMI JOIN (SELECT {by} FROM {rows}) USING ({by})")
    return rows, by
