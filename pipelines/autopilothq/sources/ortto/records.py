"""Scans the records of an account: people, audiences and their members, tags, campaigns, custom fields."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ...catalog import (
    ORTTO_AUDIENCE_MEMBERS,
    ORTTO_AUDIENCES,
    ORTTO_CAMPAIGN_REPORTS,
    ORTTO_CAMPAIGNS,
    ORTTO_CUSTOM_FIELDS,
    ORTTO_PEOPLE,
    ORTTO_PERSON_FIELDS,
    ORTTO_TAGS,
    ORTTO_TIMES,
    Table,
    Type,
)
from ...clients.autopilot import Page
from ...clients.ortto import Ortto
from ...errors import NotFound, RequestRejected
from ...segment.json_text import JsonObject
from ...segment.message import Discard, Leaf, Record, flatten
from ...segment.ortto import OrttoField, OrttoNames, name_of, typed_values
from ...utc import format_time
from ..cursors import MAX_AHEAD, read_cursor, write_cursor
from ..records import make_record
from ..scans import Scan, ScanBatch
from ..spool import ScanStart, Spool, fetch
from .pages import OutOfTime, Query, Scanner, person_fields
from .reports import report_pages
from .search import EMAIL_FIELD, activity_time

_PAGES_PER_BATCH = 20
_MAX_REFUSED = 2  # refused requests for people; an account allows fifteen refused ones in fifteen seconds
_MAX_SCAN_AGE = timedelta(days=1)
_TAGS = ("tags", "u4s::t")  # documented, but not in the schema of any account seen so far
_CURSORS = "ortto scans"  # the key of the cursors in dlt's state of the source


class AccountPart(NamedTuple):
    """What a scan of records reads: its tables, the path of its requests, and the function that makes them.

    `request` returns a whole list, `pages` yields pages; the scan of people has neither.
    """

    tables: tuple[Table, ...]
    path: str
    request: Callable[[Ortto], list[Any]] | None = None
    pages: Callable[[Ortto, str | None], Iterator[Page]] | None = None

    @property
    def key(self) -> str:
        """The column of the first table that has the API's `id`."""
        return self.tables[0].key[0]


def _all(pages: Callable[[Ortto], Iterator[list[Any]]]) -> Callable[[Ortto], list[Any]]:
    return lambda account: [value for page in pages(account) for value in page]


PARTS = {
    "people": AccountPart((ORTTO_PEOPLE,), "person/get"),
    "audiences": AccountPart((ORTTO_AUDIENCES, ORTTO_AUDIENCE_MEMBERS), "audiences/get", _all(Ortto.audiences)),
    "tags": AccountPart((ORTTO_TAGS,), "tags/get", Ortto.tags),
    "campaigns": AccountPart((ORTTO_CAMPAIGNS,), "campaign/get-all", _all(Ortto.campaigns)),
    "custom_fields": AccountPart(
        (ORTTO_CUSTOM_FIELDS,), "person/custom-field/get", lambda account: list(account.custom_fields())
    ),
    "campaign_reports": AccountPart((ORTTO_CAMPAIGN_REPORTS,), "campaign/reports/get", pages=report_pages),
}
"""The scans of records, by their names."""


def plan_scans(
    account: str, base_url: str, home: Path, selected: frozenset[str], now: str, complete_loads: Collection[str]
) -> list[Scan]:
    """Returns the scans that the selected tables need; unfinished ones continue after their pages in `home`."""
    found = []
    for name, part in PARTS.items():
        if not any(table.name in selected for table in part.tables):
            continue
        folder = home / name
        cursor = read_cursor(_CURSORS, f"{account} {name}", complete_loads, datetime.fromisoformat(now))
        spool = Spool.open(folder / "index")
        if spool is not None and (_is_loaded(cursor, spool) or _is_old(spool, now)):
            spool = None
        if spool is None:
            shutil.rmtree(folder, ignore_errors=True)
            spool = Spool.begin(folder / "index", ScanStart(account, now))
        found.append(Scan(name, f"{base_url}/{part.path}", spool.start.started_at, spool=spool))
    return found


def _is_loaded(cursor: Mapping[str, Any], spool: Spool) -> bool:
    """Returns whether complete loads have loaded the scan of a spool, or a later one."""
    return bool(cursor) and cursor["started_at"] >= spool.start.started_at


