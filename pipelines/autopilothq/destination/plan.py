"""Decides what to send for an item, from the delivery log and from what this run has sent so far."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .addresses import Addresses, addresses_of
from .batch import BatchItem, Key, content_of
from .counts import Counts
from .delivery_log import Delivery, DeliveryStatus, Statuses
from .emails import email_of
from .fields import ContactFields, contact_fields, trait_leaves
from .history import History, history_of
from .messages import NO_IDENTIFIER, Item
from .opening import OpenAccount
from .run_state import RunState
from .settings import SECTION

NOT_OF_TRACKS = "left out: the traits of a track are those of its context"
UNMAPPED = "not taken: a property of an event that is spelt like a contact's field, but that no setting maps"
_WITHOUT_FIELD = "create it there, map the trait, or set unknown_traits to send"

ONLY_A_TAG = "sent only as a tag: the account has no field for it"


class Planned(NamedTuple):
    """A contact to write for an item: its values as the API takes them, and the item's status `before` in the log."""

    item: BatchItem
    values: dict[str, Any]
    before: DeliveryStatus | None

    @property
    def renames(self) -> bool:
        """Whether it changes the contact's address."""
        return bool(self.values.get("_NewEmail"))

    def with_item(self, **changes: Any) -> "Planned":
        """Returns a copy whose item has some fields replaced."""
        return self._replace(item=self.item._replace(**changes))


