"""Sends the messages of a stream. Each chunk of lines is delivered and logged before the next one is read."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ..errors import Unavailable
from ..segment.message import MAX_LINE, digest
from .batch import Key
from .counts import Counts
from .delivery_log import DeliveryLog
from .dispatch import DEFERRED
from .held import HeldPeople
from .lines import StopSignal
from .messages import Ignored, Item, from_line, refuse_item
from .opening import OpenAccount, open_account
from .preview import Preview
from .run_state import RunState
from .sender import Sender
from .settings import AnySettings

T = TypeVar("T")
RETRY_WAITS = (2.0, 5.0)  # seconds before messages that failed while the account answered are sent again
LONGEST_WAIT = 60.0  # seconds between two attempts while the account cannot be reached


@dataclass(frozen=True)
class StreamCallbacks:
    """The stop signal and the callbacks of a stream.

    - `open_log` opens the delivery log for one chunk.
    - `progress` is called with the counts so far.
    - `warn` is called with a line for the user.
    - `reject` is called with each line that is not a message, and the reason.
    - `show`, if given, is called with the text of each request, and none is sent.
    """

    open_log: Callable[[], AbstractContextManager[DeliveryLog]]
    stop: StopSignal
    progress: Callable[[Counts], None]
    warn: Callable[[str], None]
    reject: Callable[[bytes, str], None]
    show: Callable[[str], None] | None = None


def _item(line: bytes, integrations: Sequence[str]) -> Item | Ignored:
    """Returns the item of a line as `from_line` does, but refuses lines of more than 1 MiB."""
    if len(line) > MAX_LINE:
        return refuse_item(digest(line[:MAX_LINE]), "line_too_long")
    return from_line(line, integrations)


def deliver_stream(
    chunks: Iterable[Sequence[bytes]], settings: AnySettings, callbacks: StreamCallbacks, total: Counts
) -> None:
    """Sends the messages in chunks of lines to the account that the settings name, and adds the outcomes to `total`.

    The log is open while a chunk is sent, and closed while the stream waits for lines. While the account cannot be
    reached, the chunk is tried again, and nothing else is read. Raises ApiError if no request can succeed.
    """
    preview = None if callbacks.show is None else Preview()
    with open_account(settings, preview, callbacks.show) as to:
        stream = _Stream(to, callbacks)
        for lines in chunks:
            items = [_item(line, to.kind.integrations) for line in lines]
            for line, item in zip(lines, items, strict=True):
                if isinstance(item, Item) and item.refusal:
                    callbacks.reject(line, item.refusal)
            total.merge(stream.send(items))
            callbacks.progress(total)


class _Stream:
    """Sends chunks to an open account, with the state that they share."""

    def __init__(self, to: OpenAccount, callbacks: StreamCallbacks) -> None:
        self._to = to
        self._callbacks = callbacks
        self._state: RunState | None = None  # None until something was sent
        self._unsettled: set[Key] = set()  # people whose change of an address is left to the next run

    def send(self, items: Sequence[Item | Ignored]) -> Counts:
        """Sends a chunk. Messages that fail while the account answers are tried twice more.

        Later messages of their persons are deferred and tried with them, so that the newest values stay; at the last
        try they are sent even if the earlier message fails again. A change of an address whose answer was lost is tried
        again in the same way, and the person's later messages wait until its outcome is known.
        """
        counts, unsettled = self._send(items, in_order=True)
        waits = list(RETRY_WAITS)
        while waits:
            left, changes = self._to_resend(items, counts)
            is_stopped = bool(left) and self._callbacks.stop.wait(waits.pop(0))
            if not left or (is_stopped and not counts.reasons["failed", DEFERRED]):
                break
            if is_stopped:
                waits.clear()  # this is the last try
            self._until_reached(self._to.account.triggers)
            counts.drop_failed()
            counts.drop_unknown(changes)
            again, unsettled = self._send(left, in_order=bool(waits))
            again.messages = 0
            counts.merge(again)
        self._unsettled = unsettled
        return counts

    def _send(self, items: Sequence[Item | Ignored], in_order: bool) -> tuple[Counts, set[Key]]:
        """Sends items once the account is reached. Returns the counts, and the people with unsettled messages."""
        return self._until_reached(partial(self._attempt, items, in_order))

    def _attempt(self, items: Sequence[Item | Ignored], in_order: bool) -> tuple[Counts, set[Key]]:
        held = HeldPeople(in_order, self._unsettled)
        with self._callbacks.open_log() as log:
            state = self._state or RunState.new(self._to, log)
            counts = Sender(self._to, log, state, held).send(items)
        self._state = state
        return counts, held.unsettled

    def _to_resend(self, items: Sequence[Item | Ignored], counts: Counts) -> tuple[list[Item], list[str | None]]:
        """Returns the items to send again, and the logged reasons of address changes whose outcome is unknown.

        Nothing is to be sent again if messages were only deferred.
        """
        if counts.failed == counts.reasons["failed", DEFERRED] and not counts.unknown:
            return [], []
        found = [item for item in items if isinstance(item, Item)]
        with self._callbacks.open_log() as log:
            statuses = log.statuses(item.message_id for item in found)
        # In a stream, only a change of an address has an unknown status without a trigger.
        unknown = {key: status for key, status in statuses.items() if status.status == "unknown"}
        changes = {id_: status.message for (id_, trigger), status in unknown.items() if trigger is None}
        failed = {id_ for (id_, _), status in statuses.items() if status.status == "failed"}
        return [item for item in found if item.message_id in failed | changes.keys()], list(changes.values())

    def _until_reached(self, call: Callable[[], T]) -> T:
        return until_reached(call, self._callbacks.stop, self._callbacks.warn)


def until_reached(send: Callable[[], T], stop: StopSignal, warn: Callable[[str], None]) -> T:
    """Calls `send` until it does not raise Unavailable, with increasing waits in between, and returns its result.

    Raises Unavailable if the stream is asked to end meanwhile.
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
