"""Scans of an API and the batches that their pages make; shared by the origins that read APIs."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

from ..catalog import REJECT_REASONS, Table
from ..projection import Snapshot
from ..segment.json_text import JsonObject, to_json
from ..segment.message import MAX_LINE, Batch, Record, Reject, Rejected
from .origin import LoadContext
from .records import make_batch, record_of
from .spool import Spool

LARGE_BATCH = 16 << 20  # bytes of a batch's messages


class TimeBudget:
    """A budget of time that starts now, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = monotonic() + seconds

    def is_over(self) -> bool:
        """Returns whether the budget is exhausted."""
        return monotonic() >= self._end


@dataclass
class Scan:
    """One scan, which is to an API what a file is to an archive: the unit of work that gets a row in `_audit`.

    `index` is its place in the load's work. `first` is the page with which this load begins; `lines_before` and
    `contacts_before` are the counts before it. `audited` is its row in `_audit`, if it has one. `size`, `lines` and
    `contacts` grow as it is read; `total` is how many contacts the account has. `complete` is set at its end, `lost` if
    it cannot be continued.
    """

    name: str
    url: str
    started_at: str
    index: int = 0
    spool: Spool | None = None
    first: int = 1
    lines_before: int = 0
    contacts_before: int = 0
    audited: Mapping[str, object] | None = None
    size: int = field(init=False, default=0)
    lines: int = field(init=False, default=0)
    contacts: int = field(init=False, default=0)
    total: int | None = field(init=False, default=None)
    complete: bool = field(init=False, default=False)
    lost: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.begin_reading()

    def begin_reading(self) -> None:
        """Resets the counts: a load may read a scan a second time."""
        self.size, self.lines, self.contacts = 0, self.lines_before, self.contacts_before
        self.complete = self.lost = False

    @property
    def version(self) -> str:
        """When the scan began; if it is loaded in parts, each part has a version of its own."""
        return self.started_at + (f" from page {self.first}" if self.first > 1 else "")


@dataclass
class ScanBatch:
    """What some pages contain: messages, rejects, and records by the names of their tables."""

    scan: Scan
    records: dict[str, list[Record]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    size: int = 0
    _lines: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def is_large(self) -> bool:
        """Whether it takes so much memory that it should be handed on, even if it has few messages."""
        return self.size >= LARGE_BATCH

    def add_size(self, size: int) -> None:
        """Counts bytes that were read."""
        self.size += size
        self.scan.size += size

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Adds messages."""
        for line in lines:
            self.scan.lines += 1
            self._lines.append((self.scan.lines, line))

    def reject(self, value: Any, reason: str, message: str) -> None:
        """Adds a reject for a value that is neither a message nor a record."""
        self.scan.lines += 1
        raw = to_json(value).encode()[:MAX_LINE]
        self.rejects.append(Reject(self.scan.index, self.scan.lines, reason, message, raw))

    def add_records(self, table: Table, values: Iterable[Any], more: Mapping[str, str] | None = None) -> None:
        """Adds objects as records of a table; `more` has values that the objects do not have, by column."""
        for value in values:
            self.add_record(table, value, lambda found: record_of(table, found, more))

    def add_record(self, table: Table, value: Any, make: Callable[[JsonObject], Record]) -> None:
        """Adds the record that `make` returns for an object, or a reject if it raises Rejected or for other values."""
        if not isinstance(value, JsonObject):
            self.reject(value, "not_an_object", REJECT_REASONS["not_an_object"])
            return
        try:
            self.records.setdefault(table.name, []).append(make(value))
        except Rejected as error:
            self.reject(value, *error.args)

    def batch(self, ended: bool = False, unfinished: str | None = None) -> Batch:
        """Returns the messages and the rejects; `ended` and `unfinished` are as in `make_batch`."""
        return make_batch(
            self.scan.index, self._lines, rejects=self.rejects, ended=ended, unfinished=unfinished, size=self.size
        )


@dataclass
class ScannedRecords:
    """The scans of one load, and the records that they find: `snapshots` by the names of their tables."""

    context: LoadContext
    scans: Sequence[Scan] = field(init=False, default=())
    snapshots: dict[str, Snapshot] = field(init=False, default_factory=dict)

    def begin_reading(self) -> None:
        """Drops what an earlier reading of the same scans found."""
        self.close()
        for table in self.snapshots:
            shutil.rmtree(self.context.scratch / table, ignore_errors=True)
        self.snapshots.clear()
        for scan in self.scans:
            scan.begin_reading()

    def warn(self, text: str) -> None:
        """Warns immediately, but only once even if the load reads its scans twice."""
        if text not in self.context.report.warnings:
            self.context.warn(text)
            self.context.report_progress()

    def keep_records(self, found: ScanBatch) -> None:
        """Adds the records of selected tables to their snapshots."""
        for name, records in found.records.items():
            if name in self.context.selected:
                self.snapshot_of(name, found.scan).add(records)

    def snapshot_of(self, table: str, scan: Scan) -> Snapshot:
        """Returns the snapshot of a table, which a scan fills."""
        if table not in self.snapshots:
            self.snapshots[table] = self.context.snapshot(table, datetime.fromisoformat(scan.started_at))
        return self.snapshots[table]

    def close(self) -> None:
        """Frees the memory of the snapshots."""
        for snapshot in self.snapshots.values():
            snapshot.close()
