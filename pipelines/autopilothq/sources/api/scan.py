"""Scans of an account: pages by way of the spool -> batches of messages, and things (spec: autopilot-api, Paging).

A scan that is cut off ends with the reason why; its pages stay in the spool, and the next one goes on behind them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, NamedTuple

import pyarrow as pa

from ...catalog import CONTACTS, LISTS, LISTS_CONTACTS, REJECT_REASONS, SEGMENTS, SEGMENTS_CONTACTS, Table
from ...clients.autopilot import Autopilot, Page
from ...errors import NotFound, RequestRejected, Unavailable, UnexpectedResponse
from ...segment.message import MAX_LINE, Batch, JsonObject, Record, Reject, Rejected, to_json
from ..spool import ScanStart, Spool, fetch, fetch_ahead
from . import contacts as contact_rows

PAGES = 50  # that make a batch
SIDE_BY_SIDE = 4  # lists or segments that are read at the same time; they share one pace
SCHEMA = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("text", pa.large_binary())])


class Group(NamedTuple):
    """Lists or segments: the tables of what they are and of who is in them, and how both are asked for."""

    table: Table
    members: Table
    named: Callable[[Autopilot], list[Any]]
    contacts: Callable[[Autopilot, str, str | None], Iterator[Page]]


GROUPS = {
    "lists": Group(LISTS, LISTS_CONTACTS, Autopilot.lists, Autopilot.list_contacts),
    "smart_segments": Group(SEGMENTS, SEGMENTS_CONTACTS, Autopilot.smart_segments, Autopilot.segment_contacts),
}


class ScanInterrupted(Exception):
    """A scan that goes on another time; the text says why.

    `failed`: not because its time was spent. `lost`: it cannot go on, the next one begins anew.
    """

    def __init__(self, why: str, *, failed: bool = True, lost: bool = False) -> None:
        super().__init__(why)
        self.failed, self.lost = failed, lost


class Deadline:
    """How long pages may be fetched: the seconds are counted from its making on, None is no end."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else monotonic() + seconds

    def is_over(self) -> bool:
        """Whether the time is spent."""
        return self._end is not None and monotonic() >= self._end

    def spent(self) -> ScanInterrupted:
        """Says so."""
        return ScanInterrupted(f"max_seconds ({self.seconds:g}) were spent", failed=False)


@dataclass
class Scan:
    """One scan, as a file is to an archive. `size` and `contacts` grow while it is read.

    `first` is the page that this load begins with; `lines_before` and `contacts_before` are those that came before it.
    `complete` is set at its end, `lost` where it cannot go on. `audited` is the row that `_audit` has of it already.
    """

    name: str
    url: str
    started_at: str
    number: int = 0
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
        """Counts from the beginning: a load may read a scan a second time."""
        self.size, self.lines, self.contacts = 0, self.lines_before, self.contacts_before
        self.complete = self.lost = False

    @property
    def version(self) -> str:
        """When it began; a scan that is loaded in parts has a version for each."""
        return self.started_at + (f" from page {self.first}" if self.first > 1 else "")


