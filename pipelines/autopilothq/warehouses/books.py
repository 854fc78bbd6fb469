"""The books in a dataset of their own: tools that scan the events' dataset find tables of events there, and views.

The books are the tables that loads keep for themselves: `_audit`, `_rejects`, dlt's own and so on. dlt knows one
dataset a pipeline; here the names of the books lead to another one in the same database, and the tables of staging
stand beside them.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..catalog import AUDIT, BOOKS, DELIVERIES, EVENT_TABLES, LOCKS, PROFILES, REJECTS, SUPPRESSIONS, TRACKS
from .dlt_internals import DLT_NAME_PREFIX, SqlClientBase, SqlJobClientBase, TTableSchemaColumns

_EVENTS = [table.name for table in (TRACKS, *EVENT_TABLES)]
_OTHERS = """
    SELECT table_schema FROM information_schema.tables
    WHERE table_name IN (%s, %s) AND table_catalog = current_database()
    GROUP BY table_schema HAVING max(table_name) = %s ORDER BY table_schema"""
NAMES = frozenset(table.name for table in (*BOOKS, PROFILES, SUPPRESSIONS, DELIVERIES))


class BooksElsewhere(Exception):
    """The books of earlier loads are not where they should be."""


class HasBooksDataset(Protocol):
    """A destination's configuration."""

    books_dataset: str | None
    staging_dataset_name_layout: str


def is_book(table: str) -> bool:
    """Returns whether a table is one that loads keep for themselves.

    Example: `is_book("_audit") and is_book("_dlt_loads") and not is_book("_lists")`, which is an event's.
    """
    return table in NAMES or table.startswith(f"{DLT_NAME_PREFIX}_") or table in (LOCKS, f"{LOCKS}_send")


def stage_beside(config: HasBooksDataset) -> None:
    """Has the tables of staging stand beside the books."""
    if config.books_dataset:
        config.staging_dataset_name_layout = f"{config.books_dataset}_staging"


class BooksSqlClient(SqlClientBase[Any]):
    """A SQL client that finds the books in a dataset of their own. `books` is that, None where it is the same one."""

    books: str | None = None
    home: str = ""

    def keep_books_in(self, dataset: str | None) -> None:
        """Has the names of the books lead to another dataset; called once, before anything is asked."""
        self.books, self.home = dataset, self.dataset_name

    @property
    def has_books_apart(self) -> bool:
        """Whether statements that are made now find the books in another dataset."""
        return bool(self.books) and self.dataset_name == self.home

    def make_qualified_table_name_path(
        self,
        table_name: str | None,
        quote: bool = True,
        casefold: bool = True,
        dataset_name: str | None = None,
        catalog: str | None = None,
    ) -> list[str]:
        """Returns the parts of a table's name, from the catalogue on."""
        if dataset_name is None and table_name and self.has_books_apart and is_book(table_name):
            dataset_name = self.books
        return super().make_qualified_table_name_path(table_name, quote, casefold, dataset_name, catalog)

    @contextmanager
    def with_books(self) -> Iterator[None]:
        """Statements inside are about the books' dataset."""
        with self.with_alternative_dataset_name(str(self.books)):
            yield

    @contextmanager
    def with_books_at_home(self) -> Iterator[None]:
        """Statements inside look for the books among the events' tables."""
        books, self.books = self.books, None
        try:
            yield
        finally:
            self.books = books

    def make_books_dataset(self) -> None:
        """Makes the dataset of the books where it is not there."""
        if self.has_books_apart:
            with self.with_books():
                self.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {self.fully_qualified_dataset_name()}")

    def drop_dataset(self) -> None:
        """Drops the dataset, and that of the books."""
        if self.has_books_apart:
            with self.with_books():
                super().drop_dataset()
        super().drop_dataset()


class BooksClient(SqlJobClientBase):
    """A client whose SQL client is a `BooksSqlClient`."""

    def initialize_storage(self, truncate_tables: Iterable[str] | None = None) -> None:
        """Makes the dataset, and that of the books, where they are not there. Raises what `check_books` does."""
        self.check_books()
        super().initialize_storage(truncate_tables)  # type: ignore[arg-type]
        if isinstance(self.sql_client, BooksSqlClient):
            self.sql_client.make_books_dataset()

    def check_books(self) -> None:
        """Raises BooksElsewhere where the books are not those of this dataset, or those of this dataset are elsewhere.

        Without its own books a load would bring back persons who were forgotten, and with those of another dataset
        it would take files for loaded that it never read.
        """
        client = self.sql_client
        if not isinstance(client, BooksSqlClient) or client.dataset_name != client.home:
            return
        home, books = client.home, client.books
        has_events = self._has(_EVENTS)
        if self._has([AUDIT.name, REJECTS.name]):
            if books and not has_events and self._tells_of_files():
                raise BooksElsewhere(
                    f"The books in {books} tell of files that were loaded into another dataset than {home}, or into"
                    f" tables that are gone. Give each dataset books of its own: --books-dataset {home}_books. Or drop"
                    f" the schema {books}, and all files are read again."
                )
            return
        with client.with_books_at_home():
            if books and self._has([AUDIT.name]):
                raise BooksElsewhere(
                    f"The books of {home} are in {home} itself. Move them first:"
                    f" autopilothq schema upgrade --books-dataset {books}"
                )
        if has_events and (others := self._other_books()):
            raise BooksElsewhere(
                f"Expected the books of {home} in {books or home}, but there are none; there are books in"
                f" {', '.join(others)}. Say where they are: --books-dataset {others[0]}"
            )

    def _has(self, tables: Iterable[str]) -> bool:
        return any(columns for _, columns in self.get_storage_tables(tables))

    def _tells_of_files(self) -> bool:
        audit = self.sql_client.make_qualified_table_name(AUDIT.name)
        return self._has([AUDIT.name]) and bool(self.sql_client.execute_sql(f"SELECT 1 FROM {audit} LIMIT 1"))

    def _other_books(self) -> list[str]:
        """The schemas of this database that have books and no events."""
        found = self.sql_client.execute_sql(_OTHERS, TRACKS.name, REJECTS.name, REJECTS.name)
        return [str(schema) for (schema,) in found or ()]

    def get_storage_tables(self, table_names: Iterable[str]) -> Iterable[tuple[str, TTableSchemaColumns]]:
        """Yields the columns of tables, as the destination has them."""
        names, client = list(table_names), self.sql_client
        if not (isinstance(client, BooksSqlClient) and client.has_books_apart):
            yield from super().get_storage_tables(names)
            return
        yield from super().get_storage_tables([name for name in names if not is_book(name)])
        with client.with_books():
            yield from super().get_storage_tables([name for name in names if is_book(name)])
