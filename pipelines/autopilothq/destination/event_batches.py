"""Sends many events with one request, if an account accepts that (docs/contract/destination.md#ortto)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..clients.ortto import MOST_WRITTEN, Written
from ..errors import ApiError, RequestRejected, Unavailable
from .account import SentTo
from .batch import BatchItem
from .counts import Counts
from .delivery_log import Delivery, DeliveryLog
from .ortto import is_taken, refusal
from .ortto_fields import USER_ID, Activities
from .ortto_values import time_of
from .requests import CircuitBreaker, Outcome, attempt_request, outcome_of
from .values import CastError

MOST_ACTIVITY_BYTES = 16_000  # of one activity
DAYS_BACK = 90
_ENDPOINT = "POST /activities/create"


_Statuses: TypeAlias = dict[int, list[tuple[str, str | None]]]
"""The delivery statuses of an item's activities, with their messages, by its number."""


class EventAccount(SentTo, Protocol):
    """The part of an account that accepts many events at once."""

    def create_activities(self, activities: Sequence[Mapping[str, Any]], /) -> list[Written]:
        """Creates activities with one request."""


class _Event(NamedTuple):
    """An activity to create: the number of its item, the item, its row of the log, and its body."""

    number: int
    item: BatchItem
    row: Delivery
    body: dict[str, Any]


class EventBatches:
    """Creates the activities of events. Threads may share it.

    Creating one is not idempotent: its row is written before the request, as `unknown`, and it is not sent again until
    the outcome is known.
    """

    def __init__(
        self,
        account: EventAccount,
        activities: Activities,
        log: DeliveryLog,
        counts: Counts,
        breaker: CircuitBreaker,
    ) -> None:
        self._account = account
        self._activities = activities
        self._log = log
        self._counts = counts
        self._breaker = breaker

    def send(self, items: Sequence[BatchItem]) -> list[BatchItem]:
        """Sends the events of items, in their order, and returns the items with an event that failed.

        Raises ApiError if every other request would end the same way.
        """
        statuses: _Statuses = {}
        try:
            events = [event for number, item in enumerate(items) for event in self._events(number, item, statuses)]
            for start in range(0, len(events), MOST_WRITTEN):
                if self._breaker.is_open:
                    break
                self._send_some(events[start : start + MOST_WRITTEN], statuses)
        finally:
            for number, item in enumerate(items):
                if found := statuses.get(number):
                    message = next((text for _, text in found if text), None)
                    self._counts.add_message([*item.earlier, *(status for status, _ in found)], message)
        return [items[number] for number, found in statuses.items() if any(status == "failed" for status, _ in found)]

    def _events(self, number: int, item: BatchItem, statuses: _Statuses) -> Iterator[_Event]:
        """Yields the activities of an item; those that Ortto would not accept are refused here."""
        for activity in item.triggers:
            values, remarks = self._activities.attributes(activity, item.properties)
            row = item.row._replace(trigger_id=activity, endpoint=_ENDPOINT, remarks=_with(item.row.remarks, remarks))
            self._counts.add_remarks(f"{name} was {why.partition(', got ')[0]}" for name, why in remarks.items())
            body = {"activity_id": activity, "attributes": values, "key": item.row.message_id, **_person(item)}
            why, created = _created(item.timestamp)
            body |= {"created": created} if created else {}
            if why is None and len(json.dumps(body).encode()) > MOST_ACTIVITY_BYTES:
                why = f"The activity is larger than {MOST_ACTIVITY_BYTES:,} bytes, which Ortto does not accept"
            if why is not None:
                self._log.add([row._replace(status="refused", message=why, endpoint=None)])
                statuses.setdefault(number, []).append(("refused", why))
                continue
            yield _Event(number, item, row, body)

    def _send_some(self, events: Sequence[_Event], statuses: _Statuses) -> None:
        self._log.add([event.row for event in events])
        outcomes: list[Outcome] = []
        try:
            self._attempt(events, outcomes)
        except ApiError as error:
            rest = events[len(outcomes) :]
            outcomes += [outcome_of("failed", _ENDPOINT, error)] * len(rest)
            raise
        finally:
            pairs = list(zip(events, outcomes, strict=False))
            self._log.write_outcomes(outcome.of(event.row) for event, outcome in pairs)
            for event, outcome in pairs:
                statuses.setdefault(event.number, []).append((outcome.status, outcome.message))

    def _attempt(self, events: Sequence[_Event], outcomes: list[Outcome]) -> None:
        """Creates activities with one request, or in halves if all were refused; `outcomes` gets one for each."""
        answers: list[Written] = []
        bodies = [event.body for event in events]
        outcome, error = attempt_request(
            self._account,
            self._breaker,
            _ENDPOINT,
            lambda: answers.extend(self._account.create_activities(bodies)),
            once=True,
        )
        if isinstance(error, RequestRejected) and len(events) > 1:
            middle = len(events) // 2
            self._attempt(events[:middle], outcomes)
            self._attempt(events[middle:], outcomes)
            return
        outcomes += [_outcome(outcome, one) for one in answers] or [outcome] * len(events)
        if isinstance(error, Unavailable):
            self._breaker.failed(error, events[0].item.key)


def _outcome(outcome: Outcome, written: Written) -> Outcome:
    return outcome if is_taken(written) else outcome._replace(status="refused", message=refusal(written))


def _person(item: BatchItem) -> dict[str, Any]:
    """Returns the person of an activity, found as `/person/merge` has written them before."""
    if item.row.email:
        return {"fields": {"str::email": item.row.email}, "merge_by": ["str::email"]}
    return {"fields": {USER_ID.key: item.row.user_id}, "merge_by": [USER_ID.key]}


def _created(timestamp: str | None) -> tuple[str | None, str | None]:
    """Returns why an event of that time is not sent, or None if it is; and the time as Ortto takes it."""
    if timestamp is None:
        return None, None
    try:
        at = time_of(timestamp)
    except CastError:
        return None, None
    if datetime.now(UTC) - at > timedelta(days=DAYS_BACK):
        return f"The event is older than {DAYS_BACK} days, which Ortto does not accept", None
    return None, f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _with(before: str | None, remarks: Mapping[str, str]) -> str | None:
    """Returns the remarks of a row, with more of them."""
    every = {**(json.loads(before) if before else {}), **remarks}
    return json.dumps(every, ensure_ascii=False) if every else None
