"""Segment's Profile API as a dlt source: complete email events, person by person."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import dlt
from dlt import Schema
from dlt.sources import DltResource

from ...catalog import MAX_EVENT_TABLES, PROFILES
from ...clients.autopilot import BASE_URL, Autopilot
from ...clients.autopilot import REQUESTS_PER_SECOND as AUTOPILOT_PER_SECOND
from ...clients.http import MAX_ATTEMPTS, TIMEOUT
from ...clients.profile_api import BASE_URLS, REQUESTS_PER_SECOND
from ...clients.profile_api import ProfileApi as Space
from ...errors import InvalidSetting, Unavailable
from ...projection import DuePeople, People, TableRows
from ...segment.message import Batch
from ...warehouses.dataset import Dataset, audit_row, open_dataset
from ...warehouses.dlt_internals import NotResolved, load_package_state, logger
from ...warehouses.hints import SOURCE
from ...warehouses.query import answers
from ..api.scan import Scan
from ..api.source import read_setting_time
from ..load import Files, Load, no_progress, resource, resources
from ..spool import ScanStart, Spool
from .pull import (
    KEPT,
    LOOK_BACK,
    NAMES,
    Answered,
    Asked,
    EventScope,
    Person,
    Pull,
    people_of_contacts,
    people_of_file,
    person,
)

SETTINGS = f"sources.{SOURCE}.profiles"
HOME = "autopilothq-people"  # the folder of contacts, below the pipeline's own
GOES_ON = KEPT / 2  # an older run is not gone on with: its first people must be asked for again
SCAN_LASTS = timedelta(days=1)  # contacts are not asked for again; whom it overlooks meanwhile, the next run finds
NOBODY_OF = 10  # people asked for, of whom one at least should be known
_MARKS = "pulls"  # in dlt's state of the source
_QUERY = re.compile(r"\s*(select|with|from)\s", re.IGNORECASE)


@dlt.source(schema=Schema(SOURCE), section=SOURCE, max_table_nesting=0)
def profiles(
    token: dlt.TSecretStrValue = dlt.secrets.value,
    space: str = dlt.config.value,
    region: str = "us",
    # Not those of Autopilot's API, which dlt would take from the section above.
    base_url: Annotated[str | None, NotResolved()] = None,
    requests_per_second: Annotated[float | None, NotResolved()] = None,
    people: str | None = None,
    source_id: str | None = None,
    events: Annotated[Sequence[str] | None, NotResolved()] = None,
    since: Any = None,  # str, date or datetime; dlt injects no unions
    timeout: float = TIMEOUT,
    tries: int = MAX_ATTEMPTS,
    allow_http: bool = False,
    people_per_load: int | None = None,
    max_event_tables: int = MAX_EVENT_TABLES,
    table_format: str | None = None,
    memory: int = 400,
    progress: Any = no_progress,
) -> Iterable[DltResource]:
    """Segment's Profile API as the `autopilothq` schema: complete events of the last 14 days.

    Each run asks for what is new since a person's last one, which the table `_profiles` knows.

    Args:
        token: An access token of the space, from dlt's secrets.
        space: The id of the space of Segment Unify.
        region: Where the space is: us or eu.
        base_url: Where the API is, if not at the region's address.
        requests_per_second: The most that is sent, 50 by default; requests go side by side.
        people: Whose events: `api`, Autopilot's contacts with new email activity, the default where a key of
            Autopilot is set; a file of emails or user ids, one a line; or a query of the warehouse with one column.
        source_id: The one Segment source to take events of.
        events: The names of the events, the seven of Autopilot by default.
        since: The time of the first event that is wanted (ISO 8601; UTC where it names no zone).
        timeout: Seconds that an answer may keep silent.
        tries: How often a request is tried.
        allow_http: Whether the token, and the key of Autopilot, may go over plain http to another machine.
        people_per_load: How many people at most. The next load goes on with the others: `Report.people_total` tells.
        max_event_tables: How many tables of other events than Autopilot's the dataset may have.
        table_format: dlt's, of the tables in a lake: `delta`. None is the destination's own.
        memory: What the engines may use before they turn to the disk, in MB.
        progress: Called with the `LoadReport` after each person.

    Example: `pipeline.run(profiles(space="spa_1", people="select email from contacts"))`.
    """
    if region not in BASE_URLS:
        raise InvalidSetting(f"{SETTINGS}.region must be {' or '.join(BASE_URLS)}, got {region!r}")
    url = str(base_url or _setting("base_url") or BASE_URLS[region])
    per_second = _setting("requests_per_second") if requests_per_second is None else requests_per_second
    per_second = REQUESTS_PER_SECOND if per_second is None else float(per_second)
    asking: dict[str, Any] = {"timeout": timeout, "tries": tries, "allow_http": allow_http}
    client = Space(token, space, base_url=url, requests_per_second=per_second, **asking)
    wanted = EventScope(_names(events), source_id, read_setting_time(since))
    whose = people or _default_people()
    origin = _Profiles(client, f"{url.rstrip('/')}/spaces/{space}", space, whose, wanted, per_second)
    if whose == "api":
        origin.autopilot, origin.account = _autopilot(asking)
    origin.most = people_per_load
    load = Load(origin.find, origin.read, memory // 2, progress, origin.beside, table_format, max_event_tables)
    origin.load, origin.memory = load, memory // 4
    return [resource(load, PROFILES), *resources(load)]


def _setting(name: str) -> Any:
    return dlt.config.get(f"{SETTINGS}.{name}")


def _names(events: Sequence[str] | None) -> tuple[str, ...]:
    given = events if events is not None else _setting("events")
    listed = given.split(",") if isinstance(given, str) else given or ()
    names = tuple(dict.fromkeys(name.strip() for name in listed if name.strip()))
    for name in names:
        if "," in name:
            raise InvalidSetting(f"{SETTINGS}.events: the API cannot be asked for {name!r}, whose name has a comma")
    return names or NAMES


def _default_people() -> str:
    if _of_autopilot("api_key"):
        return "api"
    raise InvalidSetting(
        f"Whose events? Set sources.{SOURCE}.api_key to look for Autopilot's contacts, or {SETTINGS}.people (--people)"
        " to a file of emails or user ids, or to a query of the warehouse."
    )


def _autopilot(asking: dict[str, Any]) -> tuple[Autopilot, str]:
    """The account whose contacts tell of activity, and a digest of which it is."""
    key = _of_autopilot("api_key")
    if not key:
        raise InvalidSetting(f"Expected the key of Autopilot's API, but there is none: set sources.{SOURCE}.api_key.")
    url = str(_of_autopilot("base_url") or BASE_URL)
    per_second = float(_of_autopilot("requests_per_second") or AUTOPILOT_PER_SECOND)
    account = Autopilot(str(key), base_url=url, requests_per_second=per_second, **asking)
    return account, _digest(url, str(key))


def _of_autopilot(name: str) -> Any:
    """A setting of Autopilot's API, None where neither dlt's secrets nor its configuration have it."""
    keys = (f"sources.{SOURCE}.api.{name}", f"sources.{SOURCE}.{name}")
    providers: tuple[Any, ...] = (dlt.secrets, dlt.config)
    found = (of.get(key) for key in keys for of in providers)
    return next((value for value in found if value is not None), None)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


class _Profiles:
    """The origin of a load: one run, or a part of one, over the people of a space.

    A run that is not complete is gone on with by the next load, wherever it ended: who was asked for since it began,
    in loads that are complete, is not asked for again. So a long run is many loads, and a killed one loses the last.
    `most` is how many people one load asks for, `memory` what they may use, in MB; `autopilot` is where people come
    from if not from a file or a query, `account` says which account that is.
    """

    load: Load
    memory: int
    most: int | None = None
    autopilot: Autopilot | None = None
    account = ""

    def __init__(self, space: Space, url: str, name: str, whose: str, wanted: EventScope, threads: float) -> None:
        self._space = space
        self._url = url
        self._name = name
        self._whose = whose
        self._wanted = wanted
        self._threads = threads
        # What `since` left out is not loaded up to any watermark.
        since = [wanted.since.isoformat()] if wanted.since else []
        self._scope = _digest(sorted(wanted.names), wanted.source_id, *since)
        self._run = _digest(url, self._scope, whose)  # what goes on, and what has gaps
        self._pull: Pull | None = None

    # Who is due ---------------------------------------------------------------------------------------------------

    def find(self, _: Files) -> tuple[list[Scan], int]:
        """The run, with the people who are due."""
        pipeline = dlt.current.pipeline()
        stored = open_dataset(pipeline)
        there = stored.tables([PROFILES.name])
        complete = stored.complete_loads()
        self._mark = self._known_mark(complete)
        self._pull = None
        now = self.load.loaded_at
        begun = datetime.fromisoformat(self._mark["begun"]) if self._mark else now
        goes_on = bool(self._mark) and not self._mark["complete"] and now - begun < GOES_ON
        self._begun = begun if goes_on else now
        if self._mark and not goes_on:
            self._warn_of_gap()
        started_at = _clock(self._begun)
        self._spool = Path(pipeline.working_dir, HOME, self._run)
        scratch = Path(self.load.folder, "people")
        scratch.mkdir()
        self._people = People((self._name, self._scope), str(scratch), self.memory)
        for people in self._found():
            self._people.add(people)
        self._people.leave_out(self.load.forgotten)
        columns = [column.name for column in PROFILES.columns]
        batches = stored.read(PROFILES.name, columns) if PROFILES.name in there else ()
        self._people.choose(batches, complete, DuePeople(self._begun, LOOK_BACK if self._whose == "api" else None))
        self.load.report.people_total = self._people.due
        if (before := audit_row(stored, self._url, started_at)) is not None:
            self.load.before[self._url] = before
        return [Scan("profiles", self._url, started_at, lines=before["lines"] if before else 0)], 0

    def _known_mark(self, complete: set[str]) -> dict[str, Any]:
        """How far complete loads have brought the last run; nothing where the destination does not know of it."""
        mark: dict[str, Any] = dlt.current.source_state().get(_MARKS, {}).get(self._run, {})
        return mark if mark and mark["load_id"] in complete else {}

    def _warn_of_gap(self) -> None:
        since, kept = datetime.fromisoformat(self._mark["since"]), self.load.loaded_at - KEPT
        if since < kept:
            self._warn(
                f"No run was complete since {_clock(since)}, and the API goes back 14 days: events between"
                f" {_clock(since)} and {_clock(kept)} are missing, but for those that came another way."
            )

    def _warn(self, text: str) -> None:
        logger.warning(text)
        self.load.report.warnings.append(text)

    def _found(self) -> Iterator[Sequence[Person]]:
        """The people, some at a time."""
        if self.autopilot is not None:
            start = ScanStart(self.account, _clock(self.load.loaded_at))
            spool = Spool.open(self._spool)
            if spool is None or spool.start.account != start.account or self._is_old(spool):
                spool = Spool.begin(self._spool, start)
            with self.autopilot:
                yield from people_of_contacts(spool, self.autopilot, self.load.tell)
        elif _QUERY.match(self._whose):
            for rows in answers(dlt.current.pipeline(), self._whose):
                if len(rows[0]) != 1:
                    raise InvalidSetting(f"{SETTINGS}.people: expected a query with one column, got {len(rows[0])}")
                ids = (person(str(row[0])) for row in rows if row[0] is not None)
                yield [Person(known) for known in ids if known]
        else:
            yield from people_of_file(Path(self._whose))

    def _is_old(self, spool: Spool) -> bool:
        return self.load.loaded_at - datetime.fromisoformat(spool.start.started_at) > SCAN_LASTS

    # Their events -------------------------------------------------------------------------------------------------

    def read(self, found: Sequence[Scan]) -> Iterator[Batch]:
        """The messages of those who are due, as many as one load takes."""
        report = self.load.report
        due = (Asked(*taken) for taken in self._people.take(self.most))
        threads = min(self._threads, self._people.due)
        pull = self._pull = Pull(found[0], self._space, self._wanted, threads, self._note, self._tell)
        with self._space:
            yield from pull.batches(due)
        if pull.stopped is not None:
            report.cut_off = str(pull.stopped)
        elif pull.failed:
            of = f"{pull.failed:,} of {pull.asked:,} people"
            self._warn(f"No answer could be read for {of}: they are asked for again next time. {pull.failure}")
            if pull.failed == pull.asked and isinstance(pull.failure, Unavailable):
                report.cut_off = str(pull.failure)
        if pull.asked >= NOBODY_OF and not pull.known and not pull.failed:
            self._warn(
                f"The space {self._name} knows none of {pull.asked:,} people. Is {SETTINGS}.space the right one?"
            )

    def _note(self, answered: list[Answered]) -> None:
        self._people.note(answered)

    def _tell(self) -> None:
        if self._pull is not None:
            self.load.report.people = self._pull.asked
            self.load.tell()

    def beside(self, _: Load, __: Dataset) -> Iterator[TableRows]:
        """Who was asked for, and how far the run is once this load is complete."""
        load_id = load_package_state()["load_id"]
        report = self.load.report
        stopped = self._pull is None or self._pull.stopped is not None
        complete = not stopped and report.people >= (report.people_total or 0)
        if complete:
            shutil.rmtree(self._spool, ignore_errors=True)
        begun = _clock(self._begun)
        since = begun if complete or not self._mark else self._mark["since"]
        marks = dlt.current.source_state().setdefault(_MARKS, {})
        marks[self._run] = {"begun": begun, "complete": complete, "since": since, "load_id": load_id}
        yield self._people.rows(load_id)
        self._people.close()


def _clock(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
