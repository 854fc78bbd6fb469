"""Autopilot's own API as a dlt source: email events out of contacts, and what the account has beside them."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dlt
from dlt import Schema
from dlt.sources import DltResource

from ...catalog import ACCOUNT, CONTACTS, CUSTOM_FIELDS, EVENT_TABLES, TABLES, TRACKS, TRIGGERS, Table
from ...clients.autopilot import BASE_URL, REQUESTS_PER_SECOND, Autopilot
from ...clients.http import MAX_ATTEMPTS, TIMEOUT
from ...errors import Unavailable
from ...projection import Snapshot, TableRows
from ...segment.message import Batch
from ...warehouses.dataset import Dataset, first_event_of_others, open_dataset
from ...warehouses.dlt_internals import load_package_state, logger
from ...warehouses.hints import SOURCE
from ..load import Files, Load, books, no_progress, resource
from ..spool import ScanStart, Spool
from . import scan as scans
from .contacts import LIBRARY, Window
from .scan import GROUPS, Deadline, Scan, ScanBatch, ScanInterrupted, ScanScope

EVENTS = (*EVENT_TABLES, TRACKS)
HOME = "autopilothq-scan"  # the folder of pages, below the pipeline's own
_MARKS = "scans"  # in dlt's state of the source
SIMPLE = {CUSTOM_FIELDS.name: Autopilot.custom_fields, TRIGGERS.name: Autopilot.triggers}


@dlt.source(schema=Schema(SOURCE), section=SOURCE, max_table_nesting=0)
def api(
    api_key: dlt.TSecretStrValue = dlt.secrets.value,
    base_url: str = BASE_URL,
    requests_per_second: float = REQUESTS_PER_SECOND,
    timeout: float = TIMEOUT,
    tries: int = MAX_ATTEMPTS,
    allow_http: bool = False,
    max_seconds: float | None = None,
    user_id_field: str | None = None,
    since: Any = None,  # str, date or datetime; dlt injects no unions
    until: Any = None,
    table_format: str | None = None,
    memory: int = 400,
    progress: Any = no_progress,
) -> Iterable[DltResource]:
    """Autopilot's API as the `autopilothq` schema: email events, contacts, lists, segments, custom fields, triggers.

    Args:
        api_key: The account's key, from dlt's secrets.
        base_url: Where the API is.
        requests_per_second: The most that is sent, by all scans of this process together.
        timeout: Seconds that an answer may keep silent.
        tries: How often a request is tried before the scan is given up.
        allow_http: Whether the key may go over plain http to another machine.
        max_seconds: How long pages are fetched. What came by then is loaded, and the next run goes on from there.
        user_id_field: The custom field that holds your own id of a contact.
        since: The time of the first event that is wanted (ISO 8601; UTC where it names no zone).
        until: Where events end, that time excluded: where those of an archive begin.
        table_format: dlt's, of the tables in a lake: `delta`. None is the destination's own.
        memory: What the engine may use before it turns to the disk, in MB.
        progress: Called with the `LoadReport` after each page.

    Example: `pipeline.run(api(until="2019-03-01").with_resources("email_opened", "contacts"))`.
    """
    client = Autopilot(
        api_key,
        base_url=base_url,
        requests_per_second=requests_per_second,
        timeout=timeout,
        tries=tries,
        allow_http=allow_http,
    )
    name = hashlib.sha256(f"{base_url}\n{api_key}".encode()).hexdigest()[:12]  # says nothing of the key
    account = _Account(client, base_url.rstrip("/"), name, user_id_field, _window(since, until), max_seconds)
    load = Load(account.find, account.read, memory // 2, progress, account.beside, table_format)
    account.load, account.memory = load, memory // 2
    return [*(resource(load, table) for table in (*EVENTS, *ACCOUNT)), *books(load)]


def _window(since: Any, until: Any) -> Window:
    return Window(read_setting_time(since), read_setting_time(until))


def read_setting_time(time: str | date | None) -> datetime | None:
    """A time as settings and callers give it: ISO 8601, UTC where it names no zone; a date is its midnight."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, date) and not isinstance(time, datetime):
        return datetime(time.year, time.month, time.day, tzinfo=UTC)
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time