@dataclass
class ScanBatch:
    """What some pages gave: messages with what was rejected, and things by their table's name."""

    scan: Scan
    records: dict[str, list[Record]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    size: int = 0
    _lines: list[bytes] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Takes messages."""
        for line in lines:
            self.scan.lines += 1
            self._numbers.append(self.scan.lines)
            self._lines.append(line)

    def reject(self, value: Any, reason: str, message: str) -> None:
        """Takes what is none."""
        self.scan.lines += 1
        raw = to_json(value).encode()[:MAX_LINE]
        self.rejects.append(Reject(self.scan.number, self.scan.lines, reason, message, raw))

    def add(self, table: Table, values: Iterable[Any], more: Mapping[str, str] | None = None) -> None:
        """Takes things of a table that say themselves what they are."""
        for value in values:
            if not isinstance(value, JsonObject):
                self.reject(value, "not_an_object", REJECT_REASONS["not_an_object"])
                continue
            try:
                self.records.setdefault(table.name, []).append(contact_rows.record(table, value, more))
            except Rejected as error:
                self.reject(value, *error.args)

    def batch(self, ended: list[tuple[int, str | None]]) -> Batch:
        """The messages and the rejects."""
        file = pa.array([self.scan.number] * len(self._lines), pa.int32())
        columns = [file, pa.array(self._numbers, pa.int64()), pa.array(self._lines, pa.large_binary())]
        return Batch(pa.Table.from_arrays(columns, schema=SCHEMA), self.rejects, ended, self.size)


# ---- contacts ------------------------------------------------------------------------------------------------------


class ScanScope(NamedTuple):
    """What is made of contacts: events, rows, or both."""

    events: bool
    rows: bool
    user_id_field: str | None
    window: contact_rows.Window


def contacts(
    scan: Scan, spool: Spool, account: Autopilot, clock: Deadline, wanted: ScanScope, tell: Callable[[], None]
) -> Iterator[ScanBatch]:
    """A scan of all contacts, those that the spool has already first. Raises CutOff behind the last that came.

    `tell` is called after each page.
    """
    found = ScanBatch(scan)
    pages, last = 0, spool.last
    try:
        for number in _pages(spool, scan, account, clock):
            values, size = spool.read(number)
            found.size += size
            scan.size += size
            scan.contacts += len(values)
            for value in values:
                _contact(found, value, wanted)
            pages += 1
            tell()
            if pages % PAGES == 0:
                yield found
                found = ScanBatch(scan)
    except (Unavailable, RequestRejected, UnexpectedResponse) as error:
        # Where no page came behind a bookmark of an earlier run, that bookmark is worth nothing any more.
        lost = not isinstance(error, Unavailable) and spool.last == last and spool.bookmark is not None
        if not (lost or (pages and isinstance(error, Unavailable))):
            raise
        yield found
        raise ScanInterrupted(str(error), lost=lost) from error
    yield found
    scan.complete = spool.complete
    if not spool.complete:
        raise clock.spent()


def _pages(spool: Spool, scan: Scan, account: Autopilot, clock: Deadline) -> Iterator[int]:
    """The numbers of the pages: at once where they are there, as they come where they must be fetched."""
    yield from range(scan.first, spool.last + 1)
    if not spool.complete and not (clock.is_over() and spool.last >= scan.first):
        for fetched in fetch_ahead(spool, account.contacts(spool.bookmark), clock.is_over):
            scan.total = fetched.total if scan.total is None or fetched.total is not None else scan.total
            yield fetched.number


def _contact(found: ScanBatch, value: Any, wanted: ScanScope) -> None:
    if not isinstance(value, JsonObject):
        found.reject(value, "not_an_object", REJECT_REASONS["not_an_object"])
        return
    try:
        if wanted.events:
            found.add_lines(contact_rows.messages(value, found.scan.started_at, wanted.user_id_field, wanted.window))
        if wanted.rows:
            found.records.setdefault(CONTACTS.name, []).append(contact_rows.contact_record(value))
    except Rejected as error:
        found.reject(value, *error.args)


# ---- what the account has beside -----------------------------------------------------------------------------------


def single_answer(scan: Scan, table: Table, values: list[Any]) -> ScanBatch:
    """A table that one answer holds."""
    found = ScanBatch(scan)
    found.size = scan.size = len(to_json(values))
    found.add(table, values)
    scan.complete = True
    return found


def group(
    scan: Scan, spool: Spool, account: Autopilot, clock: Deadline, of: Group, members: bool, folder: Path
) -> Iterator[ScanBatch]:
    """Lists or segments, and who is in them, where `members` are wanted. Raises CutOff with nothing found.

    What came of a scan that was cut off stays in `folder`.
    """
    if not spool.complete:
        if clock.is_over():
            raise clock.spent()
        spool.put(Page(of.named(account), None, None))
    found = ScanBatch(scan)
    entries, found.size = spool.read(1)
    found.add(of.table, entries)
    ids = [record.key[0] for record in found.records.get(of.table.name, [])]
    if members:
        _fetch_members(ids, of, account, clock, folder, spool.start)
    scan.size += found.size
    yield found
    for position, name in enumerate(ids if members else ()):
        yield from _members(scan, of, name, Spool(folder / str(position), spool.start))
    scan.complete = True


def _fetch_members(
    ids: list[str], of: Group, account: Autopilot, clock: Deadline, folder: Path, start: ScanStart
) -> None:
    """Spools the contacts of all, several side by side; the first that fails stops the others."""
    failed = Event()

    def fetch_one(place: tuple[int, str]) -> None:
        position, name = place
        spool = Spool.open(folder / str(position)) or Spool.begin(folder / str(position), start)
        try:
            if not spool.complete and not (failed.is_set() or clock.is_over()):
                pages = map(_references, of.contacts(account, name, spool.bookmark))
                for _ in fetch(spool, pages, lambda: failed.is_set() or clock.is_over()):
                    pass
        except NotFound:
            spool.put(Page([], None, None))  # it is gone since the account named it
        except BaseException:
            failed.set()
            raise
        if not spool.complete and not failed.is_set():
            raise clock.spent()

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        done = [pool.submit(fetch_one, place) for place in enumerate(ids)]
    errors = [error for future in done if (error := future.exception())]
    errors.sort(key=lambda error: isinstance(error, Unavailable) + 2 * isinstance(error, ScanInterrupted))
    if errors:
        if isinstance(errors[0], Unavailable):
            raise ScanInterrupted(str(errors[0])) from errors[0]
        raise errors[0]


def _members(scan: Scan, of: Group, name: str, spool: Spool) -> Iterator[ScanBatch]:
    key = of.table.key[0]
    for number in range(1, spool.last + 1):
        found = ScanBatch(scan)
        values, found.size = spool.read(number)
        scan.size += found.size
        found.add(of.members, values, {key: name})
        yield found


def _references(page: Page) -> Page:
    """A page with the contacts' ids alone: the rest is in `contacts`."""
    return page._replace(contacts=[_reference(value) for value in page.contacts])


def _reference(value: Any) -> Any:
    return JsonObject([("contact_id", value.value("contact_id"))]) if isinstance(value, JsonObject) else value
