"""The email of an item, even if it comes with only a user id."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from ..clients.decode import as_text
from ..segment.json_text import JsonObject
from .account import WritableAccount
from .delivery_log import DeliveryLog
from .fields import Fields
from .messages import Item

_NOT_IN_ADDRESS = r"\s@<>()\[\],;:|/\\\""
_ADDRESS = re.compile(rf"[^{_NOT_IN_ADDRESS}]+@[^{_NOT_IN_ADDRESS}.]+(\.[^{_NOT_IN_ADDRESS}.]+)+")


def email_of(fields: Fields, item: Item) -> str | None:
    """Returns an item's email: from its traits, else its context's traits, its properties, or a user id that is one."""
    for values in (item.traits, item.context_traits, item.properties):
        if email := fields.email(values):
            return email
    return item.user_id if item.user_id and is_address(item.user_id) else None


def is_address(text: str) -> bool:
    """Returns whether a user id is an email address: `ann@example.com` is, `auth0|ann@example.com` is not."""
    return _ADDRESS.fullmatch(text) is not None


PERSONS_KEPT = 50_000  # persons of a stream


def keep_newest(known: dict[Any, Any]) -> None:
    """Drops the oldest entries of a dictionary, so that `PERSONS_KEPT` are left."""
    for key in list(islice(known, max(0, len(known) - PERSONS_KEPT))):
        del known[key]


class KnownEmails:
    """Emails by user id: from this run's own items, the delivery log, or the custom field that holds user ids."""

    def __init__(self, account: WritableAccount, log: DeliveryLog, fields: Fields) -> None:
        self._account = account
        self._log = log
        self._fields = fields
        self._emails: dict[str, str] = {}
        self._scanned = False

    def get(self, user_id: str | None) -> str | None:
        """Returns the email of a user id, or None if none is known."""
        return self._emails.get(user_id or "")

    def put(self, user_id: str, email: str) -> None:
        """Stores the email of a user id, which replaces an earlier one."""
        self._emails[user_id] = email

    def forget_oldest(self) -> None:
        """Keeps only the last 50,000, because a stream has no end: the delivery log has the others.

        If the account's contacts were read, all are kept: the log need not have these.
        """
        if not self._scanned:
            keep_newest(self._emails)

    def look_up(self, items: Sequence[Item]) -> None:
        """Looks up the user ids that come without an email.

        The contacts of the account are read only for those that are in neither the log nor an earlier item.
        """
        emails = [(item.user_id, email_of(self._fields, item)) for item in items if item.user_id]
        missing = {user_id for user_id, email in emails if not email} - set(self._emails)
        if not missing:
            return
        found = self._log.emails(missing)
        self._emails = found | self._emails
        first = dict(reversed(emails))
        unnamed = {user_id for user_id in missing - set(found) if not first[user_id]}
        if self._fields.user_id is not None and not self._scanned and unnamed:
            self._scanned = True
            for user_id, email in self._scan(self._fields.user_id.name):
                self._emails.setdefault(user_id, email)

    def _scan(self, field_name: str) -> Iterator[tuple[str, str]]:
        """Yields user ids and emails of all contacts, because the API cannot search for the value of a field."""
        for page in self._account.contacts():
            for contact in page.contacts:
                email = as_text(contact.value("Email")) if isinstance(contact, JsonObject) else None
                if not email:
                    continue
                fields = contact.value("custom_fields")
                for custom in fields if isinstance(fields, list) else ():
                    value = custom.value("value") if isinstance(custom, JsonObject) else None
                    if value is not None and custom.value("kind") == field_name:
                        yield str(value), email
