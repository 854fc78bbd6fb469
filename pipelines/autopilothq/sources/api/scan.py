"""Scans an account: stores pages in the spool, and turns them into messages and records.

(docs/contract/autopilot-api.md#paging) An interrupted scan ends with the reason; its pages stay in the spool, and the
next load continues after them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from ...catalog import CONTACTS, LISTS, LISTS_CONTACTS, REJECT_REASONS, SEGMENTS, SEGMENTS_CONTACTS, Table
from ...clients.autopilot import Autopilot, Page
from ...clients.decode import as_text
from ...errors import ApiError, NotAuthorized, NotFound, RequestRejected, Unavailable, UnexpectedResponse
from ...segment.json_text import JsonObject, to_json
from ...segment.message import Rejected
from ..contact_records import contact_record
from ..scans import Scan, ScanBatch, TimeBudget
from ..spool import ScanStart, Spool, fetch, fetch_ahead
from . import contacts as contact_rows

PAGES_PER_BATCH = 50
_OVERLAPPING = 10  # pages whose contacts a later page may repeat
PARALLEL_SCANS = 4  # lists or segments that are scanned at the same time; they share one rate of requests


class Group(NamedTuple):
    """Lists or segments: their table, the table of their members, and the requests for both."""

    table: Table
    members: Table
    request: Callable[[Autopilot], list[Any]]
    request_contacts: Callable[[Autopilot, str, str | None], Iterator[Page]]


CONTACT_GROUPS = {
    "lists": Group(LISTS, LISTS_CONTACTS, Autopilot.lists, Autopilot.list_contacts),
    "smart_segments": Group(SEGMENTS, SEGMENTS_CONTACTS, Autopilot.smart_segments, Autopilot.segment_contacts),
}


class ScanInterrupted(Exception):
    """A scan was interrupted, and the next load must continue it; the text says why.

    `failed` is False if only its time was up. A `lost` scan cannot be continued: the next load begins again. `alone` is
    true if the reason concerns no other scan.
    """

    def __init__(self, why: str, *, failed: bool = True, lost: bool = False, alone: bool = False) -> None:
        super().__init__(why)
        self.failed, self.lost, self.alone = failed, lost, alone


def concerns_one_scan(error: ApiError) -> bool:
    """Returns whether an error concerns one scan only.

    A wrong key, a limit of the account and a broken network concern all scans of an account.
    """
    if isinstance(error, NotAuthorized | Unavailable):
        return error.status is not None and (error.status == 403 or error.status >= 500)
    return isinstance(error, RequestRejected | UnexpectedResponse)


class Deadline(TimeBudget):
    """A budget of time for fetching pages that starts now, in seconds; None means no limit."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__(inf if seconds is None else seconds)
        self.seconds = seconds

    def exceeded(self) -> ScanInterrupted:
        """Returns the exception for an exhausted budget."""
        return ScanInterrupted(f"max_seconds ({self.seconds:g}) were spent", failed=False)


# ---- contacts ------------------------------------------------------------------------------------------------------


class ScanScope(NamedTuple):
    """What to make of contacts: events, rows, or both; `user_id_field` and `window` are as in `contacts.messages`."""

    events: bool
    rows: bool
    user_id_field: str | None
    window: contact_rows.Window


def scan_contacts(
    scan: Scan, spool: Spool, account: Autopilot, deadline: Deadline, scope: ScanScope, progress: Callable[[], None]
) -> Iterator[ScanBatch]:
    """Yields the batches of a scan of all contacts, the pages in the spool first; calls `progress` after each page.

    If the scan is interrupted, raises ScanInterrupted after the last page, or an ApiError if no page came at all.
    """
    found = ScanBatch(scan)
    pages, last = 0, spool.last
    counter = _ContactCounter()
    try:
        for values, size in _pages(spool, scan, account, deadline):
            found.add_size(size)
            scan.contacts += counter.add(values)
            for value in values:
                _add_contact(found, value, scope)
            pages += 1
            progress()
            if pages % PAGES_PER_BATCH == 0:
                yield found
                found = ScanBatch(scan)
    except (Unavailable, RequestRejected, UnexpectedResponse) as error:
        # If no page came after the bookmark of an earlier load, the API no longer accepts that bookmark.
        lost = not isinstance(error, Unavailable) and spool.last == last and spool.bookmark is not None
        if not (lost or pages):
            raise
        yield found
        raise ScanInterrupted(str(error), lost=lost, alone=concerns_one_scan(error)) from error
    yield found
    scan.complete = spool.complete
    if not spool.complete:
        raise deadline.exceeded()


