"""Which address an item's contact has: the one in the item, or one that earlier runs have changed it to."""

from typing import NamedTuple

from .changes import AddressChanges
from .delivery_log import DeliveryStatus
from .emails import KnownEmails
from .messages import Item


class Addresses(NamedTuple):
    """The addresses of an item's contact. All are None if it is known by no email.

    - `own`: the email in the item.
    - `named`: `own`, else the email of the item's user id.
    - `current`: the address by now of the contact that `named` names. It differs if an earlier run has sent a change of
      that address, and the items have not reached the message of the change.
    - `changed_to`: if the item is such a change, and the items reach it now: its contact's address by now.

    Example: an earlier run has changed `old@b.c` to `new@b.c` by the message `m2`. Then `m1`, which comes before `m2`
    and has `old@b.c`, is named `old@b.c` and is currently `new@b.c`. `m2` itself is named `old@b.c` and `changed_to` is
    `new@b.c`. After it `old@b.c` is somebody else, who is both named and currently `old@b.c`.

    Which address is used (of several rows, the first whose condition is met):

    | for | if | address |
    |---|---|---|
    | the row of an item that is refused before its contact is made | | `own` |
    | the contact and its row | the items reach the change, which was delivered | `changed_to` |
    | | the item was tried before, and its contact has moved (`moved_to`) | `current` |
    | | it has changed the address in an earlier run | its `_NewEmail` |
    | | else; `deferred` may move the contact later | `named` |
    | the order of a person's items (`order`) | | `current` |
    | the email of the user id from then on (`emails`) | there is no `own` address | none is noted |
    | | the item was tried before | `current` |
    | | else | `own` |
    | deferred contacts and user ids with `named` | the items reach the change | `changed_to` |
    """

    own: str | None = None
    named: str | None = None
    current: str | None = None
    changed_to: str | None = None

    @property
    def moved_to(self) -> str | None:
        """The current address, if a change that comes after the item has made it another than the named one."""
        return None if self.changed_to or self.current == self.named else self.current


def addresses_of(
    item: Item, own: str | None, tried: DeliveryStatus | None, emails: KnownEmails, changes: AddressChanges
) -> Addresses:
    """Returns the addresses of an item's contact before the item is reached, that is, without `changed_to`.

    An item that was `tried` before had the address that its contact had then, so only changes since then apply: an
    earlier change may be of somebody else who had the address before.
    """
    named = own or emails.get(item.user_id)
    if not named:
        return Addresses()
    if tried is None or tried.changes_address:
        return Addresses(own, named, changes.follow(named))
    sent_to = tried.email if own and tried.status != "refused" else None
    return Addresses(own, named, changes.follow(sent_to or named, tried.tried_at))
