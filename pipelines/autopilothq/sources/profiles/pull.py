"""Requests people's events from Segment's Profile API, in parallel, as messages (docs/contract/profile-api.md)."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Full, Queue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, NamedTuple

from ...catalog import EVENTS
from ...clients.autopilot import Autopilot, Page
from ...clients.profile_api import ID_TYPES, ProfileApi
from ...errors import ApiError, InvalidSetting, NotAuthorized, RequestRejected, UnexpectedResponse
from ...projection import engine
from ...segment.json_text import JsonNumber, JsonObject, is_storable, to_json
from ...segment.message import Batch
from ..due_people import lines_of_file
from ..scans import Scan, ScanBatch
from ..spool import STOP_SECONDS, Spool, fetch_ahead
from ..times import read_time

EVENT_NAMES = tuple(name for name, *_ in EVENTS)
RETENTION = timedelta(days=14)  # how long the API keeps events
# Events may arrive late, so each request goes back one more day; what is stored already is not stored again.
OVERLAP = timedelta(days=1)
# Both a contact's record and the space lag behind the activity.
LOOKBACK = timedelta(hours=1)
MAX_FAILURES = 20  # people in a row; after so many, the service is at fault, not the people
MAX_THREADS = 100  # connections that the client keeps
LINES_PER_BATCH = 5_000
PEOPLE_AT_ONCE = 10_000  # people in memory
KILL_POINT_PERSON_PULLED = f"{__name__}:Pull._end"  # for tests/faults


# ---- whose events --------------------------------------------------------------------------------------------------


class Person(NamedTuple):
    """A person by the API's id, and the time of the last activity in the contact's record, if there is one."""

    id: str
    active_at: datetime | None = None


def profile_id(value: str) -> str | None:
    """Returns the API's id for an email or a user id, in lower case as the API needs it; None for a blank.

    A value that begins with `email:`, `user_id:` or `anonymous_id:` has its kind already.
    Examples: `profile_id(" A.B@Example.com ") == "email:a.b@example.com"`, `profile_id("12345") == "user_id:12345"`.
    """
    text = value.strip()
    if not text or not is_storable(text):
        return None
    kind, colon, rest = text.partition(":")
    if colon and kind.strip().lower() in ID_TYPES:
        return f"{kind.strip().lower()}:{rest.strip().lower()}" if rest.strip() else None
    return f"{'email' if '@' in text else 'user_id'}:{text.lower()}"


def people_of_file(path: Path) -> Iterator[list[Person]]:
    """Yields the people of a file in chunks; each line is an email or a user id. Raises InvalidSetting if not text."""
    ids = filter(None, map(profile_id, lines_of_file(path, "emails or user ids")))
    for group in engine.batched(ids, PEOPLE_AT_ONCE):
        yield list(map(Person, group))


def people_of_contacts(spool: Spool, account: Autopilot, progress: Callable[[], None]) -> Iterator[list[Person]]:
    """Yields the people among Autopilot's contacts, page by page, the pages in the spool first.

    `progress` is called after each page that is fetched. Contacts without an email are left out, because the space
    cannot know them.
    """
    for number in range(1, spool.last + 1):
        yield _people(spool.read(number)[0])
    if not spool.complete:
        pages = map(_reduced, account.contacts(spool.bookmark))
        for fetched in fetch_ahead(spool, pages, lambda: False):
            yield _people(spool.contacts_of(fetched)[0])
            progress()


def _reduced(page: Page) -> Page:
    """Returns a page with only the emails and the times of its contacts."""
    kept = [
        JsonObject(field for field in contact if field[0] in ("Email", "updated_at") or field[0].startswith("mail_"))
        for contact in page.contacts
        if isinstance(contact, JsonObject) and _text(contact.value("Email"))
    ]
    return page._replace(contacts=kept)


def _people(contacts: list[object]) -> list[Person]:
    found = (
        (profile_id(f"email:{contact.value('Email')}"), contact)
        for contact in contacts
        if isinstance(contact, JsonObject)
    )
    return [Person(known, _active_at(contact)) for known, contact in found if known]


def _active_at(contact: JsonObject) -> datetime | None:
    """Returns the latest time in a contact's record; values that cannot be read as times do not count."""
    values = [contact.value("updated_at")]
    for name, emails in contact:
        if name.startswith("mail_") and isinstance(emails, JsonObject):
            values += [value for _, value in emails]
    return max((time for value in values if (time := read_time(value))), default=None)


# ---- their events --------------------------------------------------------------------------------------------------


