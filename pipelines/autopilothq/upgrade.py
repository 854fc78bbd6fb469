"""Upgrades the tables of an earlier version: types, keys, indexes, `accounts`, names of pages.

The statements are derived from what the destination has, so an upgrade can be killed at any point and run again. Each
statement runs completely or not at all. No stored column or row is removed; if the books move, the tables of locks and
those of the staging dataset are dropped.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from . import runner
from .catalog import ACCOUNTS, AUDIT, GROUPS, LATEST, MESSAGE_TABLES
from .errors import DatasetNotFound, RunError
from .explain import explained
from .inspect import reading
from .warehouses import lock
from .warehouses.books import BooksSqlClient, is_book, is_lock
from .warehouses.dataset import Dataset, SqlDataset, dataset_of, queryable_client, stored_schema, tables_of
from .warehouses.hints import SOURCE
from .warehouses.native import TableShape, shape_of
from .warehouses.settings import CONFIGURED_TARGET, TargetOptions
from .warehouses.sql_files import sql_file

UPGRADABLE_KINDS = ("duckdb", "postgres")
# Columns whose values earlier versions stored as properties, in a column with a `_` in front of the name.
RENAMED_COLUMNS = {
    table.name: [column.name for column in table.columns if column.name in ("name", "category")]
    for table in MESSAGE_TABLES
}

_POSTGRES = ("indexed_columns_postgres.sql", "columns_in_views_postgres.sql")
# What loads treat as blank; `trim` alone removes spaces only.
_BLANKS = "' ' || chr(9) || chr(10) || chr(12) || chr(13)"


class Upgrade(NamedTuple):
    """The statements of an upgrade, and the tables and columns that stay as they are, with the reasons."""

    statements: list[str]
    left: dict[str, str]


def upgrade(
    target: TargetOptions = CONFIGURED_TARGET,
    dry_run: bool = False,
    wait: timedelta = timedelta(),
    report: Callable[[str], None] | None = None,
) -> Upgrade:
    """Upgrades the tables of a dataset in place, and returns the statements; with `dry_run`, runs none of them.

    `report` is called with each statement before it runs. Raises RunError if the tables of this kind of destination
    cannot be changed in place, DatasetNotFound if there is no such dataset.
    """
    with explained():
        if dry_run:
            with reading(*target, wait=wait) as reader:
                return _run(_complete_upgrade(_upgradable(reader)), report)
        into = runner.pipeline(*target, create=False, wait=wait)
        seconds = wait.total_seconds()
        with lock.held(into, seconds), lock.held(into, seconds, "send"), queryable_client(into) as client:
            if not client.is_storage_initialized():
                raise DatasetNotFound(f"There is no dataset {into.dataset_name}, so there is nothing to upgrade.")
            found = _upgradable(dataset_of(client))
            if into.has_pending_data and _moves_of_books(found).statements:
                raise RunError(
                    "A load was cut off, and some of its rows wait in the staging dataset, which does not move.\n"
                    "Load once more without --books-dataset, or give that load up:"
                    f" dlt pipeline {into.pipeline_name} abort-packages"
                )
            return _run(_complete_upgrade(found), report, found.client.sql_client.execute_sql)


def _upgradable(dataset: Dataset) -> SqlDataset:
    """Returns the dataset if its tables can be changed in place; raises RunError if not."""
    if not isinstance(dataset, SqlDataset) or dataset.kind not in UPGRADABLE_KINDS:
        raise RunError(
            f"Expected PostgreSQL or DuckDB, but got {dataset.kind}, whose tables cannot be changed in place.\n"
            "Load the archive into a new dataset instead: --dataset NAME"
        )
    return dataset


def _complete_upgrade(reader: SqlDataset) -> Upgrade:
    """Returns the complete upgrade. The books move last, because until then dlt's tables are in their old place."""
    moves, sql = _moves_of_books(reader), reader.client.sql_client
    if not (isinstance(sql, BooksSqlClient) and (moves.statements or moves.left)):
        return _upgrade_of_tables(reader)
    with sql.with_books_in_events_dataset():
        of_tables = _upgrade_of_tables(SqlDataset(reader.client))
    return Upgrade([*of_tables.statements, *moves.statements], of_tables.left | moves.left)


