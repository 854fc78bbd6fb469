"""Compares adopted tables with stored ones: numbers of rows by table and day, and sums of the digests of ids."""

import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from ...catalog import TRACKS
from ...projection import engine
from ...warehouses.dataset import Dataset, table_names
from ...warehouses.dlt_internals import NamingConvention
from .buffer import LATEST_NAMES, OTHER_TABLES, buffered_tables
from .columns import ADOPT_MACROS
from .databases import buffer_work, close_databases
from .kept import SQL
from .origin import AdoptedTables

VERIFY_MEMORY = 400  # MB
SHORTEST_LIMIT = 30  # bytes of a name; no destination has a lower limit


@dataclass(frozen=True)
class TableComparison:
    """The numbers of rows of an adopted table and of the stored one; each id counts once.

    `stored` counts the adopted ids that the dataset has, `missing` the others. `days` has the numbers of adopted and of
    stored rows by the UTC day of receipt. The digests are sums over the ids' digests: they are equal if the ids are.
    """

    table: str
    rows: int
    stored: int
    missing: int
    digest: str
    stored_digest: str
    days: Mapping[str, tuple[int, int]]

    @property
    def different(self) -> list[tuple[str, tuple[int, int]]]:
        """The days whose numbers differ."""
        return [(day, numbers) for day, numbers in self.days.items() if numbers[0] != numbers[1]]


def compare_tables(origin: AdoptedTables, dataset: Dataset) -> list[TableComparison]:
    """Returns the comparison of each table; reads all rows."""
    works, _ = origin.works()
    try:
        with TemporaryDirectory() as scratch, engine.connect(scratch, VERIFY_MEMORY, 2) as con:
            con.execute(ADOPT_MACROS)
            buffered = [buffer_work(con, work, number, Path(scratch)) for number, work in enumerate(works)]
            names = table_names(dataset)
            stored = dataset.columns().keys() - names.views - names.others
            tables = buffered_tables(buffered, lambda event: _stored_name(event, stored))
            ids = {name: table.select({"id": "text", "received_at": "timestamp"}) for name, table in tables.items()}
            events = [sql for name, sql in ids.items() if name not in OTHER_TABLES]
            if events:
                own = [ids[TRACKS.name]] if TRACKS.name in ids else []
                ids[TRACKS.name] = " UNION ALL ".join([*events, *own])
            return [compare_table(con, name, sql, dataset) for name, sql in sorted(ids.items())]
    finally:
        close_databases(works)


def _stored_name(table: str, stored: Set[str]) -> str:
    """Returns the name that an event's table has among the `stored` tables, its own if it is not there.

    A name that is too long has a digest in place of its middle; a reserved one has a prefix or a suffix.
    """
    limits = [sys.maxsize, *(len(name) for name in stored if len(name) >= SHORTEST_LIMIT)]
    for more in ("{}", "{}_table", "_{}"):
        for most in limits:
            name = more.format(NamingConvention.shorten_identifier(table, table, most))
            if (found := NamingConvention.shorten_identifier(name, name, most)) in stored:
                return found
    return table


def compare_table(con: duckdb.DuckDBPyConnection, table: str, rows: str, dataset: Dataset) -> TableComparison:
    """Returns the comparison of a stored table with the rows (`id`, `received_at`) of a query."""
    con.execute(SQL["adopted_ids"].format(rows=rows))
    con.execute(SQL["stored_ids"])
    if table in dataset.tables([table]):
        engine.read_stored(con, dataset.read(table, ["id", "received_at"]), SQL["add_stored_ids"])
    # Rows of users and accounts have the time of their last message, which one of the two sides may lack.
    days = [] if table in LATEST_NAMES else con.execute(SQL["days"]).fetchall()
    [(rows_adopted, rows_stored, digest, stored_digest)] = con.execute(SQL["sums"]).fetchall()
    return TableComparison(
        table,
        rows_adopted,
        rows_stored,
        rows_adopted - rows_stored,
        f"{digest:x}",
        f"{stored_digest:x}",
        {str(day): (adopted, stored) for day, adopted, stored in days},
    )
