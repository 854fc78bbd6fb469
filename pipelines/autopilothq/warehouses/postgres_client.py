"""dlt's PostgreSQL client, extended: it creates the contract's tables and chooses how files are loaded into them."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, AnyStr, NamedTuple, cast

import psycopg2
from dlt import Schema
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema import TColumnSchema

from .books import BooksClient, BooksSqlClient, is_book, name_staging_after_books
from .comments import comment_statements
from .dlt_internals import (
    DBApiCursor,
    DBTransaction,
    DestinationCapabilitiesContext,
    FollowupJobRequest,
    LoadJob,
    PostgresClient,
    PostgresParquetCopyJob,
    Psycopg2SqlClient,
    SqlMergeFollowupJob,
    TColumnType,
    TPartialTableSchema,
)
from .dlt_internals.clients import hooked
from .hints import without_not_null
from .merging import keys_of, merges_by_key_alone
from .native import DIRECT_HINT, SEGMENT_TABLE_HINT, TableShape, shape_of
from .postgres import PostgresConfiguration
from .postgres_copies import CopyNew, PostgresCopyJob
from .postgres_merge import MAY_OMIT, Merge, MergeNew, MergeReplacing, Replace
from .postgres_waits import check_session, log_waits, raising_busy, with_timeouts
from .sql_files import sql_file

# dlt's types of the columns in files, by PostgreSQL's names of the types that can store them unchanged.
_TYPES = {
    **dict.fromkeys(("text", "character varying", "character", "bpchar"), "text"),
    "bigint": "bigint",
    "boolean": "bool",
    "timestamp with time zone": "timestamp",
}


class _StoredTable(NamedTuple):
    """An existing table. `keys` are its unique indexes, as sets of columns.

    `none_staged` is whether none of its rows wait in the staging dataset, `may_omit` whether a trigger or a rule may
    leave out rows without an error, `types` PostgreSQL's names of the columns' types.
    """

    keys: set[frozenset[str]]
    none_staged: bool
    may_omit: bool
    types: Mapping[str, str]

    def takes_files(self, columns: Mapping[str, TColumnSchema]) -> bool:
        """Returns whether files with these columns can be copied straight into it.

        A copy stores the bytes of values, and casts none, so no column may have another type than dlt's.
        """
        of = {name: _TYPES.get(native) for name, native in self.types.items()}
        same = all(of[name] == column.get("data_type") for name, column in columns.items() if name in of)
        return self.none_staged and not self.may_omit and same


@hooked
class SegmentPostgresClient(BooksClient, PostgresClient):
    """dlt's client, which creates the contract's tables as Segment does, on connections whose waits time out."""

    config: PostgresConfiguration

    def __init__(
        self, schema: Schema, config: PostgresConfiguration, capabilities: DestinationCapabilitiesContext
    ) -> None:
        name_staging_after_books(config)
        super().__init__(schema, config, capabilities)
        names = self.create_dataset_names(schema, config)
        self.sql_client = PostgresSqlClient(*names, with_timeouts(config), capabilities)
        self.sql_client.config = config
        self.sql_client.use_books_dataset(config.books_dataset, schema.naming)

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        """Returns the job that loads a file."""
        job = super().create_load_job(table, file_path, load_id, restore)
        if not isinstance(job, PostgresParquetCopyJob):
            return job
        return CopyNew(file_path) if self._is_direct(table) else PostgresCopyJob(file_path)

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Returns whether a table's files go to staging first."""
        staged: bool = super().should_load_data_to_staging_dataset(table_name)
        return staged and not self._is_direct(self.prepare_load_table(table_name))

    def prepare_load_table(self, table_name: str) -> PreparedTableSchema:
        """Returns a table as it is loaded: a replacement goes through staging, so that floats become `numeric`."""
        table = super().prepare_load_table(table_name)
        if table.get(SEGMENT_TABLE_HINT) and table["write_disposition"] == "replace":
            table["x-replace-strategy"] = "insert-from-staging"  # type: ignore[typeddict-unknown-key]
        return table

    # ---- definitions of tables -------------------------------------------------------------------------------------

    def _shape(self, table: Mapping[str, Any] | None) -> TableShape:
        """Returns the shape that a table should have; in the staging dataset tables are as dlt creates them."""
        if table is None or not table.get(SEGMENT_TABLE_HINT) or self.sql_client.is_staging_dataset_active:
            return TableShape()
        types = {name: column["data_type"] for name, column in table["columns"].items() if "data_type" in column}
        return shape_of(table["name"], types, "postgres")

    def column_sql(self, usual: Callable[..., str], column: TColumnSchema, table: Any = None) -> str:
        """Returns the definition of a column."""
        column = without_not_null(column, table)
        native = self._shape(table).types.get(str(column["name"]))
        if native is None:
            return usual(column, table)
        not_null = "" if column.get("nullable") is not False else "NOT NULL"
        return f"{self.sql_client.escape_column_name(str(column['name']))} {native} {not_null}"

    def constraints_sql(
        self, usual: Callable[..., str], table_name: str, new_columns: Sequence[TColumnSchema], generate_alter: bool
    ) -> str:
        """Returns the constraints that follow the columns of a new table."""
        constraints = usual(table_name, new_columns, generate_alter)
        key = self._shape(self.prepare_load_table(table_name)).key
        if generate_alter or not key:
            return constraints
        self.config.new_tables[self.sql_client.make_qualified_table_name(table_name)] = threading.Lock()
        return f"{constraints},\nPRIMARY KEY ({', '.join(map(self.sql_client.escape_column_name, key))})"

    def sql_after(self, usual: Callable[..., list[str]], partial_table: TPartialTableSchema) -> list[str]:
        """Returns the statements to run after those that create new columns."""
        table = self.sql_client.make_qualified_table_name(str(partial_table["name"]))
        indexes = self._shape(partial_table).indexes if self.config.index_received_at else ()
        return [
            *usual(partial_table),
            *(f"CREATE INDEX ON {table} ({self.sql_client.escape_column_name(column)})" for column in indexes),
            *comment_statements(self.sql_client, partial_table),
        ]

    def type_of(
        self, usual: Callable[..., TColumnType], native: str, precision: int | None, scale: int | None
    ) -> TColumnType:
        """Returns dlt's type of an existing column: a `numeric` without a precision holds floats."""
        return {"data_type": "double"} if native == "numeric" and precision is None else usual(native, precision, scale)

    # ---- from staging to tables ------------------------------------------------------------------------------------

    def merge_jobs(
        self, usual: Callable[..., list[FollowupJobRequest]], table_chain: Sequence[PreparedTableSchema]
    ) -> list[FollowupJobRequest]:
        """Returns the jobs that merge a table's rows from staging."""
        if not merges_by_key_alone(table_chain):
            return usual(table_chain)
        [table] = table_chain
        if self._is_direct(table):
            return []
        job: type[SqlMergeFollowupJob] = MergeReplacing
        if table.get("x-merge-strategy") == "insert-only":
            job = MergeNew if self._is_unique(table) else Merge
        return [job.from_table_chain(self._marked(table_chain), self.sql_client)]

    def replace_jobs(
        self, usual: Callable[..., list[FollowupJobRequest]], table_chain: Sequence[PreparedTableSchema]
    ) -> list[FollowupJobRequest]:
        """Returns the jobs that replace all rows of a table with those in staging."""
        if not table_chain[0].get(SEGMENT_TABLE_HINT):
            return usual(table_chain)
        return [Replace.from_table_chain(self._marked(table_chain), self.sql_client)]

    def _marked(self, table_chain: Sequence[PreparedTableSchema]) -> Sequence[PreparedTableSchema]:
        """Marks a table in which a trigger or a rule may leave out rows, so that the job checks for missing ones."""
        stored = self._stored(table_chain[0])
        return [cast(Any, {**table_chain[0], MAY_OMIT: stored is not None and stored.may_omit})]

    def _is_direct(self, table: PreparedTableSchema) -> bool:
        """Returns whether a table's files are copied straight into it, which takes half as long as staging and merging.

        A table with floats is not direct: files have another type for them, and a copy casts no values. Nor is a table
        with rows in staging: they may belong to a killed load, whose other files must go to staging, too.
        """
        return (
            bool(table.get(DIRECT_HINT))
            and not is_book(str(table["name"]))
            and table["write_disposition"] == "merge"
            and table.get("x-merge-strategy") == "insert-only"
            and merges_by_key_alone([table])
            and not self._shape(table).types
            and self._is_unique(table)
            and ((stored := self._stored(table)) is None or stored.takes_files(table["columns"]))
        )

    def _is_unique(self, table: PreparedTableSchema) -> bool:
        """Returns whether a unique index enforces a table's key. Earlier versions created tables without one."""
        stored = self._stored(table)
        return stored is None or frozenset(keys_of(table)) in stored.keys

    def _stored(self, table: PreparedTableSchema) -> _StoredTable | None:
        """Returns a table as it was when its dataset's tables were first read, or None if it did not exist then."""
        dataset, name = self.sql_client.make_qualified_table_name_path(table["name"], quote=False)
        known: dict[str, dict[str, _StoredTable]] = self.config.stored_tables
        if dataset not in known:
            with nullcontext() if self.sql_client.native_connection else self:
                staging = self.sql_client.staging_dataset_name
                found = self.sql_client.execute_sql(sql_file("stored_tables_postgres.sql"), staging, dataset) or ()
            known[dataset] = {}
            for stored, columns, none_staged, may_omit, types in found:
                known[dataset].setdefault(stored, _StoredTable(set(), none_staged, may_omit, types))
                known[dataset][stored].keys.update([frozenset(columns)] if columns else ())
        return known[dataset].get(name)


class PostgresSqlClient(BooksSqlClient, Psycopg2SqlClient):
    """dlt's SQL client, which reports what it waits for."""

    config: PostgresConfiguration
    _closed: threading.Event | None = None

    def open_connection(self) -> "psycopg2.extensions.connection":
        """Opens a connection whose waits are logged while it is open."""
        connection: psycopg2.extensions.connection = super().open_connection()
        try:
            check_session(connection, self.config.waits)
        except Exception:
            super().close_connection()
            raise
        self._closed = threading.Event()
        log_waits(connection.info.backend_pid, self.config, self._closed)
        return connection

    def close_connection(self) -> None:
        """Closes the connection."""
        if self._closed:
            self._closed.set()
        super().close_connection()

    @contextmanager
    def execute_query(self, query: AnyStr, *args: Any, **kwargs: Any) -> Iterator[DBApiCursor]:
        """Runs a statement."""
        with raising_busy(self.config), super().execute_query(query, *args, **kwargs) as cursor:
            yield cursor

    @contextmanager
    def begin_transaction(self) -> Iterator[DBTransaction]:
        """Begins a transaction; its statements may be run directly on the connection."""
        with raising_busy(self.config), super().begin_transaction() as transaction:
            yield transaction
