"""People -> their activities, one request after another -> messages (docs/contract/ortto-pull.md)."""

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
from ..times import read_time
from .answers import Answers, Ended, Entry
from .pages import person_fields
from .who import EMAIL_FIELD, EXTERNAL_ID_FIELD, Contact, contact_of_fields

ACTIVITY_OVERLAP = timedelta(days=1)  # activities may come late
MAX_FAILED_IN_A_ROW = 5  # people; then the service fails, not the person
LOOKED_UP_AT_ONCE = 50  # people whose email and external id are asked for together
_LINES_PER_BATCH = 5_000
_PEOPLE_PER_BATCH = 10_000


class DuePerson(NamedTuple):
    """A person to ask for, whose activities are loaded up to `loaded_until`."""

    contact: Contact
    loaded_until: datetime | None = None


class FeedScope(NamedTuple):
    """Which activities are asked for: their ids, and the time of the first one that is loaded."""

    kinds: tuple[str, ...]
    since: datetime | None = None

    def has(self, activity: Any) -> bool:
        """Returns whether an activity is in the scope; one whose time cannot be read is."""
        time = read_time(activity.value("created_at")) if self.since and isinstance(activity, JsonObject) else None
        return self.since is None or time is None or time >= self.since

    def start_of(self, asked: DuePerson) -> datetime | None:
        """Returns the time from which a person's activities are needed; None for all of them."""
        times = [asked.loaded_until - ACTIVITY_OVERLAP] if asked.loaded_until else []
        return max([*times, *([self.since] if self.since else [])], default=None)


Noted = tuple[str, datetime | None, datetime]
"""A person who was asked for: the id, the new watermark, and when it was."""


class Order:
    """Whether all activities so far came with the newest first.

    Only then do the pages after an old activity hold nothing new. A single activity that is newer than the one before
    it is enough to read all pages of everybody from then on.
    """

    def __init__(self) -> None:
        self.is_broken = False

    def end_of(self, pages: Iterator[list[Any]], start: datetime | None) -> Iterator[list[Any]]:
        """Yields the pages of a person, up to the first one that ends with an activity before `start`."""
        last: datetime | None = None
        has_fallen = False
        for page in pages:
            yield page
            for activity in page:
                time = read_time(activity.value("created_at")) if isinstance(activity, JsonObject) else None
                if time is None or (last is not None and time > last):
                    self.is_broken = self.is_broken or time is not None
                    start = None  # all pages of this person are read
                    break
                has_fallen = has_fallen or (last is not None and time < last)
                last = time
            if start and last and has_fallen and last < start and not self.is_broken:
                return


