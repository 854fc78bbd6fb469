"""The delivery log: a table of the dataset with the outcome of every message, which the next run reads.

A row is written right after its request. If a request must not be repeated (events, rows of queries, changes of an
address), its row is written before the request, as `unknown`: whenever the program ends, the log covers whatever may
have happened.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import dlt

from ..catalog import DELIVERIES, Table
from ..warehouses.dataset import placeholders
from .log_table import LogTable, storable

REJECTED = 400  # the HTTP status of a request that is refused for its values, and would be refused again
REJECTED_IN_ANSWER = 200  # the HTTP status of an answer that refuses some of several contacts
OUTCOME = ("endpoint", "status", "http_status", "message", "attempts")
COLUMNS = tuple(column.name for column in DELIVERIES.columns)
SENT_AGAIN = "sent again, behind an older message that came late"
FOUND = "found to be carried out"  # a change of an address whose answer was lost; the account shows it
CHANGED = "from "  # begins the content of a row that changed an address, before the digest of the old one
KILL_POINT_LOG_CREATED = f"{__name__}:DeliveryLog._create"  # for tests/faults
KILL_POINT_DELIVERIES_ADDED = f"{__name__}:DeliveryLog.add"  # for tests/faults
KILL_POINT_OUTCOMES_WRITTEN = f"{__name__}:DeliveryLog.write_outcomes"  # for tests/faults
KILL_POINT_LOG_CLOSED = f"{__name__}:DeliveryLog.__exit__"  # for tests/faults
_NEWEST = 100  # contacts written last; `ContactWriter` looks for one of them that still exists
_OF_CONTACTS = {("identify", None), ("track", None)}  # kinds and triggers of rows that are about a contact


class Delivery(NamedTuple):
    """A row of the log without its time and run; `catalog.DELIVERIES` describes the columns."""

    message_id: str
    kind: str = ""
    event: str | None = None
    audience: str | None = None
    user_id: str | None = None
    email: str | None = None
    trigger_id: str | None = None
    endpoint: str | None = None
    content: str | None = None
    status: str = "unknown"
    http_status: int | None = None
    message: str | None = None
    remarks: str | None = None
    attempts: int = 0


class Sent(NamedTuple):
    """When a message was delivered, or may have been, and by which run."""

    at: datetime
    run: str


class DeliveryStatus(NamedTuple):
    """The delivery status of a message and a trigger.

    `ever` is whether it was ever delivered, `sent` when it was, or may have been, delivered last. `unknown` is the
    number of rows without a known outcome. The other fields are from its last row: `tried_at` is the row's time, and
    `email` the address that was tried.
    """

    ever: bool
    status: str
    content: str | None
    sent: Sent | None
    message: str | None = None
    http_status: int | None = None
    email: str | None = None
    tried_at: datetime | None = None
    unknown: int = 0

    @property
    def changes_address(self) -> bool:
        """Whether the message changes an address. The new address is then `email`."""
        return bool(self.content and self.content.startswith(CHANGED))


Statuses: TypeAlias = Mapping[tuple[str, str | None], DeliveryStatus]
"""The statuses in the log by message id and trigger; the trigger of an identify is None."""


def is_rejected(row: Delivery | DeliveryStatus) -> bool:
    """Returns whether a contact was refused for its values."""
    return row.status == "refused" and row.http_status in (REJECTED, REJECTED_IN_ANSWER)


class Member(NamedTuple):
    """A person of an audience. `known` is the trait in the account: "true", "false", None (not set), "?" (unknown)."""

    email: str | None
    user_id: str | None
    known: str | None


class AddressChange(NamedTuple):
    """A change of an address: the digest of the old one (`before`) and the new `email`.

    If it is not `is_known`, its answer was lost, and it may or may not have been made.
    """

    message_id: str
    before: str
    email: str
    is_known: bool
    sent_at: datetime


def address_digest(email: str) -> str:
    """Returns the digest that the log keeps instead of the old address of a change."""
    return hashlib.sha256(email.lower().encode("utf-8", "replace")).hexdigest()


class DeliveryLog(LogTable):
    """The delivery log in a dataset. `table` is the log's table for the kind of account.

    Example: `with DeliveryLog(dlt.dataset("duckdb", "crm")) as log: log.statuses(["m1"])`.
    """

    def __init__(self, dataset: dlt.Dataset, *, reads: bool = False, table: Table = DELIVERIES) -> None:
        super().__init__(dataset, reads=reads)
        self.table = table

    def statuses(self, message_ids: Iterable[str]) -> Statuses:
        """Returns the delivery statuses of messages, by id and trigger."""
        statuses: dict[tuple[str, str | None], DeliveryStatus] = {}
        columns = ("message_id", "trigger_id", "status", "content", "message", "http_status", "email", "sent_at", "run")
        for row in self._rows(columns, "message_id", message_ids):
            message_id, trigger, status, content, message, http_status, email, at, run = row
            before = statuses.get((message_id, trigger))
            ever = status == "delivered" or (before is not None and before.ever)
            was_sent = status == "unknown" or (status == "delivered" and message != FOUND)
            last = Sent(at, run) if was_sent else before.sent if before else None
            unknown = (before.unknown if before else 0) + (status == "unknown")
            found = DeliveryStatus(ever, status, content, last, message, http_status, email, at, unknown)
            statuses[message_id, trigger] = found
        return statuses

    def emails(self, user_ids: Iterable[str]) -> dict[str, tuple[str, datetime]]:
        """Returns the last email that was delivered with each user id, and when.

        Contacts that were sent again do not count. A track has a row for its contact only if it changed the address.
        """
        columns = ("user_id", "email", "status", "kind", "trigger_id", "message", "sent_at")
        rows = self._rows(columns, "user_id", user_ids)
        return {
            user_id: (email, at)
            for user_id, email, status, kind, trigger, message, at in rows
            if status == "delivered" and email and message != SENT_AGAIN and (kind, trigger) in _OF_CONTACTS
        }

    def last_contacts(self) -> list[str]:
        """Returns the emails of the contacts that were written last, the newest first."""
        if not self._exists:
            return []
        numbered = "row_number() OVER (ORDER BY max({sent_at}) DESC) AS back"
        before = f"SELECT {{email}} FROM (SELECT {{email}}, {numbered} FROM"
        where = "WHERE {kind} = %s AND {status} = %s AND {email} IS NOT NULL GROUP BY {email}) AS newest"
        after = f"{where} WHERE back <= {_NEWEST} ORDER BY back"
        return [email for (email,) in self._select(before, after, ["identify", "delivered"])]

    def changes(self) -> list[AddressChange]:
        """Returns the changes of addresses that were made or may have been, in their order."""
        if not self._exists:
            return []
        columns = "{message_id}, {content}, {email}, {status}, {sent_at}"
        rows = self._select(f"SELECT {columns} FROM", "WHERE {content} LIKE %s ORDER BY {sent_at}", [f"{CHANGED}%"])
        changes: dict[str, AddressChange] = {}
        for message_id, content, email, status, at in rows:
            changes.pop(message_id, None)
            if status in ("delivered", "unknown"):
                before = content.removeprefix(CHANGED)
                changes[message_id] = AddressChange(message_id, before, email, status == "delivered", at)
        return list(changes.values())

    def members(self, audience: str) -> dict[str, Member]:
        """Returns everybody who was ever sent as a member of an audience, by the message's id."""
        members: dict[str, Member] = {}
        columns = ("message_id", "email", "user_id", "status", "content")
        for message_id, email, user_id, status, content in self._rows(columns, "audience", [audience]):
            known = members[message_id].known if message_id in members else None
            if status == "delivered":
                known = content
            elif status != "refused":
                known = "?"
            members[message_id] = Member(email, user_id, known)
        return members

    def latest(self, status: str | None = None, since: datetime | None = None) -> list[dict[str, Any]]:
        """Returns the last row of each message and trigger in order of time; `status` and `since` restrict them."""
        if not self._exists:
            return []
        columns = ", ".join(f"{{{column}}}" for column in COLUMNS)
        # An event without a trigger has a row of its own until it is sent with one.
        before = (
            f"SELECT {columns} FROM (SELECT {columns},"
            " row_number() OVER (PARTITION BY {message_id}, {trigger_id} ORDER BY {sent_at} DESC) AS back,"
            " max({trigger_id}) OVER (PARTITION BY {message_id}) AS triggered FROM"
        )
        after = ") AS rows_back WHERE back = 1 AND ({trigger_id} IS NOT NULL OR triggered IS NULL)"
        conditions = {"{status} = %s": status, "{sent_at} >= %s": since}
        given = {condition: value for condition, value in conditions.items() if value}
        after += "".join(f" AND {condition}" for condition in given)
        rows = self._select(before, f"{after} ORDER BY {{sent_at}}, {{message_id}}", list(given.values()))
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows]

    def write_outcomes(
        self, deliveries: Iterable[Delivery], columns: Sequence[str] = OUTCOME, over: str = "unknown"
    ) -> None:
        """Updates the rows that this run wrote before its requests: sets `columns`, by default all of the outcome.

        Only rows with the status `over` change, because the run of a stream may send a failed message again.
        """
        groups: dict[tuple[Any, ...], list[str]] = {}
        for delivery in deliveries:
            what = (delivery.trigger_id, *(getattr(delivery, name) for name in columns))
            groups.setdefault(what, []).append(delivery.message_id)
        if self.is_read_only or not groups:
            return
        with self._lock, self.dataset.transaction():
            for (trigger, *outcome), ids in groups.items():
                changes = dict(zip(columns, storable(outcome), strict=True))
                where = f"{{run}} = %s AND {{status}} = %s AND {{message_id}} IN ({placeholders(ids)})"
                where += "" if trigger is None else " AND {trigger_id} = %s"
                values = storable([self.run, over, *ids, *([] if trigger is None else [trigger])])
                self.dataset.update(self.table.name, changes, self.dataset.template(self.table.name, where), values)
