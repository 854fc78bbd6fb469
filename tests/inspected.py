"""What the tests of `inspect` share: a destination's tables, and the status of its loads."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import psycopg2
from dlt.common.destination import Destination

from autopilothq import inspect
from autopilothq.inspect import Status
from autopilothq.inspect.status import Freshness, LastRun, LoadSummary
from autopilothq.warehouses import postgres

FIRST, LAST = datetime(2019, 3, 1, tzinfo=UTC), datetime(2019, 3, 7, 18, 58, 42, 33000, tzinfo=UTC)


def kind(name: str) -> Destination[Any, Any]:
    """Returns the destination that the command uses for this name."""
    destination: Destination[Any, Any] | None = (
        postgres.postgres() if name == "postgres" else Destination.from_reference(name)
    )
    assert destination is not None
    return destination


def make_tables(place: tuple[str, str]) -> None:
    """Creates the catalogue's tables, without a load."""
    query(place, inspect.ddl(inspect.catalogue(), kind(place[0]), "autopilothq"))


def query(place: tuple[str, str], sql: str) -> list[tuple[Any, ...]]:
    destination, credentials = place
    con: Any = duckdb.connect(credentials) if destination == "duckdb" else psycopg2.connect(credentials)
    try:
        cursor = con.cursor()
        cursor.execute(sql)
        rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        con.commit()
        return rows
    finally:
        con.close()


NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
STATUS = Status(
    "duckdb events.duckdb, dataset mail",
    NOW,
    LastRun(NOW - timedelta(hours=2), "failed", "the load step: disk full"),
    LoadSummary("1", NOW - timedelta(days=1, hours=3), 2, 1100, 1090, 6, 4),
    1,
    NOW - timedelta(days=1, hours=3),
    {"tracks": Freshness(FIRST, NOW - timedelta(days=1, hours=3)), "email_replied": Freshness(None, None)},
    {date(2026, 5, 2): 0, date(2026, 5, 3): 1000, date(2026, 5, 4): 1},
    {"not_json": 3, "truncated": 1},
)
