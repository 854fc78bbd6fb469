"""People -> their activities, one request after the other -> messages (docs/contract/ortto-pull.md)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ...clients.ortto import Ortto
from ...errors import ApiError, InvalidSetting, NotAuthorized, NotFound, RequestRejected, UnexpectedResponse
from ...projection import engine
from ...segment.identity import HashedIds, id_of
from ...segment.json_text import JsonObject, to_json
from ...segment.message import Batch
from ...segment.ortto import OrttoPerson, OrttoReceipt, ortto_message
from ..scans import Scan, ScanBatch
from ..times import read_time
from .answers import Answers, Ended, Entry
from .pages import fields_of
from .who import EMAIL, EXTERNAL_ID, Contact, contact_of_fields

OVERLAP = timedelta(days=1)  # activities may come late
MAX_FAILURES = 5  # people in a row; it is the service then, not the person
LOOKED_UP_AT_ONCE = 50  # people whose email and external id are asked for together
LINES_PER_BATCH = 5_000
PEOPLE_PER_BATCH = 10_000
KILL_POINT_PERSON_ASKED = f"{__name__}:Feed._end"  # for tests/faults


class Asked(NamedTuple):
    """A person to ask for, whose activities are loaded up to `loaded_until`."""

    contact: Contact
    loaded_until: datetime | None = None


class FeedScope(NamedTuple):
    """Which activities are asked for: their ids, and the time of the first one that is loaded."""

    kinds: tuple[str, ...]
    since: datetime | None = None


class Order:
    """Whether activities come with the newest first, as far as it is seen.

    Only then the pages behind an old activity hold nothing new. One activity that is newer than that before it is
    enough to read all pages of everybody from then on.
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
                    start = None  # of this person all pages are read
                    break
                has_fallen = has_fallen or (last is not None and time < last)
                last = time
            if start and last and has_fallen and last < start and not self.is_broken:
                return


