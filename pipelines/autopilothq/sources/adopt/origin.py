"""The origin of adopted tables, whose work is files or tables of a database."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...catalog import EVENT_TABLE_NAMES, NOT_ADOPTED, TABLES
from ...segment.message import Batch
from ..adopted_rows import adopted_version
from ..origin import LoadContext, Origin
from .buffer import OTHER_TABLES
from .databases import AdoptedWork, close_databases, database_tables
from .files import ARCHIVED, NOT_A_TABLE, table_files

_OF_MESSAGES = OTHER_TABLES.union(EVENT_TABLE_NAMES)


@dataclass(frozen=True)
class AdoptedTables(Origin[AdoptedWork]):
    """The files of exported tables at some URLs, or the tables of a schema of a database.

    `named` are patterns of files below the URLs, by the table of the files.
    """

    urls: tuple[str, ...] = ()
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    database: str | None = None
    schema: str = "autopilothq"
    credentials: Any = None

    found: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """After `plan`: all tables that exist, including those whose rows are adopted already."""

    reads_again = True

    def works(self) -> tuple[list[AdoptedWork], dict[str, str]]:
        """Returns all tables, or files of tables, that can be adopted, and why others are left out, by URL."""
        left_out: dict[str, str] = {}
        found: list[AdoptedWork]
        if self.database is not None:
            found = [*database_tables(self.database, self.schema)]
        else:
            files, left_out = table_files(self.urls, self.named, self.credentials)
            found = list(files)
        tables = {work.table for work in found}
        left_out |= {work.url: NOT_A_TABLE for work in found if not _is_adopted(work.table, tables)}
        adopted = [
            work._replace(version=adopted_version(work.table, work.version))
            for work in found
            if work.url not in left_out
        ]
        if not adopted:
            close_databases(found)
        return adopted, left_out

    def plan(self, context: LoadContext) -> Sequence[AdoptedWork]:
        """Returns the tables and files that are not adopted yet in this version; reports what is left out."""
        works, left_out = self.works()
        for why in sorted(set(left_out.values())):
            names = sorted(url for url, reason in left_out.items() if reason == why)
            context.report.skipped[why] = len(names)
            context.report.skipped_examples[why] = names[:3]
        if not works:
            is_archive = ARCHIVED in left_out.values()
            why = "it is an archive. Load it: autopilothq load archive URL" if is_archive else "no table of messages"
            context.warn(f"Nothing to adopt was found at {', '.join(self.urls) or self.schema}: {why}.")
        self.found.clear()
        self.found.update(work.table for work in works)
        new = context.new(works)
        if not new:
            close_databases(works)
        return new

    def read(self, work: Sequence[AdoptedWork]) -> Iterator[Batch]:  # noqa: ARG002 - rows are not lines
        """Yields nothing: rows of tables are not lines of messages, and `AdoptProjector` reads them."""
        return iter(())


def _is_adopted(table: str, tables: set[str]) -> bool:
    """Returns whether a table is adopted: it is of messages, `users` or `accounts`, and not a view of another table."""
    if table in _OF_MESSAGES:
        return True
    if not table or table in TABLES or table.startswith(NOT_ADOPTED):
        return False
    return table.removesuffix("_view") not in tables - {table}
