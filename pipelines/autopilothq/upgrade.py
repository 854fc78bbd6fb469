"""Makes the tables of an earlier version what this one makes: types, keys, indexes, `accounts`, names of pages.

What is to be done is derived from what the destination has, so it can be broken off anywhere and called again. Each
statement is done whole or not at all, and columns or rows are never removed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from . import lock, run
from .catalog import ACCOUNTS, GROUPS, LATEST, LOCKS, MESSAGE_TABLES
from .inspection import NothingThere, Reader, answering, reading
from .native import Shape, shape_of
from .source.stored import stored_schema
from .source.tables import SOURCE
from .warehouses.books import BooksSqlClient, is_book
from .warehouses.dlt_internals import stored_columns

KINDS = ("duckdb", "postgres")
# Columns that earlier versions kept among the properties, under a `_`.
NAMES = {
    table.name: [column.name for column in table.columns if column.name in ("name", "category")]
    for table in MESSAGE_TABLES
}
_INDEXED = """
    SELECT c.relname, a.attname FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE n.nspname = %s AND i.indisvalid AND i.indpred IS NULL"""

# Views, and the columns of tables that they use, whose types PostgreSQL does not change then.
_USED = """
    SELECT DISTINCT c.relname, a.attname, format('%%I.%%I', s.nspname, v.relname) FROM pg_depend d
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.ev_class <> d.refobjid
    JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
    JOIN pg_class v ON v.oid = r.ev_class JOIN pg_namespace s ON s.oid = v.relnamespace
    WHERE n.nspname = %s ORDER BY 1, 2, 3"""

# What loads take for blank, and not `trim` by itself.
_BLANKS = "' ' || chr(9) || chr(10) || chr(12) || chr(13)"


class Upgrade(NamedTuple):
    """What an upgrade did, or would do: its statements, and why a table stays as it is."""

    statements: list[str]
    left: dict[str, str]


def upgrade(
    destination: str | None = None,
    credentials: str | None = None,
    dataset: str | None = None,
    dry_run: bool = False,
    wait: timedelta = timedelta(),
    tell: Callable[[str], None] | None = None,
) -> Upgrade:
    """Changes the tables of a dataset in place; with `dry_run` changes nothing. `tell` gets each statement first.

    Raises RunError where the kind of destination cannot be changed so, NothingThere where there is no such dataset.
    """
    with run.explained():
        if dry_run:
            with reading(destination, credentials, dataset) as reader:
                moves = _moves(reader)
                # dlt's tables tell what else is to be done, when they are where they should be.
                return _run(moves if moves.statements else _planned(reader), tell)
        into = run.pipeline(destination, credentials, dataset, create=False, wait=wait)
        with lock.held(into, wait.total_seconds()), answering(into) as client:
            if not client.is_storage_initialized():
                raise NothingThere(f"There is no dataset {into.dataset_name}, so there is nothing to upgrade.")
            moved = _run(_moves(Reader(client)), tell, client.sql_client.execute_sql)
            done = _run(_planned(Reader(client)), tell, client.sql_client.execute_sql)
            return Upgrade([*moved.statements, *done.statements], moved.left | done.left)


def _run(plan: Upgrade, *does: Callable[[str], Any] | None) -> Upgrade:
    for statement in plan.statements:
        for do in filter(None, does):
            do(statement)
    return plan


def _planned(reader: Reader) -> Upgrade:
    if reader.kind not in KINDS:
        raise run.RunError(
            f"Expected PostgreSQL or DuckDB, but got {reader.kind}, whose tables cannot be changed in place.\n"
            "Load the archive into a new dataset instead: --dataset NAME"
        )
    plan = _Plan(reader)
    return Upgrade(list(plan.statements()), plan.left)


def _moves(reader: Reader) -> Upgrade:
    """What moves the books from among the events' tables into the dataset that they should have."""
    sql = reader.client.sql_client
    plan = Upgrade([], {})
    if not (isinstance(sql, BooksSqlClient) and sql.has_books_apart):
        return plan
    there = {table for table, *_ in stored_columns(reader.client) if is_book(table)}
    with sql.with_books():
        moved = {table for table, *_ in stored_columns(reader.client)}
    books = sql.capabilities.escape_identifier(str(sql.books))
    if there and not moved:
        plan.statements.append(f"CREATE SCHEMA IF NOT EXISTS {books}")
    for table in sorted(there):
        home = ".".join(sql.make_qualified_table_name_path(table, dataset_name=sql.home))
        if table.startswith(LOCKS):
            plan.statements.append(f"DROP TABLE {home}")
        elif table in moved:
            plan.left[table] = f"it is in {sql.books} too: drop the one that is not needed"
        elif reader.kind == "postgres":
            plan.statements.append(f"ALTER TABLE {home} SET SCHEMA {books}")
        else:
            into = sql.make_qualified_table_name(table)
            plan.statements.extend([f"CREATE TABLE {into} AS FROM {home}", f"DROP TABLE {home}"])
    return plan


