"""Keeps the books in a separate dataset, so that tools that scan the events' dataset find only events and views.

The books are the bookkeeping tables of loads: `_audit`, `_rejects`, dlt's own and so on. dlt knows one dataset per
pipeline. Here the names of the books are resolved to another dataset of the same database, and the staging dataset is
named after that one.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from ..catalog import AUDIT, BOOKS, DELIVERY_LOGS, FORWARDS, LOCKS, PROFILES, SUPPRESSIONS, TRACKS
from ..errors import BooksMisplaced
from .dlt_internals import (
    DLT_NAME_PREFIX,
    VERSION_TABLE_NAME,
    NamingConvention,
    SqlClientBase,
    SqlJobClientBase,
    TTableSchemaColumns,
)
from .dlt_internals.information_schema import information_schema, schema_components

STAGING = "_staging"  # what dlt appends to a dataset's name for the dataset in which it stages rows
BOOK_NAMES = frozenset(table.name for table in (*BOOKS, PROFILES, SUPPRESSIONS, *DELIVERY_LOGS, FORWARDS))


class HasBooksDataset(Protocol):
    """A destination's configuration with a setting for the dataset of the books."""

    books_dataset: str | None
    staging_dataset_name_layout: str


def is_book(table: str) -> bool:
    """Returns whether a table is a bookkeeping table.

    Example: `is_book("_audit") and is_book("_dlt_loads") and not is_book("_lists")`: `_lists` is an event's table.
    """
    return table in BOOK_NAMES or table.startswith(f"{DLT_NAME_PREFIX}_") or is_lock(table)


def is_lock(table: str) -> bool:
    """Returns whether a table holds the leases of runs."""
    return table in (LOCKS, f"{LOCKS}_send")


def check_books(client: SqlClientBase[Any]) -> None:
    """Raises BooksMisplaced if the books are not where an open client looks for them, or belong to another dataset."""
    if isinstance(client, BooksSqlClient) and client.dataset_name == client.events_dataset:
        client.check_books()


def name_staging_after_books(config: HasBooksDataset) -> None:
    """Names the staging dataset after the dataset of the books."""
    if config.books_dataset:
        # dlt replaces `%s` with the dataset's name. Later it replaces characters that names cannot have with `_`.
        config.staging_dataset_name_layout = f"{config.books_dataset.replace('%', '_')}{STAGING}"


