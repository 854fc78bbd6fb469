"""Counts the adopted rows that a load of the exported archive will change, because they were not made from messages.

Such a row may lack what every message has, or contradict itself; one of `users` or `accounts` may have no message.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ..catalog import ADOPTED, AUDIT, FILE_NAMES, LATEST, LOADER_OWN_COLUMNS, Latest
from ..display import plural
from ..projection import engine
from ..segment.json_text import BLANK
from ..segment.naming import table_name
from ..warehouses.dataset import Dataset
from ..warehouses.hints import is_name_of
from .messages import DiscardedValue

_WHAT = {
    "no_ids": "without an id of the contact and without an address, which a load rejects",
    "address": "without an id of the contact, whose address will be the anonymous_id",
    "other_event": "with an event_text of another event, which will be rows of that event",
    "no_event_text": "without an event_text, which a load takes from event",
    "no_time": "without a timestamp or received_at, which a load derives from the other times",
}
_SOURCES = {
    "timestamp": ("original_timestamp", "received_at", "sent_at"),
    "received_at": ("sent_at", "timestamp", "original_timestamp"),
}
"""For each time, those from which a load makes it if it is missing."""
_ADDRESSES = ("context_traits_email", "email")
_READ = {"user_id", "anonymous_id", "event_text", *_ADDRESSES, *_SOURCES, *_SOURCES["received_at"]}


class ChangedRows:
    """Counts the rows that a load will change, by table. Example: `ChangedRows().add("email_opened", batch, {})`."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, table: str, batch: pa.RecordBatch, discards: Mapping[str, Sequence[DiscardedValue]]) -> None:
        """Counts rows of a batch, except those whose message gets back one of the values read here from `discards`."""
        found = self._counts.setdefault(table, Counter())
        rows = pa.Table.from_batches([batch])
        if except_ids := [id_ for id_, values in discards.items() if any(value.column in _READ for value in values)]:
            rows = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(except_ids, pa.string()))))
        found.update(_without_ids(rows))
        found.update(_of_events(rows))
        missing = [_missing(rows, name, sources) for name, sources in _SOURCES.items()]
        found["no_time"] += pc.sum(pc.or_(*missing)).as_py() or 0

    def texts(self) -> list[str]:
        """Returns what a load will change, as a text for each table and kind of row."""
        return [
            f"{table}: {plural(counts[kind], 'row')} {what}"
            for table, counts in self._counts.items()
            for kind, what in _WHAT.items()
            if counts[kind]
        ]


def _without_ids(rows: pa.Table) -> Counter[str]:
    names = [name for name in ("user_id", "anonymous_id") if name in rows.column_names]
    if not names:
        return Counter()
    blank = [pc.fill_null(pc.equal(pc.utf8_trim(rows[name], BLANK), ""), True) for name in names]
    nobody = rows.filter(pc.and_(*blank) if len(blank) > 1 else blank[0])
    addresses = [nobody[name].to_pylist() for name in _ADDRESSES if name in rows.column_names]
    has = Counter(any(map(_is_address, of)) for of in zip(*addresses, strict=True))
    return Counter({"address": has[True], "no_ids": len(nobody) - has[True]})


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip(BLANK))


def _of_events(rows: pa.Table) -> Iterator[str]:
    if not {"event", "event_text"} <= set(rows.column_names):
        return
    pairs = rows.group_by(["event", "event_text"]).aggregate([([], "count_all")]).to_pylist()
    for pair in pairs:
        event, text = pair["event"], pair["event_text"]
        if text is None:
            yield from ["no_event_text"] * pair["count_all"]
        elif event is not None and not _is_table_of(event, table_name(text)):
            yield from ["other_event"] * pair["count_all"]


def _is_table_of(event: str, name: str) -> bool:
    """Returns whether `event` is the stored name of the table `name`, which gets `_table` if no file may have it."""
    return is_name_of(event, f"{name}_table" if name in FILE_NAMES else name)


def _missing(rows: pa.Table, name: str, sources: Collection[str]) -> pa.ChunkedArray:
    """Returns for each row whether a time is null although the row has another one from which a load makes it."""
    none = pa.chunked_array([pc.fill_null(pa.nulls(len(rows), pa.bool_()), False)])
    if name not in rows.column_names:
        return none
    there = none
    for source in sources:
        if source in rows.column_names:
            there = pc.or_(there, pc.is_valid(rows[source]))
    return pc.and_(pc.is_null(rows[name]), there)


def rows_without_message(
    dataset: Dataset, existing: Mapping[str, Collection[str]], con: duckdb.DuckDBPyConnection
) -> Iterator[str]:
    """Yields a text for each of `users` and `accounts` that has rows or values which are in no message.

    Only tables with adopted rows are checked. The text has the number of rows that no message is about.
    """
    versions = list(_texts(dataset, AUDIT.name, "version")) if "version" in existing.get(AUDIT.name, ()) else []
    for latest in LATEST:
        table = latest.table.name
        if table not in existing or not any(each.startswith(f"{ADOPTED}{table} ") for each in versions):
            continue
        dataset.tables([table, latest.messages.name])
        con.execute("CREATE OR REPLACE TABLE without_message (id VARCHAR)")
        engine.read_stored(con, dataset.read(table, ["id"]), "INSERT INTO without_message FROM stored")
        if latest.messages.name in existing:
            keys = dataset.read(latest.messages.name, [latest.key])
            engine.read_stored(con, keys, f"DELETE FROM without_message WHERE id IN (SELECT {latest.key} FROM stored)")
        number = engine.count(con, "without_message")
        about = f"; {plural(number, 'row')} that no message is about" if number else ""
        if number or _has_other_values(dataset, latest, con):
            yield f"{table}: values that only adopted rows have{about}"


def _has_other_values(dataset: Dataset, latest: Latest, con: duckdb.DuckDBPyConnection) -> bool:
    """Returns whether a row of `users` or `accounts` has a value that no message about the person or group has."""
    table, messages = latest.table.name, latest.messages.name
    readable = dataset.tables([table, messages])
    for column in sorted({*readable[table]} - latest.left_out - LOADER_OWN_COLUMNS):
        con.execute("CREATE OR REPLACE TABLE other_values (id VARCHAR, value VARCHAR)")
        cell = f"{engine.name(column)}::VARCHAR"
        found = f"INSERT INTO other_values SELECT id, {cell} FROM stored WHERE {cell} IS NOT NULL"
        engine.read_stored(con, dataset.read(table, ["id", column]), found)
        if column in readable.get(messages, ()):
            delete = f"DELETE FROM other_values WHERE (id, value) IN (SELECT ({latest.key}, {cell}) FROM stored)"
            engine.read_stored(con, dataset.read(messages, [latest.key, column]), delete)
        if engine.count(con, "other_values"):
            return True
    return False


def _texts(dataset: Dataset, table: str, column: str) -> Iterator[str]:
    dataset.tables([table])
    for batch in dataset.read(table, [column]):
        yield from filter(None, batch.column(0).to_pylist())
