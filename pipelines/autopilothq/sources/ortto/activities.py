"""Scans the activities of an account's people, for a whole run or a part of one (docs/contract/ortto-pull.md)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from ...catalog import PROFILES
from ...clients.ortto import Ortto
from ...disk import local_path
from ...errors import ApiError, InvalidSetting
from ...projection import DuePeople, People
from ...projection.context import TableRows
from ...segment.message import Batch
from ...segment.ortto import OrttoNames, OrttoReceipt
from ...utc import format_time
from ...warehouses.dataset import audit_row
from ...warehouses.hints import SOURCE
from ...warehouses.query import read_query
from ..due_people import due_people, is_query, lines_of_file
from ..scans import Scan, ScanBatch, TimeBudget
from .answers import Answers
from .feed import DuePerson, Feed, FeedScope
from .kinds import requested_kinds, selected_kinds
from .listed import Lookup
from .load import ACTIVE, EVERYBODY, OUT_OF_TIME, AccountLoad
from .pages import OutOfTime, Scanner
from .run import TIMES_LAG, Run, begin_run, drop_runs
from .search import LIST, MATCHED, WAYS, Found, Search, contact_of, time_field

ORTTO_SETTINGS = f"sources.{SOURCE}.ortto"
_LIBRARY = "ortto-api"
SCAN = "activities"  # the name of the scan
_MIN_PEOPLE = 10  # of at least this many people, the account should know one


class Account(NamedTuple):
    """An account to read. `has_times` is whether it has the times of last activities; None if that is unknown."""

    client: Ortto
    names: OrttoNames
    scanner: Scanner
    has_times: bool | None


@dataclass
class ActivityScan:
    """The scan of activities of one load. `stopped` is why it ended before all people who are due were handled."""

    load: AccountLoad
    url: str
    run: Run
    answers: Answers
    scan: Scan
    stopped: str | None = None
    people: People | None = None
    feed: Feed | None = field(default=None, init=False)

    @classmethod
    def plan(cls, load: AccountLoad, url: str) -> "ActivityScan":
        """Returns the scan of the run that is under way, or of a new one.

        Raises InvalidSetting, before anything is requested, if the file of people cannot be read.
        """
        pipeline, now = load.context.required_pipeline(), load.context.loaded_at
        if pipeline.load_id in load.dropped.values():
            drop_runs(load.home, load.account)
        run = begin_run(load.home, load.run_key, now, pipeline.complete_loads)
        _check_list(load.settings.people, run)
        answers = Answers(run.folder / "answers", run.loaded_segment)
        if PROFILES.name not in load.context.selected:
            load.warn(
                f"Expected {PROFILES.name} among the selected resources: it records whose activities were requested,"
                " and without it the next load requests them again.\nSelect it too."
            )
        begun, here = run.start.begun, _address(url, run)
        audited = audit_row(pipeline.dataset, here, begun)
        before = audited["lines"] if audited else 0
        return cls(load, url, run, answers, Scan(SCAN, here, begun, lines_before=before, audited=audited))

    def read(self, account: Account) -> Iterator[Batch]:
        """Yields the messages of the people who are due, as many as one load handles.

        Raises InvalidSetting. If this is the load's first scan, also raises the ApiError with which people could not be
        found or looked up, or which ended the requests before any response came. Otherwise such an error only ends the
        scan, with its text in `stopped`.
        """
        self.close()
        self.stopped = None
        try:
            kinds = requested_kinds(
                f"{ORTTO_SETTINGS}.activities", self.load.settings.activities, account.names.activities
            )
            selected = selected_kinds(kinds, self.load.context.selected)
            self.people = _due_people(self.load, self.run, account, selected)
            self.scan.url = _address(self.url, self.run)
            yield from self._read_feed(account, self.people, selected)
        except OutOfTime:
            self.stopped = OUT_OF_TIME
            yield ScanBatch(self.scan).batch(ended=True)
        except InvalidSetting:
            raise
        except ApiError as error:
            if self.scan.index == 0:
                raise
            self.stopped = self.load.context.report.cut_off = str(error)
            yield ScanBatch(self.scan).batch(ended=True)

    def skip(self, why: str) -> Batch:
        """Returns the last batch of the scan, for which nothing is requested because the load has stopped before it."""
        self.stopped = why
        return ScanBatch(self.scan).batch(ended=True)

    def close(self) -> None:
        """Frees the memory, and ends the segment of answers."""
        self.answers.close()
        if self.people is not None:
            self.people.close()
            self.people = None

    def _read_feed(self, account: Account, people: People, kinds: tuple[str, ...]) -> Iterator[Batch]:
        load, settings = self.load, self.load.settings
        scope = FeedScope(kinds, settings.since, load.context.suppressed)
        receipt = OrttoReceipt(_LIBRARY, self.run.start.begun, names=account.names, personal=settings.personal)
        feed = self.feed = Feed(
            self.scan, account.client, scope, receipt, self.answers, answered=people.note, progress=self._report_people
        )
        due = (DuePerson(contact_of(id_, about), until) for id_, until, about in people.take(settings.people_per_load))
        part = TimeBudget(settings.seconds_per_load)
        yield from feed.batches(due, lambda: part.is_over() or load.deadline.is_over())
        self._report(feed, people.due)

    def _report_people(self, asked: int) -> None:
        self.load.context.report.people = asked
        self.load.context.report_progress()

    def _report(self, feed: Feed, due: int) -> None:
        """Reports why the scan ended, and failed requests. If nothing came at all, raises the error that stopped it."""
        report = self.load.context.report
        if feed.stopped is not None:
            if self.scan.index == 0 and not self.scan.size and feed.asked == feed.failed:
                raise feed.stopped
            self.stopped = report.cut_off = str(feed.stopped)
        elif feed.failed:
            people = f"{feed.failed:,} of {feed.asked:,} people"
            self.load.warn(f"No answer could be read for {people}: they are due again next time. {feed.failure}")
        if feed.asked >= _MIN_PEOPLE and not feed.known and not feed.failed:
            self.load.warn(
                f"The account knows none of {feed.asked:,} people. Is {ORTTO_SETTINGS}.api_key the right one?"
            )
        if self.stopped is None and self.load.deadline.is_over() and feed.asked < due:
            self.stopped = OUT_OF_TIME

    def finish(self) -> Iterator[TableRows]:
        """Yields the rows of `_profiles`, and stores how far the run got, which counts once this load is complete."""
        report, load_id = self.load.context.report, self.load.context.required_pipeline().load_id
        retention = self.feed.retention_days if self.feed else None
        _warn_of_gap(self.load, self.run, retention or self.run.retention_days)
        complete = self.stopped is None and self.people is not None and report.people >= self.people.due
        self.run.write_cursor(load_id, self.answers.segment, complete, retention)
        if self.stopped is not None:
            report.unfinished[self.scan.url] = self.stopped
        if self.people is not None:
            yield self.people.rows(load_id)
        self.close()


def _due_people(load: AccountLoad, run: Run, account: Account, kinds: tuple[str, ...]) -> People:
    """Finds and returns the people whose activities are due to be requested. Raises OutOfTime and ApiErrors."""
    context = load.context
    # People who are found without a time of an activity count as active when the run began, so they are due.
    due = DuePeople(run.begun, TIMES_LAG, retry=load.settings.people == ACTIVE)
    key = f"ortto-{load.account}", load.scope_id
    people = due_people(context, key, _found_people(load, run, account, kinds), due)
    context.report.people_total = people.due
    context.report.people_found_by = WAYS.get(run.start.way)
    context.report_progress()
    return people


def _found_people(load: AccountLoad, run: Run, account: Account, kinds: tuple[str, ...]) -> Iterator[list[Found]]:
    people = load.settings.people
    if people in (ACTIVE, EVERYBODY):
        times = [time_field(kind) for kind in kinds]
        known = [field_id for field_id in times if ("", field_id) in account.names.attributes]
        search = Search(run, account.scanner, known or times, load.warn)
        search.has_times = account.has_times
        yield from search.everyone() if people == EVERYBODY else search.active(load.settings.since)
    else:
        yield from Lookup(run, account.scanner, load.warn).found(lambda: _values(people))


def _warn_of_gap(load: AccountLoad, run: Run, days: int) -> None:
    """Warns if the last complete run, or `since`, is longer ago than the `days` for which activities are kept."""
    if run.is_continued or load.settings.people not in (ACTIVE, EVERYBODY):
        return
    kept, since = run.begun - timedelta(days=days), run.since or load.settings.since
    if since and since < kept:
        what = "No run was complete since" if run.since else "Activities were requested since"
        load.warn(
            f"{what} {format_time(since)}, and Ortto keeps activities for {days} days: those between"
            f" {format_time(since)} and {format_time(kept)} are missing, except those that came in another way."
        )


def _address(url: str, run: Run) -> str:
    """Returns the address of activities; its fragment is the way in which people are found, if that is known."""
    return f"{url}#{run.start.way}" if run.start.way else url


def _check_list(people: str, run: Run) -> None:
    """Raises InvalidSetting if the people's file cannot be read, unless an earlier load has read it for the run."""
    if people in (ACTIVE, EVERYBODY) or is_query(people):
        return
    path = Path(local_path(people))
    is_read = run.start.way != MATCHED and run.spool(LIST).complete
    if not is_read and (path.is_file() or not path.exists()):  # a pipe can be read only once
        deque(_values(people), maxlen=0)


def _values(people: str) -> Iterator[str]:
    """Yields the values of a list: the first column of a query's rows, or the lines of a file."""
    if not is_query(people):
        yield from lines_of_file(Path(local_path(people)), "ids or emails")
        return
    for rows in read_query(people):
        yield from (str(row[0]).strip() for row in rows if row[0] is not None and str(row[0]).strip())
