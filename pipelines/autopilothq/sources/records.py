"""Makes the batches of lines and the records of snapshot tables that origins deliver, from plain values."""

import json
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from ..catalog import REJECT_REASONS, TABLES, Table, Type
from ..segment.json_text import JsonNumber, JsonObject, storable_text
from ..segment.message import (
    EXTRA,
    Batch,
    Discard,
    Leaf,
    Record,
    Reject,
    Rejected,
    cells_of_leaves,
    flatten,
    parse_json,
    prefixed_if_taken,
)

LINES_SCHEMA = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("text", pa.large_binary())])
"""The columns of `Batch.lines`."""
# Columns that every snapshot table has; a field with such a name gets a prefix.
_OWN = frozenset({"received_at", "uuid_ts", "deleted_at"})


def make_batch(
    file: int,
    lines: Sequence[tuple[int, bytes]],
    *,
    rejects: Iterable[Reject] = (),
    ended: bool = False,
    unfinished: str | None = None,
    size: int = 0,
) -> Batch:
    """Returns a batch of lines of one file, each with its number, from 1; a few thousand lines make a good batch.

    Args:
        file: The file's index in the work of the load.
        lines: Messages as JSON text. The load rejects any other line, and keeps it in `_rejects`.
        rejects: Lines that the origin itself rejects.
        ended: Whether this is the last batch of the file. A file without a last batch does not count as done.
        unfinished: Why the next load must read the file again; None if it was read to its end.
        size: How many bytes were read for the batch. The progress adds them up.

    Example: `make_batch(0, [(1, b'{"type":"track",...}')], ended=True)`.
    """
    numbers, texts = [number for number, _ in lines], [text for _, text in lines]
    table = pa.table({"file": [file] * len(lines), "line": numbers, "text": texts}, schema=LINES_SCHEMA)
    return Batch(table, list(rejects), [(file, unfinished)] if ended else [], size)


def read_record(table: str, text: bytes) -> Record:
    """Returns a JSON object as a record of a table of the catalogue: each key is a column.

    Raises Rejected, with a reason and a message, if the text is not a JSON object or lacks the table's key.
    Example: `read_record("lists", b'{"list_id": "l1", "title": "News"}')`.
    """
    return record_of(TABLES[table], parse_json(text))


def record_of(table: Table, value: JsonObject, more: Mapping[str, str] | None = None) -> Record:
    """Returns an object as a record of a table; `more` has values that the object itself does not have, by column."""
    leaves = [(("record", key), key, text) for key, text in (more or {}).items()]
    return make_record(table, value, [*leaves, *flatten(value, ("record",), [])], [], {})


def make_record(
    table: Table, value: JsonObject, leaves: Iterable[Leaf], discards: list[Discard], declared: Mapping[str, Type]
) -> Record:
    """Returns a record made of an object's leaves. Raises Rejected if they lack the table's key.

    `discards` are the object's values that were discarded so far, to which others are added; `declared` has the types
    that the origin declares for some columns.
    """
    named = [(path, prefixed_if_taken(column, _OWN), leaf) for path, column, leaf in leaves]
    cells = cells_of_leaves(named, frozenset(), discards)
    found = {name.removeprefix(EXTRA): cell for name, cell in cells.items()}
    key = tuple(_key(found.get(column)) for column in table.key)
    if None in key:
        missing = ", ".join(f"`{column}`" for column in table.key)
        raise Rejected("no_id", f"{REJECT_REASONS['no_id']}: expected {missing} in {_keys(value)}")
    return Record(tuple(map(str, key)), found, discards, declared)


def _key(cell: str | None) -> str | None:
    """Returns a key's cell as text; None if it is blank, or neither a text nor a number."""
    if cell is None:
        return None
    return storable_text(json.loads(cell) if cell.startswith('"') else JsonNumber(cell))


def _keys(value: JsonObject) -> str:
    return f"an object with {', '.join(name for name, _ in value[:5])}" if value else "an empty object"