class _Account:
    """The origin of a load: the scans of one account. `load` is the load, `memory` what its things may use, in MB."""

    load: Load
    memory: int

    def __init__(
        self,
        client: Autopilot,
        base_url: str,
        name: str,
        user_id_field: str | None,
        window: Window,
        max_seconds: float | None,
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._name = name
        self._user_id_field = user_id_field
        self._window = window
        self._max_seconds = max_seconds

    # Which scans, and where they begin ----------------------------------------------------------------------------

    def find(self, _: Files) -> tuple[list[Scan], int]:
        """The scans that the selected tables need: each is new, or goes on where an earlier run was cut off."""
        self._clock = Deadline(self._max_seconds)
        self._things: dict[str, Snapshot] = {}
        self._found: Sequence[Scan] = []
        pipeline = dlt.current.pipeline()
        self._home = Path(pipeline.working_dir, HOME)
        self._selected = set(dlt.current.source().selected_resources)
        events = [table.name for table in EVENTS if table.name in self._selected]
        stored = open_dataset(pipeline)
        stored.tables([TRACKS.name, *(table.name for table in ACCOUNT)])
        self._loads = stored.complete_loads()
        if events and self._window.until is None:
            self._warn_of_archive(stored)
        self._wanted = ScanScope(bool(events), CONTACTS.name in self._selected, self._user_id_field, self._window)
        found: list[Scan] = []
        if events or self._wanted.rows:
            found.append(self._contacts())
        for name, group in GROUPS.items():
            if {group.table.name, group.members.name} & self._selected:
                found.append(self._group(name))
        found += [Scan(name, self._url(name), self._now()) for name in SIMPLE if name in self._selected]
        # What was cut off long ago comes first, or a budget of time would be spent before it gets there for ever.
        found.sort(key=lambda scan: scan.started_at)
        for number, scan in enumerate(found):
            scan.number = number
        return found, 0

    def _warn_of_archive(self, stored: Dataset) -> None:
        first = first_event_of_others(stored, LIBRARY)
        if first is not None:
            since = first.isoformat().replace("+00:00", "Z")
            self._warn(
                f"This dataset has events of an archive, from {since} on. The API's events have other ids: what"
                f" happened since then will be there twice. Say where they end: --until {since}"
            )

    def _warn_of_no_such_field(self) -> None:
        fields: list[Any] = []
        if self._wanted.events and self._user_id_field:
            with suppress(Unavailable):
                fields = self._client.custom_fields()
        names = [field.get("name") for field in fields if isinstance(field, dict)]
        if fields and self._user_id_field not in names:
            self._warn(
                f"The account has no custom field {self._user_id_field!r}: its events get no user id, and keep none."
                f" It has {', '.join(map(repr, names))}."
            )

    def _warn(self, text: str) -> None:
        logger.warning(text)
        self.load.report.warnings.append(text)
        self.load.tell()

    def _url(self, name: str) -> str:
        return f"{self._base_url}/{'contacts/custom_fields' if name == CUSTOM_FIELDS.name else name}"

    def _now(self) -> str:
        return self.load.loaded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _contacts(self) -> Scan:
        """The scan of contacts: where an earlier one was cut off, that one goes on."""
        url, folder = self._url(CONTACTS.name), self._home / CONTACTS.name
        mark = self._mark(CONTACTS.name)
        spool = Spool.open(folder)
        if spool and (self._is_useless(spool, mark)):
            spool.delete()
            spool = None
        if spool and spool.start.page == 1 and spool.last == 0:
            spool = None  # nothing came when it began
        goes_on = bool(mark) and mark["bookmark"] is not None and self._scope() <= set(mark["tables"])
        if spool is None:
            start = ScanStart(self._name, self._now())
            if goes_on:
                start = ScanStart(self._name, mark["started_at"], mark["page"], mark["bookmark"], mark["contacts"])
            spool = Spool.begin(folder, start)
        started_at, first = spool.start.started_at, spool.start.page
        contacts = spool.start.contacts
        if mark and mark["started_at"] == started_at:
            spool.drop(mark["page"])
            first, contacts = mark["page"], mark["contacts"]
        return Scan(CONTACTS.name, url, started_at, spool=spool, first=first, contacts=contacts)

    def _is_useless(self, spool: Spool, mark: dict[str, Any]) -> bool:
        """Whether the pages that are here are loaded, are another account's, or belong to nothing that can go on."""
        start = spool.start
        if start.account != self._name:
            return True
        if not mark or mark["started_at"] < start.started_at:
            return start.page > 1  # what came before is not known any more
        if mark["started_at"] > start.started_at or mark["bookmark"] is None:
            return True
        other_tables = mark["page"] > start.page and not self._scope() <= set(mark["tables"])
        return spool.last + 1 < mark["page"] or other_tables

    def _mark(self, name: str) -> dict[str, Any]:
        """How far complete loads have brought the last scan; nothing where the destination does not know of it."""
        mark: dict[str, Any] = dlt.current.source_state().get(_MARKS, {}).get(name, {})
        return mark if mark and mark["account"] == self._name and mark["load_id"] in self._loads else {}

    def _scope(self) -> set[str]:
        """The tables that are made of contacts."""
        return {table.name for table in (*EVENTS, CONTACTS) if table.name in self._selected}

    def _group(self, name: str) -> Scan:
        url, folder = self._url(name), self._home / name
        mark = self._mark(name)
        spool = Spool.open(folder / "index")
        if spool and (spool.start.account != self._name or (mark and mark["started_at"] >= spool.start.started_at)):
            shutil.rmtree(folder)
            spool = None
        spool = spool or Spool.begin(folder / "index", ScanStart(self._name, self._now()))
        return Scan(name, url, spool.start.started_at, spool=spool)

    # What they give -----------------------------------------------------------------------------------------------

    def read(self, found: Sequence[Scan]) -> Iterator[Batch]:
        """The messages of all scans; what else they find is put aside. A cut scan is loaded as far as it came."""
        report = self.load.report
        self._found = found
        with self._client:
            self._warn_of_no_such_field()
            for scan in found:
                why = report.cut_off
                if why is None:
                    try:
                        for part in self._scan(scan):
                            self._put_aside(part)
                            yield part.batch([])
                    except ScanInterrupted as error:
                        why = str(error)
                        scan.lost = error.lost
                        report.cut_off = why if error.failed else None
                    except Unavailable as error:
                        if scan is found[0]:
                            raise
                        why = report.cut_off = str(error)
                yield ScanBatch(scan).batch([(scan.number, why)])

    def _scan(self, scan: Scan) -> Iterator[ScanBatch]:
        if scan.spool is None:
            return iter([scans.records(scan, TABLES[scan.name], SIMPLE[scan.name](self._client))])
        common = scan, scan.spool, self._client, self._clock
        if scan.name == CONTACTS.name:
            return scans.contacts(*common, self._wanted, lambda: self._tell(scan))
        members = GROUPS[scan.name].members.name in self._selected
        return scans.group(*common, GROUPS[scan.name], members, self._home / scan.name)

    def _tell(self, scan: Scan) -> None:
        self.load.report.contacts, self.load.report.contacts_total = scan.contacts, scan.total
        self.load.tell()

    def _put_aside(self, found: ScanBatch) -> None:
        for name, things in found.things.items():
            if name in self._selected:
                self._things_of(name, found.scan).add(things)

    def _things_of(self, table: str, scan: Scan) -> Snapshot:
        if table not in self._things:
            scratch = Path(self.load.folder, table)
            scratch.mkdir()
            self._things[table] = Snapshot(
                TABLES[table],
                datetime.fromisoformat(scan.started_at),
                self.load.loaded_at,
                str(scratch),
                self.memory,
                shorten=self.load.column,
                forgotten=self.load.forgotten,
                **self.load.room(table),
            )
        return self._things[table]

    def beside(self, load: Load, stored: Dataset) -> Iterator[TableRows]:
        """The rows of contacts, and those of the tables whose scan is complete."""
        state = dlt.current.source_state().setdefault(_MARKS, {})
        for scan in self._found:
            for table in _tables(scan):
                if table.name in self._selected and (scan.complete or table is CONTACTS):
                    things = self._things_of(table.name, scan)
                    read = stored.read if scan.complete and table is CONTACTS else None
                    yield things.rows(load.known.get(table.name, {}), read)
                    if (discards := things.discards()) is not None:
                        yield discards
                    if table is CONTACTS and things.left_out:
                        self._warn(
                            f"{things.left_out:,} contacts were left out: they were forgotten here, and Autopilot has"
                            " them still."
                        )
            if scan.complete or scan.name == CONTACTS.name:
                state[scan.name] = self._new_mark(scan)
        for things in self._things.values():
            things.close()

    def _new_mark(self, scan: Scan) -> dict[str, Any]:
        """How far the scan is once this load is complete."""
        load_id = load_package_state()["load_id"]
        mark: dict[str, Any] = {"account": self._name, "started_at": scan.started_at, "load_id": load_id}
        if scan.name == CONTACTS.name and scan.spool:
            bookmark = None if scan.lost else scan.spool.bookmark
            mark |= {"page": scan.spool.last + 1, "bookmark": bookmark, "contacts": scan.contacts}
            mark["tables"] = sorted(self._scope())
        return mark


def _tables(scan: Scan) -> Iterable[Table]:
    group = GROUPS.get(scan.name)
    return (group.table, group.members) if group else (TABLES[scan.name],)
