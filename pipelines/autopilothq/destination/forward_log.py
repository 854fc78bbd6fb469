"""The log of what was forwarded: a table of the dataset, which the next run to the same target reads."""

from collections.abc import Iterable
from typing import NamedTuple

from ..catalog import FORWARDS
from .log_table import LogTable

KILL_POINT_FORWARDS_ADDED = f"{__name__}:ForwardLog.add"  # for tests/faults


class Forwarded(NamedTuple):
    """A row of the log without its time and run; `catalog.FORWARDS` describes the columns."""

    message_id: str
    kind: str
    event: str | None
    user_id: str | None
    anonymous_id: str | None
    email: str | None
    target: str
    status: str
    http_status: int | None
    message: str | None
    attempts: int


class ForwardLog(LogTable):
    """The log in a dataset, kept as the delivery log is. A row is written right after its request.

    A program that ends in between sends the batch again: whoever takes it knows its messages by their ids.

    Example: `with ForwardLog(dlt.dataset("duckdb", "crm")) as log: log.delivered(target, ["m1"])`.
    """

    table = FORWARDS

    def delivered(self, target: str, message_ids: Iterable[str]) -> set[str]:
        """Returns which of the messages were delivered to a target."""
        return self.with_status("delivered", target, message_ids)

    def with_status(self, status: str, target: str, message_ids: Iterable[str]) -> set[str]:
        """Returns which of the messages ever had a status at a target."""
        rows = self._rows(("message_id", "target", "status"), "message_id", message_ids)
        return {message_id for message_id, *where in rows if where == [target, status]}
