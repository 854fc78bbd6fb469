"""Sends items to an account in batches: each person's in order, and none twice.

Items are planned in their order (`plan`): `history` is what earlier runs did with an item, and `addresses` finds the
address that its contact has now. Five modules keep the items of a person in order:

- `order` finds delivered items that must be sent again, because an older item of their person is sent only now.
- `deferred` keeps contacts that failed in the last run until all others are sent, so that they hold up nobody.
- `dispatch` never has two batches with the same person in flight, and sends the events of a batch after its contacts.
- `held` are people with an item that failed, or with a change of the address whose outcome is unknown: their later
  items must wait.
- `changes` follows the changes of addresses that earlier runs made, and `emails` those of this run.

`run_state` has what must outlast a sender, because a stream has one for each chunk.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..clients.autopilot import MOST_CONTACTS
from ..clients.settings import MAX_ATTEMPTS
from ..projection.engine import batched
from ..segment.identity import HashedIds, forms
from .batch import ContactBatch, merged
from .counts import Counts
from .deferred import DeferredContacts
from .delivery_log import FOUND, Delivery, DeliveryLog, DeliveryStatus, Statuses
from .dispatch import AT_ONCE, BatchSender, Dispatcher
from .emails import email_of
from .held import HeldPeople
from .log_table import storable
from .messages import Ignored, Item, id_text
from .opening import OpenAccount
from .plan import Planned, Planner, renamed
from .run_state import RunState

CHUNK = 1000  # items whose delivery statuses one query returns


class Sender:
    """Sends items, and writes the outcome of each to the log.

    `state` is the run's, which may have sent other items before. `held` are the people whose messages must wait.
    `progress` is called with the counts.

    Example: `with open_account(settings) as to: counts = Sender(to, log, RunState.new(to, log)).send(items)`.
    """

    def __init__(
        self,
        to: OpenAccount,
        log: DeliveryLog,
        state: RunState,
        held: HeldPeople | None = None,
        progress: Callable[[Counts], None] = lambda _: None,
    ) -> None:
        self._fields = to.fields
        self._log = log
        self._state = state
        self._progress = progress
        self._counts = Counts()
        self._suppressed = log.suppressed_ids()
        self._deferred = DeferredContacts(state.changes)
        self._planner = Planner(to, state, self._counts, self._deferred.move)
        self._batch_sender = BatchSender(to, log, self._counts, held or HeldPeople(), state)
        at_once = 1 if to.is_dry_run else AT_ONCE
        self._dispatcher = Dispatcher(self._batch_sender, partial(progress, self._counts), at_once)
        self._batches = _Batches(self._dispatcher, state, log, self._counts)
        self._seen: set[str] = set()

    def send(self, items: Iterable[Item | Ignored]) -> Counts:
        """Sends all items and returns the counts of their outcomes.

        Raises ApiError if the run must stop. The next run sends what the log does not have.
        """
        self._state.begin()
        with self._dispatcher:
            for chunk in batched(items, CHUNK):
                self._take(chunk)
            self._drain()
            for planned in self._deferred.release_all():
                self._batches.put(planned)
            self._drain()
        self._state.end(self._log, self._batch_sender.writer.last_written)
        return self._counts

    def _take(self, chunk: Sequence[Item | Ignored]) -> None:
        """Plans a chunk of items, and sends the batches that become full."""
        self._counts.messages += len(chunk)
        count_ignored(self._counts, [item for item in chunk if isinstance(item, Ignored)])
        items = [item for item in chunk if isinstance(item, Item)]
        statuses = self._log.statuses(item.message_id for item in items)
        self._state.emails.look_up(items)
        for item in items:
            self._take_item(item, statuses)
        self._progress(self._counts)

    def _take_item(self, item: Item, statuses: Statuses) -> None:
        """Plans an item. Its contact is deferred, or put into the batch behind those that must be sent before it."""
        if item.once:
            if item.message_id in self._seen:
                self._counts.add("repeated")
                return
            self._seen.add(item.message_id)
        email = email_of(self._fields, item)
        if is_suppressed(item, email, self._suppressed):
            self._counts.add("suppressed")
            return
        if email is None and self._state.emails.is_changing(item.user_id):
            self._drain()
        planned = self._planner.plan(item, statuses)
        if planned is None:
            return
        if isinstance(planned, Delivery):
            self._batches.refuse(planned, statuses.get((planned.message_id, None)))
            return
        if has_suppressed_address(planned.values, self._suppressed):
            self._counts.add("suppressed")
            return
        if not self._deferred.defer(planned):
            for each in (*self._deferred.release(planned), planned):
                self._batches.put(each)
        self._state.touch(planned.item)

    def _drain(self) -> None:
        """Waits until everything is sent, and reverts the changes of addresses that were refused."""
        self._batches.flush()
        self._dispatcher.drain()
        self._state.emails.apply_changes()


@dataclass
class _Batches:
    """Collects contacts in batches, and submits each when it is full, or conflicts with the next contact."""

    dispatcher: Dispatcher
    state: RunState
    log: DeliveryLog
    counts: Counts
    batch: ContactBatch = field(default_factory=ContactBatch)

    def refuse(self, row: Delivery, before: DeliveryStatus | None) -> None:
        """Counts an item that is refused, and adds its row unless the last row has the same status and message.

        The same archive may be sent every hour, and most of its events may have no trigger.
        """
        self.counts.add_message([(row.status, row.message)])
        if before is not None and (before.status, before.message) == (row.status, *storable([row.message])):
            return
        self.batch.refused.append(row)
        if len(self.batch.refused) >= CHUNK:
            self.flush()

    def put(self, planned: Planned) -> None:
        """Adds a contact to the batch. A change of an address gets a batch of its own."""
        if planned.renames:
            self._put_change(planned)
            return
        item, values, _ = planned
        is_full = item.key not in self.batch.contacts and len(self.batch.contacts) == MOST_CONTACTS
        if is_full or self.batch.conflicts_with(item.key, values, item.alone):
            self.flush()
        # A row of a query is logged before its request, so that it is sent again even if its values change back.
        self._add_to_batch(planned, write_ahead=item.row.content is not None)

    def _put_change(self, planned: Planned) -> None:
        """Sends a change of an address in a batch of its own, unless it was made and only its answer was lost."""
        self.flush()
        item, values, before = planned
        id_, email, new = item.row.message_id, values["Email"], values["_NewEmail"]
        planned = planned.with_item(row=item.row._replace(email=new))  # for a later look-up of its user ids
        if before is not None and before.status == "unknown" and self.state.changes.was_made(id_, email, new):
            self.state.emails.note_change(None, email, new, item.row.user_id)
            self._put_made(planned)
            return
        self.state.emails.note_change(id_, email, new, item.row.user_id)
        self._add_to_batch(planned, write_ahead=True)
        self.state.touch_address(new)
        self.batch.renames = True
        self.flush()

    def _put_made(self, planned: Planned) -> None:
        """Logs a change of an address as made, and adds what is left to send: its journeys, or values to send again."""
        # Logged now: after the person's next change of address it could not be found any more.
        row = planned.item._replace(values=planned.values).row_ahead
        self.log.add([row._replace(status="delivered", message=FOUND)])
        values = renamed(planned.values)
        key, is_track = values["Email"].lower(), row.kind == "track"
        if is_track or self.state.order.is_touched(key):
            self.put(planned.with_item(key=key, resent=not is_track)._replace(values=values))
        else:
            self.counts.add_message([("delivered", None)])

    def _add_to_batch(self, planned: Planned, write_ahead: bool) -> None:
        item, values, before = planned
        failed_before = before is not None and before.status == "failed"
        if planned.renames:  # a run sends it with a single request, so runs are counted
            failed_before = before is not None and before.unknown >= MAX_ATTEMPTS - 1
        self.batch.contacts[item.key] = merged(self.batch.contacts.get(item.key, {}), values)
        self.batch.items.append(
            item._replace(write_ahead=write_ahead, failed_before=failed_before, values=item.values or values)
        )

    def flush(self) -> None:
        """Sends the batch, or only logs its rows if it has no contacts."""
        batch, self.batch = self.batch, ContactBatch()
        if batch.contacts:
            self.dispatcher.submit(batch)
        else:
            self.log.add(batch.refused)


def count_ignored(counts: Counts, ignored: Sequence[Ignored]) -> None:
    """Counts what is not sent, because it is not meant for the account, or no account takes its type."""
    counts.add("not_meant", sum(item.not_meant for item in ignored))
    counts.ignored.update(item.type for item in ignored if not item.not_meant)


def is_suppressed(item: Item, email: str | None, suppressed: HashedIds) -> bool:
    """Returns whether an item is about a person on the suppression list, by email, user id or contact id."""
    contact_id = id_text(item.context_traits.get("contact_id"))
    ids = (("email", email), ("user_id", item.user_id), ("contact_id", contact_id))
    return any(id_ in suppressed for kind, value in ids if value for id_ in forms(kind, value))


def has_suppressed_address(values: Mapping[str, Any], suppressed: HashedIds) -> bool:
    """Returns whether a contact has, or is to have, the address of a person on the suppression list."""
    emails = [str(email) for email in (values.get("Email"), values.get("_NewEmail")) if email]
    return any(id_ in suppressed for email in emails for id_ in forms("email", email))