class _ContactCounter:
    """Counts each contact once, although pages may repeat contacts of the few pages before them."""

    def __init__(self) -> None:
        self._pages: deque[set[str]] = deque(maxlen=_OVERLAPPING)

    def add(self, values: list[object]) -> int:
        """Adds the contacts of a page; returns how many of them are new."""
        ids = [as_text(value.value("contact_id")) if isinstance(value, JsonObject) else None for value in values]
        known = {id_ for id_ in ids if id_ is not None}
        new = known.difference(*self._pages)
        self._pages.append(known)
        return ids.count(None) + len(new)


def _pages(spool: Spool, scan: Scan, account: Autopilot, deadline: Deadline) -> Iterator[tuple[list[object], int]]:
    """Yields the contacts and the size of each page: first of those in the spool, then of those that it fetches."""
    yield from spool.read_all(scan.first)
    if not spool.complete and not (deadline.is_over() and spool.last >= scan.first):
        for fetched in fetch_ahead(spool, account.contacts(spool.bookmark), deadline.is_over):
            if fetched.total is not None:
                scan.total = fetched.total
            yield spool.contacts_of(fetched)


def _add_contact(found: ScanBatch, value: Any, scope: ScanScope) -> None:
    if not isinstance(value, JsonObject):
        found.reject(value, "not_an_object", REJECT_REASONS["not_an_object"])
        return
    try:
        if scope.events:
            found.add_lines(contact_rows.messages(value, found.scan.started_at, scope.user_id_field, scope.window))
        if scope.rows:
            found.records.setdefault(CONTACTS.name, []).append(contact_record(value))
    except Rejected as error:
        found.reject(value, *error.args)


# ---- lists, segments, custom fields, triggers ------------------------------------------------------------------------


def single_response(scan: Scan, table: Table, values: list[Any]) -> ScanBatch:
    """Returns the records of a table that the API returns in a single response."""
    found = ScanBatch(scan)
    found.add_size(len(to_json(values)))
    found.add_records(table, values)
    scan.complete = True
    return found


def scan_group(
    scan: Scan, spool: Spool, account: Autopilot, deadline: Deadline, group: Group, folder: Path | None
) -> Iterator[ScanBatch]:
    """Yields lists or segments, and their members if there is a `folder` for them.

    The spools of the members stay in this folder until the scan is loaded. Raises ScanInterrupted, if at all, before
    the first batch.
    """
    if not spool.complete:
        if deadline.is_over():
            raise deadline.exceeded()
        spool.put(Page(group.request(account), None, None))
    found = ScanBatch(scan)
    entries, size = spool.read(1)
    found.add_records(group.table, entries)
    ids = [record.key[0] for record in found.records.get(group.table.name, [])]
    if folder is not None:
        _fetch_members(ids, group, account, deadline, folder, spool.start)
    found.add_size(size)
    yield found
    if folder is not None:
        for number, name in enumerate(ids):
            yield from _members(scan, group, name, Spool(folder / str(number), spool.start))
    scan.complete = True


def _fetch_members(
    ids: list[str], group: Group, account: Autopilot, deadline: Deadline, folder: Path, start: ScanStart
) -> None:
    """Fetches the members of all lists or segments into spools, several in parallel; a failure stops all others."""
    failed = Event()

    def fetch_one(number: int, name: str) -> None:
        spool = Spool.open_or_begin(folder / str(number), start)
        try:
            if not spool.complete and not (failed.is_set() or deadline.is_over()):
                pages = map(_references, group.request_contacts(account, name, spool.bookmark))
                for _ in fetch(spool, pages, lambda: failed.is_set() or deadline.is_over()):
                    pass
        except NotFound:
            spool.put(Page([], None, None))  # it was deleted since the account listed it
        except BaseException:
            failed.set()
            raise
        if not spool.complete and not failed.is_set():
            raise deadline.exceeded()

    with ThreadPoolExecutor(PARALLEL_SCANS) as pool:
        done = [pool.submit(fetch_one, number, name) for number, name in enumerate(ids)]
    errors = [error for future in done if (error := future.exception())]
    if not errors:
        return
    worst = min(errors, key=lambda error: isinstance(error, Unavailable) + 2 * isinstance(error, ScanInterrupted))
    if isinstance(worst, Unavailable):
        raise ScanInterrupted(str(worst), alone=concerns_one_scan(worst)) from worst
    raise worst


def _members(scan: Scan, group: Group, name: str, spool: Spool) -> Iterator[ScanBatch]:
    key = group.table.key[0]
    for values, size in spool.read_all():
        found = ScanBatch(scan)
        found.add_size(size)
        found.add_records(group.members, values, {key: name})
        yield found


def _references(page: Page) -> Page:
    """Returns a page with only the ids of its contacts; everything else about them is in `contacts`."""
    return page._replace(contacts=[_reference(value) for value in page.contacts])


def _reference(value: Any) -> Any:
    return JsonObject([("contact_id", value.value("contact_id"))]) if isinstance(value, JsonObject) else value