class _Plan:
    """The statements for one dataset."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._sql = reader.client.sql_client
        schema, views = stored_schema(reader.client, SOURCE), reader.views()
        ours = {table["name"]: table["columns"] for table in schema.data_tables()} if schema else {}
        # Tables and columns of people's own may stand beside, and views over ours in their place.
        self._ours = ours
        self._tables = {name: of for name, of in reader.tables().items() if name in ours and name not in views}
        self._keys = reader.keys()
        found = reader.told(_INDEXED) if reader.kind == "postgres" else ()
        self._indexed = {(str(table), str(column)) for table, column in found}
        self._used = reader.told(_USED) if reader.kind == "postgres" else ()
        self._indexes = getattr(reader.client.config, "index_received_at", False)
        self.left: dict[str, str] = {}

    def statements(self) -> Iterator[str]:
        """All of them, in the order in which they are to run."""
        for table, columns in self._tables.items():
            shape = self._shape(table, {name: of.type for name, of in columns.items()})
            yield from self._types(table, shape)
            yield from self._names(table)
            yield from self._guards(table, shape)
        if GROUPS.name in self._tables and ACCOUNTS.name not in self._reader.tables():
            yield self._accounts()
            yield from self._guards(ACCOUNTS.name, self._shape(ACCOUNTS.name, {"received_at": "timestamp"}))

    def _shape(self, table: str, types: Mapping[str, Any]) -> Shape:
        return shape_of(table, types, self._reader.kind)

    def _types(self, table: str, shape: Shape) -> Iterator[str]:
        columns = self._tables[table]
        ours = self._ours[table]
        wrong = [name for name, native in shape.types.items() if name in ours and columns[name].name != native]
        if views := sorted({view for of, column, view in self._used if of == table and column in wrong}):
            self.left[table] = (
                f"its columns cannot change their types while views show them ({', '.join(views)}): drop the views,"
                " call this again, and make them again"
            )
            return
        # By way of text: a cast alone would round to 15 digits.
        changes = [
            f"ALTER COLUMN {self._name(name)} TYPE {shape.types[name]}"
            f" USING {self._name(name)}::text::{shape.types[name]}"
            for name in wrong
        ]
        if changes:
            yield f"ALTER TABLE {self._table(table)} {', '.join(changes)}"

    def _names(self, table: str) -> Iterator[str]:
        columns = self._tables[table]
        for column in NAMES.get(table, ()):
            kept = f"_{column}"
            if column in columns and kept in columns and columns[column].type == columns[kept].type == "text":
                missing = f"{self._name(column)} IS NULL AND {self._name(kept)} IS NOT NULL"
                if self._any(f"SELECT 1 FROM {self._table(table)} WHERE {missing}"):
                    yield f"UPDATE {self._table(table)} SET {self._name(column)} = {self._name(kept)} WHERE {missing}"

    def _guards(self, table: str, shape: Shape) -> Iterator[str]:
        """The primary key and the indexes."""
        if shape.key and table not in self._keys and self._may_be_keyed(table, shape.key):
            yield f"ALTER TABLE {self._table(table)} ADD PRIMARY KEY ({', '.join(map(self._name, shape.key))})"
        for column in shape.indexes if self._indexes else ():
            if (table, column) not in self._indexed:
                yield f"CREATE INDEX ON {self._table(table)} ({self._name(column)})"

    def _may_be_keyed(self, table: str, key: Collection[str]) -> bool:
        if table not in self._tables:
            return True
        columns, named = ", ".join(map(self._name, key)), ", ".join(key)
        empty = " OR ".join(f"{self._name(column)} IS NULL" for column in key)
        if self._any(f"SELECT 1 FROM {self._table(table)} WHERE {empty}"):
            self.left[table] = f"rows have no {named}: give them one or delete them, then call this again"
            return False
        if self._any(f"SELECT 1 FROM {self._table(table)} GROUP BY {columns} HAVING count(*) > 1"):
            self.left[table] = f"rows have the same {named}: delete the copies, then call this again"
            return False
        return True

    def _accounts(self) -> str:
        """The statement that makes `accounts` of `groups`: the last value of each trait by the time of its receipt."""
        [made] = [made for made in LATEST if made.table is ACCOUNTS]
        prefix = made.left_out_prefix or "\0"
        there = [column for column in self._tables[GROUPS.name] if column in self._ours[GROUPS.name]]
        traits = [column for column in there if column not in made.left_out and not column.startswith(prefix)]
        key, received = self._name(made.key), self._name("received_at")
        by_bytes = ' COLLATE "C"' if self._reader.kind == "postgres" else ""
        last = f"{received} DESC NULLS LAST, {self._name('id')}{by_bytes} DESC"
        cells = [f"{key} AS {self._name('id')}", f"max({received}) AS {received}", f"now() AS {self._name('uuid_ts')}"]
        cells += [
            f"(array_agg({name} ORDER BY {last}) FILTER (WHERE {name} IS NOT NULL))[1] AS {name}"
            for name in map(self._name, traits)
        ]
        return (
            f"CREATE TABLE {self._table(ACCOUNTS.name)} AS SELECT {', '.join(cells)}"
            f" FROM {self._table(GROUPS.name)} WHERE trim({key}, {_BLANKS}) <> '' GROUP BY {key}"
        )

    def _any(self, query: str) -> bool:
        return bool(self._sql.execute_sql(f"{query} LIMIT 1"))

    def _name(self, column: str) -> str:
        return str(self._sql.escape_column_name(column))

    def _table(self, name: str) -> str:
        return str(self._sql.make_qualified_table_name(name))