def _run(plan: Upgrade, *actions: Callable[[str], Any] | None) -> Upgrade:
    """Calls all actions with each statement in turn, and returns the upgrade."""
    for statement in plan.statements:
        for act in filter(None, actions):
            act(statement)
    return plan


def _upgrade_of_tables(reader: SqlDataset) -> Upgrade:
    plan = _Plan(reader)
    return Upgrade(list(plan.statements()), plan.left)


def _moves_of_books(reader: SqlDataset) -> Upgrade:
    """Returns the statements that move the books out of the events' dataset into their own.

    `_audit` moves last, because no load begins until it is in its new place.
    """
    sql = reader.client.sql_client
    plan = Upgrade([], {})
    if not (isinstance(sql, BooksSqlClient) and sql.has_separate_books):
        return plan
    tables = sql.tables_by_dataset()
    home = tables.get(sql.current_dataset(), set())
    with sql.with_books():
        books, is_made = sql.current_dataset(), sql.has_dataset()
    in_events = sorted(filter(is_book, home), key=lambda table: (table == AUDIT.name, table))
    lasting = [table for table in in_events if not is_lock(table)]
    if both := sorted(tables.get(books, set()).intersection(lasting)):
        why = f"{books} has that table too: name another dataset for the books, or drop the one that is not needed"
        return Upgrade([], dict.fromkeys(both, why))
    if lasting and not is_made:
        plan.statements.append(f"CREATE SCHEMA IF NOT EXISTS {sql.capabilities.escape_identifier(books)}")
    for table in in_events:
        plan.statements.append(_move(sql, table, books, reader.kind))
    if lasting:
        plan.statements[-1:-1] = _drop_staging(sql, tables, plan.left)
    return plan


def _move(sql: BooksSqlClient, table: str, books: str, kind: str) -> str:
    home = ".".join(sql.make_qualified_table_name_path(table, dataset_name=sql.events_dataset))
    if is_lock(table):
        return f"DROP TABLE {home}"
    if kind == "postgres":
        return f"ALTER TABLE {home} SET SCHEMA {sql.capabilities.escape_identifier(books)}"
    into = sql.make_qualified_table_name(table)
    return f"BEGIN; CREATE TABLE {into} AS FROM {home}; DROP TABLE {home}; COMMIT"


def _drop_staging(sql: BooksSqlClient, tables: Mapping[str, set[str]], left: dict[str, str]) -> Iterator[str]:
    """Yields the statement that drops the staging dataset used until now, unless it has tables that loads did not make.

    `left` gets the reason if it stays.
    """
    staging = f"{sql.events_dataset}_staging"
    staged = {table for table in tables.get(staging, set()) if not is_book(table)}
    if strange := staged - tables.get(sql.current_dataset(), set()):
        left[staging] = f"it has tables that loads did not make ({', '.join(sorted(strange))}): drop what is not needed"
    elif staging in tables:
        yield f"DROP SCHEMA {sql.capabilities.escape_identifier(staging)} CASCADE"


