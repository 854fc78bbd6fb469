"""Plans which scans a load of an account needs, and where each begins: anew, or where an earlier load stopped."""

import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ...catalog import CONTACTS, CUSTOM_FIELDS, EVENT_TABLES, TABLES, TRACKS, TRIGGERS, Table
from ...clients.autopilot import Autopilot
from ..cursors import MAX_AHEAD, read_cursor, write_cursor
from ..scans import Scan
from ..spool import ScanStart, Spool
from .scan import CONTACT_GROUPS

EVENT_RESOURCES = (*EVENT_TABLES, TRACKS)
SINGLE_RESPONSES = {CUSTOM_FIELDS.name: Autopilot.custom_fields, TRIGGERS.name: Autopilot.triggers}
"""The tables that the API returns in a single response, with the requests for them."""
_CURSORS = "scans"  # the key of the cursors in dlt's state of the source
_MAX_SCAN_AGE = timedelta(days=7)  # a scan that is older, and not loaded at all, no longer shows the account's state


@dataclass(frozen=True)
class ScanPlan:
    """Decides which scans a load makes.

    `account` is a digest that identifies the account. `folder` has the spools of earlier loads. `now` is when the load
    began (RFC 3339). `complete_loads` are the ids of the loads whose cursors count. The tables `lost` were dropped or
    emptied since the last load, or dlt will drop or empty them before it loads the rows. In the tables `replaced`, dlt
    will replace all rows. `dropped` is what `dropped_before` returns: no scan from before a drop is continued.
    """

    account: str
    base_url: str
    folder: Path
    selected: frozenset[str]
    now: str
    complete_loads: Collection[str]
    lost: Collection[str] = frozenset()
    replaced: Collection[str] = frozenset()
    dropped: Mapping[str, str] = field(default_factory=dict)

    def has(self, *tables: Table) -> bool:
        """Returns whether any of the tables is selected."""
        return any(table.name in self.selected for table in tables)

    def tables_of_contacts(self) -> set[str]:
        """Returns the selected tables that are made of contacts."""
        return {table.name for table in (*EVENT_RESOURCES, CONTACTS) if table.name in self.selected}

    def scans(self) -> list[Scan]:
        """Returns the scans that the selected tables need."""
        found = [self._scan_of_contacts()] if self.tables_of_contacts() else []
        found += [self._scan_of_group(name) for name, of in CONTACT_GROUPS.items() if self.has(of.table, of.members)]
        found += [Scan(name, self._url(name), self.now) for name in SINGLE_RESPONSES if name in self.selected]
        # The scan that began earliest comes first; otherwise the budget of time might always be spent before its turn.
        found.sort(key=lambda scan: scan.started_at)
        for index, scan in enumerate(found):
            scan.index = index
        return found

    def _url(self, name: str) -> str:
        return f"{self.base_url}/{'contacts/custom_fields' if name == CUSTOM_FIELDS.name else name}"

    def _cursor(self, name: str) -> dict[str, Any]:
        """Returns the cursor that complete loads left of the account's last scan `name`; empty if there is none."""
        now = datetime.fromisoformat(self.now)
        return read_cursor(_CURSORS, name, self.complete_loads, now, account=self.account, **self._dropped_of(name))

    def _dropped_of(self, name: str) -> dict[str, Any]:
        """Returns the part of the cursor of contacts that lists the dropped tables; empty for other scans."""
        dropped = {table: self.dropped[table] for table in self.tables_of_contacts() & self.dropped.keys()}
        return {"dropped": dropped or None} if name == CONTACTS.name else {}

    def _scan_of_contacts(self) -> Scan:
        is_anew = bool(self.tables_of_contacts() & {*self.lost, *self.replaced})
        folder, cursor = self.folder / CONTACTS.name, {} if is_anew else self._cursor(CONTACTS.name)
        spool = Spool.open(folder)
        if spool and (is_anew or self._is_stale(spool, cursor)):
            spool.delete()
            spool = None
        if spool and spool.last == 0:
            spool = None  # the scan began, but got no page
        if spool is None:
            spool = Spool.begin(folder, self._start_of_contacts(cursor))
        start = spool.start
        first, before = start.page, start.contacts
        if cursor and cursor["started_at"] == start.started_at:
            spool.drop(cursor["page"])
            first, before = cursor["page"], cursor["contacts"]
        url = self._url(CONTACTS.name)
        return Scan(CONTACTS.name, url, start.started_at, spool=spool, first=first, contacts_before=before)

    def _start_of_contacts(self, cursor: dict[str, Any]) -> ScanStart:
        """Returns where a scan without a spool begins: after the cursor if that covers all tables, or at page 1."""
        if cursor and cursor["bookmark"] is not None and self.tables_of_contacts() <= set(cursor["tables"]):
            begun = cursor["started_at"], cursor["page"], cursor["bookmark"], cursor["contacts"]
            return ScanStart(self.account, *begun)
        return ScanStart(self.account, self.now)

    def _is_stale(self, spool: Spool, cursor: dict[str, Any]) -> bool:
        """Returns whether a spool's pages are loaded already, or of another account, or cannot be continued."""
        start = spool.start
        if start.account != self.account:
            return True
        if not cursor or cursor["started_at"] < start.started_at:
            return spool.first > 1 or self._is_old(spool)  # the spool no longer has the pages before its first one
        if cursor["started_at"] > start.started_at or cursor["bookmark"] is None or cursor["page"] < spool.first:
            return True
        other_tables = cursor["page"] > start.page and not self.tables_of_contacts() <= set(cursor["tables"])
        return spool.last + 1 < cursor["page"] or other_tables

    def _is_old(self, spool: Spool) -> bool:
        began, now = map(datetime.fromisoformat, (spool.start.started_at, self.now))
        return not -MAX_AHEAD <= now - began <= _MAX_SCAN_AGE

    def _scan_of_group(self, name: str) -> Scan:
        folder, cursor, of = self.folder / name, self._cursor(name), CONTACT_GROUPS[name]
        spool = Spool.open(folder / "index")
        if spool is not None:
            is_loaded = bool(cursor) and cursor["started_at"] >= spool.start.started_at
            # Perhaps not, but the cursor that would show it is lost as well.
            is_loaded |= bool({of.table.name, of.members.name} & {*self.lost})
            if spool.start.account != self.account or is_loaded or self._is_old(spool):
                shutil.rmtree(folder)
                spool = None
        spool = spool or Spool.begin(folder / "index", ScanStart(self.account, self.now))
        return Scan(name, self._url(name), spool.start.started_at, spool=spool)

    def write_cursor(self, scan: Scan, load_id: str) -> None:
        """Stores how far a scan got; the cursor counts once the load `load_id` is complete."""
        cursor: dict[str, Any] = {"account": self.account, "started_at": scan.started_at, "load_id": load_id}
        if scan.name == CONTACTS.name and scan.spool:
            bookmark = None if scan.lost else scan.spool.bookmark
            cursor |= {"page": scan.spool.last + 1, "bookmark": bookmark, "contacts": scan.contacts}
            cursor["tables"] = sorted(self.tables_of_contacts())
            cursor |= {name: dropped for name, dropped in self._dropped_of(scan.name).items() if dropped}
        write_cursor(_CURSORS, scan.name, cursor, self._cursor(scan.name))


def tables_of_scan(scan: Scan) -> Iterable[Table]:
    """Returns the snapshot tables that a scan fills."""
    group = CONTACT_GROUPS.get(scan.name)
    return (group.table, group.members) if group else (TABLES[scan.name],)
