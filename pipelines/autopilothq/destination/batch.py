"""A batch: the contacts that one request writes, and the items that they are made of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..catalog import OWN_KEYS
from .delivery_log import CHANGED, Delivery, address_digest

EXTERNAL_ID = "str::ei"  # Ortto's field that holds the user id
Key: TypeAlias = str
"""The key of a contact: its email in lower case, or, in Ortto, a digest of its user id if it has no email."""


class BatchItem(NamedTuple):
    """An item in a batch: its row for the log, still without the outcome, and the triggers to send its contact to.

    - `earlier`: the delivery statuses of the triggers that earlier runs sent.
    - `resent`: it was delivered before, and is sent again because an older message of its person came late.
    - `write_ahead`: its row is written before the request, as `unknown`, because the program may end in between.
    - `failed_before`: it failed in the last run.
    - `alone`: its contact was refused before, so it is not merged with others of the person.
    - `values`: the contact's values. `properties` and `timestamp`: the event's.
    - `person`: the contact's current key, if that is no longer `key`.
    """

    key: Key
    row: Delivery
    triggers: list[str]
    earlier: Sequence[str] = ()
    resent: bool = False
    write_ahead: bool = False
    failed_before: bool = False
    alone: bool = False
    values: Mapping[str, Any] = {}
    properties: Mapping[str, Any] = {}
    timestamp: str | None = None
    person: Key | None = None

    @property
    def row_ahead(self) -> Delivery:
        """The row to write before the request. If the item changes an address, its content has the old one's digest.

        An item that was made from a query's row keeps its own content.
        """
        if self.row.content is not None or not self.values.get("_NewEmail"):
            return self.row
        return self.row._replace(content=f"{CHANGED}{address_digest(self.values['Email'])}")


@dataclass
class ContactBatch:
    """Contacts by key, the items that they are made of, and the rows of the log for items that are refused unsent."""

    contacts: dict[Key, dict[str, Any]] = field(default_factory=dict)
    items: list[BatchItem] = field(default_factory=list)
    refused: list[Delivery] = field(default_factory=list)
    renames: bool = False  # whether it changes an address

    def people(self) -> set[Key]:
        """Returns the keys of all contacts; a contact with a new address or an external id has several."""
        return {key for values in self.contacts.values() for key in contact_keys(values)}

    def conflicts_with(self, key: Key, values: Mapping[str, Any], alone: bool = False) -> bool:
        """Returns whether the batch has a contact of the same person that these values cannot be merged with.

        That is so if, after the merge, an event that is still to be sent would find values other than its own, or one
        of Autopilot's own keys would apply to both or be lost. A contact that must be `alone` is never merged.
        """
        if any(other != key and other in self.contacts for other in contact_keys(values)):
            return True  # the person is in the batch by another key
        if key not in self.contacts:
            return False
        before, items = self.contacts[key], [item for item in self.items if item.key == key]
        if alone or any(item.alone for item in items):
            return True
        own = {name: values[name] for name in OWN_KEYS if name in values}
        if before.get("notify") != values.get("notify") or _contradicts(before, own):
            return True
        if not any(item.triggers for item in items):
            return False
        standard = {name: value for name, value in values.items() if name != "custom"}
        return _contradicts(before, standard) or _contradicts(before.get("custom", {}), values.get("custom", {}))


def _contradicts(before: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Returns whether one of the values differs from the value that its field has in `before`."""
    return any(name in before and before[name] != value for name, value in values.items())


def merged(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the contact `before` with `values`, which replace its own field by field."""
    custom = {**before.get("custom", {}), **values.get("custom", {})}
    return {**before, **values} | ({"custom": custom} if custom else {})


def contact_key(values: Mapping[str, Any]) -> Key:
    """Returns the key of a contact."""
    return contact_keys(values)[0]


def contact_keys(values: Mapping[str, Any]) -> list[Key]:
    """Returns all keys that a contact may have, its own key first: email, new address, external id."""
    emails = [str(email).lower() for email in (values.get("Email"), values.get("_NewEmail")) if email]
    user_id = values.get("custom", {}).get(EXTERNAL_ID)
    return [*emails, *([user_key(str(user_id))] if user_id else [])]


def content_of(row: Delivery, values: Mapping[str, Any]) -> str:
    """Returns the content of an item in the log: its own, otherwise a digest of its contact's values."""
    return row.content or hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def item_keys(item: BatchItem) -> set[Key]:
    """Returns the keys of an item's contact: its own, and the address that the item has changed it to."""
    return {item.key, *([item.row.email.lower()] if item.row.email else [])}


def user_key(user_id: str) -> Key:
    """Returns the key of a person without an email: in lower case like that of an email, and unique to the user id."""
    return f"user_id:{hashlib.sha256(user_id.encode('utf-8', 'replace')).hexdigest()}"
