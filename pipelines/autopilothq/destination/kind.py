"""What the rules of sending need to know of an account: Autopilot's and Ortto's differ only in this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ..catalog import DELIVERIES, INTEGRATIONS, Table
from .batch import BatchItem
from .counts import Counts
from .delivery_log import DeliveryLog
from .requests import CircuitBreaker


class EventSending(Protocol):
    """Sends the events of a batch together."""

    def send(self, items: Sequence[BatchItem]) -> list[BatchItem]:
        """Sends the events of items, in their order, and returns the items with an event that failed.

        Raises ApiError if every other request would end the same way.
        """


SendsTogether: TypeAlias = Callable[[Any, Any, DeliveryLog, Counts, CircuitBreaker], EventSending]
"""Makes an `EventSending` from an account, its triggers, the log, the counts and the circuit breaker."""


@dataclass(frozen=True)
class AccountKind:
    """A kind of account, as `--to` names it.

    `title` is its name for people. `log` is the table of its deliveries, which has no others. `integrations` are its
    names in the `integrations` of a message. `contacts` is the endpoint that writes many contacts. `no_event` is the
    message for an event that leads nowhere. Without `needs_email` a user id is enough to know a person. `together`
    makes what sends many events with one request; without it each is sent to its trigger. With `tags` the members of an
    audience get its name as a tag.
    """

    name: str
    title: str
    log: Table
    integrations: tuple[str, ...]
    contacts: str
    no_event: str
    needs_email: bool = True
    tags: bool = False
    together: SendsTogether | None = None


AUTOPILOT = AccountKind(
    "autopilot",
    "Autopilot",
    DELIVERIES,
    INTEGRATIONS,
    "POST /contacts",
    "No trigger for the event {!r}, in the settings or by a journey's title",
)
