"""Sends many events with one request, which Ortto accepts (docs/contract/destination.md#ortto)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from ..clients.ortto import MOST_WRITTEN, Written
from ..errors import ApiError, RequestRejected
from ..projection.engine import batched
from .batch import BatchItem
from .counts import Counts
from .delivery_log import Delivery, DeliveryLog
from .ortto import OrttoAccount, refusal, was_written
from .ortto_fields import USER_ID, Activities
from .ortto_values import time_of
from .requests import CircuitBreaker, Outcome, is_of_service, outcome_of
from .values import CastError

MOST_ACTIVITY_BYTES = 16_000  # bytes of one activity
DAYS_BACK = 90  # days; Ortto accepts no older activity
_ENDPOINT = "POST /activities/create"

_Statuses: TypeAlias = list[tuple[str, str | None]]
"""The delivery statuses and messages of an item's activities."""


class _Event(NamedTuple):
    """An activity to create: its item, its row of the log, its body, and the statuses of its item's activities."""

    item: BatchItem
    row: Delivery
    body: dict[str, Any]
    statuses: _Statuses


@dataclass(frozen=True)
class EventBatches:
    """Creates the activities of events. It is thread-safe.

    The request is not idempotent. So an activity's row is written before it, as `unknown`, and the activity is not sent
    again until its outcome is known.
    """

    account: OrttoAccount
    activities: Activities
    log: DeliveryLog
    counts: Counts
    breaker: CircuitBreaker

    def send(self, items: Sequence[BatchItem]) -> list[BatchItem]:
        """Sends the events of items in their order, and returns the items with an event that failed.

        Raises ApiError if every other request would end the same way.
        """
        sent: list[tuple[BatchItem, _Statuses]] = [(item, []) for item in items]
        try:
            events = [event for item, statuses in sent for event in self._events(item, statuses)]
            for some in batched(events, MOST_WRITTEN):
                if self.breaker.is_open:
                    break
                self._send_some(some)
        finally:
            for item, statuses in sent:
                if statuses:
                    self.counts.add_message(statuses, item.earlier)
        return [item for item, statuses in sent if any(status == "failed" for status, _ in statuses)]

    def _events(self, item: BatchItem, statuses: _Statuses) -> Iterator[_Event]:
        """Yields the activities of an item, and refuses those that Ortto would not accept."""
        for activity in item.triggers:
            values, remarks = self.activities.attributes(activity, item.properties)
            row = item.row._replace(
                trigger_id=activity, endpoint=_ENDPOINT, remarks=_with_remarks(item.row.remarks, remarks)
            )
            self.counts.add_remarks(remarks)
            body = {"activity_id": activity, "attributes": values, "key": item.row.message_id, **_person(item)}
            why, created = _created(item.timestamp)
            body |= {"created": created} if created else {}
            if why is None and len(json.dumps(body).encode()) > MOST_ACTIVITY_BYTES:
                why = f"The activity is larger than {MOST_ACTIVITY_BYTES:,} bytes, which Ortto does not accept"
            if why is not None:
                self.log.add([row._replace(status="refused", message=why, endpoint=None)])
                statuses.append(("refused", why))
            else:
                yield _Event(item, row, body, statuses)

    def _send_some(self, events: Sequence[_Event]) -> None:
        self.log.add([event.row for event in events])
        outcomes: list[Outcome] = []
        try:
            self._attempt(events, outcomes)
        except ApiError as error:
            outcomes += [outcome_of("failed", _ENDPOINT, error)] * (len(events) - len(outcomes))
            raise
        finally:
            pairs = list(zip(events, outcomes, strict=False))
            self.log.write_outcomes(outcome.of(event.row) for event, outcome in pairs)
            for event, outcome in pairs:
                event.statuses.append((outcome.status, outcome.message))

    def _attempt(self, events: Sequence[_Event], outcomes: list[Outcome]) -> None:
        """Creates activities with one request, or in halves if it was refused. `outcomes` gets one for each."""
        answers: list[Written] = []
        bodies = [event.body for event in events]
        outcome, error = self.breaker.attempt(
            _ENDPOINT, lambda: answers.extend(self.account.create_activities(bodies)), once=True
        )
        if isinstance(error, RequestRejected) and len(events) > 1:
            middle = len(events) // 2
            self._attempt(events[:middle], outcomes)
            self._attempt(events[middle:], outcomes)
            return
        if error is not None:
            outcomes += [outcome] * len(events)
        for written in answers:
            refused = outcome._replace(status="refused", message=refusal(written))
            outcomes.append(outcome if was_written(written) else refused)
        if is_of_service(error):
            self.breaker.failed(error, events[0].item.key)


def _person(item: BatchItem) -> dict[str, Any]:
    """Returns the keys that identify an activity's person, whom `/person/merge` has written by the same keys before."""
    if item.row.email:
        return {"fields": {"str::email": item.row.email}, "merge_by": ["str::email"]}
    return {"fields": {USER_ID.key: item.row.user_id}, "merge_by": [USER_ID.key]}


def _created(timestamp: str | None) -> tuple[str | None, str | None]:
    """Returns why an event with that timestamp cannot be sent (None if it can), and the time in Ortto's notation."""
    if timestamp is None:
        return None, None
    try:
        at = time_of(timestamp)
    except CastError:
        return None, None
    if datetime.now(UTC) - at > timedelta(days=DAYS_BACK):
        return f"The event is older than {DAYS_BACK} days, which Ortto does not accept", None
    return None, f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _with_remarks(before: str | None, remarks: Mapping[str, str]) -> str | None:
    """Returns the JSON of a row's remarks with more remarks added, None if there are none."""
    every = {**(json.loads(before) if before else {}), **remarks}
    return json.dumps(every, ensure_ascii=False) if every else None
