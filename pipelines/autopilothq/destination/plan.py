"""Decides what to send for an item, by the delivery log and by what this run has sent so far."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .batch import BatchItem, Key, content_of
from .changes import AddressChanges
from .counts import Counts
from .delivery_log import REJECTED, Delivery, DeliveryStatus, Sent, Statuses, is_rejected
from .emails import KnownEmails, email_of
from .fields import ContactFields, contact_fields, trait_leaves
from .messages import NO_IDENTIFIER, Item
from .opening import OpenAccount
from .run_state import RunState
from .settings import SECTION

NOT_OF_TRACKS = "left out: the traits of a track are those of its context"
UNMAPPED = "not taken: a property of an event that is spelt like a contact's field, and that no setting maps to it"

ONLY_A_TAG = "sent only as a tag: the account has no field for it"


class History(NamedTuple):
    """What earlier runs did with an item.

    - `delivered`: whether nothing is left to send.
    - `triggers`: those that its contact must still be sent to.
    - `earlier`: the delivery statuses of its other triggers.
    - `contact`: the status of the item without a trigger.
    - `sent`: when it was last sent.
    - `rejections`: the statuses of what is left, if all of it was refused for the contact's values.
    - `tried`: its last status, or the status of its change of an address if it made one. None for a row of a query,
      which may come at any time.
    - `failed`: whether the last try of an event of it failed.
    """

    delivered: bool
    triggers: list[str]
    earlier: list[str]
    contact: DeliveryStatus | None
    sent: Sent | None
    rejections: Sequence[DeliveryStatus]
    tried: DeliveryStatus | None
    failed: bool


def history_of(item: Item, triggers: Sequence[str], statuses: Statuses) -> History:
    """Returns the history of an item. `triggers` are all triggers of its event.

    A trigger that was delivered, or may have been, is not sent again.
    """
    contact = statuses.get((item.message_id, None))
    earlier: list[str] = []
    left: list[tuple[str, DeliveryStatus | None]] = []
    known = [contact] if contact is not None else []
    for trigger in triggers:
        status = statuses.get((item.message_id, trigger))
        known += [status] if status is not None else []
        if status is not None and (status.ever or status.status == "unknown"):
            earlier.append("delivered" if status.ever else "unknown")
        else:
            left.append((trigger, status))
    if item.kind == "track":
        delivered = not left
        rejections = _rejections([status for _, status in left])
        # An answer with status 200 may have refused the event, not the contact.
        rejections = rejections if all(status.http_status == REJECTED for status in rejections) else []
    else:
        delivered = item.once and contact is not None and contact.ever
        rejections = _rejections([contact])
    return History(
        delivered=delivered,
        triggers=[trigger for trigger, _ in left],
        earlier=earlier,
        contact=contact,
        sent=max((status.sent for status in known if status.sent), default=None),
        rejections=rejections,
        tried=_last_tried(known) if item.once else None,
        failed=any(status is not None and status.status == "failed" for _, status in left),
    )


def _rejections(left: Collection[DeliveryStatus | None]) -> list[DeliveryStatus]:
    """Returns the statuses of what is left, if all of it was refused for the contact's values, else none."""
    rejections = [status for status in left if status is not None and is_rejected(status)]
    return rejections if len(rejections) == len(left) else []


