"""Finds the email of an item, even if the item has only a user id."""

import re
from collections.abc import Collection, Iterator, KeysView, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

from ..clients.decode import as_array, as_text, value_at
from .account import WritableAccount
from .changes import AddressChanges
from .delivery_log import DeliveryLog, Statuses
from .fields import Fields
from .messages import Item

_NOT_IN_ADDRESS = r"\s@<>()\[\],;:|/\\\""
_ADDRESS = re.compile(rf"[^{_NOT_IN_ADDRESS}]+@[^{_NOT_IN_ADDRESS}.]+(\.[^{_NOT_IN_ADDRESS}.]+)+")


def email_of(fields: Fields, item: Item) -> str | None:
    """Returns an item's email from its traits, its context's traits, its properties, or a user id that is an email."""
    for values in (item.traits, item.context_traits, item.properties):
        if email := fields.email(values):
            return email
    return item.user_id if item.user_id and is_email_address(item.user_id) else None


def is_email_address(text: str) -> bool:
    """Returns whether a user id is an email address: `ann@example.com` is, `auth0|ann@example.com` is not."""
    return _ADDRESS.fullmatch(text) is not None


PERSONS_KEPT = 50_000  # persons of a stream that are kept in memory


def keep_newest(known: dict[Any, Any]) -> None:
    """Drops the oldest entries of a dictionary, so that `PERSONS_KEPT` are left."""
    for key in list(islice(known, max(0, len(known) - PERSONS_KEPT))):
        del known[key]


class _RunChange(NamedTuple):
    """A change of an address by this run: its position among all of them, the id of its message, and the new email.

    `message_id` is None if an earlier run sent the message, so that it can no longer be refused.
    """

    position: int
    message_id: str | None
    email: str


def _undone(statuses: Statuses) -> set[str]:
    """Returns the messages whose change of an address was not made, or may not have been.

    A status without a trigger is that of the change. The others of a track are those of its journeys, which may have
    refused the contact.
    """
    outcomes = {id_: status.status for (id_, trigger), status in statuses.items() if trigger is None}
    failed = {id_ for (id_, _), status in statuses.items() if status.status == "failed"} - outcomes.keys()
    return failed | {id_ for id_, outcome in outcomes.items() if outcome != "delivered"}


class _EmailsByUser:
    """The email of each user id, and the user ids of each email. When it is full, the first entries are dropped."""

    def __init__(self) -> None:
        self._emails: dict[str, str] = {}
        self._users: dict[str, set[str]] | None = None  # by the lower-case email; made when it is first asked for

    def get(self, user_id: str) -> str | None:
        return self._emails.get(user_id)

    def users_of(self, email: str) -> set[str]:
        if self._users is None:
            self._users = {}
            for user_id, known in self._emails.items():
                self._users.setdefault(known.lower(), set()).add(user_id)
        return set(self._users.get(email.lower(), ()))

    def user_ids(self) -> KeysView[str]:
        return self._emails.keys()

    def put(self, user_id: str, email: str | None) -> None:
        before = self._emails.get(user_id)
        if email is None:
            self._emails.pop(user_id, None)
        else:
            self._emails[user_id] = email
        if self._users is None or before == email:
            return
        if before is not None:
            self._users[before.lower()].discard(user_id)
        if email is not None:
            self._users.setdefault(email.lower(), set()).add(user_id)

    def put_in_front(self, emails: dict[str, str]) -> None:
        self._emails = emails | self._emails | emails
        self._users = None

    def keep_newest(self) -> None:
        keep_newest(self._emails)
        self._users = None


class _PendingChanges:
    """Messages that change emails and have no outcome yet, with what it takes to revert their changes."""

    def __init__(self) -> None:
        self.messages: set[str] = set()
        self._emails: dict[str, list[tuple[str | None, str | None]]] = {}
        """By user id, its emails in their order, each with the id of the message that set it (None for the email
        before all changes)."""

    def __contains__(self, user_id: str | None) -> bool:
        return user_id in self._emails

    def note(self, message_id: str | None) -> None:
        """Notes a message that has no outcome yet, unless it is None, which stands for one that cannot be refused."""
        self.messages.update([message_id] if message_id else [])

    def change(self, user_id: str, before: str | None, message_id: str | None, email: str) -> None:
        """Notes that a message changes the email of a user id, which was `before`."""
        self._emails.setdefault(user_id, [(None, before)]).append((message_id, email))

    def finish(self, undone: Collection[str]) -> dict[str, str | None]:
        """Returns the last email of each user id that is not from an undone message, and forgets all messages."""
        emails_by_user = {
            user_id: [email for message_id, email in emails if message_id not in undone][-1]
            for user_id, emails in self._emails.items()
        }
        self._emails.clear()
        self.messages.clear()
        return emails_by_user


