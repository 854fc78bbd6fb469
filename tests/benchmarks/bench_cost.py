"""Measures what one sender can cost: many keys, keys that are new every time, many event names: `make bench`.

Loads into DuckDB, each in a process of its own. The limits compare a run with one such message with a run of one plain
message. It also prints what such a message costs among many, without the costs of every run and every new column.
FIGURES.md next to this file keeps what was measured.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.bench_archive import CACHE, fresh, load, show
from benchmarks.processes import Cost

ROOM = 2_000  # MB that a load may take: the engine has 400, and 0.6 for each of up to 2,000 columns of a DuckDB table
PLAIN = 100_000  # so many plain messages are enough to measure the cost of one
Message = dict[str, Any]


def message(number: int, properties: Mapping[str, Any], event: str = "Order Completed") -> Message:
    """Returns the track with that number."""
    return {
        "type": "track", "event": event, "messageId": f"m{number}", "userId": f"u{number % 1000}",
        "receivedAt": "2019-03-04T05:06:07.412Z", "originalTimestamp": "2019-03-04T05:06:07.000Z", "sentAt": None,
        "context": {"library": {"name": "bench", "version": "1.0"}}, "properties": properties,
    }  # fmt: skip


def plain(count: int) -> Iterator[Message]:
    """Yields usual messages."""
    for number in range(count):
        yield message(number, {"plan": "pro", "seats": number, "price": 9.5, "revenue": 1.25, "paid": True})


def of_keys(keys: int, count: int, event: str = "Order Completed") -> Iterator[Message]:
    """Yields `count` messages with `keys` integer properties each, all with the same keys."""
    return (message(number, {f"k{key}": number % 10 for key in range(keys)}, event) for number in range(count))


def with_ids_as_keys(count: int) -> Iterator[Message]:
    """Yields messages with 20 keys each, of which 5 are new every time."""
    for number in range(count):
        new = {f"item_{5 * number + key}": key for key in range(5)}
        yield message(number, {f"key_{key}": number for key in range(15)} | new)


def names(count: int) -> Iterator[Message]:
    """Yields one message each of `count` events."""
    return (message(number, {"at": number}, f"Step {number}") for number in range(count))


def write(messages: Iterable[Message], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(message, separators=(",", ":")) + "\n" for message in messages))


def loaded(name: str, messages: Iterable[Message]) -> Cost:
    """Loads the messages into an empty file, in a folder of that name; returns the cost."""
    folder = fresh(CACHE / "cost" / name)
    write(messages, folder / "archive" / "1.ndjson")
    return load(folder / "archive", folder)


@cache
def one() -> Cost:
    """Returns what every load costs: the best of three loads of one message."""
    return min((loaded("one", plain(1)) for _ in range(3)), key=lambda cost: cost.cpu)


def each(one: Cost, many: Cost, count: int) -> float:
    """Returns the processor seconds per message of a load of `count`, beyond those of a load of one such message."""
    return max(many.cpu - one.cpu, 1e-9) / (count - 1)


def query(name: str, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(CACHE / "cost" / name / "autopilot.duckdb"), read_only=True) as con:
        return con.execute(sql).fetchall()


def test_many_keys() -> None:
    """A message with 1,000 keys costs at most twenty times as much as a plain one, with 10,000 two hundred times."""
    costs = {f"{count:,} plain": loaded(f"{count} plain", plain(count)) for count in (1, 2_000, PLAIN)}
    for keys, count in ((1_000, 1), (1_000, 200), (10_000, 1), (10_000, 50), (60_000, 1)):
        costs[f"{count} of {keys:,} keys"] = loaded(f"{count} of {keys}", of_keys(keys, count))
    show("keys", **costs)
    unit = each(one(), costs[f"{PLAIN:,} plain"], PLAIN)
    thousand = each(costs["1 of 1,000 keys"], costs["200 of 1,000 keys"], 200) / unit
    ten_thousand = each(costs["1 of 10,000 keys"], costs["50 of 10,000 keys"], 50) / unit
    print(f"  a plain message takes {1e6 * unit:.0f} µs; one of 1,000 keys {thousand:.0f} times as much,")
    print(f"  one of 10,000 keys {ten_thousand:.0f} times")
    ((lost,),) = query("1 of 60000", "SELECT count(*) FROM autopilothq._discards WHERE reason = 'too_many_keys'")
    assert lost >= 50_000
    assert costs["1 of 1,000 keys"].cpu <= 20 * one().cpu
    assert costs["1 of 10,000 keys"].cpu <= 200 * one().cpu
    assert costs["1 of 60,000 keys"].cpu <= 200 * one().cpu


def test_keys_that_are_new_every_time() -> None:
    """20,000 messages with ids as keys are loaded within minutes and the memory, and what they lose is reported."""
    started = time.monotonic()
    cost = loaded("ids", with_ids_as_keys(20_000))
    show("ids as keys", one_plain=one(), messages_20_000=cost)
    ((rows, lost),) = query(
        "ids",
        "SELECT (SELECT count(*) FROM autopilothq.order_completed),"
        " (SELECT count(*) FROM autopilothq._discards WHERE reason = 'too_many_columns')",
    )
    print(f"  {rows:,} rows, {lost:,} values without a column")
    assert rows == 20_000
    assert lost > 90_000
    assert time.monotonic() - started < 300
    assert cost.memory < ROOM


def test_many_events() -> None:
    """Events beyond the limit of tables are in `tracks` alone, and a later load costs no more than any other."""
    few, many = loaded("150 names", names(150)), loaded("1,000 names", names(1_000))
    folder = CACHE / "cost" / "1,000 names"
    write([message(1_000_000, {"at": 1}, "Step 1")], folder / "archive" / "2.ndjson")
    again = load(folder / "archive", folder)
    show("event names", one_plain=one(), names_150=few, names_1_000=many, one_line_more=again)
    size = (CACHE / "cost" / "150 names" / "autopilot.duckdb").stat().st_size / 1e6
    tables = query(
        "1,000 names", "SELECT count(DISTINCT table_name) FROM information_schema.tables WHERE table_name LIKE 'step%'"
    )
    print(f"  150 names leave {size:.0f} MB; 1,000 names {tables[0][0]} tables")
    assert tables == [(500,)]
    assert query("1,000 names", "SELECT count(*) FROM autopilothq.tracks") == [(1_001,)]