def _is_old(spool: Spool, now: str) -> bool:
    """Returns whether a scan began so long ago that its pages are out of date."""
    began, at = map(datetime.fromisoformat, (spool.start.started_at, now))
    return not -MAX_AHEAD <= at - began <= _MAX_SCAN_AGE


def note_loaded(account: str, scan: Scan, load_id: str) -> None:
    """Stores that a scan is loaded, which counts once the load `load_id` is complete."""
    write_cursor(_CURSORS, f"{account} {scan.name}", {"started_at": scan.started_at, "load_id": load_id})


@dataclass
class RecordScans:
    """Reads scans of records. `home` is the folder of their spools, `names` are the account's names of fields.

    `has_times` is whether the account has the times of last activities; None as long as that is unknown.
    """

    scanner: Scanner
    home: Path
    names: OrttoNames
    has_times: bool | None = None

    def read(self, scan: Scan, members: bool) -> Iterator[ScanBatch]:
        """Yields the records of a scan, with the members of audiences if `members` are requested.

        Raises OutOfTime, which leaves the pages in the spool, and ApiErrors.
        """
        part, spool = PARTS[scan.name], _spool(scan)
        if part.pages is not None:
            yield from self._paged(scan, spool, part.pages(self.scanner.account, spool.bookmark))
        elif part.request is not None:
            yield from self._listed(scan, spool, part.request, members and len(part.tables) > 1)
        else:
            yield from self._people(scan, spool)
        scan.complete = True

    def _listed(
        self, scan: Scan, spool: Spool, request: Callable[[Ortto], list[Any]], members: bool
    ) -> Iterator[ScanBatch]:
        table, key = PARTS[scan.name].tables[0], PARTS[scan.name].key
        if not spool.complete:
            if self.scanner.deadline.is_over():
                raise OutOfTime
            spool.put(Page(request(self.scanner.account), None, None))
        entries, size = spool.read(1)
        found = ScanBatch(scan)
        found.add_size(size)
        found.add_records(table, [_renamed(entry, key) for entry in entries])
        ids = [record.key[0] for record in found.records.get(table.name, [])]
        yield found
        for number, id_ in enumerate(ids if members else ()):
            yield from self._members(scan, number, id_)

    def _paged(self, scan: Scan, spool: Spool, pages: Iterator[Page]) -> Iterator[ScanBatch]:
        for _ in () if spool.complete else fetch(spool, pages, self.scanner.deadline.is_over):
            pass
        if not spool.complete:
            raise OutOfTime
        for values, size in spool.read_all():
            found = ScanBatch(scan)
            found.add_size(size)
            found.add_records(PARTS[scan.name].tables[0], values)
            yield found

    def _people(self, scan: Scan, spool: Spool) -> Iterator[ScanBatch]:
        columns = PersonColumns(self._custom_fields(), self.names)
        batch = ScanBatch(scan)
        for number, (contacts, size) in enumerate(self._pages(spool, columns.ids), 1):
            batch.add_size(size)
            scan.contacts += len(contacts)
            for contact in contacts:
                batch.add_record(ORTTO_PEOPLE, contact, lambda found: person_record(found, columns))
            if number % _PAGES_PER_BATCH == 0:
                yield batch
                batch = ScanBatch(scan)
        yield batch

    def _pages(self, spool: Spool, ids: Sequence[str]) -> Iterator[tuple[list[object], int]]:
        """Yields the pages of people, with all fields except those that the account refuses."""
        fields = [id_ for id_ in ids if self.has_times is not False or not _is_time(id_)]
        is_new = spool.last == 0
        for _ in range(_MAX_REFUSED):
            is_taken = False
            try:
                for page in self.scanner.scan(spool, Query(fields)):
                    is_taken = True
                    yield page
            except RequestRejected as error:
                if is_taken:  # pages came, so the account refuses the cursor, not a field
                    raise
                fields = self._without_refused(fields, error)
            else:
                self.has_times = (is_new and any(map(_is_time, fields))) or self.has_times
                return
        sure = {field.id for field in ORTTO_PERSON_FIELDS}.difference(_TAGS)
        yield from self.scanner.scan(spool, Query([id_ for id_ in fields if id_ in sure]))

    def _without_refused(self, fields: Sequence[str], error: RequestRejected) -> list[str]:
        """Returns the fields without the one that the error names; without all times if it names none or a time."""
        refused = next((id_ for id_ in fields if id_ in error.server_message.split()), None)
        if refused is None or _is_time(refused):
            self.has_times = False
            return [id_ for id_ in fields if not _is_time(id_)]
        return [id_ for id_ in fields if id_ != refused and id_ not in _TAGS]

    def _custom_fields(self) -> Mapping[str, OrttoField]:
        found = {}
        for field in self.scanner.account.custom_fields():
            id_, name, shown = (field.value(key) for key in ("id", "name", "display_type"))
            if isinstance(id_, str) and ":" in id_:
                found[id_] = OrttoField(
                    name if isinstance(name, str) else id_, shown if isinstance(shown, str) else None
                )
        return found

    def _members(self, scan: Scan, number: int, audience: str) -> Iterator[ScanBatch]:
        spool = Spool.open_or_begin(self.home / scan.name / str(number), _spool(scan).start)
        query = Query([EMAIL_FIELD], audience=audience, reduce=_reference)
        try:
            for members, size in self.scanner.scan(spool, query):
                found = ScanBatch(scan)
                found.add_size(size)
                found.add_records(ORTTO_AUDIENCE_MEMBERS, members, {"audience_id": audience})
                yield found
        except NotFound:
            spool.put(Page([], None, None))  # it was deleted since the account listed it