class KnownEmails:
    """Emails by user id, from this run's items, the delivery log, or the custom field that holds user ids.

    The items of this run take precedence over the log, the log over the delivered tracks of earlier runs, and these
    over the account. `changes` are the changes of addresses by earlier runs.

    A change of an address by this run applies at once to all later items. If it turns out not to have been made, it is
    reverted (`apply_changes`).
    """

    def __init__(self, account: WritableAccount, log: DeliveryLog, fields: Fields, changes: AddressChanges) -> None:
        self._account = account
        self._log = log
        self._changes = changes
        self._fields = fields
        self._emails = _EmailsByUser()
        self._pending = _PendingChanges()
        self._run_changes: dict[str, list[_RunChange]] = {}  # the changes of this run, by the old address
        self._positions = count()  # of the changes of this run
        self._came_with: dict[str, set[str]] = {}  # the user ids of this run's items, by the address in the item
        self._of_delivered: set[str] = set()  # user ids whose email is from a delivered track only
        self._scanned = False

    def get(self, user_id: str | None) -> str | None:
        """Returns the email of a user id, or None if none is known."""
        return self._emails.get(user_id or "")

    def put(self, user_id: str, email: str, message_id: str | None = None) -> None:
        """Stores the email that a message has for a user id, in place of an earlier one.

        If an earlier change of the user id's email has no outcome yet, this one can be reverted as well.
        """
        if user_id in self._pending:
            self._pending.note(message_id)
            self._pending.change(user_id, self._emails.get(user_id), message_id, email)
        self._emails.put(user_id, email)
        self._of_delivered.discard(user_id)
        if self._changes.has_any:  # otherwise `move` is never called
            self._came_with.setdefault(email.lower(), set()).add(user_id)

    def put_delivered(self, user_id: str, email: str) -> None:
        """Stores the current email of a user id from a delivered track, unless it is known from elsewhere."""
        if self._emails.get(user_id) is None or user_id in self._of_delivered:
            self._emails.put(user_id, email)
            self._of_delivered.add(user_id)

    def move(self, email: str, new: str) -> None:
        """Gives user ids that had `email` in this run the email `new`, to which an earlier run has changed it."""
        for user_id in self._came_with.pop(email.lower(), ()):
            if (self._emails.get(user_id) or "").lower() == email.lower():
                self._emails.put(user_id, new)

    def note_change(self, message_id: str | None, email: str, new: str, user_id: str | None) -> None:
        """Changes the email of `user_id` and of all user ids with `email`. The message may still be refused."""
        self._run_changes.setdefault(email.lower(), []).append(_RunChange(next(self._positions), message_id, new))
        self._pending.note(message_id)
        for changed in self._emails.users_of(email) | ({user_id} if user_id else set()):
            if message_id is not None:
                self._pending.change(changed, self._emails.get(changed), message_id, new)
            self._emails.put(changed, new)

    def is_changing(self, user_id: str | None) -> bool:
        """Returns whether the email of a user id depends on a change that has no outcome yet."""
        return user_id in self._pending

    def begin(self) -> None:
        """Begins the next items, or the same ones again after an outage: a change that was not sent is reverted.

        Keeps only the newest 50,000 emails, because a stream has no end; the delivery log has the others. After a scan
        of the account's contacts all are kept, because the log may lack some.
        """
        self.apply_changes(all_sent=False)
        keep_newest(self._run_changes)
        keep_newest(self._came_with)
        if not self._scanned:
            self._emails.keep_newest()
            self._of_delivered &= self._emails.user_ids()

    def apply_changes(self, all_sent: bool = True) -> None:
        """Reverts the changes that were not made, or may not have been. All that were sent must have an outcome.

        Unless `all_sent`, also reverts those that the log does not have.
        """
        messages = self._pending.messages
        statuses = self._log.statuses(messages) if messages and not self._log.is_read_only else {}
        undone = _undone(statuses)
        if not all_sent:
            undone |= messages - {id_ for id_, _ in statuses}
        for user_id, email in self._pending.finish(undone).items():
            self._emails.put(user_id, email)
        if undone:
            for changes_of_email in self._run_changes.values():
                changes_of_email[:] = [change for change in changes_of_email if change.message_id not in undone]

    def look_up(self, items: Sequence[Item]) -> None:
        """Looks up the emails of user ids whose items have none.

        The account's contacts are scanned only if a user id is in neither the log nor an earlier item.
        """
        emails = [(item.user_id, email_of(self._fields, item)) for item in items if item.user_id]
        missing = {user_id for user_id, email in emails if not email} - (self._emails.user_ids() - self._of_delivered)
        if not missing:
            return
        found = {user_id: self._changes.since(*known) for user_id, known in self._log.emails(missing).items()}
        self._emails.put_in_front(found)  # entries from the log are dropped first, because they can be read again
        self._of_delivered -= found.keys()
        for user_id, email in found.items():
            self._follow_run_changes(user_id, email)
        first_emails = dict(reversed(emails))
        unnamed = {user_id for user_id in missing - self._emails.user_ids() if not first_emails[user_id]}
        if self._fields.user_id is not None and not self._scanned and unnamed:
            self._scanned = True
            for user_id, email in self._scan(self._fields.user_id.name):
                if self._emails.get(user_id) is None:
                    self._emails.put(user_id, email)

    def _follow_run_changes(self, user_id: str, email: str) -> None:
        """Replaces `email`, which the log has for a user id, by the one that this run has changed it to."""
        logged, position = email, -1
        while later := [each for each in self._run_changes.get(email.lower(), ()) if each.position > position]:
            change = later[0]
            if change.message_id in self._pending.messages:
                self._pending.change(user_id, email, change.message_id, change.email)
            email, position = change.email, change.position
        if email != logged:
            self._emails.put(user_id, email)

    def _scan(self, field_name: str) -> Iterator[tuple[str, str]]:
        """Yields the user ids and emails of all contacts, because the API cannot search by the value of a field."""
        for page in self._account.contacts():
            for contact in page.contacts:
                email = as_text(value_at(contact, "Email"))
                if not email:
                    continue
                for field in as_array(value_at(contact, "custom_fields")) or ():
                    value = value_at(field, "value")
                    if value is not None and value_at(field, "kind") == field_name:
                        yield str(value), email
