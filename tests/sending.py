"""What the tests of sending share: an account over real HTTP, messages, and the log's rows."""

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

from autopilothq import destination
from autopilothq.catalog import DELIVERIES
from autopilothq.clients.autopilot import Autopilot
from autopilothq.clients.settings import MAX_ATTEMPTS, ApiSettings
from autopilothq.destination import Counts, DeliveryLog, DestinationSettings, deliver
from autopilothq.destination.messages import from_line
from autopilothq.warehouses.query import run_query
from contract.duck import held
from fake_autopilot import FakeAutopilot, Request

MISSING = "Missing unique identifier traits. Either **email** or **user_id** traits must be provided"
COUNTED = ("messages", "delivered", "refused", "failed", "unknown", "known", "repeated")


def IMPATIENT(settings: ApiSettings) -> Autopilot:  # noqa: N802 - stands in for the class
    """Returns a client that never waits between attempts, and by default makes only two."""
    tries = 2 if settings.tries == MAX_ATTEMPTS else settings.tries
    return Autopilot(replace(settings, tries=tries), sleep=lambda _: None)


def identify(number: int | str, **more: Any) -> dict[str, Any]:
    """Returns an identify of the person of that number, with a trait `title` unless traits are given."""
    traits = {"email": f"p{number}@example.com"} | more.pop("traits", {"title": f"T{number}"})
    message = {"type": "identify", "messageId": f"i{number}", "traits": traits}
    return message | more


def by_user_id(number: int, user_id: str, **traits: Any) -> dict[str, Any]:
    """Returns an identify with a user id and without an email."""
    return {"type": "identify", "messageId": f"u{number}", "userId": user_id, "traits": traits}


def track(number: int | str, event: str = "Order Completed", email: str | None = None, **more: Any) -> dict[str, Any]:
    """Returns a track of the person of that number."""
    traits = {"email": email or f"p{number}@example.com"}
    return {
        "type": "track",
        "messageId": f"t{number}",
        "event": event,
        "properties": {},
        "context": {"traits": traits},
    } | more


def write(messages: Iterable[Any], path: str = "messages.ndjson") -> str:
    """Writes a file with a message on each line, strings as they are; returns its path."""
    lines = [message if isinstance(message, str) else json.dumps(message) for message in messages]
    Path(path).write_text("".join(line + "\n" for line in lines))
    return path


def settings_for(server: FakeAutopilot, **more: Any) -> DestinationSettings:
    """Returns settings for the server's account, with a rate limit too high to be noticed."""
    given: dict[str, Any] = {
        "api_key": server.key,
        "base_url": server.base_url,
        "requests_per_second": 1000.0,
    }
    return DestinationSettings.from_options(**given | more)


def environment(server: FakeAutopilot) -> dict[str, str]:
    """Returns the same settings as environment variables of dlt's configuration."""
    given = {"api_key": server.key, "base_url": server.base_url, "requests_per_second": "1000"}
    return {f"DESTINATION__AUTOPILOTHQ__{name.upper()}": value for name, value in given.items()}


def configure(monkeypatch: pytest.MonkeyPatch, server: FakeAutopilot) -> None:
    """Sets the environment variables of the server's account."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)


def send(server: FakeAutopilot, messages: Iterable[Any], place: Any = None, **settings: Any) -> Counts:
    """Sends messages as the command does."""
    lines = [json.dumps(message).encode() if not isinstance(message, bytes) else message for message in messages]
    with DeliveryLog(log_in(place)) as log:
        return deliver(map(from_line, lines), log, settings_for(server, **settings))


def counted(counts: Counts) -> dict[str, int]:
    """Returns the counts that are not 0, by their names."""
    return {name: number for name in COUNTED if (number := getattr(counts, name))}


def log_in(place: Any = None) -> dlt.Dataset:
    """Returns the log's dataset at `place`; by default in a DuckDB file, which then stays open until the test ends."""
    if place is None:
        keep_log_open()
        return destination.log_dataset()
    return dlt.dataset(place, "autopilothq", dlt.Schema("autopilothq"))


KEPT = dict[Path, ExitStack]()
"""The open connections that keep databases open until the test ends, by the database's file."""


def keep_log_open() -> None:
    """Keeps the log's database open: each send opens it twice, and closing it takes a third of a small send's time."""
    path = Path("autopilot.duckdb").absolute()
    if path not in KEPT:
        KEPT[path] = ExitStack()
        KEPT[path].enter_context(held(path))


def close_logs() -> None:
    """Closes the databases that were kept open."""
    while KEPT:
        KEPT.popitem()[1].close()


def answer(sql: str, place: Any = None) -> tuple[list[str], list[Any]]:
    """Returns the result of a user's query: the names of the columns, and the rows."""
    with run_query(destination.log_dataset(reads=True) if place is None else log_in(place), sql) as (names, rows):
        return names, [row for some in rows for row in some]


def rows(*columns: str, table: str = DELIVERIES.name) -> list[tuple[Any, ...]]:
    """Returns columns of the log's rows, in the order in which they were sent."""
    path = Path("autopilot.duckdb").absolute()
    with duckdb.connect(path, read_only=path not in KEPT) as con:
        return con.execute(f"SELECT {', '.join(columns)} FROM autopilothq.{table} ORDER BY sent_at").fetchall()


def posts(server: FakeAutopilot) -> list[tuple[str, Any]]:
    """Returns the paths and bodies of the POST requests so far, and makes the server forget all requests."""
    found: Sequence[Request] = server.seen("POST")
    server.requests.clear()
    return [(request.path, request.body) for request in found]
