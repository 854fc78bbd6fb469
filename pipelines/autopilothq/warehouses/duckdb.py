"""dlt's DuckDB destination, which merges new rows straight from their files.

dlt writes each row twice: to a staging table, and from there to its own table. An `insert-only` merge needs no staging
table, because DuckDB reads Parquet files like tables: that halves the loading time, and a file that is loaded again
after a kill adds nothing. If another program has the database open, connections wait for it. Everything else is dlt's
own.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from dlt import Schema
from dlt.common.configuration import configspec
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema.typing import TColumnSchema
from dlt.destinations import duckdb
from duckdb import TransactionException

from ..machine import LargestFirst, cores
from ..projection import engine
from . import duckdb_parts as parts
from .books import BooksClient, BooksSqlClient, name_staging_after_books
from .comments import comment_statements
from .configured_once import ConfiguredOnce
from .dlt_internals import (
    DestinationCapabilitiesContext,
    DuckDbClient,
    DuckDbClientConfiguration,
    DuckDbCopyJob,
    DuckDbSqlClient,
    FollowupJobRequest,
    LoadJob,
    SqlLoadJob,
    TPartialTableSchema,
)
from .dlt_internals.clients import client_of, file_of, hooked, table_of
from .duckdb_pool import WaitingPool
from .hints import without_not_null
from .merging import dedup_order, deduplicates_staging, keys_of, replaces_by_key
from .pipeline_names import database_of


@configspec(init=False)
class DirectConfiguration(DuckDbClientConfiguration):
    """dlt's configuration, with two settings of this project."""

    wait: float = 0
    """Seconds to wait for a database that another program has open."""
    books_dataset: str | None = None
    """The dataset of the bookkeeping tables; None: the same as the events'."""


class direct(ConfiguredOnce, duckdb):  # noqa: N801 - destinations are named like functions
    """DuckDB as a destination, named `duckdb` in dlt's configuration."""

    spec: type[DuckDbClientConfiguration] = DirectConfiguration

    def __init__(self, credentials: Any = None, destination_name: str = "duckdb", **more: Any) -> None:
        super().__init__(credentials=credentials, destination_name=destination_name, **more)

    @property
    def client_class(self) -> "type[DirectClient]":
        """The client that merges rows straight from their files."""
        return DirectClient

    def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
        """Returns dlt's configuration. If it names no file, as with `dlt.attach`, it gets the pipeline's last file."""
        folder = self.config_params.get("pipeline_working_dir")
        if folder and "credentials" not in self.config_params and (known := database_of(folder)):
            self.config_params["legacy_db_path"] = known
        return super().configuration(initial_config, accept_partial)


@hooked
class DirectSqlClient(BooksSqlClient, DuckDbSqlClient):
    """dlt's SQL client, which also finds the books in a separate dataset."""

    def components(
        self, usual: Callable[..., tuple[str | None, str, list[str]]], *tables: str
    ) -> tuple[str | None, str, list[str]]:
        """Returns the catalogue, the schema and the tables of the dataset as `information_schema` names them.

        That has the tables of all attached databases, so without the catalogue those with the same names would mix.
        """
        [(catalogue,)] = self.execute_sql("SELECT current_database()") or ()
        return (catalogue, *usual(*tables)[1:])

    def table_and_staged(self, table: str) -> tuple[str, str]:
        """Returns the qualified names of a table and of its staging table, whichever dataset is the current one."""
        with self.with_alternative_dataset_name(self.events_dataset):
            return self.get_qualified_table_names(table)