class Feed:
    """Asks for the activities of people, and gives them as batches of messages.

    `answered` is called with people whose activities are in the batches so far: id, watermark and time. `progress` is
    called after each person. People in `suppressed` are passed over.

    Attributes:
        asked: How many people are done, those among them who were passed over.
        known: How many of them the account has.
        failed: For how many no answer could be read.
        failure: Why, for the first of these.
        stopped: Why nobody else was asked for, None where everybody was or the time was up.
        retention_days: How long the account keeps activities, None as long as it did not say.
    """

    def __init__(
        self,
        scan: Scan,
        account: Ortto,
        scope: FeedScope,
        receipt: OrttoReceipt,
        answers: Answers,
        suppressed: HashedIds,
        answered: Callable[[list[tuple[str, datetime | None, datetime]]], None],
        progress: Callable[[], None],
    ) -> None:
        self._scan, self._account, self._scope, self._receipt = scan, account, scope, receipt
        self._answers, self._suppressed = answers, suppressed
        self._answered, self._progress = answered, progress
        self._found = ScanBatch(scan)
        self._noted: list[tuple[str, datetime | None, datetime]] = []
        self._order = Order()
        self._doubtful: list[Ended] = []  # whose failure may be the fault of the service
        self._kept: set[str] = set()
        self.asked = self.known = self.failed = 0
        self.failure: ApiError | None = None
        self.stopped: ApiError | None = None
        self.retention_days: int | None = None

    def batches(self, people: Iterable[Asked], is_over: Callable[[], bool]) -> Iterator[Batch]:
        """Yields the messages that are kept, then those of people who have none there, until the time is up."""
        lines = 0
        for entry in self._entries(people, is_over):
            if isinstance(entry, bytes):
                self._found.size += len(entry)
                self._scan.size += len(entry)
                self._found.add_lines([entry])
                lines += 1
            else:
                self._end(entry)
                self._progress()
            if lines >= LINES_PER_BATCH or len(self._noted) >= PEOPLE_PER_BATCH:
                yield self._batch()
                lines = 0
        yield self._batch(ended=True)

    def _entries(self, people: Iterable[Asked], is_over: Callable[[], bool]) -> Iterator[Entry]:
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
            yield from self._settled()

    def _due(self, people: Iterable[Asked]) -> Iterator[Asked]:
        """Yields the people whose answers are not kept, with their names."""
        for some in engine.batched(people, LOOKED_UP_AT_ONCE):
            yield from self._with_names([asked for asked in some if asked.contact.person not in self._kept])

    def _with_names(self, people: list[Asked]) -> list[Asked]:
        """Returns people with their email and external id, which are asked for where neither is known."""
        nameless = [asked.contact.id for asked in people if not (asked.contact.email or asked.contact.external_id)]
        found: dict[str, Any] = {}
        if nameless:
            with suppress(RequestRejected):  # then activities have the id alone
                found = self._account.people_by_ids(nameless, [EMAIL, EXTERNAL_ID])
        return [
            asked._replace(contact=contact_of_fields(asked.contact.id, fields_of(found[asked.contact.id])))
            if asked.contact.id in found
            else asked
            for asked in people
        ]

    def _ask(self, asked: Asked) -> Iterator[Entry]:
        """Yields a person's messages, page by page, and the end; keeps both on the disk. Raises what nobody can help."""
        contact, asked_at = asked.contact, datetime.now(UTC)
        if self._is_suppressed(contact):
            self.asked += 1
            return
        ended = Ended(contact.person, asked_at, asked_at)
        try:
            for page in self._order.end_of(self._pages(contact), self._start_of(asked)):
                messages = [self._message(activity, contact) for activity in page if self._is_wanted(activity)]
                self._answers.add(messages)
                yield from messages
        except (NotAuthorized, InvalidSetting):
            raise
        except NotFound:
            ended = ended._replace(known=False)
        except ApiError as error:
            self._fail(ended, asked, error)
            return
        yield from self._settled()
        self._answers.end(ended)
        yield ended

    def _fail(self, ended: Ended, asked: Asked, error: ApiError) -> None:
        content = error.content if isinstance(error, UnexpectedResponse) else error.server_message
        bad = isinstance(error, UnexpectedResponse | RequestRejected)
        self.failure = self.failure or error
        self._doubtful.append(
            ended._replace(
                loaded_until=asked.loaded_until, known=False, error=str(error), answer=content if bad else None
            )
        )
        if len(self._doubtful) >= MAX_FAILURES:
            self.stopped = self.failure
            self.asked += len(self._doubtful)
            self.failed += len(self._doubtful)

    def _settled(self) -> Iterator[Entry]:
        """Yields the ends of people who failed: the service answers for others, so it was about those people."""
        doubtful, self._doubtful = self._doubtful, []
        for ended in doubtful:
            self._answers.end(ended)
            yield ended

    def _pages(self, contact: Contact) -> Iterator[list[Any]]:
        for page in self._account.activities(contact.id, self._scope.kinds):
            self.retention_days = page.retention_days or self.retention_days
            yield page.activities

    def _start_of(self, asked: Asked) -> datetime | None:
        """Returns the time from which a person's activities are wanted, None for all that there are."""
        times = [asked.loaded_until - OVERLAP] if asked.loaded_until else []
        return max([*times, *([self._scope.since] if self._scope.since else [])], default=None)

    def _is_wanted(self, activity: Any) -> bool:
        since = self._scope.since
        time = read_time(activity.value("created_at")) if since and isinstance(activity, JsonObject) else None
        return since is None or time is None or time >= since

    def _message(self, activity: Any, contact: Contact) -> bytes:
        """Returns an activity as a line; what is no object becomes a line that the load rejects."""
        if not isinstance(activity, JsonObject):
            return f"{to_json(activity)}\n".encode()
        return ortto_message(activity, OrttoPerson(*contact), self._receipt) + b"\n"

    def _is_suppressed(self, contact: Contact) -> bool:
        ids = (("contact_id", contact.id), ("email", contact.email), ("user_id", contact.external_id))
        return bool(self._suppressed) and any(id_of(kind, of) in self._suppressed for kind, of in ids if of)

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
        self._answered(self._noted)
        found, self._found, self._noted = self._found, ScanBatch(self._scan), []
        return found.batch(ended)
