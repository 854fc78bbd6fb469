"""The log of what was forwarded: a table of the dataset, which the next run to the same target reads."""

from collections.abc import Iterable
from typing import NamedTuple

from ..catalog import FORWARDS
from ..warehouses.dataset import placeholders
from .delivery_log import DeliveryLog

_IDS = 1000  # that one statement asks for


class Forwarded(NamedTuple):
    """A row of the log without its time and run; `catalog.FORWARDS` describes the columns."""

    message_id: str
    kind: str
    event: str | None
    target: str
    status: str
    http_status: int | None
    message: str | None
    attempts: int


class ForwardLog(DeliveryLog):
    """The log in a dataset, kept as the delivery log is. A row is written right after its request.

    A program that ends in between sends the batch again: whoever takes it knows its messages by their ids.

    Example: `with ForwardLog(dlt.dataset("duckdb", "crm")) as log: log.delivered(target, ["m1"])`.
    """

    table = FORWARDS

    def delivered(self, target: str, message_ids: Iterable[str]) -> set[str]:
        """Returns which of the messages were delivered to a target."""
        found: set[str] = set()
        ids = list(dict.fromkeys(message_ids)) if self._exists else []
        for start in range(0, len(ids), _IDS):
            some = ids[start : start + _IDS]
            after = f"WHERE {{target}} = %s AND {{status}} = %s AND {{message_id}} IN ({placeholders(some)})"
            rows = self._select("SELECT {message_id} FROM", after, [target, "delivered", *some])
            found.update(row[0] for row in rows)
        return found
