"""Builds and runs the statements for one dataset of a destination that answers SQL."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, cast

from ..books import BooksSqlClient, is_book
from ..dlt_internals import DatabaseException, DatabaseUndefinedRelation, SqlClientBase, SqlJobClientBase
from ..dlt_internals.information_schema import information_schema, schema_components, stored_columns, table_in_dataset
from .interface import NativeType, Row

ROWS_PER_FETCH = 10_000
UNTIMED = "SELECT set_config(name, '0', true) FROM pg_settings WHERE name ~ '^(idle_in_)?transaction_.*timeout$'"
"""Keeps PostgreSQL's transaction open for as long as it takes, even if it is idle while its rows are worked on."""
_VALUE = re.compile(r"%[s%]")
Connect = Callable[[], Any]
"""Returns a context manager whose value is dlt's client with an open connection."""


class Connections:
    """Opens the connections for statements: `open` opens one for each statement, except within `connected`.

    Example: `Connections(pipeline.sql_client)`.
    """

    def __init__(self, connect: Connect) -> None:
        self.open = connect
        self._exists: bool | None = None  # None outside of `connected`: the dataset may be dropped between statements

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Runs all statements in the block on one connection: opening one takes many times as long as a query.

        Once the dataset is known to exist, `exists` does not ask again in the block.
        """
        before = self.open
        with before() as client:
            self.open, self._exists = (lambda: nullcontext(client)), False
            try:
                yield
            finally:
                self.open, self._exists = before, None

    def exists(self, client: Any) -> bool:
        """Returns whether the dataset of an open client exists."""
        found = self._exists or bool(client.is_storage_initialized())
        if self._exists is not None:
            self._exists = found
        return found


class Statements(Connections):
    """Builds and runs statements for a dataset, or for its staging dataset.

    `connect` opens a connection for each statement; without it the connection of `client` is open already. With
    `literals` values are written into statements: thousands of parameters take DuckDB thirty times as long.
    """

    def __init__(self, client: SqlJobClientBase, connect: Connect | None, is_staging: bool, literals: bool) -> None:
        super().__init__(connect or (lambda: nullcontext(client)))
        self.client = client
        self.is_staging = is_staging
        self.literals = literals
        self.spelt: dict[tuple[str, str], tuple[str, str]] = {}
        """The spelling of tables and columns in the destination, by their names in lower case."""

    @contextmanager
    def open_in_dataset(self) -> Iterator[Any]:
        """Yields an open client whose statements go to this dataset, which may be the staging dataset."""
        with self.open() as client, self._directed(client):
            yield client

    def _directed(self, client: Any) -> AbstractContextManager[Any]:
        """Returns a context in which a client uses the names of this dataset."""
        return client.sql_client.with_staging_dataset() if self.is_staging else nullcontext()

    def dataset_name(self) -> str:
        """Returns the dataset's name."""
        with self._directed(self.client):
            return self.client.sql_client.dataset_name

    def table(self, name: str) -> str:
        """Returns a table's qualified name, with each `%` doubled."""
        spelt = self._spelt_table(name)
        with self._directed(self.client):
            named = self.client.sql_client.make_qualified_table_name
            return (named(spelt, casefold=False) if spelt else named(name)).replace("%", "%%")

    def quoted(self, table: str, column: str) -> str:
        """Returns a column's quoted name, with each `%` doubled."""
        spelt = self.spelt.get((table, column))
        sql = self.client.sql_client
        name = sql.escape_column_name(spelt[1], casefold=False) if spelt else sql.escape_column_name(column)
        return name.replace("%", "%%")

    def update(self, table: str, sets: str, where: str) -> str:
        """Returns the statement that changes cells. In ClickHouse `UPDATE` needs settings that dlt's tables lack."""
        if self.client.capabilities.sqlglot_dialect == "clickhouse":
            return f"ALTER TABLE {self.table(table)} UPDATE {sets} WHERE {where} SETTINGS mutations_sync = 1"
        return f"UPDATE {self.table(table)} SET {sets} WHERE {where}"

    def _spelt_table(self, name: str) -> str | None:
        """Returns a table's name as the destination spells it, or None if the spelling is unknown."""
        return next((table for (known, _), (table, _) in self.spelt.items() if known == name), None)

    def path(self, name: str) -> list[str]:
        """Returns the parts of a table's name as the destination has it, unquoted."""
        spelt = self._spelt_table(name)
        with self._directed(self.client):
            named = self.client.sql_client.make_qualified_table_name_path
            return list(named(spelt, quote=False, casefold=False) if spelt else named(name, quote=False))

    def spelling(self, table: str, column: str) -> str:
        """Returns a column's name as the destination has it, unquoted."""
        spelt = self.spelt.get((table, column))
        return spelt[1] if spelt else str(self.client.capabilities.casefold_identifier(column))

    def bound(self, text: str, values: Sequence[Any] = ()) -> tuple[str, Sequence[Any]]:
        """Returns a statement and the parameters to pass with it. `%%` in the text stands for a percent sign."""
        if values and not self.literals:
            formats = getattr(self.client.sql_client.dbapi, "paramstyle", "") in ("format", "pyformat")
            plain = text if formats else text.replace("%%", "%")
            # If the numbers differ, a name contains `%s`, which dlt would take for a placeholder.
            if formats or plain.count("%s") == len(values):
                return plain, values
        return self.written(text, values), ()

    def written(self, text: str, values: Sequence[Any]) -> str:
        """Returns a statement with its values as literals."""
        rest = iter(values)
        return _VALUE.sub(lambda found: "%" if found[0] == "%%" else self._literal(next(rest)), text)

    def _literal(self, value: Any) -> str:
        return "NULL" if value is None else str(cast(Any, self.client.capabilities.escape_literal)(value))

    def stream(self, text: str, values: Sequence[Any]) -> Iterator[Row]:
        """Yields the rows that a statement returns."""
        with self.open_in_dataset() as client:
            statement, rest = self.bound(text, values)
            with client.sql_client.execute_query(statement, *rest) as cursor:
                while rows := cursor.fetchmany(ROWS_PER_FETCH):
                    yield from map(tuple, rows)

    def lacks(self, table: str) -> bool:
        """Returns whether a table does not exist, by selecting from it.

        `information_schema` leaves out what a user has no rights on. Raises the destination's error for such a table.
        """
        with self.open() as client:
            if not self.exists(client):
                return True
        try:
            list(self.stream(f"SELECT 1 FROM {self.table(table)} WHERE 1 = 0", ()))
        except DatabaseUndefinedRelation:
            return True
        return False

    def run(self, text: str, values: Sequence[Any]) -> None:
        """Runs a statement that writes."""
        with self.open_in_dataset() as client:
            statement, rest = self.bound(text, values)
            client.sql_client.execute_sql(statement, *rest)

    def columns(self) -> Iterator[tuple[str, str, NativeType]]:
        """Yields the table, name and type of each column of the dataset, and notes the spelling of names in `spelt`."""
        fold = self.client.capabilities.casefold_identifier
        with self.open_in_dataset() as client:
            for dataset, belongs in _datasets_of(client.sql_client):
                with dataset:
                    found: dict[str, dict[str, NativeType]] = {}
                    for name, column, native, of in stored_columns(client):
                        table = table_in_dataset(client.sql_client, name)
                        if table is not None and belongs(table):
                            found.setdefault(table, {})[column] = NativeType(native, of or "text")
                    for table, known in _lowered(found, fold).items():
                        for column, lowered in _lowered(found[table], fold).items():
                            self.spelt[known, lowered] = (table, column)
                            yield known, lowered, found[table][column]

    def own_spelling(self, name: str) -> str | None:
        """Returns the spelling of a table that dlt would not find by its name; None for any other table."""
        spelt = self._spelt_table(name)
        return None if spelt == self.client.capabilities.casefold_identifier(name) else spelt

    def by_schema(self, query: str) -> Sequence[Row]:
        """Returns the rows of a metadata query whose first column is a table's name; none if the query fails.

        `{tables}`, `{columns}`, `{constraints}` and `{key_columns}` in it stand for views of `information_schema`,
        and its `%s` for the name of the schema.
        """
        rows: list[Row] = []
        with self.open_in_dataset() as client:
            sql = client.sql_client
            text = query.format_map({name: information_schema(sql, view) for name, view in _VIEWS.items()})
            for dataset, belongs in _datasets_of(sql):
                with dataset, suppress(DatabaseException):
                    for name, *cells in sql.execute_sql(text, schema_components(sql)[1]) or ():
                        table = table_in_dataset(sql, name)
                        if table is not None and belongs(table):
                            rows.append((table, *cells))
        return rows


