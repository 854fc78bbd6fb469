"""Requests the events of many people from Segment's Profile API, in parallel (docs/contract/profile-api.md)."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Event, Lock, Thread
from time import monotonic
from typing import NamedTuple

from ...clients.profile_api import ProfileApi
from ...errors import ApiError, InvalidSetting, NotAuthorized, RequestRejected, UnexpectedResponse
from ...segment.json_text import JsonObject
from ...segment.message import Batch
from ..scans import Scan, ScanBatch
from ..spool import STOP_SECONDS
from .events import AnsweredProfile, DueProfile, EventScope, message, start_of

MAX_FAILURES = 20  # if requests for this many people in a row fail, the service is at fault, not the people
MAX_THREADS = 100  # connections that the client keeps
LINES_PER_BATCH = 5_000
PEOPLE_PER_BATCH = 10_000
KILL_POINT_PERSON_PULLED = f"{__name__}:Pull._end"  # for tests/faults


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
        """Yields the messages of all people. Raises the ApiError that ended the requests if there was no response."""
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
                if lines >= LINES_PER_BATCH or self._found.is_large or len(self._ended) >= PEOPLE_PER_BATCH:
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
            # The service works, so the failures before were due to those people.
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
        """Returns the messages since the last batch, after passing the people who are done by now to `answered`."""
        self._answered(self._ended)
        found, self._found, self._ended = self._found, ScanBatch(self._scan), []
        return found.batch(ended)


def fetch_events(
    space: ProfileApi, people: Iterator[DueProfile], scope: EventScope, threads: int
) -> Generator[_Lines | _PersonEnd, None, None]:
    """Yields pages and ends of people as they come. Raises NotAuthorized and InvalidSetting.

    The first person's requests are made alone, so that wrong settings cost only one request. Then each thread handles
    one person after another; it waits while `threads` results are waiting to be taken.
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