@hooked
class DirectClient(BooksClient, DuckDbClient):
    """Loads Parquet files into `insert-only` tables without staging."""

    def __init__(
        self, schema: Schema, config: DirectConfiguration, capabilities: DestinationCapabilitiesContext
    ) -> None:
        pool = config.credentials.conn_pool
        if config.credentials.external_conn() is None and not isinstance(pool, WaitingPool):
            config.credentials.conn_pool = WaitingPool(config.credentials, config.wait)
        name_staging_after_books(config)
        # dlt does not declare this for DuckDB, so it would delete and insert replaced rows in separate transactions.
        capabilities.supports_transactions = True
        super().__init__(schema, config, capabilities)
        names = self.create_dataset_names(schema, config)
        self.sql_client = DirectSqlClient(*names, config.credentials, capabilities)
        self.sql_client.use_books_dataset(config.books_dataset, schema.naming)

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Returns whether a table's files go to staging first."""
        staged: bool = super().should_load_data_to_staging_dataset(table_name)
        return staged and not _is_direct(self.prepare_load_table(table_name))

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        """Returns the job that loads a file."""
        if _is_direct(table) and file_path.endswith(".parquet"):
            return InsertNew(file_path, keys_of(table))
        job = super().create_load_job(table, file_path, load_id, restore)
        keys = keys_of(table) if replaces_by_key(table, self.schema) else []
        if isinstance(job, SqlLoadJob):
            return MergeJob(file_path, keys, dedup_order(table))
        is_parquet = isinstance(job, DuckDbCopyJob) and file_path.endswith(".parquet")
        if not is_parquet:
            return job
        replaced_by = [] if dedup_order(table) else keys
        return DirectCopyJob(file_path, replaced_by, may_repeat=deduplicates_staging(table, self.schema))

    def column_sql(self, usual: Callable[..., str], column: TColumnSchema, table: Any = None) -> str:
        """Returns the definition of a column."""
        return usual(without_not_null(column, table), table)

    def sql_after(self, usual: Callable[..., list[str]], partial_table: TPartialTableSchema) -> list[str]:
        """Returns the statements to run after those that create new columns."""
        return [*usual(partial_table), *comment_statements(self.sql_client, partial_table)]

    def merge_jobs(
        self, usual: Callable[..., list[FollowupJobRequest]], table_chain: Sequence[PreparedTableSchema]
    ) -> list[FollowupJobRequest]:
        """Returns the jobs that merge a table's rows from staging."""
        return [] if _is_direct(table_chain[0]) else usual(table_chain)


def parquet(path: str) -> str:
    """Returns SQL for the rows of a Parquet file. A folder named `a=b` in its path adds no column."""
    return engine.parquet_files([path], hive_partitioning="false")


def _is_direct(table: PreparedTableSchema) -> bool:
    return (
        table["write_disposition"] == "merge"
        and table.get("x-merge-strategy") == "insert-only"
        and table.get("file_format") == "parquet"
    )


WIDE = 300  # columns; a table with this many or more is loaded alone
_queue = LargestFirst(min(max(2, cores()), 4))  # at least 2, as one may wait for the disk; at most 4, for the memory
MB_PER_COLUMN = 0.6  # two blocks of 256 KiB, and their overhead
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_queue.begin)


def _load_in_turn(job: LoadJob, load: Callable[[], None], in_parts: Callable[[], None] | None = None) -> None:
    """Runs a job's work, as a whole or not at all, when its turn comes. Runs it again, alone, if memory runs out.

    As many tables are loaded in parallel as keep all cores busy. A wide one is loaded alone, because DuckDB needs
    blocks of memory for each column in each thread. `in_parts` does the same work in parts. It is the last resort, and
    the only way for a file with long rows.
    """
    file = file_of(job)
    # Most tables of a first load have no rows, and DuckDB would still run two statements for each.
    if file.endswith(".parquet") and not parts.file_has_rows(file):
        return
    attempts = [load, load, *([in_parts] if in_parts else [])]
    if in_parts and file.endswith(".parquet") and parts.file_has_long_rows(file):
        attempts = [in_parts]
    for number, attempt in enumerate(attempts, 1):
        alone = number > 1 or attempt is in_parts or len(table_of(job)["columns"]) >= WIDE
        try:
            with _turn(job, alone, again=number > 1):  # the first time, other tables may have used the memory
                attempt()
            return
        except Exception as error:
            if number == len(attempts) or not engine.lacks_memory(error):
                raise


@contextmanager
def _turn(job: LoadJob, alone: bool, again: bool = False) -> Iterator[None]:
    columns, file = len(table_of(job)["columns"]), Path(file_of(job))
    con = client_of(job).sql_client.native_connection
    memory = engine.one_thread(con.execute, int(300 + columns * MB_PER_COLUMN)) if alone else nullcontext()
    with _queue.turn(file.stat().st_size, _queue.most if alone else 1):
        if again:
            with suppress(TransactionException):  # a transaction is open only if memory ran out while it ended
                con.rollback()
        with memory:
            yield


