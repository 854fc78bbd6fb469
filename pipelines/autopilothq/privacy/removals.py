"""Finds and deletes the rows of a person in a dataset."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from ..catalog import DELIVERY_LOGS, DISCARDS, REJECTS, TABLES, TRACKS, USERS
from ..destination.delivery_log import CHANGED, address_digest
from ..display import plural
from ..errors import RunError
from ..projection import suppression
from ..projection.engine import batched
from ..warehouses.dataset import placeholders
from .identity_graph import IDS_PER_READ
from .person import PersonIds, PersonTables

PARAMETERS = 500  # the most parameters of one statement
TRIGGERED = ("postgres", "mssql", "synapse", "sqlalchemy")  # destinations in which a trigger can keep rows
_LOGS = frozenset(log.name for log in DELIVERY_LOGS)


class Removal(NamedTuple):
    """Rows of a table to delete: the `rows` rows that match the condition `where` with its `values`."""

    tables: PersonTables
    name: str
    where: str
    values: list[str]
    rows: int

    @property
    def table(self) -> str:
        """The table's name for display, with the dataset's if it is a staging table."""
        return f"{self.tables.dataset.name}.{self.name}" if self.tables.is_staging else self.name


def removals(tables: PersonTables, person: PersonIds, engine: duckdb.DuckDBPyConnection) -> Iterator[Removal]:
    """Yields the rows to delete: first those that are found only through rows with the person's ids, then these rows.

    In this order, a later deletion can complete one that was killed between two removals.
    """
    direct, ids = _direct(tables, person)
    messages = set().union(*ids.values())
    events = {
        table: ids.get(table, set())
        for table, of in tables.columns.items()
        if "id" in of and ("event_text" in of or ("event" in of and table in ids))
    }
    # A track's two rows are deleted together, even if only one of them has the person's id.
    tracks = events.pop(TRACKS.name, set())
    unpaired = tracks ^ set().union(*events.values())
    for table in (TRACKS.name, *events):
        yield from _by_id(tables, table, unpaired - (tracks if table == TRACKS.name else events[table]))
    yield from _by_id(tables, DISCARDS.name, _discards(tables, person, messages, engine))
    yield from _by_id(tables, REJECTS.name, _mentioning(tables, REJECTS.name, ("raw", "message"), engine))
    # Delivery logs come first: their digests of addresses are found only while another row has the address itself.
    yield from sorted(direct, key=lambda removal: removal.name not in _LOGS)


def _direct(tables: PersonTables, person: PersonIds) -> tuple[list[Removal], dict[str, set[str]]]:
    """Returns the rows that have one of the person's ids, and the ids of these rows in all tables but `users`."""
    removals: list[Removal] = []
    ids: dict[str, set[str]] = {}
    dataset = tables.dataset
    for table in tables.kinds:
        where, texts = _where(tables, table, person)
        if not texts:
            continue
        # A message's id is text. A table that somebody added may have ids of another type, or rows without an id.
        has_id = "id" in tables.columns[table] and tables.columns[table]["id"].type == "text"
        key = tables.text(table, "id") if has_id else "1"
        found = [row[0] for row in dataset.stream(f"SELECT {key} FROM", table, f"WHERE {where}", texts)]
        if has_id and table != USERS.name:
            ids[table] = {str(id_) for id_ in found if id_ is not None}
        if found:
            removals.append(Removal(tables, table, where, texts, len(found)))
    return removals, ids


def _where(tables: PersonTables, table: str, person: PersonIds) -> tuple[str, list[str]]:
    """Returns the condition of the person's rows, and its values.

    In a delivery log, these include the person's changes of address, which have a digest of the old address.
    """
    where, texts = tables.where(table, person.cells)
    if table not in _LOGS:
        return where, texts
    # A digest is made from the address as it was written, whereas an id has its case folded: "ß" becomes "ss".
    emails = {id_.value for id_ in person.spelt if id_.kind == "email"}
    emails |= {cell.strip() for cells in person.cells.values() for cell in cells if "@" in cell}
    digests = [f"{CHANGED}{digest}" for digest in sorted(set(map(address_digest, emails)))]
    if not digests:
        return where, texts
    content = tables.dataset.quoted(table, "content")
    return f"{where} OR {content} IN ({placeholders(digests)})", [*texts, *digests]


