"""The delivery log: a table beside the data that says what became of every message, and from which the next run knows.

A row is written after its request, at once. Where it matters that something may have been sent (events, rows of
queries, changes of an address), its row is there before, as `unknown`: whatever ends the program in between, the log
never says less than what happened.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from types import TracebackType
from typing import Any, NamedTuple, Self

import dlt
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema.typing import TColumnSchema

from ..catalog import DELIVERIES, SUPPRESSIONS
from ..errors import BusyError, RunError
from ..segment.identity import HashedIds
from ..warehouses import suppression_key
from ..warehouses.books import check_books
from ..warehouses.dlt_internals import SqlClientBase, SqlJobClientBase
from .messages import storable_value

OUTCOME = ("endpoint", "status", "http_status", "message", "attempts")
COLUMNS = tuple(column.name for column in DELIVERIES.columns)
SENT_AGAIN = "sent again, behind an older message that came late"
_ROWS = 100  # that one statement writes
_IDS = 1000  # that one statement asks for


class Delivery(NamedTuple):
    """A row of the log but for its time and run, as `catalog.DELIVERIES` describes it."""

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
    """What the log says of a message and trigger: whether it was `ever` delivered, its last status and content, and
    when it was last `sent`.
    """

    ever: bool
    status: str
    content: str | None
    sent: Sent | None


class Member(NamedTuple):
    """What Autopilot knows of a person of an audience: "true", "false", None: nothing; "?": one of them."""

    email: str | None
    user_id: str | None
    known: str | None


class DeliveryLog:
    """The log in a dataset. It makes the dataset and the table where they are missing, but not when it only `reads`.

    Threads may share it. Example: `with Deliveries(dlt.dataset("duckdb", "autopilothq")) as log: log.known(["m1"])`.
    """

    def __init__(self, dataset: dlt.Dataset, *, reads: bool = False) -> None:
        client = dataset.destination_client
        if not isinstance(client, SqlJobClientBase):
            raise RunError(
                "Expected a warehouse that is written by SQL, to keep the delivery log, got"
                f" {client.config.destination_type.rpartition('.')[2]}.\nName another by --destination."
            )
        literal: Any = client.capabilities.escape_literal
        if literal is None or literal("'") == "'":  # dlt quotes nothing there: a stranger's id would be SQL
            raise RunError(
                "Expected a warehouse for which dlt can write text into SQL, to keep the delivery log, got"
                f" {client.config.destination_type.rpartition('.')[2]}.\nName another by --destination."
            )
        self._client: SqlClientBase[Any] = dataset.sql_client
        self._reads = reads
        self._lock = threading.Lock()
        self._last = datetime.now(UTC)
        self.run = f"{self._last:%Y%m%dT%H%M%SZ}-{token_hex(4)}"

    def __enter__(self) -> Self:
        self._client.__enter__()
        try:
            check_books(self._client)
            self._table = self._client.make_qualified_table_name(DELIVERIES.name)
            self._name: Callable[[str], str] = self._client.escape_column_name
            if not self._reads:
                self._create()
            self._there = not self._reads or self._is_there(self._table)
            if self._there:
                # Later rows have later times, also where this clock is behind the one that wrote them.
                [[latest]] = self._select(f"SELECT max({self._name('sent_at')}) FROM {self._table}")
                self._last = max(self._last, latest.astimezone(UTC)) if latest else self._last
        except BaseException:
            self._client.__exit__(None, None, None)  # type: ignore[arg-type]
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, traceback)  # type: ignore[arg-type]

    def _lock_out(self) -> None:
        """No track may be sent by two runs at once. A DuckDB file has one writer anyway; others know no such lock."""
        if self._client.capabilities.sqlglot_dialect != "postgres":
            return
        number = int.from_bytes(hashlib.sha256(self._table.encode()).digest()[:8], signed=True)
        if not self._select(f"SELECT pg_try_advisory_lock({number})")[0][0]:
            raise BusyError("Another run is sending, with the same log.\nRun it again when that one has ended.")

    def _create(self) -> None:
        self._lock_out()
        client = self._client
        if not client.has_dataset():
            client.create_dataset()
        types = client.capabilities.get_type_mapper()
        table: PreparedTableSchema = {"name": DELIVERIES.name, "columns": {}}
        columns = []
        for column in DELIVERIES.columns:
            schema: TColumnSchema = {"name": column.name, "data_type": column.type}
            columns.append(f"{self._name(column.name)} {types.to_destination_type(schema, table)}")
        client.execute_sql(f"CREATE TABLE IF NOT EXISTS {self._table} ({', '.join(columns)})")

    def _is_there(self, table: str) -> bool:
        if not self._client.has_dataset():
            return False
        try:
            self._client.execute_sql(f"SELECT 1 FROM {table} WHERE 1 = 0")
        except Exception as error:
            if "Undefined" in type(error).__name__:
                return False
            raise
        return True

    # ---- asking --------------------------------------------------------------------------------------------------

    def forgotten(self) -> HashedIds:
        """Returns the hashed ids of forgotten persons. Raises SuppressionKeyError without the key that some need."""
        table = self._client.make_qualified_table_name(SUPPRESSIONS.name)
        salt, hashed = self._name("salt"), self._name("id")
        rows = self._select(f"SELECT {salt}, {hashed} FROM {table}") if self._is_there(table) else ()
        return suppression_key.hashes((str(salt), str(hashed)) for salt, hashed in rows)

    def known(self, message_ids: Iterable[str]) -> dict[tuple[str, str | None], DeliveryStatus]:
        """What became of messages, by id and trigger."""
        fates: dict[tuple[str, str | None], DeliveryStatus] = {}
        columns = ("message_id", "trigger_id", "status", "content", "sent_at", "run")
        for message_id, trigger, status, content, *sent in self._rows(columns, "message_id", message_ids):
            before = fates.get((message_id, trigger))
            ever = status == "delivered" or (before is not None and before.ever)
            last = Sent(*sent) if status in ("delivered", "unknown") else before.sent if before else None
            fates[message_id, trigger] = DeliveryStatus(ever, status, content, last)
        return fates

    def emails(self, user_ids: Iterable[str]) -> dict[str, str]:
        """The emails of user ids, by the last identify that was delivered; one that was sent again is no news."""
        columns = ("user_id", "email", "status", "kind", "message")
        rows = self._rows(columns, "user_id", user_ids)
        return {
            user_id: email
            for user_id, email, status, kind, message in rows
            if status == "delivered" and kind == "identify" and email and message != SENT_AGAIN
        }

    def members(self, audience: str) -> dict[str, Member]:
        """Everybody who was ever sent as a member of an audience, by the message's id."""
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
        """The last row of each message and trigger, in the order of time."""
        if not self._there:
            return []
        columns = ", ".join(map(self._name, COLUMNS))
        by = f"{self._name('message_id')}, {self._name('trigger_id')}"
        at = self._name("sent_at")
        # An event without a trigger has a row of its own until it is sent with one.
        sql = (
            f"SELECT {columns} FROM (SELECT {columns},"
            f" row_number() OVER (PARTITION BY {by} ORDER BY {at} DESC) AS back,"
            f" max({self._name('trigger_id')}) OVER (PARTITION BY {self._name('message_id')}) AS triggered"
            f" FROM {self._table}) AS rows_back WHERE back = 1"
            f" AND ({self._name('trigger_id')} IS NOT NULL OR triggered IS NULL)"
        )
        if status:
            sql += f" AND {self._equal('status', status)}"
        if since:
            sql += f" AND {at} >= {self._literal(since)}"
        rows = self._select(f"{sql} ORDER BY {at}, {self._name('message_id')}")
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows]

    def _rows(self, columns: Sequence[str], key: str, values: Iterable[str]) -> list[Sequence[Any]]:
        """Columns of the rows whose `key` is one of the values, in the order of time."""
        wanted = list(dict.fromkeys(values)) if self._there else []
        rows: list[Sequence[Any]] = []
        select = f"SELECT {', '.join(map(self._name, columns))} FROM {self._table} WHERE {self._name(key)} IN "
        for start in range(0, len(wanted), _IDS):
            some = wanted[start : start + _IDS]
            rows += self._select(f"{select} ({self._literals(some)}) ORDER BY {self._name('sent_at')}")
        return rows

    def _select(self, sql: str) -> Sequence[Sequence[Any]]:
        with self._lock:
            return self._client.execute_sql(sql) or ()

    def _literal(self, value: Any) -> str:
        """A value in SQL: thousands of parameters would take DuckDB thirty times as long."""
        if value is None:
            return "NULL"
        return str(self._client.capabilities.escape_literal(storable_value(value) if isinstance(value, str) else value))

    def _literals(self, values: Iterable[Any]) -> str:
        return ", ".join(map(self._literal, values))

    def _equal(self, name: str, value: Any) -> str:
        return f"{self._name(name)} = {self._literal(value)}"

    # ---- writing -------------------------------------------------------------------------------------------------

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Writes rows; all of them are there when it returns."""
        if self._reads or not deliveries:
            return
        names = ", ".join(map(self._name, COLUMNS))
        with self._lock, self._client.begin_transaction():
            for start in range(0, len(deliveries), _ROWS):
                some = deliveries[start : start + _ROWS]
                rows = [self._literals((*delivery, self._now(), self.run)) for delivery in some]
                values = ", ".join(f"({row})" for row in rows)
                self._client.execute_sql(f"INSERT INTO {self._table} ({names}) VALUES {values}")

    def settle(self, deliveries: Iterable[Delivery]) -> None:
        """Writes outcomes over the rows that this run wrote before the requests; all are there when it returns."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for delivery in deliveries:
            what = (delivery.trigger_id, *(getattr(delivery, name) for name in OUTCOME))
            groups.setdefault(what, []).append(delivery.message_id)
        if self._reads or not groups:
            return
        with self._lock, self._client.begin_transaction():
            for (trigger, *outcome), ids in groups.items():
                changes = ", ".join(map(self._equal, OUTCOME, outcome))
                where = f"{self._equal('run', self.run)} AND {self._name('message_id')} IN ({self._literals(ids)})"
                if trigger is not None:
                    where += f" AND {self._equal('trigger_id', trigger)}"
                self._client.execute_sql(f"UPDATE {self._table} SET {changes} WHERE {where}")

    def _now(self) -> datetime:
        self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
        return self._last
