"""One load of an account of Ortto: what it requests, and its state while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from typing import NamedTuple

from ...catalog import EVENT_TABLE_NAMES, EVENTS_RESOURCE, TRACKS
from ..scans import ScannedRecords, TimeBudget
from ..settings import short_digest
from .run import RUN_FOLDER, RunKey

ACTIVE, EVERYBODY = "active", "all"
"""Values of the setting `people` other than a file or a query."""
OUT_OF_TIME = "the time of max_seconds was up"
ORTTO_EVENT_RESOURCES = (*EVENT_TABLE_NAMES, TRACKS.name, EVENTS_RESOURCE)


class PullSettings(NamedTuple):
    """What to request, and how much at a time.

    `people` is `active`, `all`, a file or a query; `activities` are kinds besides the usual ones. If `personal`, the
    texts of replies and addresses are kept. One load handles at most `people_per_load` people, and requests their
    activities for at most `seconds_per_load`; nothing is fetched after `max_seconds`.
    """

    people: str = ACTIVE
    activities: tuple[str, ...] = ()
    since: datetime | None = None
    personal: bool = False
    people_per_load: int | None = None
    seconds_per_load: float = inf
    max_seconds: float = inf


@dataclass
class AccountLoad(ScannedRecords):
    """One load of an account: its budget of time, its scans, and the records that they find.

    `account` is a digest that identifies the account. `dropped` has, for each table of events that was dropped, the
    last load before which that happened; what was requested earlier does not count.
    """

    account: str
    settings: PullSettings
    deadline: TimeBudget
    dropped: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder of runs and scans."""
        return self.context.required_pipeline().working_folder / RUN_FOLDER

    @property
    def scans_folder(self) -> Path:
        """The folder of the spools of scans."""
        return self.home / f"scans-{self.account}"

    @property
    def has_events(self) -> bool:
        """Whether tables of events are selected."""
        return bool(self.context.selected & set(ORTTO_EVENT_RESOURCES))

    @property
    def scope_id(self) -> str:
        """A digest of the requested activities, `since`, the selected tables, and those that were dropped.

        A watermark holds only for one scope, because it says nothing about what the scope leaves out. With `tracks`
        everything is requested, but tables that are not selected get no rows.
        """
        tables, selected = set(ORTTO_EVENT_RESOURCES), self.context.selected
        tables = {TRACKS.name} | (tables - selected) if TRACKS.name in selected else tables & selected
        since = self.settings.since.isoformat() if self.settings.since else None
        dropped = [sorted(self.dropped.items())] if self.dropped else []
        return short_digest(sorted(tables), sorted(self.settings.activities), since, *dropped)

    @property
    def run_key(self) -> RunKey:
        """The key that distinguishes the run of this load from others."""
        people = self.settings.people
        names = {name: short_digest(self.account, self.scope_id, name) for name in (people, EVERYBODY)}
        return RunKey(self.account, names[people], (names[EVERYBODY],) if people == ACTIVE else ())

    def begin_reading(self) -> None:
        """Drops what an earlier reading of the same scans found."""
        super().begin_reading()
        self.context.report.contacts = 0

    def report_contacts(self, count: int, total: int | None) -> None:
        """Reports how many people a scan has read, and how many there are."""
        self.context.report.contacts = count
        self.context.report.contacts_total = total
        self.context.report_progress()
