"""The log of forwarded messages: a table of the dataset, which the next run to the same target reads."""

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
    """The log of forwarded messages in a dataset. A row is written right after its request.

    If the program ends in between, the batch is sent again, and the API deduplicates the messages by their ids.

    Example: `with ForwardLog(dlt.dataset("duckdb", "crm")) as log: log.statuses(target, ["m1"])`.
    """

    table = FORWARDS

    def statuses(self, target: str, message_ids: Iterable[str]) -> dict[str, set[str]]:
        """Returns all statuses that messages ever had at a target, by message id."""
        found: dict[str, set[str]] = {}
        for message_id, where, status in self._rows(("message_id", "target", "status"), "message_id", message_ids):
            if where == target:
                found.setdefault(message_id, set()).add(status)
        return found
