"""A space of Segment Unify as an origin: a load requests the events of a run's people, or of some of them."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ...catalog import PROFILES
from ...clients.autopilot import Autopilot
from ...clients.profile_api import ProfileApi
from ...disk import local_path
from ...display import plural
from ...errors import InvalidSetting, Unavailable
from ...projection import DuePeople, People
from ...projection.context import TableRows
from ...segment.message import Batch
from ...utc import format_time
from ...warehouses.dataset import audit_row, connected
from ...warehouses.hints import SOURCE
from ...warehouses.query import read_query
from ..cursors import MAX_AHEAD, read_cursor, write_cursor
from ..due_people import dropped_events, due_people, is_query
from ..origin import MESSAGE_RESOURCES, LoadContext, Origin, planned
from ..scans import Scan
from ..settings import RequestSettings, short_digest
from ..spool import ScanStart, Spool
from .events import RETENTION, DueProfile, EventScope
from .people import Person, people_of_contacts, people_of_file, profile_id
from .pull import Pull

SETTINGS = f"sources.{SOURCE}.profiles"
PEOPLE_FOLDER = "autopilothq-people"  # the folder of contacts, in the pipeline's working folder
MAX_RUN_AGE = RETENTION / 2  # an older run is not continued, because the events of its first people are due again
MAX_SCAN_AGE = timedelta(days=1)  # a younger scan of contacts is used again; the next run finds later changes
LOOKBACK = timedelta(hours=1)  # both a contact's record and the space lag behind the activity
MIN_PEOPLE_TO_WARN = 10  # of this many people, the space should know at least one
_CURSORS = "pulls"  # the key of the cursors in dlt's state of the source


class Contacts(NamedTuple):
    """The account of Autopilot whose contacts are the people; `account` is a digest that identifies it."""

    client: Autopilot
    account: str


@dataclass
class _Run:
    """One load of a run that began at `begun`; `cursor` is what complete loads left of the last run."""

    context: LoadContext
    begun: datetime
    cursor: dict[str, Any]
    people: People
    pull: Pull | None = None


@dataclass
class Space(Origin[Scan]):
    """The people of a space, and the scope of the events that are requested for them.

    The next load continues a run that is not complete, wherever it ended: it requests nothing again for people whom
    complete loads have handled since the run began. So a long run can be many loads, and a kill loses only the last
    one. `people` is the setting of that name; if it is `api`, people come from `contacts`. One load handles at most
    `people_per_load` people.
    """

    client: ProfileApi
    requests: RequestSettings
    name: str
    people: str
    scope: EventScope
    contacts: Contacts | None = None
    people_per_load: int | None = None
    _run: _Run | None = field(init=False, default=None)
    _left_out: frozenset[str] = field(init=False, default=frozenset())
    _dropped: dict[str, str] = field(init=False, default_factory=dict)

    tables = (PROFILES.name, *MESSAGE_RESOURCES)

    @property
    def url(self) -> str:
        """The space's address, which `_audit` shows as its file."""
        return f"{self.requests.base_url.rstrip('/')}/spaces/{self.name}"

    @property
    def scope_id(self) -> str:
        """A digest of the requested events, `since`, the tables that are not selected, and those that were dropped.

        A watermark holds only for one scope, because it says nothing about what the scope leaves out.
        """
        since = [self.scope.since.isoformat()] if self.scope.since else []
        left_out = [sorted(self._left_out)] if self._left_out else []
        dropped = [sorted(self._dropped.items())] if self._dropped else []
        return short_digest(sorted(self.scope.names), self.scope.source_id, *since, *left_out, *dropped)

    @property
    def run_id(self) -> str:
        """A digest of what a run covers: the next load with the same digest continues it, or warns of a gap."""
        return short_digest(self.url, self.scope_id, self.people)

    def plan(self, context: LoadContext) -> Sequence[Scan]:
        """Returns the run as one scan, and reports how many people are due."""
        pipeline = context.required_pipeline()
        dataset = pipeline.dataset
        why = "the Profile API only has the events of the last 14 days"
        self._dropped = dropped_events(context, MESSAGE_RESOURCES, why)
        if pipeline.load_id in self._dropped.values():
            shutil.rmtree(pipeline.working_folder / PEOPLE_FOLDER, ignore_errors=True)  # those runs are not continued
        self._left_out = frozenset(MESSAGE_RESOURCES) - context.selected
        now = context.loaded_at
        cursor = read_cursor(_CURSORS, self.run_id, pipeline.complete_loads, now)
        last_begun = datetime.fromisoformat(cursor["begun"]) if cursor else now
        is_continued = bool(cursor) and not cursor["complete"] and now - last_begun < MAX_RUN_AGE
        begun = last_begun if is_continued else now
        if cursor and not is_continued:
            _warn_of_gap(context, cursor)
        self._run = _Run(context, begun, cursor, self._due_people(context, begun))
        context.report.people_total = self._run.people.due
        with connected(dataset):
            audited = audit_row(dataset, self.url, format_time(begun))
        lines = audited["lines"] if audited else 0
        return [Scan("profiles", self.url, format_time(begun), lines_before=lines, audited=audited)]

    def _due_people(self, context: LoadContext, begun: datetime) -> People:
        due = DuePeople(begun, LOOKBACK if self.people == "api" else None)
        return due_people(context, (self.name, self.scope_id), self._found_people(context), due)

    def _found_people(self, context: LoadContext) -> Iterator[Sequence[Person]]:
        """Yields all people in chunks. Raises InvalidSetting for a query of several columns."""
        pipeline = context.required_pipeline()
        if self.contacts is not None:
            spool = _spool(
                pipeline.working_folder / PEOPLE_FOLDER / self.run_id, self.contacts.account, context.loaded_at
            )
            with self.contacts.client as client:
                yield from people_of_contacts(spool, client, context.report_progress)
        elif is_query(self.people):
            for rows in read_query(self.people):
                if len(rows[0]) != 1:
                    raise InvalidSetting(f"{SETTINGS}.people: expected a query with one column, got {len(rows[0])}")
                ids = (profile_id(str(row[0])) for row in rows if row[0] is not None)
                yield [Person(known) for known in ids if known]
        else:
            yield from people_of_file(Path(local_path(self.people)))

    def read(self, work: Sequence[Scan]) -> Iterator[Batch]:
        """Yields the messages of the people who are due, up to `people_per_load`."""
        run = planned(self._run)
        if run.pull is not None:
            run.people.close()
            run.people = self._due_people(run.context, run.begun)
            work[0].begin_reading()

        def report_people() -> None:
            run.context.report.people = pull.asked
            run.context.report_progress()

        due = (DueProfile(id_, until) for id_, until, _ in run.people.take(self.people_per_load))
        threads = min(self.requests.requests_per_second, run.people.due)
        pull = run.pull = Pull(work[0], self.client, self.scope, threads, run.people.note, report_people)
        with self.client:
            yield from pull.batches(due)
        self._report(run.context, pull)

    def _report(self, context: LoadContext, pull: Pull) -> None:
        """Reports why the run stopped, and for how many people no response could be read."""
        if pull.stopped is not None:
            context.report.cut_off = str(pull.stopped)
        elif pull.failed:
            people = f"{pull.failed:,} of {plural(pull.asked, 'person', 'people')}"
            context.warn(f"No answer could be read for {people}: they are due again next time. {pull.failure}")
            if pull.failed == pull.asked and isinstance(pull.failure, Unavailable):
                context.report.cut_off = str(pull.failure)
        if pull.asked >= MIN_PEOPLE_TO_WARN and not pull.known and not pull.failed:
            context.warn(
                f"The space {self.name} knows none of {pull.asked:,} people. Is {SETTINGS}.space the right one?"
            )

    def finish(self, context: LoadContext) -> Iterator[TableRows]:
        """Yields the rows of `_profiles`, and stores how far the run got, which counts once this load is complete."""
        run, pipeline, report = planned(self._run), context.required_pipeline(), context.report
        stopped = run.pull is None or run.pull.stopped is not None
        complete = not stopped and report.people >= (report.people_total or 0)
        if complete:
            shutil.rmtree(pipeline.working_folder / PEOPLE_FOLDER / self.run_id, ignore_errors=True)
        begun = format_time(run.begun)
        since = begun if complete or not run.cursor else run.cursor["since"]
        cursor = {"begun": begun, "complete": complete, "since": since, "load_id": pipeline.load_id}
        write_cursor(_CURSORS, self.run_id, cursor, run.cursor)
        yield run.people.rows(pipeline.load_id)
        run.people.close()


def _warn_of_gap(context: LoadContext, cursor: dict[str, Any]) -> None:
    since, kept = datetime.fromisoformat(cursor["since"]), context.loaded_at - RETENTION
    if since < kept:
        context.warn(
            f"No run was complete since {format_time(since)}, and the API goes back 14 days: events between"
            f" {format_time(since)} and {format_time(kept)} are missing, except those that came in another way."
        )


def _spool(folder: Path, account: str, now: datetime) -> Spool:
    """Returns the spool of an account's contacts: the one on this machine if it is young enough, or a new one."""
    spool = Spool.open(folder)
    if spool is not None and spool.start.account == account:
        age = now - datetime.fromisoformat(spool.start.started_at)
        if -MAX_AHEAD <= age <= MAX_SCAN_AGE:
            return spool
    return Spool.begin(folder, ScanStart(account, format_time(now)))
