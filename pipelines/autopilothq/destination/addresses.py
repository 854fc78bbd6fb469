"""Finds the address of an item's contact: the one in the item, or the one to which earlier runs have changed it."""

from typing import NamedTuple

from .changes import AddressChanges
from .delivery_log import DeliveryStatus
from .emails import KnownEmails
from .messages import Item


class Addresses(NamedTuple):
    """The addresses of an item's contact. All are None if no email of the contact is known.

    - `own`: the email in the item.
    - `named`: `own`, otherwise the email of the item's user id.
    - `current`: the present address of the contact that `named` names. It differs from `named` if an earlier run has
      sent a change of that address, and the items have not reached the message of the change yet.
    - `changed_to`: the contact's present address, if the item itself is such a change and the items reach it now.

    Example: an earlier run has changed `old@b.c` to `new@b.c` by the message `m2`. For `m1`, which comes before `m2`
    and has `old@b.c`, `named` is `old@b.c` and `current` is `new@b.c`. For `m2` itself, `named` is `old@b.c` and
    `changed_to` is `new@b.c`. After `m2`, `old@b.c` is somebody else's: `named` and `current` are both `old@b.c`.

    Which address is used (of the rows for a purpose, the first whose condition is met):

    | for | if | address |
    |---|---|---|
    | the row of an item that is refused before its contact is made | | `own` |
    | the contact and its row | the items reach the change, which was delivered | `changed_to` |
    | | the item was tried before, and its contact has moved (`moved_to`) | `current` |
    | | the item changed the address in an earlier run | its `_NewEmail` |
    | | otherwise; `deferred` may move the contact later | `named` |
    | the order of a person's items (`order`) | | `current` |
    | the email that `emails` notes for the user id | there is no `own` address | none |
    | | the item was tried before | `current` |
    | | otherwise | `own` |
    | deferred contacts and user ids with `named` | the items reach the change | `changed_to` |
    """

    own: str | None = None
    named: str | None = None
    current: str | None = None
    changed_to: str | None = None

    @property
    def moved_to(self) -> str | None:
        """The current address if a change that comes after the item made it differ from `named`, otherwise None."""
        return None if self.changed_to or self.current == self.named else self.current


def addresses_of(
    item: Item, own: str | None, tried: DeliveryStatus | None, emails: KnownEmails, changes: AddressChanges
) -> Addresses:
    """Returns the addresses of an item's contact before the item is reached, that is, without `changed_to`.

    An item that was `tried` before was sent to the address that its contact had then, so only changes since then apply:
    an earlier change may be that of somebody else who had the address before.
    """
    named = own or emails.get(item.user_id)
    if not named:
        return Addresses()
    if tried is None or tried.changes_address:
        return Addresses(own, named, changes.follow(named))
    sent_to = tried.email if own and tried.status != "refused" else None
    return Addresses(own, named, changes.follow(sent_to or named, tried.tried_at))
