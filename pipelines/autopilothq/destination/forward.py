"""Forwards messages to an API that accepts Segment's: in batches, in order. The next run sends again what failed."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from ..clients.segment_api import BATCH_MESSAGES, REQUEST_BYTES, SegmentApi, batch_body
from ..display import visible
from ..errors import ApiError, NotFound, RequestRejected, Unavailable
from ..projection.engine import batched
from .counts import Counts
from .forward_log import Forwarded, ForwardLog
from .outgoing import Outgoing
from .requests import Outcome, outcome_of

QUERIED = 1000  # messages whose statuses one query returns
OUTAGE = 12  # failures in a row that count as an outage; one bad message in a batch causes fewer
_ROOM = len(batch_body([]))


class Forwarder:
    """Sends messages to one API, and writes the outcome of each to the log.

    With `show`, no request is sent: `show` is called with the text of each. `progress` is called with the counts.

    Example: `counts = Forwarder(api, log).send(map(outgoing, lines))`.
    """

    def __init__(
        self,
        api: SegmentApi,
        log: ForwardLog,
        progress: Callable[[Counts], None] = lambda _: None,
        show: Callable[[str], None] | None = None,
    ) -> None:
        self._api = api
        self._log = log
        self._progress = progress
        self._show = show
        self._counts = Counts()
        self._suppressed = log.suppressed_ids()
        self._failures = 0
        self._deferred: dict[str, Outgoing] = {}  # messages that failed before: they are sent after all others

    def send(self, messages: Iterable[Outgoing]) -> Counts:
        """Sends all messages and returns the counts of their outcomes.

        Raises ApiError if the run must stop. The next run sends what the log does not have.
        """
        for chunk in batched(messages, QUERIED):
            self._counts.messages += len(chunk)
            for batch in batches(self._to_send(chunk)):
                self._send(batch)
                self._progress(self._counts)
        deferred, self._deferred = self._deferred, {}
        for batch in batches(deferred.values()):
            self._send(batch)
        self._progress(self._counts)
        return self._counts

    def _to_send(self, chunk: Sequence[Outgoing]) -> list[Outgoing]:
        """Returns the messages of a chunk that are to be sent now, and logs those that cannot be sent."""
        statuses = self._log.statuses(self._api.target, (message.message_id for message in chunk))
        left: dict[str, Outgoing] = {}
        refused: dict[str, Outgoing] = {}
        for message in chunk:
            id_ = message.message_id
            before = statuses.get(id_, ())
            if id_ in left or id_ in refused or id_ in self._deferred:
                self._counts.add("repeated")
            elif any(person in self._suppressed for person in message.persons):
                self._counts.add("suppressed")
            elif "delivered" in before:
                self._counts.add("known")
            elif message.refusal is not None:
                refused[id_] = message
            elif "failed" in before:
                self._deferred[id_] = message
            else:
                left[id_] = message
        known = {id_ for id_ in refused if "refused" in statuses.get(id_, ())}
        self._log_refused(refused, known)
        return list(left.values())

    def _log_refused(self, refused: Mapping[str, Outgoing], known: Collection[str]) -> None:
        """Logs messages that cannot be sent, by their ids, or only counts those that are `known` to be refused."""
        for id_, message in refused.items():
            if id_ in known:  # the same archive may be sent every hour
                self._counts.add_message([("refused", message.refusal)])
            else:
                self._log_outcome([message], Outcome("refused", self._api.target, None, message.refusal))

    def _send(self, batch: Sequence[Outgoing]) -> None:
        """Sends a batch. If it is refused or causes a server error, halves it until the bad messages are found.

        Raises ApiError if every other request would end the same way.
        """
        try:
            self._request(batch)
        except RequestRejected as error:
            self._failures = 0
            # 404 and 405 are about the URL, not about the messages.
            if isinstance(error, NotFound) or error.status == 405:
                raise
            self._halve(batch, "refused", error)
        except Unavailable as error:
            self._failures += 1
            # Without an answer, with 429, or with a long wait, every other message would fail as well.
            is_general = error.status is None or error.status == 429 or error.wait is not None
            if is_general or self._failures >= OUTAGE:
                self._log_outcome(batch, outcome_of("failed", self._api.target, error))
                raise
            self._halve(batch, "failed", error)
        else:
            self._failures = 0
            self._log_outcome(batch, Outcome("delivered", self._api.target, 200, None, self._api.attempts))

    def _halve(self, batch: Sequence[Outgoing], status: str, error: ApiError) -> None:
        if len(batch) == 1:
            self._log_outcome(batch, outcome_of(status, self._api.target, error))
            return
        half = len(batch) // 2
        self._send(batch[:half])
        self._send(batch[half:])

    def _request(self, batch: Sequence[Outgoing]) -> None:
        texts = [message.text for message in batch]
        if self._show is None:
            self._api.send(texts)
        else:
            self._show(f"POST {visible(self._api.url)}\n{visible(batch_body(texts).decode())}")

    def _log_outcome(self, messages: Sequence[Outgoing], outcome: Outcome) -> None:
        """Logs and counts an outcome that all of these messages have."""
        rows = [
            Forwarded(
                *(each.message_id, each.kind, each.event, each.user_id, each.anonymous_id, each.email),
                *(self._api.target, outcome.status, outcome.http_status, outcome.message, outcome.attempts),
            )
            for each in messages
        ]
        self._log.add(rows)
        for _ in rows:
            self._counts.add_message([(outcome.status, outcome.message)])


def batches(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Yields messages in batches of at most 100 messages and 475,000 bytes, as Segment's own libraries do."""
    batch: list[Outgoing] = []
    size = _ROOM
    for message in messages:
        more = len(message.text) + 1
        if batch and (len(batch) == BATCH_MESSAGES or size + more > REQUEST_BYTES):
            yield batch
            batch, size = [], _ROOM
        batch.append(message)
        size += more
    if batch:
        yield batch
