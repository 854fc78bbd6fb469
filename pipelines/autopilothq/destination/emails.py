"""Finds the email of an item, even if the item has only a user id."""

import re
from collections.abc import Iterator, Sequence
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
    """A change of an address by this run: its position among them, and the new email.

    `message_id` is its message. It is None if an earlier run sent the message, so that it cannot be refused any more.
    """

    position: int
    message_id: str | None
    email: str


def _undone(statuses: Statuses) -> set[str]:
    """Returns the messages whose change of an address was not made, or may not have been.

    The row without a trigger is about the change. In others of a track, a journey may have refused the contact.
    """
    outcomes = {id_: status.status for (id_, trigger), status in statuses.items() if trigger is None}
    failed = {id_ for (id_, _), status in statuses.items() if status.status == "failed"} - outcomes.keys()
    return failed | {id_ for id_, outcome in outcomes.items() if outcome != "delivered"}


class KnownEmails:
    """Emails by user id, from this run's items, the delivery log, or the custom field that holds user ids.

    `changes` are the changes of addresses by earlier runs.
    """

    def __init__(self, account: WritableAccount, log: DeliveryLog, fields: Fields, changes: AddressChanges) -> None:
        self._account = account
        self._log = log
        self._changes = changes
        self._fields = fields
        self._emails: dict[str, str] = {}
        self._changing: dict[str, list[tuple[str | None, str | None]]] = {}
        """The changes that may still be refused, by user id: pairs of a message id and the new email. The first pair
        has no message id, and the email before the changes."""
        self._run_changes: dict[str, list[_RunChange]] = {}  # the changes of this run, by the old address
        self._positions = count()  # of the changes of this run
        self._pending: set[str] = set()  # messages of changes that have no outcome yet
        self._users: dict[str, set[str]] | None = None  # user ids by address, for changes
        self._came_with: dict[str, set[str]] = {}  # user ids by the address that an item of this run had for them
        self._of_delivered: set[str] = set()  # user ids whose emails only delivered tracks had; the log may know better
        self._scanned = False

    def get(self, user_id: str | None) -> str | None:
        """Returns the email of a user id, or None if none is known."""
        return self._emails.get(user_id or "")

    def put(self, user_id: str, email: str, message_id: str | None = None) -> None:
        """Stores the email of a user id, which replaces an earlier one.

        It is that of a message, which waits if a change before it waits for its outcome.
        """
        self._put(user_id, email)
        self._of_delivered.discard(user_id)
        if user_id in self._changing:
            self._changing[user_id].append((message_id, email))
            self._pending.update([message_id] if message_id else [])
        self._came_with.setdefault(email.lower(), set()).add(user_id)

    def put_delivered(self, user_id: str, email: str) -> None:
        """Stores the email by now of a user id that a delivered track had, unless the log knows of another."""
        if user_id not in self._emails or user_id in self._of_delivered:
            self._put(user_id, email)
            self._of_delivered.add(user_id)

    def move(self, email: str, new: str) -> None:
        """Changes the email of user ids that had `email` in this run to the one that an earlier run changed it to."""
        for user_id in self._came_with.pop(email.lower(), ()):
            if self._emails.get(user_id, "").lower() == email.lower():
                self._put(user_id, new)

    def note_change(self, message_id: str | None, email: str, new: str, user_id: str | None) -> None:
        """Changes the email of `user_id` and of all user ids with `email`. The message may still be refused."""
        self._run_changes.setdefault(email.lower(), []).append(_RunChange(next(self._positions), message_id, new))
        self._pending.update([message_id] if message_id else [])
        if self._users is None:
            self._users = {}
            for known, known_email in self._emails.items():
                self._users.setdefault(known_email.lower(), set()).add(known)
        for changed in {*self._users.get(email.lower(), ()), *([user_id] if user_id else [])}:
            if message_id is not None:
                self._changing.setdefault(changed, [(None, self._emails.get(changed))]).append((message_id, new))
            self._put(changed, new)

    def is_changing(self, user_id: str | None) -> bool:
        """Returns whether the email of a user id depends on a change that has no outcome yet."""
        return user_id in self._changing

    def begin(self) -> None:
        """Begins the next items, or the same ones again after an outage: a change that was not sent is reverted.

        Keeps only the newest 50,000 emails, because a stream has no end; the delivery log has the others. After a scan
        of the account's contacts all are kept, because the log may lack some.
        """
        self.apply_changes(all_sent=False)
        keep_newest(self._run_changes)
        keep_newest(self._came_with)
        if not self._scanned:
            keep_newest(self._emails)
            self._of_delivered &= self._emails.keys()
            self._users = None

    def apply_changes(self, all_sent: bool = True) -> None:
        """Reverts the changes that were not made, or may not have been. All that were sent must have an outcome."""
        statuses = self._log.known(self._pending) if self._pending and not self._log.is_read_only else {}
        undone = _undone(statuses)
        if not all_sent:
            undone |= self._pending - {id_ for id_, _ in statuses}
        for user_id, changes in self._changing.items():
            self._put(user_id, [email for message_id, email in changes if message_id not in undone][-1])
        self._changing.clear()
        self._pending.clear()
        if undone:
            for changes_of_email in self._run_changes.values():
                changes_of_email[:] = [change for change in changes_of_email if change.message_id not in undone]

    def _put(self, user_id: str, email: str | None) -> None:
        before = self._emails.pop(user_id, None) if email is None else self._emails.get(user_id)
        if email is not None:
            self._emails[user_id] = email
        if self._users is None or before == email:
            return
        if before is not None:
            self._users[before.lower()].discard(user_id)
        if email is not None:
            self._users.setdefault(email.lower(), set()).add(user_id)

    def look_up(self, items: Sequence[Item]) -> None:
        """Looks up the emails of user ids whose items have none.

        The account's contacts are scanned only if a user id is in neither the log nor an earlier item.
        """
        emails = [(item.user_id, email_of(self._fields, item)) for item in items if item.user_id]
        missing = {user_id for user_id, email in emails if not email} - (set(self._emails) - self._of_delivered)
        if not missing:
            return
        found = {user_id: self._changes.since(*known) for user_id, known in self._log.emails(missing).items()}
        self._emails = found | self._emails | found  # those of the log are the first to be forgotten
        self._of_delivered -= found.keys()
        self._users = None
        for user_id in found.keys() & missing:
            self._follow_run_changes(user_id)
        first_emails = dict(reversed(emails))
        unnamed = {user_id for user_id in missing - set(self._emails) if not first_emails[user_id]}
        if self._fields.user_id is not None and not self._scanned and unnamed:
            self._scanned = True
            for user_id, email in self._scan(self._fields.user_id.name):
                self._emails.setdefault(user_id, email)

    def _follow_run_changes(self, user_id: str) -> None:
        """Replaces the email that the log has for a user id by the one that this run has changed it to."""
        email, position = self._emails[user_id], -1
        while later := [each for each in self._run_changes.get(email.lower(), ()) if each.position > position]:
            change = later[0]
            if change.message_id in self._pending:
                self._changing.setdefault(user_id, [(None, email)]).append((change.message_id, change.email))
            email, position = change.email, change.position
        self._emails[user_id] = email

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
