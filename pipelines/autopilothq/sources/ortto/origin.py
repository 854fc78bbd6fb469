"""An account of Ortto as an origin: the activities of its people, and the account's other records."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...catalog import ORTTO_ACCOUNT, ORTTO_AUDIENCE_MEMBERS, ORTTO_PEOPLE, PROFILES, TRACKS
from ...clients.ortto import Ortto
from ...display import plural
from ...errors import RequestRejected, Unavailable, UnexpectedResponse
from ...projection.context import TableRows
from ...segment.message import Batch
from ...segment.ortto import OrttoNames, names_of_schema
from ...utc import format_time
from ...warehouses.dataset import connected
from ..due_people import dropped_events
from ..origin import LoadContext, Origin, planned
from ..scans import Scan, ScanBatch, TimeBudget
from .activities import Account, ActivityScan
from .load import ORTTO_EVENT_RESOURCES, OUT_OF_TIME, AccountLoad, PullSettings
from .pages import OutOfTime, Scanner
from .records import PARTS, RecordScans, note_loaded, plan_scans


@dataclass
class OrttoPull(Origin[Scan]):
    """An account of Ortto and the activities of its people; `account` is a digest that identifies it.

    The next load continues a run that is not complete, wherever it ended. It requests nothing again for people whom
    complete loads have handled since the run began, or whose responses are on this machine.
    """

    client: Ortto
    base_url: str
    account: str
    settings: PullSettings
    _load: AccountLoad | None = field(init=False, default=None)
    _activities: ActivityScan | None = field(init=False, default=None)

    tables = (PROFILES.name, *ORTTO_EVENT_RESOURCES, *(table.name for table in ORTTO_ACCOUNT))

    def plan(self, context: LoadContext) -> Sequence[Scan]:
        """Returns the scans that the selected tables need, the one of activities last."""
        with connected(context.required_pipeline().dataset):
            return self._plan(context)

    def _plan(self, context: LoadContext) -> Sequence[Scan]:
        pipeline = context.required_pipeline()
        pipeline.dataset.tables([table.name for table in (TRACKS, *ORTTO_ACCOUNT)])
        dropped = dropped_events(context, ORTTO_EVENT_RESOURCES, "Ortto only has the activities of the last months")
        load = self._load = AccountLoad(
            context, self.account, self.settings, TimeBudget(self.settings.max_seconds), dropped
        )
        now = format_time(context.loaded_at)
        folder, complete = load.scans_folder, pipeline.complete_loads
        scans = plan_scans(self.account, self.base_url, folder, context.selected, now, complete)
        self._activities = None
        if load.has_events:
            self._activities = ActivityScan.plan(load, f"{self.base_url}/person/get/activities")
            scans.append(self._activities.scan)
        for index, scan in enumerate(scans):
            scan.index = index
        load.scans = scans
        return scans

    def read(self, work: Sequence[Scan]) -> Iterator[Batch]:
        """Yields the messages of people's activities, and keeps the records of all other scans.

        Raises Unavailable if the first scan gets no response, and NotAuthorized if the key is refused.
        """
        load = planned(self._load)
        load.begin_reading()
        with self.client:
            names = self._names(load)
            scanner = Scanner(self.client, load.deadline, load.warn, load.report_contacts)
            records = RecordScans(scanner, load.scans_folder, names)
            for scan in work:
                if self._activities is None or scan is not self._activities.scan:
                    yield from _records(load, scan, records)
                elif (why := load.context.report.cut_off) is not None:
                    yield self._activities.skip(why)
                else:
                    yield from self._activities.read(Account(self.client, names, scanner, records.has_times))

    def _names(self, load: AccountLoad) -> OrttoNames:
        """Returns the account's names of activities and fields; if they cannot be read, warns and returns none."""
        try:
            return names_of_schema(self.client.instance_schema())
        except (RequestRejected, UnexpectedResponse) as error:
            load.warn(f"The account does not return the names of its fields, so ids are used instead. {error}")
            return OrttoNames()

    def finish(self, context: LoadContext) -> Iterator[TableRows]:
        """Yields the rows of the scans that are complete, and those of `_profiles`; stores the cursors."""
        load, load_id = planned(self._load), context.required_pipeline().load_id
        for scan in load.scans:
            if scan.complete:
                for table in PARTS[scan.name].tables:
                    if table.name in context.selected:
                        yield from _rows(load, scan, table.name)
                note_loaded(self.account, scan, load_id)
        if self._activities is not None:
            yield from self._activities.finish()
        load.close()


def _records(load: AccountLoad, scan: Scan, records: RecordScans) -> Iterator[Batch]:
    """Yields the rejects of a scan of records, and keeps its records."""
    report = load.context.report
    why = report.cut_off
    if why is None:
        members = ORTTO_AUDIENCE_MEMBERS.name in load.context.selected
        try:
            for part in records.read(scan, members):
                load.keep_records(part)
                yield part.batch()
        except OutOfTime:
            why = OUT_OF_TIME
        except Unavailable as error:
            if scan.index == 0:
                raise
            why = report.cut_off = str(error)
        except (RequestRejected, UnexpectedResponse) as error:
            why = str(error)
            tables = ", ".join(table.name for table in PARTS[scan.name].tables if table.name in load.context.selected)
            load.warn(f"{tables} could not be read, and stays as it is. {error}")
    yield ScanBatch(scan).batch(ended=True, unfinished=why)


def _rows(load: AccountLoad, scan: Scan, table: str) -> Iterator[TableRows]:
    """Yields the rows of a table, and their discards; for people, also the rows of those who were deleted."""
    snapshot, context = load.snapshot_of(table, scan), load.context
    read = context.required_pipeline().dataset.read if table == ORTTO_PEOPLE.name else None
    yield from snapshot.rows_with_discards(context.existing_columns(table), read)
    if table == ORTTO_PEOPLE.name and snapshot.left_out:
        load.warn(
            plural(snapshot.left_out, "person was", "people were") + " left out: deleted here, and still in Ortto."
        )
