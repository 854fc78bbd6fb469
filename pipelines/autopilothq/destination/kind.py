"""The kinds of accounts: all that the rules of sending need to know about Autopilot and Ortto."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ..catalog import DELIVERIES, INTEGRATIONS, Table
from .batch import BatchItem, Key, user_key
from .counts import Counts
from .delivery_log import DeliveryLog
from .requests import CircuitBreaker


class EventSender(Protocol):
    """Sends many events with one request."""

    def send(self, items: Sequence[BatchItem]) -> list[BatchItem]:
        """Sends the events of items in their order, and returns the items with an event that failed.

        Raises ApiError if every other request would end the same way.
        """


EventSenderFactory: TypeAlias = Callable[[Any, Any, DeliveryLog, Counts, CircuitBreaker], EventSender]
"""Makes an `EventSender` from an account, its triggers, the log, the counts and the circuit breaker."""


@dataclass(frozen=True)
class AccountKind:
    """A kind of account, as `--to` names it.

    - `title`: its display name.
    - `log`: the table of its delivery log.
    - `integrations`: its names in the `integrations` of a message.
    - `contacts`: the endpoint that writes many contacts.
    - `no_event`: the message for an event without a trigger or an activity.
    - `needs_email`: whether a contact is identified by an email only, and not also by a user id.
    - `tags`: whether the members of an audience get its name as a tag.
    - `new_event_sender`: makes an event sender; None if each event is sent to its triggers.
    """

    name: str
    title: str
    log: Table
    integrations: tuple[str, ...]
    contacts: str
    no_event: str
    needs_email: bool = True
    tags: bool = False
    new_event_sender: EventSenderFactory | None = None

    def key_of(self, email: str | None, user_id: str | None) -> Key | None:
        """Returns the key of a person, or None if the account cannot identify the person."""
        if email is not None:
            return email.lower()
        return user_key(user_id) if user_id and not self.needs_email else None


AUTOPILOT = AccountKind(
    "autopilot",
    "Autopilot",
    DELIVERIES,
    INTEGRATIONS,
    "POST /contacts",
    "No trigger for the event {!r}, in the settings or by a journey's title",
)