class _Plan:
    """The statements for one dataset."""

    def __init__(self, reader: SqlDataset) -> None:
        self._reader = reader
        self._sql = reader.client.sql_client
        schema, views = stored_schema(reader.client, SOURCE), reader.views()
        ours = {table["name"]: table["columns"] for table in schema.data_tables()} if schema else {}
        # The dataset may also have tables and columns that its users made, and views that replace ours.
        self._ours = ours
        self._tables = {
            name: columns for name, columns in tables_of(reader).items() if name in ours and name not in views
        }
        self._keys = reader.keys()
        indexed, in_views = (
            reader.sql.by_schema(sql_file(name)) if reader.kind == "postgres" else () for name in _POSTGRES
        )
        self._indexed = {(str(table), str(column)) for table, column in indexed}
        self._views = {(str(table), str(column)): str(view) for table, column, view in in_views}
        self._indexes = getattr(reader.client.config, "index_received_at", False)
        self.left: dict[str, str] = {}

    def statements(self) -> Iterator[str]:
        """Yields all statements, in the order in which they run."""
        for table, columns in self._tables.items():
            types: dict[str, Any] = {name: column.type for name, column in columns.items()}
            shape = shape_of(table, types, self._reader.kind)
            yield from self._change_types(table, shape)
            yield from self._fill_renamed(table)
            yield from self._add_key_and_indexes(table, shape)
        if GROUPS.name in self._tables and ACCOUNTS.name not in tables_of(self._reader):
            yield self._create_accounts()
            shape = shape_of(ACCOUNTS.name, {"received_at": "timestamp"}, self._reader.kind)
            yield from self._add_key_and_indexes(ACCOUNTS.name, shape)

    def _change_types(self, table: str, shape: TableShape) -> Iterator[str]:
        """Yields the statement that gives columns their native types, unless a view uses them."""
        columns = self._tables[table]
        ours = self._ours[table]
        wrong = [name for name, native in shape.types.items() if name in ours and columns[name].name != native]
        for name in [name for name in wrong if (table, name) in self._views]:
            wrong.remove(name)
            self.left[f"{table}.{name}"] = (
                f"{self._views[table, name]} uses it: drop that view, run this again, recreate the view"
            )
        # Via text, because a cast alone would round to 15 digits.
        changes = [
            f"ALTER COLUMN {self._name(name)} TYPE {shape.types[name]}"
            f" USING {self._name(name)}::text::{shape.types[name]}"
            for name in wrong
        ]
        if changes:
            yield f"ALTER TABLE {self._table(table)} {', '.join(changes)}"

    def _fill_renamed(self, table: str) -> Iterator[str]:
        """Yields the statements that copy values from the columns in which earlier versions stored them."""
        columns = self._tables[table]
        for column in RENAMED_COLUMNS.get(table, ()):
            kept = f"_{column}"
            if column in columns and kept in columns and columns[column].type == columns[kept].type == "text":
                missing = f"{self._name(column)} IS NULL AND {self._name(kept)} IS NOT NULL"
                if self._any(f"SELECT 1 FROM {self._table(table)} WHERE {missing}"):
                    yield f"UPDATE {self._table(table)} SET {self._name(column)} = {self._name(kept)} WHERE {missing}"

    def _add_key_and_indexes(self, table: str, shape: TableShape) -> Iterator[str]:
        """Yields the statements for the primary key and the indexes."""
        if shape.key and table not in self._keys and self._can_have_key(table, shape.key):
            yield f"ALTER TABLE {self._table(table)} ADD PRIMARY KEY ({', '.join(map(self._name, shape.key))})"
        for column in shape.indexes if self._indexes else ():
            if (table, column) not in self._indexed:
                yield f"CREATE INDEX ON {self._table(table)} ({self._name(column)})"

    def _can_have_key(self, table: str, key: Collection[str]) -> bool:
        """Returns whether the rows of a table allow this primary key; notes in `left` why not."""
        if table not in self._tables:
            return True
        columns, named = ", ".join(map(self._name, key)), ", ".join(key)
        empty = " OR ".join(f"{self._name(column)} IS NULL" for column in key)
        if self._any(f"SELECT 1 FROM {self._table(table)} WHERE {empty}"):
            self.left[table] = f"rows have no {named}: give them one or delete them, then run this again"
            return False
        if self._any(f"SELECT 1 FROM {self._table(table)} GROUP BY {columns} HAVING count(*) > 1"):
            self.left[table] = f"rows have the same {named}: delete the copies, then run this again"
            return False
        return True

    def _create_accounts(self) -> str:
        """Returns the statement that creates `accounts` from `groups`: the last value received of each trait."""
        [made] = [made for made in LATEST if made.table is ACCOUNTS]
        ours = [column for column in self._tables[GROUPS.name] if column in self._ours[GROUPS.name]]
        traits = filter(made.has_trait, ours)
        key, received = self._name(made.key), self._name("received_at")
        last = f'{received} DESC NULLS LAST, {self._name("id")} COLLATE "C" DESC'
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
