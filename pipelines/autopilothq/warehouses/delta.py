"""dlt's filesystem destination, with new rows appended to Delta tables by their keys.

dlt lets the Delta library merge, which reads whole rows of the table into memory: 1.3 GB for two million rows. An
`insert-only` merge needs only the keys, and those are streamed here. Everything else is dlt's own.
"""

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any, cast

import duckdb
import pyarrow as pa
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema.typing import TTableSchema
from dlt.destinations import filesystem

from ..projection import engine as values
from .configured_once import ConfiguredOnce
from .dlt_internals import (
    DeltaLoadFilesystemJob,
    DestinationUndefinedEntity,
    FilesystemClient,
    LoadJob,
    client_of,
    get_columns_names_with_prop,
    table_of,
)

# Keys that do not fit wait on the disk.
ENGINE: dict[str, Any] = {"memory_limit": "500MB", "threads": 2, "preserve_insertion_order": False}
KILL_POINT_ROWS_APPENDED = f"{__name__}:AppendNew.run"  # for tests/faults


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


class LakeClient(FilesystemClient):
    """Loads Parquet files into `insert-only` Delta tables without the library's merge."""

    def create_dataset(self) -> None:
        """Creates the dataset's folder, which may exist: the lock of the first load is in it."""
        self.fs_client.makedirs(self.dataset_path, exist_ok=True)

    def get_load_job_class(self, table: PreparedTableSchema, file_path: str) -> type[LoadJob]:
        """Returns the job that loads a file."""
        job: type[LoadJob] = super().get_load_job_class(table, file_path)
        insert_only = table["write_disposition"] == "merge" and table.get("x-merge-strategy") == "insert-only"
        return AppendNew if insert_only and job is DeltaLoadFilesystemJob else job


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
            append_new(engine, table, self.file_paths, keys)


def append_new(engine: duckdb.DuckDBPyConnection, table: Any, files: Sequence[str], keys: Sequence[str]) -> None:
    """Appends the rows of Parquet files whose keys a Delta table does not have, in one commit or none.

    Raises deltalake's CommitFailedError where another one committed meanwhile.
    """
    from deltalake import CommitProperties, write_deltalake

    listed = ", ".join(map(values.glob_literal, files))
    rows = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
    by = ", ".join(map(values.name, keys))
    types = pa.schema(table.schema().to_arrow())
    stored = pa.RecordBatchReader.from_stream(table.scan(columns=list(keys)))
    # As it is streamed, text has a type that Arrow cannot compare yet.
    engine.register("stored", stored.cast(pa.schema([types.field(key) for key in keys])))
    engine.execute(f"CREATE TABLE there AS FROM stored SEMI JOIN (SELECT {by} FROM {rows}) USING ({by})")
    new = engine.sql(f"FROM {rows} ANTI JOIN there USING ({by})")
    if new.limit(1).fetchall():
        # Who commits between the look and the append may have brought the same keys: then dlt tries the file again.
        alone = CommitProperties(max_commit_retries=0)
        write_deltalake(table, new.to_arrow_reader(), mode="append", schema_mode="merge", commit_properties=alone)