def _last_tried(known: Iterable[DeliveryStatus]) -> DeliveryStatus | None:
    """Returns the status of the change of an address if there is one, else the latest."""
    by_time = sorted(known, key=lambda status: (status.tried_at is not None, status.tried_at))
    return next((status for status in by_time if status.changes_address), by_time[-1] if by_time else None)


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

        The item's contact may have another address than the item by now (`current`). If an earlier run has made the
        item's change of the address, `changed_to` is the address of the contact by now.
        """
        own = email_of(self._to.fields, item)
        row = Delivery(item.message_id, item.kind, item.event, item.audience, item.user_id, own, content=item.content)
        if item.refusal:
            return _refused(row, item.refusal)
        triggers = self._to.triggers.of(item.event) if item.kind == "track" and item.event is not None else []
        if item.kind == "track" and not triggers:
            return _refused(row, self._to.kind.no_event.format(item.event))
        history = history_of(item, triggers, statuses)
        email = own or self._state.emails.get(item.user_id)
        current = email and _current_address(self._state.changes, own, email, history.tried)
        key = self._to.kind.key_of(current, item.user_id)
        resend = key is not None and self._state.order.must_resend(key, history.delivered, history.sent)
        changed_to = self._state.changes.reach(item.message_id) if email else None
        if email and changed_to:
            self._moved(email.lower(), changed_to)
            self._state.emails.move(email, changed_to)
        if own and current and item.user_id:
            _note_email(self._state.emails, item, own, current, history)
        if history.delivered and not resend:
            self._counts.add_earlier(history.earlier)
            return None
        if key is None:
            return self._without_email(row)
        planned = self._with_contact(item, row._replace(email=email), history, resend, changed_to)
        if not isinstance(planned, Planned):
            return planned
        if current and current != email and not changed_to:
            # An item that was tried is older than the change of its address; for others, the order of items decides.
            planned = moved_to(planned, current) if history.tried else planned.with_item(person=key)
        return planned.with_item(failed_before=history.failed)

    def _without_email(self, row: Delivery) -> Delivery:
        if not row.user_id:
            return _refused(row, NO_IDENTIFIER, 400)
        hint = "" if self._to.fields.user_id else f", and {SECTION}.user_id_field names no field that holds it"
        text = f"No contact is known by the user id {row.user_id!r}: no identify with its email was delivered{hint}"
        return _refused(row, text)

    def _with_contact(
        self, item: Item, row: Delivery, history: History, resend: bool, changed_to: str | None
    ) -> Planned | Delivery | None:
        """Returns the contact to send, its refusal, or None, of an item whose person is known (`row` has the email)."""
        before = history.contact
        row, contact = self._contact(item, row)
        renames = "_NewEmail" in contact.values
        if history.delivered and renames and changed_to is None:
            self._counts.add_earlier(history.earlier)
            return None
        if not item.once:
            row = row._replace(content=content_of(row, contact.values))
        if renames and before is not None and before.ever:
            # The address was changed already: only the other values are sent again, or the journeys are left.
            row = row._replace(email=changed_to or contact.values["_NewEmail"])
            contact = contact._replace(values=renamed(contact.values, row.email))
        is_known = before is not None and (before.status, before.content) == ("delivered", row.content)
        if not item.once and not resend and is_known:
            self._counts.add("known")
            return None
        rejected = {status.content for status in history.rejections}
        if rejected == {content_of(row, contact.values)}:  # it would be refused again
            self._counts.add_message([*history.earlier, "refused"], history.rejections[-1].message)
            return None
        if contact.unknown and self._to.unknown_traits == "refuse":
            traits = ", ".join(map(repr, contact.unknown))
            return _refused(row, f"The account has no field for {traits}: make it there, map it, or let it be sent")
        self._counts.add_remarks(contact.remarks)
        planned = BatchItem(
            self._to.kind.key_of(row.email, row.user_id) or "",
            row,
            history.triggers,
            history.earlier,
            resent=history.delivered,
            alone=bool(history.rejections),
            values=contact.values if history.rejections else {},  # those before a change of the address
            properties=item.properties,
            timestamp=item.timestamp,
        )
        return Planned(planned, contact.values, before)

    def _contact(self, item: Item, row: Delivery) -> tuple[Delivery, ContactFields]:
        """Returns the item's row with the remarks added, and its contact."""
        of_track = item.kind == "track"
        email, traits = row.email or "", {} if of_track else item.traits
        found = contact_fields(self._to.fields, email, traits, item.user_id, item.properties, item.context_traits)
        if of_track:
            others = [path for path, _ in trait_leaves(item.traits) if self._to.fields.known(path) != "Email"]
            found.remarks.update(dict.fromkeys(map(".".join, others), NOT_OF_TRACKS))
        found = _with_tag(found, item) if self._to.kind.tags else found
        new = [name for name in found.unmapped if name not in self._state.unmapped]
        self._state.unmapped.update(new)
        self._counts.add_unmapped(found.unmapped)
        remarks = found.remarks | dict.fromkeys(new, UNMAPPED)
        return row._replace(remarks=json.dumps(remarks, ensure_ascii=False) if remarks else None), found


def _current_address(changes: AddressChanges, own: str | None, email: str, tried: DeliveryStatus | None) -> str:
    """Returns the current address of an item's contact. `own` is the item's own email, if it has one.

    An item that was tried before had the address that its contact had then, so only changes since then apply: an
    earlier change may be of somebody else who had the address before.
    """
    if tried is None or tried.changes_address:
        return changes.follow(email)
    known = tried.email if own and tried.status != "refused" else None
    return changes.follow(known or email, tried.tried_at)


def _note_email(emails: KnownEmails, item: Item, own: str, now: str, history: History) -> None:
    """Notes the address of an item's user id: its `own`, or the one that its contact has by now if it was tried."""
    if not history.delivered:
        emails.put(item.user_id or "", now if history.tried else own, item.message_id)
    elif item.kind == "track":
        emails.put_delivered(item.user_id or "", now)


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
    """Returns a planned contact with another address."""
    item = planned.item._replace(key=email.lower(), row=planned.item.row._replace(email=email))
    return planned._replace(item=item, values={**planned.values, "Email": email})


def _refused(row: Delivery, why: str, http_status: int | None = None) -> Delivery:
    return row._replace(status="refused", http_status=http_status, message=why)
