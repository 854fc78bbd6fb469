"""Sends batches in threads, so that slow answers do not reduce the rate, and writes their outcomes to the log."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Self

from ..clients.urls import path_of
from ..errors import ApiError
from .batch import BatchItem, ContactBatch, Key, contact_keys, content_of, item_keys
from .counts import Counts
from .delivery_log import OUTCOME, SENT_AGAIN, Delivery, DeliveryLog, is_rejected
from .halving import ContactWriter
from .held import HeldPeople
from .opening import OpenAccount
from .requests import CircuitBreaker, Outcome, RunStopped, outcome_of
from .run_state import RunState

DEFERRED = "put off: an earlier message of the person is not settled"
_DEFERRED = Outcome("failed", None, None, DEFERRED)
AT_ONCE = 8  # requests in flight; the client limits their rate


class Dispatcher:
    """Sends batches concurrently, except those that share a person, which it sends one after the other.

    `progress` is called after each batch. After its context ends, nothing more is sent.

    Example: `with Dispatcher(sender, print, 8) as dispatcher: dispatcher.submit(batch); dispatcher.drain()`.
    """

    def __init__(self, sender: "BatchSender", progress: Callable[[], None], at_once: int) -> None:
        self._sender = sender
        self._progress = progress
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(at_once)
        self._running: dict[Future[list[list[BatchItem]]], set[Key]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sender.breaker.open()
        self._pool.shutdown(wait=True)

    def submit(self, batch: ContactBatch) -> None:
        """Sends a batch, after those in flight that share a person with it. Raises ApiError as `drain` does."""
        people = batch.people()
        while len(self._running) >= self._at_once or any(people & others for others in self._running.values()):
            self._wait()
        self._running[self._pool.submit(self._sender.send_batch, batch)] = people

    def drain(self) -> None:
        """Waits until everything is sent. Raises the ApiError that ended the run."""
        while self._running:
            self._wait()

    def _wait(self) -> None:
        """Waits until a batch in flight is done, and submits the events of its contacts."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            del self._running[future]
        try:
            events = [items for future in done for items in future.result()]
        except RunStopped as stopped:
            raise self._sender.breaker.cause or stopped from None
        for items in events:
            people = {key for item in items for key in item_keys(item)}
            self._running[self._pool.submit(self._sender.send_events, items)] = people
        self._progress()


