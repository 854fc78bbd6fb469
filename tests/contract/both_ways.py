"""Loads the same lines twice, by the fast path and by the slow one, and reports where the tables differ."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from functools import cache
from typing import Any
from unittest import mock

from autopilothq.projection import projection, shapes
from autopilothq.segment import message
from contract.loading import Line, Row, Store, to_line

BLANK = b" \t\r\n\f"
Tables = dict[str, list[str]]
WRITTEN = ("uuid_ts", "discarded_at", "rejected_at")


class Counted:
    """`read_message`, with a count of its calls: counting them with a mock would take a tenth of the whole time."""

    call_count = 0

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.call_count += 1
        return message.read_message(*args, **more)


@contextmanager
def one_by_one() -> Iterator[Counted]:
    """Sends every line down the slow path, which calls `read_message`; yields the counter of its calls."""
    read = Counted()
    counted = mock.patch("autopilothq.projection.irregular.read_message", read)
    with mock.patch.object(shapes, "MAX_LEAVES", -1), counted:
        yield read


def loaded(lines: Sequence[Line], before: Sequence[Line] = ()) -> Tables:
    """Returns all that a load leaves, as text: the rows of all tables, their columns' types, the counts of lines.

    `before` are lines of an earlier load. The text distinguishes numbers that are equal, 0 and -0, or 1 and true. If
    the load raises an error, returns only that.
    """
    store = deepcopy(_stored(tuple(before), shapes.MAX_LEAVES))
    try:
        tables = store.run(lines, chunks=lambda _: len(lines) // 2 + 1)  # shapes are known from one batch to the next
    except Exception as error:  # noqa: BLE001 - the tests check that no line can raise one
        return {"raised": [f"{type(error).__name__}: {error}"]}
    found = {name: sorted(map(_shown, rows)) for name, rows in tables.items() if rows}
    types = [f"{table}.{column} {of}" for table, columns in store.types.items() for column, of in columns.items()]
    return found | {"types": sorted(types), "counts": [repr(count) for count in store.audit]}


@cache
def _stored(before: tuple[Line, ...], max_leaves: int) -> Store:  # noqa: ARG001 - it selects the path
    """Returns a store with the lines of an earlier load, which are loaded only once by each path."""
    store = Store(max_event_tables=8)  # further events are in `tracks` alone, under the names that were read
    if before:
        store.run(before)
    return store


def _shown(row: Row) -> str:
    cells = {key: cell for key, cell in sorted(row.items()) if cell is not None and key not in WRITTEN}
    return ", ".join(f"{key}: {cell if isinstance(cell, datetime) else repr(cell)}" for key, cell in cells.items())


def differences(lines: Sequence[Line], before: Sequence[Line] = ()) -> list[str]:
    """Returns the differences between the engine's reading of lines and that of `read_message`, as lines to print.

    They include unforeseen errors, even those that are caught and make the engine reject a line as unreadable.
    """
    with mock.patch.object(projection, "SMALL_LOAD", 0):  # with all threads, despite its size; the other load has one
        at_once = loaded(lines, before)
    with one_by_one() as read:
        each = loaded(lines, before)
    for sign, found in (("engine", at_once), ("one by one", each)):
        if "raised" in found:
            return [f"{sign} raised: {error}" for error in found["raised"]]
    assert read.call_count >= sum(bool(to_line(line).strip(BLANK)) for line in lines), "not all were read one by one"
    unforeseen = [f"engine: {row}" for row in at_once.get("_rejects", []) if "reason: 'unreadable'" in row]
    return unforeseen + [
        f"{sign} {name}: {row}"
        for name in sorted(at_once.keys() | each.keys())
        for sign, mine, other in (("engine", at_once, each), ("one by one", each, at_once))
        for row in sorted(set(mine.get(name, [])) - set(other.get(name, [])))
    ]


def smallest(lines: Sequence[Line]) -> list[Line]:
    """Returns as few of the lines as possible that still differ, in most cases one."""
    kept = list(lines)
    for size in (len(kept) // 2, len(kept) // 4, 1):
        at = 0
        while size and at < len(kept):
            fewer = kept[:at] + kept[at + size :]
            if fewer and differences(fewer):
                kept = fewer
            else:
                at += size
    return kept
