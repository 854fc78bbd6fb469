"""The changes of addresses that earlier runs made: where the people of older messages are by now."""

from collections.abc import Collection, Iterable
from datetime import datetime

from .account import WritableAccount
from .delivery_log import AddressChange, address_digest


class AddressChanges:
    """The changes of addresses in the delivery log, in their order.

    What comes with the old address before the change, among the items of this run, is about the person who has the new
    one; what comes after it is about somebody else.
    """

    def __init__(self, account: WritableAccount, changes: Iterable[AddressChange] = ()) -> None:
        self._account = account
        self._of: dict[str, list[AddressChange]] = {}  # by the digest of the old address
        self._made: dict[str, AddressChange] = {}  # by message id; whether the others were is not known yet
        self._reached: set[str] = set()  # message ids of those that the items have reached
        for change in changes:
            self._of.setdefault(change.before, []).append(change)
            if change.is_known:
                self._made[change.message_id] = change

    def follow(self, email: str, at: datetime | None = None) -> str:
        """Returns the address that a contact has by now, which had `email` before the changes that are to come.

        If it had `email` at a time, earlier changes are somebody else's.
        """
        return self._follow(email, at, self._reached)

    def since(self, email: str, at: datetime) -> str:
        """Returns the address that a contact has by now, which had `email` at a time."""
        return self._follow(email, at, ())

    def reach(self, message_id: str) -> str | None:
        """Notes that the items have reached a message that changes an address.

        Returns the address that its contact has by now, if an earlier run has changed it.
        """
        change = self._made.get(message_id)
        if change is None or message_id in self._reached:
            return None
        self._reached.add(message_id)
        return self._follow(change.email, change.sent_at, self._reached)

    def was_made(self, message_id: str, email: str, new: str) -> bool:
        """Returns whether a change without an answer was carried out. If it is not known yet, the account is asked."""
        if message_id in self._made:
            return True
        return self._account.contact(email) is None and self._account.contact(new) is not None

    def _follow(self, email: str, at: datetime | None, reached: Collection[str]) -> str:
        while self._of:
            found = [one for one in self._of.get(address_digest(email), ()) if one.message_id not in reached]
            later = (one for one in found if at is None or one.sent_at > at)
            change = next((one for one in later if self._is_made(one, email)), None)
            if change is None:
                break
            email, at = change.email, change.sent_at
        return email

    def _is_made(self, change: AddressChange, email: str) -> bool:
        if change.message_id not in self._made:
            if self.was_made(change.message_id, email, change.email):
                self._made[change.message_id] = change
            else:  # so it is sent again
                self._of[change.before].remove(change)
        return change.message_id in self._made