class BatchSender:
    """Does the work of the threads: writes the contacts of a batch, then sends the events of each contact.

    `held` are the people whose messages must wait. `state` is the run's.
    """

    def __init__(self, to: OpenAccount, log: DeliveryLog, counts: Counts, held: HeldPeople, state: RunState) -> None:
        self.breaker = CircuitBreaker(to.account)
        make = to.kind.new_event_sender
        self._event_sender = make(to.account, to.triggers, log, counts, self.breaker) if make is not None else None
        self._kind = to.kind
        self._account = to.account
        self._log = log
        self._counts = counts
        written_before = log.last_contacts if state.gives_up else list[str]
        self.writer = ContactWriter(to.account, self.breaker, to.kind, state.last_written, written_before)
        self._gives_up = state.gives_up
        self._held = held

    def send_batch(self, batch: ContactBatch) -> list[list[BatchItem]]:
        """Writes a batch's contacts, and returns the items whose events are to be sent.

        The items are in one list for each person, or all in one if the account takes many events with one request.
        """
        outcomes: dict[Key, Outcome] = {}
        ahead = [item for item in batch.items if item.write_ahead]
        self._log.add([item.row_ahead for item in ahead])
        try:
            self._defer_held(batch, outcomes)
            self._write(batch, outcomes)
        except ApiError as error:
            failed = outcome_of("failed", self._kind.contacts, error)
            if isinstance(error, RunStopped):  # it was not sent
                self._log.write_outcomes(failed.of(item.row) for item in ahead if item.key not in outcomes)
            else:
                outcomes |= {item.key: failed for item in batch.items if item.key not in outcomes}
            raise
        finally:
            done = _rows_with_outcomes(batch.items, outcomes)
            self._log_ahead([row for item, row in done if item.write_ahead])
            self._log_outcomes(batch.refused, done, outcomes)
        left = [item for item in batch.items if item.triggers and outcomes[item.key].status == "delivered"]
        if self._event_sender is not None:
            return [left] if left else []
        return _by_person(left)

    def _defer_held(self, batch: ContactBatch, outcomes: dict[Key, Outcome]) -> None:
        """Removes contacts from a batch whose earlier messages must be sent first; they fail as deferred."""
        for key, values in list(batch.contacts.items()):
            keys = contact_keys(values)
            if self._held.holds(keys, batch.renames):
                self._held.note_unsettled(keys)
                del batch.contacts[key]
                outcomes[key] = _DEFERRED

    def _write(self, batch: ContactBatch, outcomes: dict[Key, Outcome]) -> None:
        """Writes a batch's contacts. `outcomes` gets the outcome of each, even if this raises."""
        if batch.renames:
            self._change_addresses(batch, outcomes)
        elif batch.contacts:
            self._write_contacts(batch, outcomes)

    def _write_contacts(self, batch: ContactBatch, outcomes: dict[Key, Outcome]) -> None:
        failed_before = {item.key for item in batch.items if item.failed_before}
        self.writer.write(batch.contacts, outcomes, failed_before)
        for key, values in batch.contacts.items():
            # A contact that fails every time holds up no change of its address: `DeferredContacts.move` moves it along.
            always = key in failed_before and self.writer.is_bad(key, outcomes, failed_before=True)
            if outcomes[key].status == "failed":
                self._held.note_failed(contact_keys(values), always)

    def _change_addresses(self, batch: ContactBatch, outcomes: dict[Key, Outcome]) -> None:
        may_give_up = self._gives_up and any(item.failed_before for item in batch.items)
        for key, values in batch.contacts.items():
            self.writer.forget(values["Email"])
            request = partial(self._account.upsert, values)
            outcomes[key] = self.breaker.send("POST /contact", request, key, once=True)
            if outcomes[key].status in ("unknown", "failed"):
                self._held.note_unsettled(contact_keys(values))
            if outcomes[key].status == "unknown" and may_give_up and self.writer.is_available():
                self._held.give_up(contact_keys(values))

    def _log_ahead(self, rows: Sequence[Delivery]) -> None:
        """Updates the rows that were written before the request; a refused contact's row gets its values' digest."""
        self._log.write_outcomes(row for row in rows if not is_rejected(row))
        self._log.write_outcomes(filter(is_rejected, rows), (*OUTCOME, "content"))

    def _log_outcomes(
        self, refused: list[Delivery], done: Iterable[tuple[BatchItem, Delivery]], outcomes: Mapping[Key, Outcome]
    ) -> None:
        """Counts the items whose outcome is known, and writes the rows that are not in the log yet."""
        rows = refused
        for item, row in done:
            is_given_up = self._held.are_given_up(item_keys(item))
            self._counts.add("bad", is_given_up if row.message == DEFERRED else _is_bad(self.writer, item, outcomes))
            self._counts.add("unsettled", self._gives_up and row.status == "unknown" and not is_given_up)
            is_identify = row.kind == "identify" and not item.resent
            if item.resent:
                rows.append(row._replace(message=row.message or SENT_AGAIN))
            elif is_identify and not item.write_ahead:
                rows.append(row)
            elif row.status not in ("delivered", "unknown"):
                # A change of an address whose outcome is unknown has its row in the log already, without a trigger.
                rows += [row._replace(trigger_id=trigger) for trigger in item.triggers]
            if is_identify or row.status != "delivered":
                self._counts.add_message([(row.status, row.message)], item.earlier)
            elif item.resent:
                self._counts.add_earlier(item.earlier)
        self._log.add(rows)

    def send_events(self, items: Sequence[BatchItem]) -> list[list[BatchItem]]:
        """Sends events: those of a person one by one, or all with the event sender. Returns []: none are left."""
        if self._event_sender is not None:
            self._held.note_failed(key for item in self._event_sender.send(items) for key in item_keys(item))
            return []
        for item in items:
            if not self._held.holds(item_keys(item)):
                self._send_event(item)
            else:
                self._log.add([_DEFERRED.of(item.row)._replace(trigger_id=trigger) for trigger in item.triggers])
                self._counts.add_message([("failed", DEFERRED)], item.earlier)
        return []

    def _send_event(self, item: BatchItem) -> None:
        """Sends a contact to the triggers of an event.

        A trigger is not idempotent: its row is written before its request, and it is not sent again until the outcome
        is known.
        """
        outcomes: list[tuple[str, str | None]] = []
        for trigger in item.triggers:
            if self.breaker.is_open:
                return
            who = item.row.email or ""
            endpoint = f"POST {path_of(['trigger', trigger, 'contact', who])}"
            row = item.row._replace(trigger_id=trigger, endpoint=endpoint)
            self._log.add([row])
            request = partial(self._account.trigger, trigger, who)
            try:
                outcome = self.breaker.send(endpoint, request, item.key)
            except ApiError as error:
                self._log.write_outcomes([outcome_of("failed", endpoint, error).of(row)])
                raise
            self._log.write_outcomes([outcome.of(row)])
            if outcome.status == "failed":
                self._held.note_failed(item_keys(item))
            outcomes.append((outcome.status, outcome.message))
        self._counts.add_message(outcomes, item.earlier)


def _is_bad(writer: ContactWriter, item: BatchItem, outcomes: Mapping[Key, Outcome]) -> bool:
    """Returns whether another try of an item that failed would not help.

    An item that is sent again gets a second try, because the account may have an older message's values meanwhile.
    """
    is_bad = writer.is_bad(item.key, outcomes, item.failed_before)
    return is_bad and (item.failed_before or not item.resent)


def _rows_with_outcomes(
    items: Sequence[BatchItem], outcomes: Mapping[Key, Outcome]
) -> list[tuple[BatchItem, Delivery]]:
    """Returns the items whose outcome is known, with their rows.

    The row of an item that was refused for its values has their digest as its content, so that it is not sent again
    until they change. If several items of the person were merged, it is unknown whose values were refused.
    """
    items_of = Counter(item.key for item in items)
    done: list[tuple[BatchItem, Delivery]] = []
    for item in items:
        if item.key in outcomes:
            row = outcomes[item.key].of(item.row)
            if is_rejected(row):
                row = row._replace(content=content_of(row, item.values) if items_of[item.key] == 1 else None)
            done.append((item, row))
    return done


def _by_person(items: Iterable[BatchItem]) -> list[list[BatchItem]]:
    """Returns the items in lists, one for each person."""
    found: dict[Key, list[BatchItem]] = {}
    for item in items:
        found.setdefault(item.key, []).append(item)
    return list(found.values())