class EventScope(NamedTuple):
    """The events to load: those with some names, of one source (None: any), from a time on."""

    names: tuple[str, ...] = EVENT_NAMES
    source_id: str | None = None
    since: datetime | None = None

    def has(self, event: JsonObject) -> bool:
        """Returns whether an event is in the scope. An event without a name is, so that the load rejects it."""
        kind, name, source_id = (_text(event.value(key)) for key in ("type", "event", "source_id"))
        return (
            kind in (None, "track")
            and (name is None or name in self.names)
            and (self.source_id is None or source_id in (None, self.source_id))
        )


class DueProfile(NamedTuple):
    """A person whose events are due to be requested; they are loaded up to `loaded_until`."""

    id: str
    loaded_until: datetime | None = None


class AnsweredProfile(NamedTuple):
    """A person whose events were requested; `loaded_until` is unchanged if no response could be read."""

    id: str
    loaded_until: datetime | None
    asked_at: datetime


def message(event: Any, person_id: str) -> bytes:
    """Returns an event as a message, one line.

    Its ids are the person's external ids. The email replaces a missing anonymous id, and the id of the request is used
    if there are no ids at all (docs/contract/profile-api.md#messages).
    """
    if not isinstance(event, JsonObject):
        return f"{to_json(event)}\n".encode()
    ids = dict(reversed(list(_external_ids(event))))  # of several, the first
    kind, _, requested = person_id.partition(":")
    email = ids.get("email") or _text(event.value("context", "traits", "email"))
    if not (email or ids.keys() & ID_TYPES) or (kind == "email" and not email):
        ids[kind] = requested  # the event itself has no id of a person
    fields = [
        ("type", event.value("type")),
        ("event", event.value("event")),
        ("messageId", event.value("message_id")),
        ("timestamp", event.value("timestamp")),
        ("userId", ids.get("user_id")),
        ("anonymousId", ids.get("anonymous_id") or email or ids.get("email")),
        ("context", event.value("context")),
        ("properties", event.value("properties")),
    ]
    return f"{to_json(JsonObject((name, value) for name, value in fields if value is not None))}\n".encode()


def _external_ids(event: JsonObject) -> Iterator[tuple[str, str]]:
    found = event.value("external_ids")
    for entry in found if isinstance(found, list) and not isinstance(found, JsonObject) else ():
        if isinstance(entry, JsonObject) and entry.value("collection") in (None, "users"):
            kind, value = _text(entry.value("type")), entry.value("id")
            if kind and isinstance(value, str) and value.strip():
                yield kind, value


def _text(value: Any) -> str | None:
    """Returns a text that is not blank, or None for anything else."""
    return value if isinstance(value, str) and not isinstance(value, JsonNumber) and value.strip() else None


def start_of(person: DueProfile, scope: EventScope, now: datetime) -> datetime | None:
    """Returns the time from which a person's events are requested; None means all that the API still has."""
    times = [person.loaded_until - OVERLAP] if person.loaded_until else []
    times += [scope.since] if scope.since else []
    start = max(times, default=None)
    return start if start and start > now - RETENTION else None


# ---- in parallel ---------------------------------------------------------------------------------------------------


class _Lines(NamedTuple):
    """A page of a person's events as messages."""

    lines: list[bytes]


class _PersonEnd(NamedTuple):
    """The end of a person's pages: whether the space knows the person, and the error if a request failed."""

    person: DueProfile
    asked_at: datetime
    known: bool = False
    error: ApiError | None = None


