"""The changes of addresses that earlier runs made, to find the current address of an older message's person."""

from collections.abc import Collection, Iterable
from datetime import datetime

from .account import WritableAccount
from .delivery_log import AddressChange, address_digest


class AddressChanges:
    """The changes of addresses in the delivery log, in their order.

    Items of this run that have the old address and come before the message of the change are about the person who now
    has the new address. Items that come after it are about somebody else.
    """

    def __init__(self, account: WritableAccount, changes: Iterable[AddressChange] = ()) -> None:
        self._account = account
        self._of: dict[str, list[AddressChange]] = {}  # by the digest of the old address
        self._made: dict[str, AddressChange] = {}  # by message id; it is not known yet whether the others were made
        self._reached: set[str] = set()  # message ids of changes that the items have reached
        self._reached_now: set[str] = set()  # those of them that the current items have reached
        for change in changes:
            self._of.setdefault(change.before, []).append(change)
            if change.is_known:
                self._made[change.message_id] = change

    @property
    def has_any(self) -> bool:
        """Whether an earlier run has changed an address, or may have."""
        return bool(self._of)

    def begin(self) -> None:
        """Begins the next items, or the same ones again if sending them broke off."""
        self._reached -= self._reached_now
        self._reached_now.clear()

    def end(self) -> None:
        """Notes that the items are sent."""
        self._reached_now.clear()

    def follow(self, email: str, at: datetime | None = None) -> str:
        """Returns the current address of the contact that had `email` before the changes not yet reached.

        If `at` is given, the contact had `email` at that time: earlier changes of the address are somebody else's.
        """
        return self._follow(email, at, self._reached)

    def since(self, email: str, at: datetime) -> str:
        """Returns the current address of the contact that had `email` at the time `at`."""
        return self._follow(email, at, ())

    def reach(self, message_id: str) -> str | None:
        """Notes that the items have reached a message that changes an address.

        Returns the current address of its contact if an earlier run has made the change, otherwise None.
        """
        change = self._made.get(message_id)
        if change is None or message_id in self._reached:
            return None
        self._reached.add(message_id)
        self._reached_now.add(message_id)
        return self._follow(change.email, change.sent_at, self._reached)

    def was_made(self, message_id: str, email: str, new: str) -> bool:
        """Returns whether a change whose answer was lost was made; asks the account if that is not known yet."""
        if message_id in self._made:
            return True
        return self._account.contact(email) is None and self._account.contact(new) is not None

    def _follow(self, email: str, at: datetime | None, reached: Collection[str]) -> str:
        while self._of:
            left = [change for change in self._of.get(address_digest(email), ()) if change.message_id not in reached]
            later = (change for change in left if at is None or change.sent_at > at)
            made = next((change for change in later if self._is_made(change, email)), None)
            if made is None:
                break
            email, at = made.email, made.sent_at
        return email

    def _is_made(self, change: AddressChange, email: str) -> bool:
        if change.message_id not in self._made:
            if self.was_made(change.message_id, email, change.email):
                self._made[change.message_id] = change
            else:  # so it is sent again
                self._of[change.before].remove(change)
        return change.message_id in self._made