def _lowered(spelt: Iterable[str], fold: Callable[[str], str]) -> dict[str, str]:
    """Returns the name in lower case of each spelling. Of two that differ only in case, the second keeps its spelling.

    It is left out if its spelling is the lower-case name that the first one has already.
    """
    found, taken = dict[str, str](), set[str]()
    for name in sorted(spelt, key=lambda name: (name != fold(name.lower()), name)):
        lowered = name if name.lower() in taken else name.lower()
        if lowered not in taken:
            found[name] = lowered
            taken.add(lowered)
    return {name: found[name] for name in spelt if name in found}


_VIEWS = {
    "tables": "TABLES",
    "columns": "COLUMNS",
    "constraints": "TABLE_CONSTRAINTS",
    "key_columns": "KEY_COLUMN_USAGE",
}


def _datasets_of(sql: SqlClientBase[Any]) -> Iterator[tuple[AbstractContextManager[Any], Callable[[str], bool]]]:
    """Yields contexts for a client's dataset and for a separate one of the books, each with a test for its tables."""
    apart = isinstance(sql, BooksSqlClient) and sql.has_separate_books
    yield nullcontext(), lambda table: not (apart and is_book(table.lower()))
    if isinstance(sql, BooksSqlClient) and apart:
        yield sql.with_books(), lambda table: is_book(table.lower())