def rows_by_table(plan: Iterable[Removal]) -> dict[str, int]:
    """Returns the number of rows to delete, by table."""
    found: dict[str, int] = {}
    for removal in plan:
        found[removal.table] = found.get(removal.table, 0) + removal.rows
    return found


def _by_id(tables: PersonTables, table: str, ids: Collection[str]) -> Iterator[Removal]:
    for part in map(list, batched(sorted(ids), PARAMETERS)) if table in tables.columns else ():
        where = f"{tables.text(table, 'id')} IN ({placeholders(part)})"
        [(count,)] = tables.dataset.stream("SELECT count(*) FROM", table, f"WHERE {where}", part)
        if count:
            yield Removal(tables, table, where, part, count)


def _discards(
    tables: PersonTables, person: PersonIds, messages: Collection[str], engine: duckdb.DuckDBPyConnection
) -> set[str]:
    """Returns the ids of the discards of the person's rows, and of discards that mention the person."""
    if DISCARDS.name not in tables.columns:
        return set()
    found = _mentioning(tables, DISCARDS.name, ("value",), engine, key="column_name")
    for part in batched(sorted(messages), PARAMETERS):
        found |= _discards_of(tables, "{row_id} IN (%s)", part)
    for table in TABLES.values():
        position = tables.positions.get((table.name, table.key[0]), -1) if len(table.key) == 1 else -1
        if keys := person.cells.get(position, []):
            found |= _discards_of(tables, "{table_name} = '" + table.name + "' AND {row_id} IN (%s)", keys)
    return found


def _discards_of(tables: PersonTables, where: str, row_ids: Sequence[str]) -> set[str]:
    """Returns the ids of the discards of rows; `%s` in the condition stands for the rows' ids."""
    before = tables.dataset.template(DISCARDS.name, "SELECT {id} FROM")
    after = tables.dataset.template(DISCARDS.name, f"WHERE {where}").replace("%s", placeholders(row_ids))
    return {row[0] for row in tables.dataset.stream(before, DISCARDS.name, after, row_ids)}


def _mentioning(
    tables: PersonTables, table: str, texts: Sequence[str], engine: duckdb.DuckDBPyConnection, key: str | None = None
) -> set[str]:
    """Returns the ids of rows whose texts mention the person; the column `key`, if any, names what the text is."""
    found: set[str] = set()
    if table not in tables.columns:
        return found
    columns = ("id", *texts, *([key] if key else []))
    rows = tables.dataset.stream(
        f"SELECT {', '.join(tables.dataset.quoted(table, name) for name in columns)} FROM", table
    )
    for batch in batched(rows, IDS_PER_READ):
        found |= _ids_of_mentions(batch, key, engine)
    return found


def _ids_of_mentions(batch: Sequence[tuple[Any, ...]], key: str | None, engine: duckdb.DuckDBPyConnection) -> set[str]:
    texts = [f'"{row[2]}": {row[1]}' if key else "\n".join(filter(None, row[1:])) for row in batch]
    keys = pa.array(range(len(batch)), pa.int64())
    return {batch[number][0] for number in suppression.find_mentions(engine, keys, pa.array(texts, pa.large_string()))}


def delete_rows(removal: Removal) -> None:
    """Deletes the rows of a removal. Raises RunError if the destination keeps some of them without an error."""
    tables, name, where, values, _ = removal
    tables.dataset.delete(name, where, values)
    if tables.dataset.kind in TRIGGERED:
        [(left,)] = tables.dataset.stream("SELECT count(*) FROM", name, f"WHERE {where}", values)
        if left:
            raise RunError(
                f"Expected {plural(removal.rows, 'row')} of the person to be deleted from {removal.table}, but"
                f" {left:,} stayed: a trigger or a rule of that table keeps them.\n"
                "Drop or disable it, then run this again."
            )