class Feed:
    """Asks for the activities of people, and yields them as batches of messages.

    People in `suppressed` are skipped.

    Attributes:
        answered: Called with people whose activities are in the batches so far.
        progress: Called after each person.
        asked: How many people are done, including those who were skipped.
        known: How many of them the account has.
        failed: For how many no answer could be read.
        failure: Why, for the first of these.
        stopped: Why nobody else was asked for; None if everybody was or the time was up.
        retention_days: How long the account keeps activities; None until it says so.
    """

    def __init__(
        self,
        scan: Scan,
        account: Ortto,
        scope: FeedScope,
        receipt: OrttoReceipt,
        answers: Answers,
        suppressed: HashedIds = NOBODY,
    ) -> None:
        self.answered: Callable[[list[Noted]], object] = list
        self.progress: Callable[[], None] = lambda: None
        self._scan, self._account, self._scope, self._receipt = scan, account, scope, receipt
        self._answers, self._suppressed = answers, suppressed
        self._found = ScanBatch(scan)
        self._noted: list[Noted] = []
        self._order = Order()
        self._doubtful: list[Ended] = []  # whose failure may be the fault of the service
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
                self._found.size += len(entry)
                self._scan.size += len(entry)
                self._found.add_lines([entry])
                lines += 1
            else:
                self._end(entry)
                self.progress()
            is_full = lines >= _LINES_PER_BATCH or self._found.is_large
            if is_full or len(self._noted) >= _PEOPLE_PER_BATCH:
                yield self._batch()
                lines = 0
        yield self._batch(ended=True)

    def _entries(self, people: Iterable[DuePerson], is_over: Callable[[], bool]) -> Iterator[Entry]:
        for entry in self._answers.kept():
            if isinstance(entry, Ended):
                self._kept.add(entry.person)
            yield entry
        try:
            for asked in self._due(people):
                if is_over() or self.stopped is not None:
                    break
                yield from self._ask(asked)
        except (NotAuthorized, InvalidSetting) as error:
            self.stopped = error
        if self.stopped is None:
            yield from self._confirmed()

    def _due(self, people: Iterable[DuePerson]) -> Iterator[DuePerson]:
        """Yields the people whose answers are not kept yet, with their email and external id."""
        for some in engine.batched(people, LOOKED_UP_AT_ONCE):
            yield from _with_names(self._account, [of for of in some if of.contact.person not in self._kept])

    def _ask(self, asked: DuePerson) -> Iterator[Entry]:
        """Yields a person's messages, page by page, and the end; keeps both on the disk.

        Raises errors that would be the same for everybody.
        """
        contact, asked_at = asked.contact, datetime.now(UTC)
        if _is_suppressed(contact, self._suppressed):
            self.asked += 1
            return
        ended = Ended(contact.person, asked_at, asked_at)
        try:
            for page in self._order.end_of(self._pages(contact), self._scope.start_of(asked)):
                messages = [_message(each, contact, self._receipt) for each in page if self._scope.has(each)]
                self._answers.add(messages)
                yield from messages
        except (NotAuthorized, InvalidSetting):
            raise
        except NotFound:
            ended = ended._replace(known=False)
        except ApiError as error:
            self._fail(ended, asked, error)
            return
        yield from self._confirmed()
        self._answers.end(ended)
        yield ended

    def _fail(self, ended: Ended, asked: DuePerson, error: ApiError) -> None:
        content = error.content if isinstance(error, UnexpectedResponse) else error.server_message
        bad = isinstance(error, UnexpectedResponse | RequestRejected)
        self.failure = self.failure or error
        self._doubtful.append(
            ended._replace(
                loaded_until=asked.loaded_until, known=False, error=str(error), answer=content if bad else None
            )
        )
        if len(self._doubtful) >= MAX_FAILED_IN_A_ROW:
            self.stopped = self.failure
            self.asked += len(self._doubtful)
            self.failed += len(self._doubtful)

    def _confirmed(self) -> Iterator[Entry]:
        """Yields the ends of people who failed: the service answers for others, so the failure was about them."""
        doubtful, self._doubtful = self._doubtful, []
        for ended in doubtful:
            self._answers.end(ended)
            yield ended

    def _pages(self, contact: Contact) -> Iterator[list[Any]]:
        for page in self._account.activities(contact.id, self._scope.kinds):
            self.retention_days = page.retention_days or self.retention_days
            yield page.activities

    def _end(self, ended: Ended) -> None:
        self.asked += 1
        self.known += ended.known
        self.failed += ended.error is not None
        self._noted.append((ended.person, ended.loaded_until, ended.asked_at))
        if ended.error is not None and ended.answer is not None:
            raw = JsonObject([("person", ended.person), ("answer", ended.answer)])
            self._found.reject(raw, "bad_answer", ended.error)

    def _batch(self, ended: bool = False) -> Batch:
        """Returns the batch of the messages since the last one."""
        self.answered(self._noted)
        found, self._found, self._noted = self._found, ScanBatch(self._scan), []
        return found.batch(ended)


def _with_names(account: Ortto, people: list[DuePerson]) -> list[DuePerson]:
    """Returns people with their email and external id, which are looked up if neither is known."""
    nameless = [asked.contact.id for asked in people if not (asked.contact.email or asked.contact.external_id)]
    found: dict[str, Any] = {}
    if nameless:
        with suppress(RequestRejected):  # then activities have only the id
            found = account.people_by_ids(nameless, [EMAIL_FIELD, EXTERNAL_ID_FIELD])
    return [
        asked._replace(contact=contact_of_fields(asked.contact.id, person_fields(found[asked.contact.id])))
        if asked.contact.id in found
        else asked
        for asked in people
    ]


def _message(activity: Any, contact: Contact, receipt: OrttoReceipt) -> bytes:
    """Returns an activity as a line; anything but an object becomes a line that the load rejects."""
    if not isinstance(activity, JsonObject):
        return f"{to_json(activity)}\n".encode()
    return ortto_message(activity, OrttoPerson(*contact), receipt) + b"\n"


def _is_suppressed(contact: Contact, suppressed: HashedIds) -> bool:
    ids = (("contact_id", contact.id), ("email", contact.email), ("user_id", contact.external_id))
    return bool(suppressed) and any(id_of(kind, of) in suppressed for kind, of in ids if of)
