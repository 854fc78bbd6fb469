"""The slow path: reads irregular lines one by one, in Python, into the same cells as the fast path."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ..catalog import CONTEXT_NAMES
from ..segment.message import (
    EXTRA,
    TIMESTAMP_FIELDS,
    Message,
    Reject,
    Rejected,
    is_blank_line,
    read_message,
    without_bom,
)
from . import engine
from .cells import (
    DECLARED,
    LINES_PER_FILE,
    TEXTS,
    CellWriter,
    select_columns,
    split_by_size,
    with_timestamps_read,
)
from .keys import check_keys

MOST_LINES = 5_000  # lines that are Python objects at a time
MOST_IRREGULAR = 4 << 20  # bytes of these lines, unless a single line has more
MOST_COUNTED = 20_000  # paths of objects that are counted; only a few hundred objects can be read as columns
MOST_DISCARDED = 32 << 20  # bytes of the lines' discards, unless a single line has more
_CELLS = ("kind", "event", *TEXTS, *TIMESTAMP_FIELDS, *(column.name for column in DECLARED))
_SELECT_SQL = (
    f"SELECT {select_columns()}"
    f" FROM ({with_timestamps_read('SELECT *, hash(text) AS tie FROM cells JOIN irregular_lines USING (seq)')})"
)


def parse_irregular(con: duckdb.DuckDBPyConnection, lines: pa.Table, files: CellWriter) -> Counter[tuple[str, ...]]:
    """Parses lines (`seq`, `text`) into `files`; returns how many messages hold each object, by the object's path."""
    objects: Counter[tuple[str, ...]] = Counter()
    for piece in pieces(lines, MOST_IRREGULAR, MOST_LINES):
        for messages, rejects in _read_each(piece, files.key_bytes):
            files.rejects(rejects)
            files.discards(messages)
            if messages:
                _write_messages(con, piece, messages, files)
                files.extras(messages)
            for message in messages.values():
                objects.update(set(message.objects))
            if len(objects) > MOST_COUNTED:
                objects = Counter(dict(objects.most_common(MOST_COUNTED)))
    return objects


def _write_messages(
    con: duckdb.DuckDBPyConnection, lines: pa.Table, messages: Mapping[int, Message], files: CellWriter
) -> None:
    rows = [
        {"seq": seq} | {name: cell for name, cell in message.cells.items() if not name.startswith(EXTRA)}
        for seq, message in messages.items()
    ]
    with engine.registered(con, irregular_lines=lines, cells=engine.text_table(rows, ("seq", *_CELLS))):
        files.messages(con, _SELECT_SQL)


def pieces(lines: pa.Table, most_bytes: int, most_lines: int = sys.maxsize) -> Iterator[pa.Table]:
    """Yields lines in pieces of at most `most_bytes` (unless a single line has more) and `most_lines`."""
    for start, end in split_by_size(pc.binary_length(lines["text"]).to_numpy(), most_bytes, most_lines):
        yield lines.slice(start, end - start)


def _read_each(lines: pa.Table, key_bytes: int | None) -> Iterator[tuple[dict[int, Message], list[Reject]]]:
    """Yields the messages by the numbers of their lines, together with the rejects, until all lines are read.

    Each part has about MOST_DISCARDED bytes of discards at most: a line may have a hundred thousand of them, whose
    names take a hundred times the memory of the line.
    """
    messages: dict[int, Message] = {}
    rejects: list[Reject] = []
    discarded = 0
    for seq, text in zip(lines["seq"].to_pylist(), lines["text"].cast(pa.large_binary()).to_pylist(), strict=True):
        line = without_bom(text)
        if is_blank_line(line):
            continue
        try:
            message = read_message(line, CONTEXT_NAMES)
            check_keys(message.cells, key_bytes)
        except Rejected as error:
            reason, why = error.args
            rejects.append(Reject(seq // LINES_PER_FILE, seq % LINES_PER_FILE, reason, why, line))
        else:
            messages[seq] = message
            discarded += sum(len(discard.column) + len(discard.value) for discard in message.discards)
        if discarded > MOST_DISCARDED:
            yield messages, rejects
            messages, rejects, discarded = {}, [], 0
    yield messages, rejects
