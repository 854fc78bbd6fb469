"""Selects the lines whose messages are requested: `archive(events=[...])`, `archive(exclude=[...])`."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ..catalog import EVENT_TABLE_NAMES, KINDS
from ..display import nearest_of
from ..errors import NotSupported
from ..segment.json_text import JsonNumber
from ..segment.mapping import Mappings
from ..segment.message import Batch, Rejected, parse_json
from ..segment.naming import event_key, table_name
from ..warehouses.selection import ALL_MESSAGES, MessageSelection
from .settings import Names, split_names

_TABLES = {kind: table.name for kind, table, _ in KINDS}
# The first of repeated keys counts, as everywhere. Lines that the engine cannot read are read one by one in Python.
_READ_SQL = """
    SELECT readable, CASE WHEN readable THEN text->>'type' END AS kind,
        CASE WHEN readable AND json_type(text, '$.event') = 'VARCHAR' THEN text->>'event' END AS event
    FROM (SELECT text, json_valid(text) AS readable FROM lines)"""


def requested_messages(
    events: Names | None, exclude: Names | None, mappings: Mappings | None = None
) -> MessageSelection:
    """Returns the selection of messages of some events, or of all events but some.

    An event is named as it was sent, or by its table; a mapped event has the table of the event that it is mapped to.
    Raises NotSupported if both `events` and `exclude` are given, or if a name cannot be that of a table.
    Example: `requested_messages("Email Opened,email_clicked", None)`.
    """
    if events is not None and exclude is not None:
        raise NotSupported("Expected events or exclude, but got both: say which events you want, or which you do not.")
    if events is None and exclude is None:
        return ALL_MESSAGES
    names = split_names(events, "events") if events is not None else split_names(exclude or (), "exclude")
    mapped = mappings or {}
    tables = (mapped[table].table if table in mapped else table for table in _tables(names))
    return MessageSelection(frozenset(tables), all_but=events is None)


def _tables(names: Sequence[str]) -> Iterable[str]:
    for name in names:
        table = table_name(name)
        if not table:
            raise NotSupported(f"Expected the name of an event, like Email Opened or email_opened, but got {name!r}.")
        yield table


class Filtered(NamedTuple):
    """A batch without the lines whose messages are not requested; `skipped` counts these lines by file.

    `named` are the tables that a selection names and for which the batch has messages.
    """

    batch: Batch
    skipped: Counter[int]
    named: Collection[str] = ()


def filter_batch(batch: Batch, messages: Callable[[int], MessageSelection], shorten: Callable[[str], str]) -> Filtered:
    """Returns the batch without the lines whose messages are not requested.

    Lines that are not messages stay, for the load to reject. `messages` returns the requested messages of a file,
    `shorten` the destination's name for the table of an `event_key`, which is empty if there can be none.
    """
    selections = {file: messages(file) for file in pc.unique(batch.lines["file"]).to_pylist()}
    if all(selection == ALL_MESSAGES for selection in selections.values()):
        return Filtered(batch, Counter())
    selections = {file: selection.renamed(shorten) for file, selection in selections.items()}
    files = batch.lines["file"].to_pylist()
    decided: dict[tuple[int, str | None, str | None], bool] = {}
    keep, named = [], set[str]()
    for file, text, (readable, kind, event) in zip(files, batch.lines["text"], read_events(batch.lines), strict=True):
        key = (file, kind, event) if readable else (file, *_read_slowly(text.as_py()))
        if key not in decided:
            table, requested = _table(*key[1:], shorten), selections[file]
            decided[key] = table is None or requested.has(table)  # a line that is not a message stays
            named |= requested.names & {table}
        keep.append(decided[key])
    skipped = Counter(file for file, stays in zip(files, keep, strict=True) if not stays)
    return Filtered(batch._replace(lines=batch.lines.filter(pa.array(keep))), skipped, named)


def unknown_events(
    requested: MessageSelection, named: Collection[str], tables: Collection[str], shorten: Callable[[str], str]
) -> list[str]:
    """Returns a warning for each name of the selection that no event has, and that is therefore most likely misspelt.

    `named` are the names for which messages were read, `tables` the tables of further known events.
    """
    known = {*EVENT_TABLE_NAMES, *_TABLES.values(), *tables}
    unknown = sorted(name for name in requested.names if shorten(name) not in {*map(shorten, known), *named})
    effect = "leaves out nothing" if requested.all_but else "selects nothing"
    return [
        f"The name {name} {effect}: no event that was read has it, and neither Autopilot's events nor the dataset's"
        f" tables do{nearest_of(name, sorted(known))}."
        for name in unknown
    ]


def read_events(lines: pa.Table) -> list[tuple[bool, str | None, str | None]]:
    """Returns, for each line, whether the engine can read it, the type of its message, and its event."""
    with _engine(os.getpid()).cursor() as con:
        con.register("lines", pa.table({"text": lines["text"].cast(pa.large_string(), safe=False)}))
        return con.execute(_READ_SQL).fetchall()


@cache
def _engine(_process: int) -> duckdb.DuckDBPyConnection:
    """Returns the engine that reads all batches of a process: opening one takes as long as reading 10,000 lines.

    A forked process has its own: a thread of the parent may have held a lock of the parent's engine during the fork.
    """
    # A batch fits into memory, so it needs no folder `.tmp`; and one thread is enough.
    return duckdb.connect(config={"temp_directory": "", "threads": 1})


def _read_slowly(line: bytes) -> tuple[str | None, str | None]:
    """Returns the type of a line's message and its event, for a line that the engine cannot read."""
    try:
        message = parse_json(line)
    except Rejected:
        return None, None
    values = message.value("type"), message.value("event")
    kind, event = (each if isinstance(each, str) and not isinstance(each, JsonNumber) else None for each in values)
    return kind, event


def _table(kind: str | None, event: str | None, shorten: Callable[[str], str]) -> str | None:
    """Returns the table that decides whether a message is selected, or None for a line that is not a message."""
    return shorten(event_key(event)) if kind == "track" and event is not None else _TABLES.get(str(kind))
