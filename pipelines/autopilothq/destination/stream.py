"""Sends the messages of a stream: each chunk of lines is delivered and logged before the next one is read."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ..errors import Unavailable
from ..segment.message import MAX_LINE, digest, without_bom
from . import open_account
from .accounts import AnySettings, OpenAccount
from .batch import Key
from .counts import Counts
from .delivery_log import DeliveryLog, DeliveryStatus
from .dispatch import AT_ONCE, PUT_OFF
from .held import HeldPeople
from .lines import Stop
from .messages import Ignored, Item, from_line, refuse_item
from .preview import Preview
from .sender import Sender

T = TypeVar("T")
RETRY_WAITS = (2.0, 5.0)  # seconds before messages that failed by themselves are sent again
LONGEST_WAIT = 60.0  # seconds between two attempts while the account cannot be reached


@dataclass(frozen=True)
class StreamEnds:
    """What a stream is connected to.

    `opened` returns the delivery log, open for one chunk. `progress` is called with the counts so far, `warn` with a
    line for people, `broken` with each line that is no message and the reason. With `show`, each request is shown
    instead of being sent.
    """

    opened: Callable[[], AbstractContextManager[DeliveryLog]]
    stop: Stop
    progress: Callable[[Counts], None]
    warn: Callable[[str], None]
    broken: Callable[[bytes, str], None]
    show: Callable[[str], None] | None = None


def item_of(line: bytes, integrations: Sequence[str]) -> Item | Ignored:
    """Returns the item of a line, as `from_line` does; one of more than 1 MiB is refused."""
    if len(line) > MAX_LINE:
        return refuse_item(digest(line[:MAX_LINE]), "line_too_long")
    return from_line(without_bom(line), integrations)


def deliver_stream(chunks: Iterable[Sequence[bytes]], settings: AnySettings, ends: StreamEnds, total: Counts) -> None:
    """Sends the messages of chunks of lines to the account of the settings, and adds to `total` how they ended.

    The log is open while a chunk is sent, and closed while the stream waits for lines. As long as the account cannot
    be reached, the chunk is tried again, and nothing else is read. Raises ApiError if no request can succeed.
    """
    preview = None if ends.show is None else Preview()
    with open_account(settings, preview, ends.show) as to:
        stream = _Stream(to, settings.unknown_traits, ends)
        for lines in chunks:
            items = [item_of(line, to.kind.integrations) for line in lines]
            for line, item in zip(lines, items, strict=True):
                if isinstance(item, Item) and item.refusal:
                    ends.broken(line, item.refusal)
            total.merge(stream.send(items))
            ends.progress(total)


class _Stream:
    """What stays the same from one chunk to the next."""

    def __init__(self, to: OpenAccount, unknown: str, ends: StreamEnds) -> None:
        self._to = to
        self._unknown = unknown
        self._ends = ends
        self._last: Sender | None = None
        self._unsettled: set[Key] = set()  # people with a change of their address that is left to the next run

    def send(self, items: Sequence[Item | Ignored]) -> Counts:
        """Sends a chunk. Messages that fail while the account answers are tried twice more.

        What follows a failure of its person is tried with it, so that the newest values stay; at the last time alone.
        So is a change of an address without an answer: what follows it waits until it is settled.
        """
        counts, unsettled = self._until_reached(partial(self._send, items, in_order=True))
        for wait in RETRY_WAITS:
            if counts.failed == counts.reasons["failed", PUT_OFF] and not counts.unknown:
                break
            left, changes = self._until_reached(partial(self._left, items))
            if not left:
                break
            stopped = self._ends.stop.wait(wait)
            if stopped and not counts.reasons["failed", PUT_OFF]:
                break
            last = stopped or wait == RETRY_WAITS[-1]
            self._until_reached(self._to.account.triggers)
            counts.drop_failed()
            counts.drop_unknown(changes)
            again, unsettled = self._until_reached(partial(self._send, left, in_order=not last))
            again.messages = 0
            counts.merge(again)
            if last:
                break
        self._unsettled = unsettled
        return counts

    def _send(self, items: Sequence[Item | Ignored], in_order: bool) -> tuple[Counts, set[Key]]:
        """Sends items. Returns the counts, and the people with something that is not settled."""
        held = HeldPeople(in_order, self._unsettled)
        kind, account, fields, triggers = self._to
        at_once = AT_ONCE if self._ends.show is None else 1
        with self._ends.opened() as log:
            sender = Sender(
                *(account, fields, triggers, log, self._unknown),
                at_once=at_once, kind=kind, after=self._last, held=held,
            )  # fmt: skip
            counts = sender.send(items)
        self._last = sender
        return counts, held.unsettled

    def _left(self, items: Sequence[Item | Ignored]) -> tuple[list[Item], list[str | None]]:
        """Returns the items to send again by the log, and what it says of changes of an address without an answer."""
        found = [item for item in items if isinstance(item, Item)]
        with self._ends.opened() as log:
            statuses = log.known(item.message_id for item in found)
        changes = {id_: status.message for (id_, trigger), status in statuses.items() if _is_change(trigger, status)}
        failed = {id_ for (id_, _), status in statuses.items() if status.status == "failed"}
        return [item for item in found if item.message_id in failed | changes.keys()], list(changes.values())

    def _until_reached(self, call: Callable[[], T]) -> T:
        return until_reached(call, self._ends.stop, self._ends.warn)


def _is_change(trigger: str | None, status: DeliveryStatus) -> bool:
    """Returns whether a row is about a change of an address that nobody knows the outcome of."""
    return trigger is None and status.status == "unknown"


def until_reached(send: Callable[[], T], stop: Stop, warn: Callable[[str], None]) -> T:
    """Returns what `send` returns, and calls it again, after growing waits, as long as it raises Unavailable.

    Raises that error if the stream is asked to end meanwhile.
    """
    wait = 1.0
    while True:
        try:
            return send()
        except Unavailable as error:
            if stop.is_set:
                raise
            warn(f"{error}. Nothing else is read; it is tried again in {wait:.0f} s.")
            if stop.wait(wait):
                raise
        wait = min(wait * 2, LONGEST_WAIT)
