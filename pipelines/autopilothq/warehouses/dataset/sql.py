"""The tables of a dataset in a destination that answers SQL."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from dlt import Schema

from ...catalog import Table, Type
from ...errors import NotSupported
from ...projection import ExistingTables
from ...projection.types import ARROW
from ..dlt_internals import (
    LOADS_TABLE_NAME,
    VERSION_TABLE_NAME,
    DatabaseException,
    DuckDbCredentials,
    SqlClientBase,
    SqlJobClientBase,
    StorageSchemaInfo,
)
from ..dlt_internals.information_schema import columns_of_table
from ..merging import keys_of
from ..sql_files import sql_file
from .creation import create_missing, native_type
from .interface import Columns, Dataset, Row, UnknownType, cast_to_text, placeholders
from .sql_arrow import contract_types, is_zoned, read_table, selected
from .sql_schema import (
    comments,
    lacking_units,
    primary_keys,
    secured_tables,
    taken_names,
    text_lengths,
    unreadable_tables,
)
from .sql_statements import UNTIMED, Connect, Statements

ROWS_PER_INSERT = 100
IDS_PER_QUERY = 1_000
_ANY_SYSTEM_SCHEMA = re.compile("information_schema", re.IGNORECASE)
_OF_POSTGRES = re.compile("information_schema|pg_.*", re.IGNORECASE)
_SYSTEM_SCHEMAS = {
    "duckdb": re.compile("information_schema|pg_catalog|system|temp", re.IGNORECASE),
    "postgres": _OF_POSTGRES,
    "redshift": _OF_POSTGRES,
    "filesystem": re.compile("(?!)"),  # matches nothing: a lake has folders, not schemas
}
"""By kind of database, the names of its own schemas, and of its own databases that a query would take for schemas."""


class SqlDataset(Dataset):
    """The tables of a dataset, or of its staging dataset, read and written with dlt's SQL client.

    `Statements` describes the parameters.
    """

    def __init__(
        self, client: SqlJobClientBase, connect: Connect | None = None, is_staging: bool = False, literals: bool = False
    ) -> None:
        super().__init__()
        self.client = client
        self.sql = Statements(client, connect, is_staging, literals)
        self._columns: dict[str, Columns] | None = None
        self.unknown_types: Mapping[tuple[str, str], UnknownType] | None = None
        """What `text_columns.unknown_types` has found."""
        self._known: dict[str, dict[str, Type]] = {}
        self.kind = client.config.destination_type.rpartition(".")[2]
        self.dialect = client.capabilities.sqlglot_dialect
        self.name = self.sql.dataset_name()
        self.target = f"{self.kind} {client.config}, dataset {self.name}"
        self.title = f"{self.kind} {_path_or_url(client)}, dataset {self.name}"

    # ---- metadata ----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Returns whether the dataset was ever loaded into."""
        with self.sql.open() as client:
            return bool(client.is_storage_initialized())

    def columns(self) -> dict[str, Columns]:
        """Returns the columns of all tables and views, including dlt's own."""
        if self._columns is None:
            self._columns = {}
            for table, column, native in self.sql.columns():
                self._columns.setdefault(table, {})[column] = native
        return self._columns

    def tables(self, names: Sequence[str]) -> ExistingTables:
        """Returns the tables among these that exist, with the contract's types of their columns."""
        with self.sql.open_in_dataset() as client:
            if not self.sql.exists(client):
                return {}
            own = {name: spelt for name in names if (spelt := self.sql.own_spelling(name))}
            found = dict(client.get_storage_tables([name for name in dict.fromkeys(names) if name not in own]))
            found |= {name: columns_of_table(client, spelt) for name, spelt in own.items()}
        spellings = self.sql.spelt if self.kind == "postgres" else None
        self._known |= {name: contract_types(name, columns, spellings) for name, columns in found.items() if columns}
        self.widths |= {name: len(columns) for name, columns in found.items()}
        self.column_names |= {name: set(map(str.lower, columns)) for name, columns in found.items()}
        self.zoned |= {name for name, columns in found.items() if any(map(is_zoned, columns.values()))}
        return {name: self._known[name] for name in names if found.get(name)}

    def lacks(self, table: str) -> bool:
        """Returns whether a table does not exist. Raises the destination's error if the user may not read it."""
        return table not in self.tables([table]) if self.kind == "duckdb" else self.sql.lacks(table)

    def unreadable(self) -> list[str]:
        """Returns the tables that exist but that the user may not read, if the destination lists them."""
        return unreadable_tables(self.sql) if self.kind == "postgres" else []

    def lengths(self) -> dict[tuple[str, str], int]:
        """Returns the maximum length of text columns, by table and column, if the destination limits it."""
        return text_lengths(self.sql)

    def keys(self) -> dict[str, tuple[str, ...]]:
        """Returns the primary keys of the tables, in the order of their columns."""
        return primary_keys(self.sql, self.kind)

    def comments(self) -> dict[tuple[str, str | None], str]:
        """Returns the comments by table and column; the column is None for the comment of a table or view itself."""
        return comments(self.sql, self.kind)

    def views(self) -> set[str]:
        """Returns the names of the views."""
        return _views(self)

    def parts(self) -> Sequence[Dataset]:
        """Returns this dataset, and the staging dataset if it exists."""
        staged = SqlDataset(self.client, self.sql.open, is_staging=True, literals=self.sql.literals)
        with staged.sql.open_in_dataset() as client:
            return [self, staged] if client.sql_client.has_dataset() else [self]

    def complete_loads(self) -> set[str]:
        """Returns the ids of dlt's completed loads."""
        if LOADS_TABLE_NAME not in self.tables([LOADS_TABLE_NAME]):
            return set()
        before = self.template(LOADS_TABLE_NAME, "SELECT {load_id} FROM")
        return {row[0] for row in self.stream(before, LOADS_TABLE_NAME, "WHERE status = 0")}

    # ---- reading -----------------------------------------------------------------------------------------------------

    def read(self, table: str, columns: Sequence[str], ids: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yields columns of a table that `tables` has found, in the contract's types."""
        return read_columns(self, table, {column: self._known[table][column] for column in columns}, ids)

    def stream(self, before: str, table: str, after: str = "", values: Sequence[Any] = ()) -> Iterator[Row]:
        """Yields the rows of the statement `{before} {table} {after}`, whose `%s` are the values."""
        return self.sql.stream(f"{before} {self.sql.table(table)} {after}", values)

    def quoted(self, table: str, column: str) -> str:
        """Returns a column's quoted name for a statement."""
        return self.sql.quoted(table, column)

    def text_type(self) -> str:
        """Returns the destination's type of text."""
        return native_type(self.client, "text", "text")

    # ---- writing -----------------------------------------------------------------------------------------------------

    def create(self, table: Table) -> None:
        """Creates a table of the catalogue, and the dataset, if they are missing."""
        create_missing(self.sql, table, self.kind, self.transaction)
        let_rows_change(self, [table.name])
        self._columns = self.unknown_types = None

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Inserts rows, with a cell for each column of the catalogue's table."""
        names = ", ".join(self.quoted(table.name, column.name) for column in table.columns)
        row_marks = f"({', '.join(['%s'] * len(table.columns))})"
        for start in range(0, len(rows), ROWS_PER_INSERT):
            some = rows[start : start + ROWS_PER_INSERT]
            after = f"({names}) VALUES {', '.join([row_marks] * len(some))}"
            self.sql.run(f"INSERT INTO {self.sql.table(table.name)} {after}", [cell for row in some for cell in row])

    def update(self, table: str, changes: Mapping[str, Any], where: str, values: Sequence[Any]) -> None:
        """Sets columns of the rows that meet a condition."""
        sets = ", ".join(f"{self.quoted(table, column)} = %s" for column in changes)
        self.sql.run(self.sql.update(table, sets, where), [*changes.values(), *values])

    def delete(self, table: str, where: str, values: Sequence[Any]) -> None:
        """Deletes the rows that meet a condition."""
        self.sql.run(f"DELETE FROM {self.sql.table(table)} WHERE {where}", values)

    def transaction(self) -> AbstractContextManager[Any]:
        """Returns a context whose writes take effect together, if the destination has transactions."""
        none = self.client.capabilities.supports_transactions is False
        return nullcontext() if none else self.client.sql_client.begin_transaction()

    def locked(self, table: str) -> AbstractContextManager[bool]:
        """Holds PostgreSQL's advisory lock for a table during the block. Yields False if another connection has it."""
        return _locked(self, table) if self.dialect == "postgres" else nullcontext(True)

    def drop_copies(self) -> None:
        """Keeps one copy of each row that a killed load stored twice."""
        _drop_copies(self)


def _views(dataset: SqlDataset) -> set[str]:
    found = taken_names(dataset.sql, dataset.kind, dataset.dialect)["view"]
    if dataset.kind != "postgres":
        return set(map(str.lower, found))
    names = names_by_spelling(dataset)  # a view may be named like a table but for its case
    return {names.get(view, view.lower()) for view in found if view in names or view.lower() not in names}


def names_by_spelling(dataset: SqlDataset) -> dict[str, str]:
    """Returns the names of a PostgreSQL dataset's tables by PostgreSQL's spelling of them."""
    dataset.columns()  # notes the spellings
    return {spelt: name for (name, _), (spelt, _) in dataset.sql.spelt.items()}


def read_columns(
    dataset: SqlDataset, table: str, types: Mapping[str, Type], ids: Sequence[str] = (), texts: Collection[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Yields columns of a table in these types; the database casts the columns `texts`, which have others, to text."""
    schema = pa.schema([(column, ARROW[of]) for column, of in types.items()])
    cells = [cast_to_text(dataset, table, name) if name in texts else dataset.quoted(table, name) for name in types]
    select = ", ".join(selected(*cell, dataset.kind) for cell in zip(cells, schema.types, strict=True))
    with dataset.sql.open_in_dataset() as client:
        text = f"SELECT {select} FROM {dataset.sql.table(table)}"
        name = dataset.sql.written(dataset.sql.table(table), ())
        for where, values in _conditions(dataset, table, ids):
            query = dataset.sql.written(text + where, values)
            yield from read_table(client.sql_client, name, query, schema, dataset.kind)


def _conditions(dataset: SqlDataset, table: str, ids: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yields conditions and their values that select a table's rows by id; without ids, one that selects all rows.

    Only PostgreSQL selects rows by id, with its index, because its driver makes a Python object of each cell.
    """
    if not ids or dataset.kind != "postgres":
        yield "", ()
        return
    for start in range(0, len(ids), IDS_PER_QUERY):
        some = ids[start : start + IDS_PER_QUERY]
        yield f" WHERE {dataset.quoted(table, 'id')} IN ({placeholders(some)})", some


def connected(dataset: Dataset) -> AbstractContextManager[None]:
    """Runs a dataset's statements in the block on one connection, if it has connections. Only for a single thread."""
    return dataset.sql.connected() if isinstance(dataset, SqlDataset) else nullcontext()


def tables_that_hide_rows(dataset: Dataset) -> list[str]:
    """Returns the tables of PostgreSQL in which row-level security applies to the user, so that rows may be hidden."""
    return secured_tables(dataset.sql) if isinstance(dataset, SqlDataset) and dataset.kind == "postgres" else []


def let_rows_change(dataset: Dataset, tables: Collection[str]) -> None:
    """Lets PostgreSQL change and delete rows of these tables although a publication has them.

    They get a replica identity if they lack one. If the user does not own them, nothing happens: the error about the
    first changed row says what to do.
    """
    if isinstance(dataset, SqlDataset) and dataset.kind == "postgres":
        found = {str(name) for (name,) in dataset.sql.by_schema(sql_file("unidentified_rows_postgres.sql"))}
        for name in sorted(found & set(tables)):
            with suppress(DatabaseException):
                dataset.sql.run(f"ALTER TABLE {dataset.sql.table(name)} REPLICA IDENTITY FULL", ())


def lacking_characters(dataset: Dataset, units: Sequence[str]) -> tuple[str, set[str]] | None:
    """Returns the encoding of a PostgreSQL database, and those of the `units` that it cannot hold.

    A unit is a character, or several code points that are tried together. Returns None for other destinations, and if
    the database cannot tell, because somebody dropped PL/pgSQL.
    """
    with suppress(DatabaseException):
        if isinstance(dataset, SqlDataset) and dataset.kind == "postgres":
            return lacking_units(dataset.sql, units)
    return None


@contextmanager
def _locked(dataset: SqlDataset, table: str) -> Iterator[bool]:
    client: Any = dataset.client
    number = int.from_bytes(hashlib.sha256(dataset.sql.table(table).encode()).digest()[:8], signed=True)
    # A separate connection, because dlt resets one whose statement failed. It is a transaction's lock, as a pooler
    # may run each transaction on another connection.
    with type(client)(client.schema, client.config, client.capabilities) as holder:
        run = holder.sql_client.execute_sql
        try:
            run(f"BEGIN ISOLATION LEVEL READ COMMITTED; {UNTIMED}")  # other levels keep a snapshot meanwhile
            [[taken]] = run(f"SELECT pg_try_advisory_xact_lock({number})")
            yield taken
        finally:
            with suppress(DatabaseException):  # a stream's next chunk needs the lock before the connection has closed
                run("ROLLBACK")


def _drop_copies(dataset: SqlDataset) -> None:
    """Keeps one copy of each row that a killed load stored twice.

    dlt's next run finishes such a load. A file that was loaded but not yet recorded as loaded is then loaded into
    staging a second time, and the merge from there inserts every copy.
    """
    schema = _schema_of(dataset)
    if schema is None or dataset.client.capabilities.supports_transactions is False:
        return
    found = dataset.tables(schema.data_table_names())
    with dataset.sql.open_in_dataset() as client:
        sql = client.sql_client
        for name in found:
            keys = list(map(sql.escape_column_name, keys_of(schema.tables[name])))
            if keys:  # a transformer's table may have none: its copies cannot be recognized
                _keep_one_of_each(sql, name, keys)


def _schema_of(dataset: SqlDataset) -> Schema | None:
    """Returns the stored schema, which the pipeline may lack on a new machine after killed loads."""
    if VERSION_TABLE_NAME not in dataset.tables([VERSION_TABLE_NAME]):
        return None
    with dataset.sql.open() as client:
        return stored_schema(client, dataset.schema_name)


def are_named_alike(database: str, dataset: str) -> bool:
    """Returns whether DuckDB cannot tell a database from a dataset in it: it names the database after the file."""
    return Path(database).stem.lower() == dataset.lower()


def check_no_system_schema(kind: str, dataset: str, todo: str) -> None:
    """Raises NotSupported, with what to do, if a database of this kind keeps its own tables under the dataset's name.

    Example: `check_no_system_schema("duckdb", "pg_catalog", "Name another: --dataset")`.
    """
    if _SYSTEM_SCHEMAS.get(kind, _ANY_SYSTEM_SCHEMA).fullmatch(dataset):
        raise NotSupported(f"Expected a dataset of your own, but {kind} has {dataset} for its own tables.\n{todo}")


def check_dataset_name(dataset: Dataset) -> None:
    """Raises NotSupported if a dataset has the name of a schema of the database's own, or of its DuckDB file."""
    if not isinstance(dataset, SqlDataset):
        return
    check_no_system_schema(dataset.kind, dataset.name, 'Name another: dataset_name="other"')
    if dataset.kind != "duckdb":
        return
    database = cast(Any, dataset.client.config).credentials.database
    if are_named_alike(database, dataset.name):
        raise NotSupported(
            f"The DuckDB file {database} is named like the dataset {dataset.name}, and DuckDB cannot tell them apart.\n"
            'Name another file (dlt.destinations.duckdb("other.duckdb")) or another dataset (dataset_name="other").'
        )


def writes_text(client: SqlJobClientBase) -> bool:
    """Returns whether dlt knows how text is quoted in the destination's statements."""
    literal: Any = client.capabilities.escape_literal
    return literal is not None and literal("'") != "'"  # without quotes, an id from outside would run as SQL


def _keep_one_of_each(client: SqlClientBase[Any], name: str, keys: Sequence[str]) -> None:
    """Keeps one copy of each row whose key comes again; `keys` are the quoted names of the key's columns."""
    table, copies = client.make_qualified_table_name(name), client.make_qualified_table_name("_copies")
    repeated = f"SELECT {', '.join(keys)} FROM {table} GROUP BY {', '.join(keys)} HAVING count(*) > 1"
    if not client.execute_sql(f"SELECT count(*) FROM ({repeated}) t")[0][0]:  # type: ignore[index]
        return
    same = " AND ".join(f"t.{key} = c.{key}" for key in keys)
    which = "t" if client.capabilities.sqlglot_dialect == "mysql" else ""  # MariaDB has no other form with an alias
    client.execute_sql(f"DROP TABLE IF EXISTS {copies}")
    client.execute_sql(f"CREATE TABLE {copies} AS SELECT DISTINCT t.* FROM {table} t JOIN ({repeated}) c ON {same}")
    with client.begin_transaction():
        client.execute_sql(f"DELETE {which} FROM {table} AS t WHERE EXISTS (SELECT 1 FROM {copies} c WHERE {same})")
        client.execute_sql(f"INSERT INTO {table} SELECT * FROM {copies}")
    client.execute_sql(f"DROP TABLE {copies}")


def _path_or_url(client: SqlJobClientBase) -> str:
    credentials = client.config.credentials
    return credentials.database if isinstance(credentials, DuckDbCredentials) else str(client.config)


def stored_schema(client: SqlJobClientBase, name: str, known: Schema | None = None) -> Schema | None:
    """Returns the stored schema with a name, which describes what dlt has created in the dataset; None if none exists.

    If the stored schema is the same as `known`, returns `known`, which saves parsing it.
    """
    found = cast(StorageSchemaInfo | None, client.get_stored_schema(name))
    if found and known and found.version_hash == known.stored_version_hash:
        return known
    return Schema.from_dict(json.loads(found.schema)) if found else None
