"""Autopilot's own API as an origin and a dlt source: email events from contacts, and the account's other records."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlt
from dlt import Schema
from dlt.sources import DltResource

from ...catalog import ACCOUNT, CONTACTS, TABLES, TRACKS, Table
from ...clients.autopilot import BASE_URL, REQUESTS_PER_SECOND, Autopilot
from ...clients.settings import MAX_ATTEMPTS, TIMEOUT
from ...display import plural
from ...errors import ApiError, Unavailable
from ...projection.context import TableRows
from ...segment.json_text import JsonObject
from ...segment.message import Batch
from ...utc import format_time
from ...warehouses.dataset import connected, first_event_of_others
from ...warehouses.hints import SOURCE
from ..dropped import dropped_before
from ..origin import LoadContext, Origin, planned
from ..plan import LoadSettings
from ..report import ProgressCallback, no_progress
from ..resources import resources
from ..scans import Scan, ScanBatch, ScannedRecords
from ..settings import RequestSettings, Time, check_origin_settings
from ..times import read_period
from ..user_hints import replaced_resources
from . import scan as scans
from .contacts import LIBRARY, Window
from .scan import CONTACT_GROUPS, Deadline, ScanInterrupted, ScanScope, concerns_one_scan
from .scan_plan import EVENT_RESOURCES, SINGLE_RESPONSES, ScanPlan, tables_of_scan

SCAN_FOLDER = "autopilothq-scan"  # the folder of the spools, in the pipeline's working folder


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
    since: Time | None = None,
    until: Time | None = None,
    table_format: str | None = None,
    memory: int = 400,
    progress: ProgressCallback = no_progress,
) -> Iterable[DltResource]:
    """Returns Autopilot's API as a dlt source: email events, contacts, lists, segments, custom fields, triggers.

    Args:
        api_key: The account's key, from dlt's secrets.
        base_url: The API's address.
        requests_per_second: The highest rate of requests, of all scans in this process together.
        timeout: Seconds without data after which a request times out.
        tries: How often a request is tried before the scan is interrupted.
        allow_http: Whether the key may be sent over plain http to another machine.
        max_seconds: How long pages are fetched. Pages that came by then are loaded; the next run continues from there.
        user_id_field: The custom field that holds your own id of a contact.
        since: The time of the first event to load (ISO 8601; UTC if it has no zone).
        until: The time before which events end: where those of an archive begin.
        table_format: dlt's table format in a lake, `delta`. None leaves it to the destination.
        memory: What the engine, DuckDB in process, may use before it spills to disk, in MB.
        progress: Called with the `LoadReport` after each page.

    Example: `pipeline.run(api(until="2019-03-01").with_resources("email_opened", "contacts"))`.
    """
    check_origin_settings("api", memory=memory, max_seconds=max_seconds)
    client = RequestSettings(base_url, requests_per_second, timeout, tries, allow_http).autopilot(api_key)
    window = Window(*read_period(since, until))
    account = hashlib.sha256(f"{base_url}\n{api_key}".encode()).hexdigest()[:12]  # it does not reveal the key
    origin = AutopilotApi(client, base_url.rstrip("/"), account, user_id_field, window, max_seconds)
    return resources(origin, LoadSettings(memory // 2, memory // 2, progress, table_format))


@dataclass
class _Run(ScannedRecords):
    """The scans of one load, and what they find."""

    plan: ScanPlan
    scope: ScanScope
    deadline: Deadline

    def report_contacts(self, scan: Scan) -> None:
        """Reports how many contacts a scan has read."""
        self.context.report.contacts, self.context.report.contacts_total = scan.contacts, scan.total
        self.context.report_progress()

    def fail(self, scan: Scan, why: str) -> None:
        """Reports a scan that fails while the others continue."""
        self.context.report.failed[scan.name] = why
        self.warn(f"{scan.name} could not be loaded: {why}")


@dataclass
class AutopilotApi(Origin[Scan]):
    """An account of Autopilot; `account` is a digest that identifies it.

    The events of `window` are loaded. Pages are fetched for at most `max_seconds`.
    """

    client: Autopilot
    base_url: str
    account: str
    user_id_field: str | None = None
    window: Window = field(default_factory=Window)
    max_seconds: float | None = None
    _run: _Run | None = field(init=False, default=None)

    tables = tuple(table.name for table in (*EVENT_RESOURCES, *ACCOUNT))

    def plan(self, context: LoadContext) -> Sequence[Scan]:
        """Returns the scans that the selected tables need."""
        deadline = Deadline(self.max_seconds)
        pipeline = context.required_pipeline()
        dataset = pipeline.dataset
        with connected(dataset):
            dataset.tables([table.name for table in (TRACKS, *ACCOUNT)])
        folder, now = Path(pipeline.working_folder, SCAN_FOLDER), format_time(context.loaded_at)
        dropped = dropped_before(context.selected & {*self.tables}, pipeline.load_id, dataset.name)
        plan = ScanPlan(
            self.account,
            self.base_url,
            folder,
            context.selected,
            now,
            pipeline.complete_loads,
            lost={table for table, load_id in dropped.items() if load_id == pipeline.load_id},
            replaced=replaced_resources(),
            dropped=dropped,
        )
        scope = ScanScope(plan.has(*EVENT_RESOURCES), plan.has(CONTACTS), self.user_id_field, self.window)
        run = self._run = _Run(context, plan, scope, deadline)
        if scope.events and self.window.until is None:
            _warn_of_archive(run)
        run.scans = plan.scans()
        return run.scans

    def read(self, work: Sequence[Scan]) -> Iterator[Batch]:
        """Yields the messages of all scans, and keeps their records. What an interrupted scan has read is loaded.

        An error that concerns one scan fails only that scan. Raises ApiError if the key is wrong, the first scan gets
        no response, or every scan fails.
        """
        run = planned(self._run)
        report = run.context.report
        run.begin_reading()
        with self.client:
            _warn_of_missing_field(run, self.client)
            for scan in work:
                if report.cut_off is None:
                    yield from self._read_scan(run, scan, work)
                else:
                    yield ScanBatch(scan).batch(ended=True, unfinished=report.cut_off)

    def _read_scan(self, run: _Run, scan: Scan, work: Sequence[Scan]) -> Iterator[Batch]:
        """Yields the batches of a scan; the last one has the reason if another load must continue the scan."""
        report, why = run.context.report, None
        try:
            for part in self._scan(run, scan):
                run.keep_records(part)
                yield part.batch()
        except ScanInterrupted as error:
            why = str(error)
            scan.lost = error.lost
            if error.alone:
                run.fail(scan, why)
            elif error.failed:
                report.cut_off = why
        except ApiError as error:
            why = str(error)
            if concerns_one_scan(error):
                run.fail(scan, why)
                if len(report.failed) == len(work):
                    raise
            elif isinstance(error, Unavailable) and scan is not work[0]:
                report.cut_off = why
            else:
                raise
        yield ScanBatch(scan).batch(ended=True, unfinished=why)

    def _scan(self, run: _Run, scan: Scan) -> Iterator[ScanBatch]:
        if scan.spool is None:
            return iter([scans.single_response(scan, TABLES[scan.name], SINGLE_RESPONSES[scan.name](self.client))])
        common = scan, scan.spool, self.client, run.deadline
        if scan.name == CONTACTS.name:
            return scans.scan_contacts(*common, run.scope, lambda: run.report_contacts(scan))
        group = CONTACT_GROUPS[scan.name]
        return scans.scan_group(*common, group, run.plan.folder / scan.name if run.plan.has(group.members) else None)

    def finish(self, context: LoadContext) -> Iterator[TableRows]:
        """Yields the rows of contacts and of the tables whose scan is complete; stores the cursors."""
        run = planned(self._run)
        load_id = context.required_pipeline().load_id
        for scan in run.scans:
            for table in tables_of_scan(scan):
                if table.name in context.selected and (scan.complete or table is CONTACTS):
                    yield from _rows(run, scan, table)
            if scan.complete or scan.name == CONTACTS.name:
                run.plan.write_cursor(scan, load_id)
        run.close()


def _rows(run: _Run, scan: Scan, table: Table) -> Iterator[TableRows]:
    """Yields the rows of a table, and their discards; after a complete scan also rows of deleted contacts."""
    snapshot = run.snapshot_of(table.name, scan)
    dataset = run.context.required_pipeline().dataset
    read = dataset.read if scan.complete and table is CONTACTS else None
    newer = dataset.read if table is CONTACTS else None  # hooks bring contacts while a scan runs
    yield from snapshot.rows_with_discards(run.context.existing_columns(table.name), read, newer)
    if table is CONTACTS and snapshot.left_out:
        run.warn(
            plural(snapshot.left_out, "contact was", "contacts were")
            + " left out: deleted here, and still in Autopilot."
        )


def _warn_of_archive(run: _Run) -> None:
    first = first_event_of_others(run.context.required_pipeline().dataset, LIBRARY)
    if first is not None:
        since = first.isoformat().replace("+00:00", "Z")
        run.warn(
            f"This dataset has events of an archive, from {since} on. The API's events have other ids: what"
            f" happened since then will be there twice. Say where they end: --until {since}"
        )


def _warn_of_missing_field(run: _Run, client: Autopilot) -> None:
    requested = run.scope.user_id_field
    fields: list[Any] = []
    if run.scope.events and requested:
        with suppress(ApiError):
            fields = client.custom_fields()
    names = [field.value("name") for field in fields if isinstance(field, JsonObject)]
    if fields and requested not in names:
        run.warn(
            f"The account has no custom field {requested!r}: its events get no user id, and keep none."
            f" It has {', '.join(map(repr, names))}."
        )
