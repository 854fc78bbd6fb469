"""Requests people's activities, one request after another, as messages (docs/contract/ortto-pull.md)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ...clients.ortto import Ortto
from ...errors import ApiError, InvalidSetting, NotAuthorized, NotFound, RequestRejected, UnexpectedResponse
from ...projection import engine
from ...segment.identity import NOBODY, HashedIds, id_of
from ...segment.json_text import JsonObject, to_json
from ...segment.message import Batch
from ...segment.ortto import OrttoPerson, OrttoReceipt, ortto_message
from ..scans import Scan, ScanBatch
from .answers import Answers, Entry, PersonEnd
from .pages import person_fields
from .search import ID_FIELDS, Contact, activity_time, contact_of_fields

ACTIVITY_OVERLAP = timedelta(days=1)  # activities may come late, so each request goes back one more day
MAX_FAILED_IN_A_ROW = 5  # if requests for this many people in a row fail, the service is at fault, not the people
LOOKED_UP_AT_ONCE = 50  # people whose email and external id are requested together
_LINES_PER_BATCH = 5_000
_PEOPLE_PER_BATCH = 10_000


class DuePerson(NamedTuple):
    """A person whose activities are due to be requested; they are loaded up to `loaded_until`."""

    contact: Contact
    loaded_until: datetime | None = None


class FeedScope(NamedTuple):
    """Which activities to load: those of some kinds (ids) since a time (None: all), but not of `suppressed` people."""

    kinds: tuple[str, ...]
    since: datetime | None = None
    suppressed: HashedIds = NOBODY

    def has(self, activity: Any) -> bool:
        """Returns whether an activity's time is in the scope. One without a readable time counts as in it."""
        if self.since is None or not isinstance(activity, JsonObject):
            return True
        time = activity_time(activity.value("created_at"))
        return time is None or time >= self.since

    def excludes(self, contact: Contact) -> bool:
        """Returns whether a person is suppressed."""
        ids = (("contact_id", contact.id), ("email", contact.email), ("user_id", contact.external_id))
        return bool(self.suppressed) and any(id_of(kind, value) in self.suppressed for kind, value in ids if value)

    def start_of(self, person: DuePerson) -> datetime | None:
        """Returns the time from which a person's activities are needed; None for all of them."""
        not_loaded = person.loaded_until - ACTIVITY_OVERLAP if person.loaded_until else None
        return max(filter(None, (not_loaded, self.since)), default=None)


NotedPerson = tuple[str, datetime | None, datetime]
"""A person whose activities were requested: the id, the new watermark, and the time of the request."""


class ActivityOrder:
    """Finds out whether activities come newest first. Only then can the pages after an old activity be skipped.

    As soon as a single activity is newer than the one before it, all pages of everybody are read.
    """

    def __init__(self) -> None:
        self.is_broken = False

    def pages_until(self, pages: Iterator[list[Any]], start: datetime | None) -> Iterator[list[Any]]:
        """Yields the pages of a person up to the first one that ends with an activity before `start`."""
        last: datetime | None = None
        has_fallen = False
        for page in pages:
            yield page
            for activity in page:
                time = activity_time(activity.value("created_at")) if isinstance(activity, JsonObject) else None
                if time is None or (last is not None and time > last):
                    self.is_broken = self.is_broken or time is not None
                    start = None  # all pages of this person are read
                    break
                has_fallen = has_fallen or (last is not None and time < last)
                last = time
            if start and last and has_fallen and last < start and not self.is_broken:
                return


