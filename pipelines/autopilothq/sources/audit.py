"""The rows of `_audit`: how many lines of each file were stored, and how many were not (docs/contract/warehouse.md)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..projection import FileCount
from ..warehouses.selection import select, to_text, union
from .origin import ContinuedWork
from .plan import PlannedLoad
from .report import COUNTED

AuditRow = dict[str, Any]


@dataclass
class LinesRead:
    """What reading found besides the lines themselves.

    By the number of the file, `unfinished` has the reasons why files must be read again, and `skipped` counts the lines
    whose messages were not requested. `named` are the tables that the selection names and that have messages.
    """

    unfinished: dict[int, str] = field(default_factory=dict)
    skipped: Counter[int] = field(default_factory=Counter)
    named: set[str] = field(default_factory=set)


def audit_rows(load: PlannedLoad, counts: Iterable[FileCount], lines: LinesRead) -> list[AuditRow]:
    """Returns a row for each file of the load, without the load's id."""
    found = {count.file: count for count in counts}
    return [_audit_row(load, number, found.get(number, FileCount(number)), lines) for number in range(len(load.work))]


def _audit_row(load: PlannedLoad, number: int, count: FileCount, lines: LinesRead) -> AuditRow:
    file, loaded_at = load.work[number], load.context.loaded_at
    # A file that was not read to its end does not get its version, so the next load reads it again.
    unfinished = f" unfinished {loaded_at.isoformat()}" if number in lines.unfinished else ""
    before, taken = load.target.loaded(file.url, file.version), select(load.selected, load.messages_of(number))
    loaded = union(before.selected, taken) if before else taken
    row = {
        "file": file.url,
        "version": file.version + unfinished,
        "size": file.size,
        **{key: value for key, value in count._asdict().items() if key not in ("file", "again")},
        "lines": count.lines + lines.skipped[number],
        "loaded_at": loaded_at,
        "skipped": lines.skipped[number],
        "tables": to_text(loaded, load.recorded_resources) if load.origin.reads_again else None,
    }
    if before:
        # Lines that an earlier load stored are not duplicates. Those that it stored in part are counted here again.
        messages = count.lines - count.rejected
        stored = min(before.stored + count.stored - count.again, messages)
        row |= {"stored": stored, "duplicates": messages - stored}
        row |= {"mended": count.mended + before.mended}
    earlier = file.audited if isinstance(file, ContinuedWork) else None
    return row if earlier is None else row | _sums(row, earlier)


def _sums(row: AuditRow, earlier: Mapping[str, Any]) -> AuditRow:
    """Returns the counts of a row, with those of an earlier load of the same work added."""
    counts = {name: row[name] + (earlier[name] or 0) for name in ("size", *COUNTED, "skipped", "mended")}
    timestamps = {"first_received_at": min, "last_received_at": max}
    found = {name: [time for time in (row[name], earlier[name]) if time] for name in timestamps}
    return counts | {name: choose(found[name], default=None) for name, choose in timestamps.items()}