class Planner:
    """Plans items one by one, in their order.

    `moved` is called with an old address (in lower case) and the contact's current one when the items reach the message
    of a change.
    """

    def __init__(self, to: OpenAccount, state: RunState, counts: Counts, moved: Callable[[Key, str], None]) -> None:
        self._to = to
        self._state = state
        self._counts = counts
        self._moved = moved

    def plan(self, item: Item, statuses: Statuses) -> Planned | Delivery | None:
        """Returns the contact to send, the row of an item that is refused, or None if there is nothing to do.

        1. Refuses what can never be sent: what is not a message, and an event without a trigger.
        2. Finds what earlier runs did with the item (`History`).
        3. Finds the addresses of its contact; `Addresses` lists which one is used for what.
        4. Notes the addresses that matter to other items.
        5. Leaves out a delivered item, unless an older one of its person was sent after it, or is sent now.
        6. Makes the contact from the item, with the address that applies.
        """
        own = email_of(self._to.fields, item)
        row = Delivery(item.message_id, item.kind, item.event, item.audience, item.user_id, own, content=item.content)
        if item.refusal:
            return _refused(row, item.refusal)
        triggers = self._to.triggers.of(item.event) if item.kind == "track" and item.event is not None else []
        if item.kind == "track" and not triggers:
            return _refused(row, self._to.kind.no_event.format(item.event))
        history = history_of(item, triggers, statuses)
        addresses = addresses_of(item, own, history.tried, self._state.emails, self._state.changes)
        person = self._to.kind.key_of(addresses.current, item.user_id)
        resend = person is not None and self._state.order.must_resend(person, history.delivered, history.sent)
        addresses = self._note_reached(item, addresses)
        self._note_email(item, addresses, history)
        if history.delivered and not resend:
            self._counts.add_earlier(history.earlier)
            return None
        if person is None:
            return self._refuse_unknown(row)
        planned = self._with_contact(item, row, history, addresses, resend)
        if isinstance(planned, Planned) and addresses.moved_to:
            # An item that was tried is older than the change of its address; for others, the order of items decides.
            return moved_to(planned, addresses.moved_to) if history.tried else planned.with_item(person=person)
        return planned

    def _note_reached(self, item: Item, addresses: Addresses) -> Addresses:
        """Notes that the items have reached a message that may have changed an address in an earlier run.

        If it has, deferred contacts and user ids with the old address get the present address of its contact. Returns
        the addresses with `changed_to`.
        """
        changed_to = self._state.changes.reach(item.message_id) if addresses.named else None
        if addresses.named and changed_to:
            self._moved(addresses.named.lower(), changed_to)
            self._state.emails.move(addresses.named, changed_to)
        return addresses._replace(changed_to=changed_to)

    def _note_email(self, item: Item, addresses: Addresses, history: History) -> None:
        """Notes the email of the item's user id, for items that have only the user id."""
        if not (item.user_id and addresses.own and addresses.current):
            return
        if not history.delivered:
            now = addresses.current if history.tried else addresses.own
            self._state.emails.put(item.user_id, now, item.message_id)
        elif item.kind == "track":
            self._state.emails.put_delivered(item.user_id, addresses.current)

    def _refuse_unknown(self, row: Delivery) -> Delivery:
        """Refuses an item whose contact has no known address."""
        if not row.user_id:
            return _refused(row, NO_IDENTIFIER, 400)
        hint = "" if self._to.fields.user_id else f", and {SECTION}.user_id_field names no field that holds it"
        text = f"No contact is known by the user id {row.user_id!r}: no identify with its email was delivered{hint}"
        return _refused(row, text)

    def _with_contact(
        self, item: Item, row: Delivery, history: History, addresses: Addresses, resend: bool
    ) -> Planned | Delivery | None:
        """Returns the contact to send, with the named address or the one that the item has changed it to.

        Returns the row of an item that is refused, or None if there is nothing to do.
        """
        before = history.contact
        row, contact = self._contact(item, row._replace(email=addresses.named))
        new = contact.values.get("_NewEmail")
        if new and history.delivered and not addresses.changed_to:  # an address is not changed a second time
            self._counts.add_earlier(history.earlier)
            return None
        if not item.once:
            row = row._replace(content=content_of(row, contact.values))
        if new and before is not None and before.ever:
            # The address was changed already: only the other values, or the journeys, are left to send.
            row = row._replace(email=addresses.changed_to or new)
            contact = contact._replace(values=renamed(contact.values, row.email))
        if self._is_done(item, content_of(row, contact.values), history, resend):
            return None
        if contact.unknown and self._to.unknown_traits == "refuse":
            traits = ", ".join(map(repr, contact.unknown))
            return _refused(row, f"The account has no field for {traits}: {_WITHOUT_FIELD}")
        self._counts.add_remarks(contact.remarks)
        planned = BatchItem(
            self._to.kind.key_of(row.email, row.user_id) or "",
            row,
            history.triggers,
            history.earlier,
            resent=history.delivered,
            failed_before=history.failed,
            alone=bool(history.rejections),
            values=contact.values if history.rejections else {},  # those before a change of the address
            properties=item.properties,
            timestamp=item.timestamp,
        )
        return Planned(planned, contact.values, before)

    def _is_done(self, item: Item, content: str, history: History, resend: bool) -> bool:
        """Returns whether an item with this content need not be sent; if so, counts it.

        That is so if a query's row was last delivered with this content, or if any item was refused for it.
        """
        before = history.contact
        is_known = before is not None and (before.status, before.content) == ("delivered", content)
        if not item.once and not resend and is_known:
            self._counts.add("known")
            return True
        if {status.content for status in history.rejections} == {content}:
            self._counts.add_message([("refused", history.rejections[-1].message)], history.earlier)
            return True
        return False

    def _contact(self, item: Item, row: Delivery) -> tuple[Delivery, ContactFields]:
        """Returns the item's row with the remarks added, and its contact."""
        of_track = item.kind == "track"
        email, traits = row.email or "", {} if of_track else item.traits
        found = contact_fields(self._to.fields, email, traits, item.user_id, item.properties, item.context_traits)
        if of_track:
            others = [path for path, _ in trait_leaves(item.traits) if self._to.fields.of_trait(path) != "Email"]
            found.remarks.update(dict.fromkeys(map(".".join, others), NOT_OF_TRACKS))
        found = _with_tag(found, item) if self._to.kind.tags else found
        new = [name for name in found.unmapped if name not in self._state.unmapped]
        self._state.unmapped.update(new)
        self._counts.add_unmapped(found.unmapped)
        remarks = found.remarks | dict.fromkeys(new, UNMAPPED)
        return row._replace(remarks=json.dumps(remarks, ensure_ascii=False) if remarks else None), found


def _with_tag(contact: ContactFields, item: Item) -> ContactFields:
    """Returns an audience member's contact with the audience's name as a tag to add, or to remove if the member left.

    The tag shows the membership even if the account has no field for the trait.
    """
    if item.audience is None:
        return contact
    name = "tags" if item.content == "true" else "unset_tags"
    unknown = [trait for trait in contact.unknown if trait != item.audience]
    remarks = contact.remarks | dict.fromkeys(set(contact.unknown) - set(unknown), ONLY_A_TAG)
    return contact._replace(values=contact.values | {name: [item.audience]}, unknown=unknown, remarks=remarks)


def renamed(values: Mapping[str, Any], email: str | None = None) -> dict[str, Any]:
    """Returns a contact's values with the new address as its email, or with `email` if given."""
    new = email or values["_NewEmail"]
    return {name: value for name, value in values.items() if name != "_NewEmail"} | {"Email": new}


def moved_to(planned: Planned, email: str) -> Planned:
    """Returns a planned contact with `email` as its address."""
    item = planned.item._replace(key=email.lower(), row=planned.item.row._replace(email=email))
    return planned._replace(item=item, values={**planned.values, "Email": email})


def _refused(row: Delivery, why: str, http_status: int | None = None) -> Delivery:
    return row._replace(status="refused", http_status=http_status, message=why)