class PersonColumns:
    """The columns of people's fields: those of the catalogue, otherwise `custom_` and the account's name of the field.

    `ids` are the ids of the fields to request.
    """

    def __init__(self, custom: Mapping[str, OrttoField], names: OrttoNames) -> None:
        self._known = {field.id: field.column for field in (*ORTTO_PERSON_FIELDS, *ORTTO_TIMES)}
        self._custom, self._names = custom, names
        schema_ids = {id_ for activity, id_ in names.attributes if not activity}
        known = [id_ for id_ in self._known if id_ in schema_ids or not schema_ids or id_ in _TAGS]
        self.ids = [*known, *(id_ for id_ in custom if id_ not in self._known)]
        self._columns: dict[str, str] = {}

    def cells(self, field_id: str, value: Any) -> Iterator[tuple[str, Any, Type | None]]:
        """Yields each column of a field with its value and its type (None if nothing declares it)."""
        known = self._custom.get(field_id) or self._names.attribute("", field_id)
        for column, cell, type_ in typed_values(
            self._column(field_id, known), field_id, value, known.display_type if known else None
        ):
            time = activity_time(cell) if type_ == "timestamp" else None
            yield column, format_time(time, exact=True) if time else cell, type_

    def _column(self, field_id: str, known: OrttoField | None) -> str:
        if field_id in self._known:
            return self._known[field_id]
        if field_id not in self._columns:
            column = f"custom_{name_of(field_id, known)}"
            taken = column in self._columns.values()
            self._columns[field_id] = f"custom_{name_of(field_id)}" if taken else column
        return self._columns[field_id]


def person_record(contact: JsonObject, columns: PersonColumns) -> Record:
    """Returns a person as a record of `ortto_people`. Raises Rejected if there is no id."""
    declared: dict[str, Type] = {}
    discards: list[Discard] = []
    return make_record(ORTTO_PEOPLE, contact, _leaves(contact, columns, declared), discards, declared)


def _leaves(contact: JsonObject, columns: PersonColumns, declared: dict[str, Type]) -> Iterator[Leaf]:
    yield ("person", "id"), ORTTO_PEOPLE.key[0], contact.value("id")
    for field_id, value in person_fields(contact):
        for column, cell, type_ in columns.cells(field_id, value):
            if type_ is not None and column.startswith("custom_"):
                declared.setdefault(column, type_)
            yield ("person", field_id, column), column, cell
    yield from flatten(JsonObject(pair for pair in contact if pair[0] not in ("id", "fields")), ("person",), [])


def _renamed(entry: Any, key: str) -> Any:
    """Returns an object with its `id` renamed to the table's key."""
    if not isinstance(entry, JsonObject):
        return entry
    return JsonObject((key if name == "id" else name, value) for name, value in entry)


def _reference(contact: JsonObject) -> JsonObject:
    return JsonObject([("contact_id", contact.value("id"))])


def _is_time(field_id: str) -> bool:
    return field_id.startswith("tme::")


def _spool(scan: Scan) -> Spool:
    if scan.spool is None:
        raise RuntimeError("Expected a scan with a spool.")
    return scan.spool
