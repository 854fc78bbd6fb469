"""The kinds of accounts: how Autopilot and Ortto differ, as far as the code that sends to them needs to know."""

from collections.abc import Callable
from dataclasses import dataclass

from ..catalog import DELIVERIES, INTEGRATIONS, ORTTO_DELIVERIES, ORTTO_INTEGRATIONS, Table
from .batch import Key, user_key
from .event_batches import EventBatches


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
    - `new_event_sender`: creates the sender of many events in one request; None if each is sent to its triggers.
    """

    name: str
    title: str
    log: Table
    integrations: tuple[str, ...]
    contacts: str
    no_event: str
    needs_email: bool = True
    tags: bool = False
    new_event_sender: Callable[..., EventBatches] | None = None

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
ORTTO = AccountKind(
    "ortto",
    "Ortto",
    ORTTO_DELIVERIES,
    ORTTO_INTEGRATIONS,
    "POST /person/merge",
    "No custom activity for the event {!r}, in the settings or by its name",
    needs_email=False,
    tags=True,
    new_event_sender=EventBatches,
)
ACCOUNT_KINDS = {kind.name: kind for kind in (AUTOPILOT, ORTTO)}