def _load_parts(job: LoadJob, load: Callable[[str], None]) -> None:
    """Loads a job's file in parts: `load` gets SQL for the rows of a part, which are in memory until it returns."""
    con = client_of(job).sql_client.native_connection
    with parts.checkpoint_early(con.execute):
        for part in parts.split_file(file_of(job)):
            with engine.one_thread(con.execute, parts.PART_MEMORY), engine.registered(con, part_of_file=part):
                load("part_of_file")


class DirectCopyJob(DuckDbCopyJob):
    """dlt's copy job, run in its turn. The file's folders may have any name.

    If a file is loaded in parts, rows that only replace those with the same `keys` skip staging. Other rows are copied
    in parts only if staging may have a row several times (`may_repeat`): a killed job that runs again repeats parts.
    """

    def __init__(self, file_path: str, keys: Sequence[str], may_repeat: bool) -> None:
        super().__init__(file_path)
        self._keys, self._may_repeat = keys, may_repeat

    def run(self) -> None:
        """Loads the file."""
        in_parts = None
        if self._keys or self._may_repeat:
            in_parts = partial(_load_parts, self, self._replace if self._keys else self._copy)
        _load_in_turn(self, partial(self._copy, parquet(file_of(self))), in_parts)

    def _copy(self, rows: str) -> None:
        client = client_of(self).sql_client
        table = client.make_qualified_table_name(self.load_table_name)
        client.execute_sql(f"INSERT INTO {table} BY NAME SELECT * FROM {rows}")

    def _replace(self, rows: str) -> None:
        client = client_of(self).sql_client
        table, _ = client.table_and_staged(self.load_table_name)
        parts.replace_rows(client, table, rows, self._keys)


class InsertNew(DuckDbCopyJob):
    """Inserts the rows whose keys the table does not have, in its turn. The keys in the file are unique."""

    def __init__(self, file_path: str, keys: Sequence[str]) -> None:
        super().__init__(file_path)
        self._keys = keys

    def run(self) -> None:
        """Loads the file."""
        _load_in_turn(self, partial(self._insert, parquet(file_of(self))), partial(_load_parts, self, self._insert))

    def _insert(self, rows: str) -> None:
        client = client_of(self).sql_client
        table = client.make_qualified_table_name(self.load_table_name)
        keys = ", ".join(map(client.escape_column_name, self._keys))
        new = ""
        if client.execute_sql(f"SELECT 1 FROM {table} LIMIT 1"):
            # DuckDB holds the right side of a join in memory, and the file has fewer keys than the table.
            stored = f"SELECT {keys} FROM {table} SEMI JOIN (SELECT {keys} FROM {rows}) USING ({keys})"
            new = f" ANTI JOIN ({stored}) USING ({keys})"
        client.execute_sql(f"INSERT INTO {table} BY NAME SELECT * FROM {rows}{new}")


class MergeJob(SqlLoadJob):
    """dlt's job that merges rows from staging into their table in a transaction, run in its turn.

    Rows that only replace those with the same `keys` are merged in parts if memory runs out.
    """

    def __init__(self, file_path: str, keys: Sequence[str], order: tuple[str, str] | None) -> None:
        super().__init__(file_path)
        self._keys, self._order = keys, order

    def run(self) -> None:
        """Runs the statements."""
        _load_in_turn(self, super().run, self._replace_in_parts if self._keys else None)

    def _replace_in_parts(self) -> None:
        client = client_of(self).sql_client
        names: tuple[str, str] = client.table_and_staged(self.load_table_name)
        with parts.checkpoint_early(client.native_connection.execute):
            parts.replace_from_staging(client, *names, self._keys, self._order)


KILL_POINT_ROWS_COPIED = f"{__name__}:DirectCopyJob.run"  # for tests/faults
KILL_POINT_ROWS_INSERTED = f"{__name__}:InsertNew.run"  # for tests/faults