class Pull:
    """Requests for the events of many people, in parallel, at the pace of the client.

    `answered` is called with the people whose events are in the batches so far, `progress` after each person.

    Attributes:
        asked: For how many people events were requested.
        known: How many of them the space knows.
        failed: For how many of them no response could be read.
        failure: The error of the first failure.
        stopped: The error that ended the requests early; None if none did.
    """

    def __init__(
        self,
        scan: Scan,
        space: ProfileApi,
        scope: EventScope,
        threads: float,
        answered: Callable[[list[AnsweredProfile]], None],
        progress: Callable[[], None],
    ) -> None:
        self._scan = scan
        self._space = space
        self._scope = scope
        self._threads = max(1, min(MAX_THREADS, math.ceil(threads)))
        self._answered = answered
        self._progress = progress
        self._found = ScanBatch(scan)
        self._ended: list[AnsweredProfile] = []
        self._doubtful: list[AnsweredProfile] = []  # failures that may be the fault of the service
        self.asked = self.known = self.failed = 0
        self.failure: ApiError | None = None
        self.stopped: ApiError | None = None

    def batches(self, people: Iterable[DueProfile]) -> Iterator[Batch]:
        """Yields the messages of all people. If there was no response at all, raises the ApiError that stopped it."""
        answers = fetch_events(self._space, iter(people), self._scope, self._threads)
        lines, before = 0, self._scan.lines
        try:
            for answer in answers:
                if isinstance(answer, _Lines):
                    lines += len(answer.lines)
                    self._add(answer.lines)
                else:
                    self._end(answer)
                    self._progress()
                if len(self._doubtful) >= MAX_FAILURES:
                    self.stopped = self.failure
                    break
                if lines >= LINES_PER_BATCH or self._found.is_large or len(self._ended) >= PEOPLE_AT_ONCE:
                    yield self._batch()
                    lines = 0
        except (NotAuthorized, InvalidSetting) as error:
            self.stopped = error
        finally:
            answers.close()
        if self.stopped is None:
            self._ended += self._doubtful
        elif self._scan.lines == before and self.asked == self.failed:
            raise self.stopped
        yield self._batch(ended=True)

    def _add(self, lines: list[bytes]) -> None:
        self._found.add_size(sum(map(len, lines)))
        self._found.add_lines(lines)

    def _end(self, end: _PersonEnd) -> None:
        self.asked += 1
        if end.error is None:
            self.known += end.known
            # The service works, so the earlier failures were due to those people.
            self._ended += [*self._doubtful, AnsweredProfile(end.person.id, end.asked_at, end.asked_at)]
            self._doubtful.clear()
            return
        self.failed += 1
        self.failure = self.failure or end.error
        self._doubtful.append(AnsweredProfile(end.person.id, end.person.loaded_until, end.asked_at))
        if isinstance(end.error, UnexpectedResponse | RequestRejected):
            content = end.error.content if isinstance(end.error, UnexpectedResponse) else end.error.server_message
            raw = JsonObject([("person", end.person.id), ("answer", content)])
            self._found.reject(raw, "bad_answer", str(end.error))

    def _batch(self, ended: bool = False) -> Batch:
        """Returns the batch of the messages since the last one."""
        self._answered(self._ended)
        found, self._found, self._ended = self._found, ScanBatch(self._scan), []
        return found.batch(ended)


def fetch_events(
    space: ProfileApi, people: Iterator[DueProfile], scope: EventScope, threads: int
) -> Generator[_Lines | _PersonEnd, None, None]:
    """Yields pages and ends of people as they come. Raises NotAuthorized and InvalidSetting.

    The first person's requests are made alone, so that wrong settings cost one request. Then each thread handles one
    person after another; it waits while `threads` results have not been taken yet.
    """
    first = next(people, None)
    if first is None:
        return
    yield from _events(space, first, scope)
    requests = _Requests(space, people, scope, threads)
    try:
        yield from requests.answers()
    finally:
        requests.stop()


class _Requests:
    """Threads that handle one person after another, and the queue of their results; each thread ends with a None."""

    def __init__(self, space: ProfileApi, people: Iterator[DueProfile], scope: EventScope, threads: int) -> None:
        self._space = space
        self._people = people
        self._scope = scope
        self._queue: Queue[_Lines | _PersonEnd | BaseException | None] = Queue(threads)
        self._turn, self._stopped = Lock(), Event()
        self._threads = [Thread(target=self._run, name=f"profiles-{n}", daemon=True) for n in range(threads)]

    def answers(self) -> Iterator[_Lines | _PersonEnd]:
        """Starts the threads and yields their results. Raises what a thread raised."""
        for thread in self._threads:
            thread.start()
        left = len(self._threads)
        while left:
            answer = self._queue.get()
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                left -= 1
            else:
                yield answer

    def stop(self) -> None:
        """Lets the threads end after their current requests."""
        self._stopped.set()
        end = monotonic() + STOP_SECONDS
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - monotonic()))

    def _run(self) -> None:
        try:
            while (person := self._next()) is not None:
                for answer in _events(self._space, person, self._scope):
                    self._put(answer)
        except BaseException as error:  # noqa: BLE001 - raised where the answers are taken
            self._put(error)
        self._put(None)

    def _next(self) -> DueProfile | None:
        with self._turn:
            return None if self._stopped.is_set() else next(self._people, None)

    def _put(self, answer: _Lines | _PersonEnd | BaseException | None) -> None:
        while not self._stopped.is_set():
            with suppress(Full):
                self._queue.put(answer, timeout=0.1)
                return


def _events(space: ProfileApi, person: DueProfile, scope: EventScope) -> Iterator[_Lines | _PersonEnd]:
    """Yields the pages of a person, then the person's end. Raises errors that would be the same for everybody."""
    asked_at = datetime.now(UTC)
    known = False
    try:
        for page in space.events(person.id, scope.names, start_of(person, scope, asked_at)):
            known = True
            events = [event for event in page if not isinstance(event, JsonObject) or scope.has(event)]
            yield _Lines([message(event, person.id) for event in events])
    except (NotAuthorized, InvalidSetting):
        raise
    except ApiError as error:
        yield _PersonEnd(person, asked_at, known, error)
    else:
        yield _PersonEnd(person, asked_at, known)