class BooksSqlClient(SqlClientBase[Any]):
    """A SQL client that finds the books in the dataset `books`, or with None in the events' dataset."""

    books: str | None = None
    events_dataset: str = ""

    def use_books_dataset(self, dataset: str | None, naming: NamingConvention) -> None:
        """Resolves the names of the books to another dataset. Called once, before the first statement.

        The dataset's name is normalized by dlt's rules, as every dataset's is. Raises BooksMisplaced if it is the name
        of the events' dataset.
        """
        self.books, self.events_dataset = dataset and naming.normalize_table_identifier(dataset), self.dataset_name
        if self.books == self.events_dataset:
            raise BooksMisplaced(
                f"Expected a dataset for the books other than {self.events_dataset}, which has the events' tables."
            )

    @property
    def has_separate_books(self) -> bool:
        """Whether the current statements find the books in another dataset."""
        return bool(self.books) and self.dataset_name == self.events_dataset

    def make_qualified_table_name_path(
        self,
        table_name: str | None,
        quote: bool = True,
        casefold: bool = True,
        dataset_name: str | None = None,
        catalog: str | None = None,
    ) -> list[str]:
        """Returns the parts of a table's name, starting with the catalogue."""
        if dataset_name is None and table_name and self.has_separate_books and is_book(table_name):
            dataset_name = self.books
        return super().make_qualified_table_name_path(table_name, quote, casefold, dataset_name, catalog)

    @contextmanager
    def with_books(self) -> Iterator[None]:
        """Directs the statements in the block to the books' dataset."""
        with self.with_alternative_dataset_name(str(self.books)):
            yield

    @contextmanager
    def with_books_in_events_dataset(self) -> Iterator[None]:
        """Makes the statements in the block look for the books in the events' dataset."""
        books, self.books = self.books, None
        try:
            yield
        finally:
            self.books = books

    def check_books(self) -> None:
        """Raises BooksMisplaced as the function `check_books` does."""
        tables = self.tables_by_dataset()
        own = tables.get(self.current_dataset(), set())
        if self.books:
            self._check_separate(own, tables)
        elif TRACKS.name in own and not own & {AUDIT.name, VERSION_TABLE_NAME}:
            self._check_not_separate(tables)

    def _check_not_separate(self, tables: Mapping[str, set[str]]) -> None:
        events = self.events_dataset
        for dataset, names in sorted(tables.items()):
            # A staging dataset has these tables, too.
            is_staging = dataset.endswith(STAGING) and dataset.removesuffix(STAGING) in tables
            if {AUDIT.name, VERSION_TABLE_NAME} <= names and TRACKS.name not in names and not is_staging:
                raise BooksMisplaced(
                    f"{events} has no books, and {dataset} has only books. If they belong to {events}, add"
                    f" --books-dataset {dataset}, or set books_dataset; else load into another dataset: --dataset NAME"
                )

    def _check_separate(self, own: set[str], tables: Mapping[str, set[str]]) -> None:
        events = self.events_dataset
        with self.with_books():
            moved = tables.get(self.current_dataset(), set())
        if any(is_book(table) and not is_lock(table) for table in own - moved):
            raise BooksMisplaced(
                f"The books of {events} are in {events} itself. Move them first:"
                f" autopilothq schema upgrade --books-dataset {self.books}"
            )
        audit = self.make_qualified_table_name(AUDIT.name)
        if AUDIT.name in moved and all(map(is_book, own)) and self.execute_sql(f"SELECT 1 FROM {audit} LIMIT 1"):
            raise BooksMisplaced(
                f"{self.books} has books of loads, but {events} has no tables: they belong to another dataset, or to"
                f" one that was dropped. Name another dataset for the books of {events}: --books-dataset NAME"
            )

    def current_dataset(self) -> str:
        """Returns the database's own name for the current dataset."""
        return schema_components(self)[1]

    def tables_by_dataset(self) -> dict[str, set[str]]:
        """Returns the names of the tables and views of the database, by dataset."""
        catalogue = schema_components(self)[0]
        query = f"SELECT table_schema, table_name FROM {information_schema(self, 'TABLES')}"
        condition = (" WHERE table_catalog = %s", catalogue) if catalogue else ("",)
        found: dict[str, set[str]] = {}
        for dataset, table in self.execute_sql(query + condition[0], *condition[1:]) or ():
            found.setdefault(dataset, set()).add(table)
        return found

    def create_books_dataset(self) -> None:
        """Creates the dataset of the books if it is missing."""
        if self.has_separate_books:
            with self.with_books():
                if self.has_dataset():  # even with IF NOT EXISTS, PostgreSQL requires the right to create it
                    return
                self.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {self.fully_qualified_dataset_name()}")

    def drop_dataset(self) -> None:
        """Drops the dataset, and the books' dataset."""
        if self.has_separate_books:
            with self.with_books():
                super().drop_dataset()
        super().drop_dataset()


class BooksClient(SqlJobClientBase):
    """A client whose SQL client is a `BooksSqlClient`."""

    def initialize_storage(self, truncate_tables: Iterable[str] | None = None) -> None:
        """Creates the dataset and the books' dataset if they are missing. Raises what `check_books` raises."""
        check_books(self.sql_client)
        super().initialize_storage(truncate_tables)  # type: ignore[arg-type]
        if isinstance(self.sql_client, BooksSqlClient):
            self.sql_client.create_books_dataset()

    def update_stored_schema(self, only_tables: Any = None, expected_update: Any = None, force: bool = False) -> Any:
        """Creates what the tables of a load lack, and returns it.

        dlt does not check tables of a schema that it has stored before. But while a load waited, tables may have been
        dropped or restored; or they never existed, because a load of other tables stored the schema.
        """
        made = super().update_stored_schema(only_tables, expected_update, force)
        if not made and not force and self._is_any_lacking(only_tables):
            made = super().update_stored_schema(only_tables, expected_update, force=True)
        return made

    def _is_any_lacking(self, tables: Iterable[str] | None) -> bool:
        with_case = self.capabilities.generates_case_sensitive_identifiers()
        return any(
            self.schema.get_new_table_columns(name, columns, case_sensitive=with_case)
            for name, columns in self.get_storage_tables(tables or ())
        )

    def get_storage_tables(self, table_names: Iterable[str]) -> Iterable[tuple[str, TTableSchemaColumns]]:
        """Yields tables and the columns that they have in the destination."""
        names, client = list(table_names), self.sql_client
        if not (isinstance(client, BooksSqlClient) and client.has_separate_books):
            yield from super().get_storage_tables(names)
            return
        yield from super().get_storage_tables([name for name in names if not is_book(name)])
        with client.with_books():
            yield from super().get_storage_tables([name for name in names if is_book(name)])
