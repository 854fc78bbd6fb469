"""What earlier runs did with an item, according to the delivery log."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeGuard

from .delivery_log import REJECTED, DeliveryStatus, Sent, Statuses, is_rejected
from .messages import Item


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
    - `failed`: whether the last try of one of `triggers` failed.
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
    by_trigger = [(trigger, statuses.get((item.message_id, trigger))) for trigger in triggers]
    left = [(trigger, status) for trigger, status in by_trigger if not _may_be_delivered(status)]
    statuses_left = [status for _, status in left]
    if item.kind == "track":
        delivered = not left
        rejections = _rejections(statuses_left)
        # An answer with status 200 may have refused the event, not the contact.
        rejections = rejections if all(status.http_status == REJECTED for status in rejections) else []
    else:
        delivered = item.once and contact is not None and contact.ever
        rejections = _rejections([contact])
    known = [status for status in (contact, *(status for _, status in by_trigger)) if status is not None]
    return History(
        delivered=delivered,
        triggers=[trigger for trigger, _ in left],
        earlier=["delivered" if status.ever else "unknown" for _, status in by_trigger if _may_be_delivered(status)],
        contact=contact,
        sent=max((status.sent for status in known if status.sent), default=None),
        rejections=rejections,
        tried=_last_tried(known) if item.once else None,
        failed=any(status is not None and status.status == "failed" for status in statuses_left),
    )


def _may_be_delivered(status: DeliveryStatus | None) -> TypeGuard[DeliveryStatus]:
    """Returns whether a trigger was delivered, or may have been."""
    return status is not None and (status.ever or status.status == "unknown")


def _rejections(left: Collection[DeliveryStatus | None]) -> list[DeliveryStatus]:
    """Returns the statuses of what is left, if all of it was refused for the contact's values, otherwise []."""
    rejections = [status for status in left if status is not None and is_rejected(status)]
    return rejections if len(rejections) == len(left) else []


def _last_tried(known: Iterable[DeliveryStatus]) -> DeliveryStatus | None:
    """Returns the status of the first change of an address, or else the latest status; None if there is none."""
    by_time = sorted(known, key=lambda status: (status.tried_at is not None, status.tried_at))
    return next((status for status in by_time if status.changes_address), by_time[-1] if by_time else None)
