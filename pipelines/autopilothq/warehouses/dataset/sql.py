"""The tables of a dataset in a destination that answers SQL."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import resources
from typing import Any, cast

import pyarrow as pa
from dlt import Schema
from dlt.common.destination.typing import PreparedTableSchema

from ...catalog import Table, Type
from ...projection import ExistingTables
from ..books import BooksSqlClient, is_book
from ..dlt_internals import (
    LOADS_TABLE_NAME,
    VERSION_TABLE_NAME,
    DatabaseException,
    DestinationUndefinedEntity,
    SqlClientBase,
    SqlJobClientBase,
    StorageSchemaInfo,
    get_columns_names_with_prop,
    information_schema,
    schema_components,
    stored_columns,
)
from ..hints import ARROW
from .interface import Columns, Dataset, NativeType, Row
from .sql_arrow import contract_types, is_zoned, read_arrow

LONGEST = 65_535  # characters of text; the largest text that a destination has stands for no limit
ROWS_PER_FETCH = 10_000
ROWS_PER_INSERT = 100
_VALUE = re.compile(r"%[s%]")
Opened = Callable[[], AbstractContextManager[Any]]


class SqlDataset(Dataset):
    """The tables of a dataset, asked by dlt's SQL client.

    `opened` gives a client with an open connection for each statement; without it `client` is open already. With
    `literals` values are written into statements: thousands of parameters take DuckDB thirty times as long.
    """

    def __init__(
        self, client: SqlJobClientBase, opened: Opened | None = None, staging: bool = False, literals: bool = False
    ) -> None:
        super().__init__()
        self.client = client
        self._open = opened or (lambda: nullcontext(client))
        self._staging = staging
        self._literals = literals
        self._columns: dict[str, Columns] | None = None
        # Names in the case in which other programs wrote them: quoted, they are found in no other.
        self._spelt: dict[tuple[str, str], tuple[str, str]] = {}
        self._known: dict[str, dict[str, Type]] = {}
        self.kind = client.config.destination_type.rpartition(".")[2]
        self.location = str(client.config)
        self.dialect = client.capabilities.sqlglot_dialect
        with self._at(client):
            self.name = client.sql_client.dataset_name

    # ---- what is there -----------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Returns whether the dataset was ever loaded into."""
        with self._open() as client:
            return bool(client.is_storage_initialized())

    def columns(self) -> dict[str, Columns]:
        """Returns the columns of all tables and views, dlt's own included."""
        if self._columns is None:
            self._columns = {}
            with self.opened() as client:
                for dataset, belongs in datasets_of(client.sql_client):
                    with dataset:
                        for table, column, native, of in stored_columns(client):
                            if belongs(table):
                                names = table.lower(), column.lower()
                                self._columns.setdefault(names[0], {})[names[1]] = NativeType(native, of or "text")
                                self._spelt[names] = (table, column)
        return self._columns

    def tables(self, names: Sequence[str]) -> ExistingTables:
        """Returns those of the tables that exist, with the contract's types of their columns."""
        with self._open() as client:
            if not client.is_storage_initialized():
                return {}
            found = dict(client.get_storage_tables(list(dict.fromkeys(names))))
        unbounded = self.kind == "postgres"
        self._known |= {name: contract_types(columns, unbounded) for name, columns in found.items() if columns}
        self.widths |= {name: len(columns) for name, columns in found.items()}
        self.zoned |= {name for name, columns in found.items() if any(map(is_zoned, columns.values()))}
        return {name: self._known[name] for name in names if name in self._known}

    def lengths(self) -> dict[tuple[str, str], int]:
        """Returns the greatest length of text columns, by table and column, where the destination limits it."""
        rows = self.by_schema(
            "SELECT table_name, column_name, character_maximum_length FROM {columns} WHERE table_schema = %s"
            " AND character_maximum_length IS NOT NULL"
        )
        # -1 stands for no limit too.
        return {(t.lower(), c.lower()): length for t, c, length in rows if 0 < length < LONGEST}

    def keys(self) -> dict[str, tuple[str, ...]]:
        """Returns the primary keys of the tables, in the order of their columns."""
        query = sql_file("primary_keys_postgres.sql" if self.kind == "postgres" else "primary_keys.sql")
        keys: dict[str, tuple[str, ...]] = {}
        for table, column in self.by_schema(query):
            keys[table.lower()] = (*keys.get(table.lower(), ()), column.lower())
        return keys

    def views(self) -> set[str]:
        """Returns the names of the views."""
        rows = self.by_schema("SELECT table_name FROM {tables} WHERE table_schema = %s AND table_type LIKE '%%VIEW'")
        return {name.lower() for (name,) in rows}

    def by_schema(self, query: str) -> Sequence[Row]:
        """Returns the rows, a table's name first, of a query by schema; none where the destination cannot answer it.

        `{tables}`, `{columns}` and `{constraints}` in it are views of `information_schema`.
        """
        rows: list[Row] = []
        with self.opened() as client:
            sql = client.sql_client
            names = {"tables": "TABLES", "constraints": "TABLE_CONSTRAINTS"}
            names["columns"] = "KEY_COLUMN_USAGE" if "{constraints}" in query else "COLUMNS"
            text = query.format_map({name: information_schema(sql, view) for name, view in names.items()})
            for dataset, belongs in datasets_of(sql):
                with dataset, suppress(DatabaseException):
                    rows += [row for row in sql.execute_sql(text, schema_components(sql)[1]) or () if belongs(row[0])]
        return rows

    def parts(self) -> Sequence[Dataset]:
        """Returns this dataset and, where there is one, that in which dlt stages its rows."""
        staged = SqlDataset(self.client, self._open, staging=True, literals=self._literals)
        with staged.opened() as client:
            return [self, staged] if client.sql_client.has_dataset() else [self]

    def complete_loads(self) -> set[str]:
        """Returns the ids of dlt's loads that ran to their end."""
        if LOADS_TABLE_NAME not in self.tables([LOADS_TABLE_NAME]):
            return set()
        before = self.template(LOADS_TABLE_NAME, "SELECT {load_id} FROM")
        return {row[0] for row in self.stream(before, LOADS_TABLE_NAME, "WHERE status = 0")}

    # ---- reading -----------------------------------------------------------------------------------------------------

    def read(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields columns of a table that `tables` has found, in the contract's types."""
        schema = pa.schema([(column, ARROW[self._known[table][column]]) for column in columns])
        with self.opened() as client:
            select = ", ".join(self.quoted(table, column) for column in columns)
            text, _ = self._bound(f"SELECT {select} FROM {self._table(table)}", ())
            yield from read_arrow(client.sql_client, text, schema, self.kind)

    def stream(self, before: str, table: str, after: str = "", values: Sequence[Any] = ()) -> Iterator[Row]:
        """Yields the rows of the statement `{before} {table} {after}`, whose `%s` are the values."""
        with self.opened() as client:
            text, rest = self._bound(f"{before} {self._table(table)} {after}", values)
            with client.sql_client.execute_query(text, *rest) as cursor:
                while rows := cursor.fetchmany(ROWS_PER_FETCH):
                    yield from map(tuple, rows)

    def quoted(self, table: str, column: str) -> str:
        """Returns a column's name for a statement."""
        spelt = self._spelt.get((table, column))
        sql = self.client.sql_client
        name = sql.escape_column_name(spelt[1], casefold=False) if spelt else sql.escape_column_name(column)
        return name.replace("%", "%%")

    def text_type(self) -> str:
        """Returns the destination's type of text."""
        return native_type(self.client, "text", "text")

    # ---- writing -----------------------------------------------------------------------------------------------------

    def create(self, table: Table) -> None:
        """Creates a table of the catalogue, and the dataset, where they are missing."""
        with self.opened() as client:
            sql = client.sql_client
            if not sql.has_dataset():
                sql.create_dataset()
            sql.execute_sql(create_statement(client, table, "CREATE TABLE IF NOT EXISTS"))
        self._columns = None

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Inserts rows, with a cell for each column of the catalogue's table."""
        names = ", ".join(self.quoted(table.name, column.name) for column in table.columns)
        row_marks = f"({', '.join(['%s'] * len(table.columns))})"
        for start in range(0, len(rows), ROWS_PER_INSERT):
            some = rows[start : start + ROWS_PER_INSERT]
            after = f"({names}) VALUES {', '.join([row_marks] * len(some))}"
            self._execute("INSERT INTO", table.name, after, [cell for row in some for cell in row])

    def update(self, table: str, changes: Mapping[str, Any], where: str, values: Sequence[Any]) -> None:
        """Sets columns of the rows that meet a condition."""
        sets = ", ".join(f"{self.quoted(table, column)} = %s" for column in changes)
        after = f"SET {sets} WHERE {where}"
        self._execute("UPDATE", table, after, [*changes.values(), *values])

    def delete(self, table: str, where: str, values: Sequence[Any]) -> None:
        """Deletes the rows that meet a condition."""
        self._execute("DELETE FROM", table, f"WHERE {where}", values)

    def transaction(self) -> AbstractContextManager[Any]:
        """Returns a context in which all that is written is written at once, where the destination has transactions."""
        none = self.client.capabilities.supports_transactions is False
        return nullcontext() if none else self.client.sql_client.begin_transaction()

    def try_lock(self, table: str) -> bool:
        """Takes PostgreSQL's advisory lock of a table for this connection; others have none, and it returns True."""
        if self.dialect != "postgres":
            return True
        number = int.from_bytes(hashlib.sha256(self._table(table).encode()).digest()[:8], signed=True)
        [[taken]] = self.client.sql_client.execute_sql(f"SELECT pg_try_advisory_lock({number})") or [[True]]
        return bool(taken)

    def drop_copies(self) -> None:
        """Leaves one row of those that a killed load stored twice.

        The next run of dlt finishes such a load. A file that was loaded, but not yet noted as loaded, is then loaded
        into staging once more, and what merges from there inserts every copy.
        """
        schema = self._schema()
        if schema is None or self.client.capabilities.supports_transactions is False:
            return
        for name in self.tables(schema.data_table_names()):
            with self.opened() as client:
                sql = client.sql_client
                keys = get_columns_names_with_prop(schema.tables[name], "primary_key")
                drop_copies(sql, name, [sql.escape_column_name(key) for key in keys])

    # ---- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """An open client whose statements go to this dataset."""
        with self._open() as client, self._at(client):
            yield client

    def _at(self, client: Any) -> AbstractContextManager[Any]:
        return client.sql_client.with_staging_dataset() if self._staging else nullcontext()  # type: ignore[no-any-return]

    def _table(self, name: str) -> str:
        spelt = next((table for (known, _), (table, _) in self._spelt.items() if known == name), None)
        with self._at(self.client):
            sql = self.client.sql_client
            found = (
                sql.make_qualified_table_name(spelt, casefold=False) if spelt else sql.make_qualified_table_name(name)
            )
        return found.replace("%", "%%")

    def _execute(self, before: str, table: str, after: str, values: Sequence[Any]) -> None:
        with self.opened() as client:
            text, rest = self._bound(f"{before} {self._table(table)} {after}", values)
            client.sql_client.execute_sql(text, *rest)

    def _bound(self, text: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """Returns a statement and the parameters that it still has. `%%` in the text is a single percent sign."""
        if values and not self._literals:
            formats = getattr(self.client.sql_client.dbapi, "paramstyle", "") in ("format", "pyformat")
            return text if formats else text.replace("%%", "%"), values
        rest = iter(values)
        return _VALUE.sub(lambda found: "%" if found[0] == "%%" else self.literal(next(rest)), text), ()

    def literal(self, value: Any) -> str:
        """Returns a value as it is written in a statement."""
        return "NULL" if value is None else str(cast(Any, self.client.capabilities.escape_literal)(value))

    def _schema(self) -> Schema | None:
        """Returns the stored schema: on a new machine the pipeline may not know it, if all loads were killed."""
        with self._open() as client:
            if not client.is_storage_initialized() or VERSION_TABLE_NAME not in self.tables([VERSION_TABLE_NAME]):
                return None
            return stored_schema(client, self.schema_name)


def writes_text(client: SqlJobClientBase) -> bool:
    """Returns whether dlt knows how text is quoted in the destination's statements."""
    literal: Any = client.capabilities.escape_literal
    return literal is not None and literal("'") != "'"  # where it quotes nothing, a stranger's id would be SQL


def datasets_of(sql: SqlClientBase[Any]) -> Iterator[tuple[AbstractContextManager[Any], Callable[[str], bool]]]:
    """Yields a client's dataset, and that of the books where it is another one, each with which tables count there."""
    apart = isinstance(sql, BooksSqlClient) and sql.has_books_apart
    yield nullcontext(), lambda table: not (apart and is_book(table.lower()))
    if isinstance(sql, BooksSqlClient) and apart:
        yield sql.with_books(), lambda table: is_book(table.lower())


def create_statement(client: SqlJobClientBase, table: Table, create: str = "CREATE TABLE") -> str:
    """Returns the statement that creates a table of the catalogue, in dlt's types and without a key."""
    sql = client.sql_client
    columns = [
        f"{sql.escape_column_name(column.name)} {native_type(client, column.name, column.type)}"
        for column in table.columns
    ]
    return f"{create} {sql.make_qualified_table_name(table.name)} ({', '.join(columns)})"


def native_type(client: SqlJobClientBase, column: str, of: Type) -> str:
    """Returns the destination's type of a column that has one of the contract's types."""
    table: PreparedTableSchema = {"name": "", "columns": {}, "write_disposition": "append"}
    return str(client.capabilities.get_type_mapper().to_destination_type({"name": column, "data_type": of}, table))


def drop_copies(client: SqlClientBase[Any], name: str, keys: Sequence[str]) -> None:
    """Leaves one row of a table where several have one key."""
    table, copies = client.make_qualified_table_name(name), client.make_qualified_table_name("_copies")
    twice = f"SELECT {', '.join(keys)} FROM {table} GROUP BY {', '.join(keys)} HAVING count(*) > 1"
    if not client.execute_sql(f"SELECT count(*) FROM ({twice}) t")[0][0]:  # type: ignore[index]
        return
    same = " AND ".join(f"t.{key} = c.{key}" for key in keys)
    client.execute_sql(f"DROP TABLE IF EXISTS {copies}")
    client.execute_sql(f"CREATE TABLE {copies} AS SELECT DISTINCT t.* FROM {table} t JOIN ({twice}) c ON {same}")
    with client.begin_transaction():
        client.execute_sql(f"DELETE FROM {table} AS t WHERE EXISTS (SELECT 1 FROM {copies} c WHERE {same})")
        client.execute_sql(f"INSERT INTO {table} SELECT * FROM {copies}")
    client.execute_sql(f"DROP TABLE {copies}")


def stored_schema(client: SqlJobClientBase, name: str) -> Schema | None:
    """Returns what dlt has made in a dataset by the schema of that name, None where dlt knows of none."""
    try:
        found = cast(StorageSchemaInfo | None, client.get_stored_schema(name))
    except DestinationUndefinedEntity:
        return None
    return Schema.from_dict(json.loads(found.schema)) if found else None


def sql_file(name: str) -> str:
    """Returns the text of a SQL file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