class Feed:
    """Requests the activities of people, and yields them as batches of messages.

    `answered` is called with the people whose activities are in the batches so far, `progress` with `asked` after each
    person.

    Attributes:
        asked: How many people are done, including those who were skipped.
        known: How many of them the account has.
        failed: For how many of them no response could be read.
        failure: The error of the first failure.
        stopped: The error that ended the requests early; None if none did, or the time was up.
        retention_days: How many days the account keeps activities; None until a response has it.
    """

    def __init__(
        self,
        scan: Scan,
        account: Ortto,
        scope: FeedScope,
        receipt: OrttoReceipt,
        answers: Answers,
        answered: Callable[[list[NotedPerson]], object],
        progress: Callable[[int], object],
    ) -> None:
        self._scan, self._account, self._scope, self._receipt = scan, account, scope, receipt
        self._answers, self._answered, self._progress = answers, answered, progress
        self._found = ScanBatch(scan)
        self._noted: list[NotedPerson] = []
        self._order = ActivityOrder()
        self._doubtful: list[PersonEnd] = []  # failures that may be the fault of the service
        self._kept: set[str] = set()
        self.asked = self.known = self.failed = 0
        self.failure: ApiError | None = None
        self.stopped: ApiError | None = None
        self.retention_days: int | None = None

    def batches(self, people: Iterable[DuePerson], is_over: Callable[[], bool]) -> Iterator[Batch]:
        """Yields the messages that are kept on the disk, then those of all other people, until the time is up."""
        lines = 0
        for entry in self._entries(people, is_over):
            if isinstance(entry, bytes):
                self._found.add_size(len(entry))
                self._found.add_lines([entry])
                lines += 1
            else:
                self._end(entry)
                self._progress(self.asked)
            is_full = lines >= _LINES_PER_BATCH or self._found.is_large
            if is_full or len(self._noted) >= _PEOPLE_PER_BATCH:
                yield self._batch()
                lines = 0
        yield self._batch(ended=True)

    def _entries(self, people: Iterable[DuePerson], is_over: Callable[[], bool]) -> Iterator[Entry]:
        for entry in self._answers.kept():
            if isinstance(entry, PersonEnd):
                self._kept.add(entry.person)
            yield entry
        try:
            for person in self._due(people):
                if is_over() or self.stopped is not None:
                    break
                yield from self._read_person(person)
        except (NotAuthorized, InvalidSetting) as error:
            self.stopped = error
        if self.stopped is None:
            yield from self._confirm_failures()

    def _due(self, people: Iterable[DuePerson]) -> Iterator[DuePerson]:
        """Yields the people without responses on the disk, with their email and external id."""
        for group in engine.batched(people, LOOKED_UP_AT_ONCE):
            yield from _with_ids(self._account, [due for due in group if due.contact.person not in self._kept])

    def _read_person(self, person: DuePerson) -> Iterator[Entry]:
        """Yields a person's messages, page by page, and the end; writes both to the disk.

        Raises errors that would be the same for everybody.
        """
        contact, asked_at = person.contact, datetime.now(UTC)
        if self._scope.excludes(contact):
            self.asked += 1
            self._progress(self.asked)
            return
        ended = PersonEnd(contact.person, asked_at, asked_at)
        try:
            for page in self._order.pages_until(self._pages(contact), self._scope.start_of(person)):
                messages = [_message(each, contact, self._receipt) for each in page if self._scope.has(each)]
                self._answers.add(messages)
                yield from messages
        except (NotAuthorized, InvalidSetting):
            raise
        except NotFound:
            ended = ended._replace(known=False)
        except ApiError as error:
            self._fail(ended, person, error)
            return
        yield from self._confirm_failures()
        self._answers.end(ended)
        yield ended

    def _fail(self, ended: PersonEnd, person: DuePerson, error: ApiError) -> None:
        content = error.content if isinstance(error, UnexpectedResponse) else error.server_message
        bad = isinstance(error, UnexpectedResponse | RequestRejected)
        self.failure = self.failure or error
        self._doubtful.append(
            ended._replace(
                loaded_until=person.loaded_until, known=False, error=str(error), answer=content if bad else None
            )
        )
        if len(self._doubtful) >= MAX_FAILED_IN_A_ROW:
            self.stopped = self.failure
            self.asked += len(self._doubtful)
            self.failed += len(self._doubtful)

    def _confirm_failures(self) -> Iterator[Entry]:
        """Yields the ends of people whose requests failed: the service works for others, so they are the cause."""
        doubtful, self._doubtful = self._doubtful, []
        for ended in doubtful:
            self._answers.end(ended)
            yield ended

    def _pages(self, contact: Contact) -> Iterator[list[Any]]:
        for page in self._account.activities(contact.id, self._scope.kinds):
            self.retention_days = page.retention_days or self.retention_days
            yield page.activities

    def _end(self, ended: PersonEnd) -> None:
        self.asked += 1
        self.known += ended.known
        self.failed += ended.error is not None
        self._noted.append((ended.person, ended.loaded_until, ended.asked_at))
        if ended.error is not None and ended.answer is not None:
            raw = JsonObject([("person", ended.person), ("answer", ended.answer)])
            self._found.reject(raw, "bad_answer", ended.error)

    def _batch(self, ended: bool = False) -> Batch:
        """Returns the messages since the last batch, after passing the people who are done by now to `answered`."""
        self._answered(self._noted)
        found, self._found, self._noted = self._found, ScanBatch(self._scan), []
        return found.batch(ended)


def _with_ids(account: Ortto, people: list[DuePerson]) -> list[DuePerson]:
    """Returns people with their email and external id, which are looked up if neither is known."""
    missing = [person.contact.id for person in people if not (person.contact.email or person.contact.external_id)]
    found: dict[str, Any] = {}
    if missing:
        with suppress(RequestRejected):  # then messages only get the contact id
            found = account.people_by_ids(missing, ID_FIELDS)
    return [
        person._replace(contact=contact_of_fields(person.contact.id, person_fields(found[person.contact.id])))
        if person.contact.id in found
        else person
        for person in people
    ]


def _message(activity: Any, contact: Contact, receipt: OrttoReceipt) -> bytes:
    """Returns the message of an activity as a line; any other value becomes a line that the load rejects."""
    if not isinstance(activity, JsonObject):
        return f"{to_json(activity)}\n".encode()
    return ortto_message(activity, OrttoPerson(*contact), receipt) + b"\n"
