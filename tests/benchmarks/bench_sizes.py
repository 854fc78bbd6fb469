"""Measures what unusual archives cost, and checks that the cost grows no faster than the archive: `make bench`.

Loads into DuckDB, each in a process of its own: very many files, event tables and columns, and one message with very
many keys, each in three sizes with equal steps. The cost of the second step is compared with that of the first.
FIGURES.md next to this file keeps what was measured.
"""

import gzip
import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from autopilothq import sample
from benchmarks.bench_archive import CACHE, HERE, fresh, load, python, show
from benchmarks.bench_cost import Message, message, names, of_keys, write
from benchmarks.processes import Cost

SLACK = 1.5  # the second step may cost so many times as much as the first, because a busy machine measures badly
NOISE = 0.5  # processor seconds by which two equal loads may differ
FIRST_DAY, DAY = 1551398400000, 86_400_000
FILES_PER_DAY = 1_000
ROUNDS = 5
EMAIL = {"event": "email_opened", "campaign_id": "campaign_1", "email_id": "batchcampaign_1", "transactional": False}


def tiny_files(folder: Path, numbers: Iterable[int]) -> Path:
    """Writes files of one line each, in day folders, and returns the archive."""
    for number in numbers:
        day = folder / "segment-logs" / "AbC123xYz9" / str(FIRST_DAY + DAY * (number // FILES_PER_DAY))
        day.mkdir(parents=True, exist_ok=True)
        line = json.dumps(message(number, EMAIL, "Email Opened")).encode() + b"\n"
        (day / f"{number}.gz").write_bytes(gzip.compress(line, 1, mtime=0))
    return folder


def check_growth(costs: dict[int, Cost]) -> None:
    """Fails if the step from the second size to the third costs more than the one from the first to the second."""
    (few, some, many) = sorted(costs)
    first, second = costs[some].cpu - costs[few].cpu, costs[many].cpu - costs[some].cpu
    print(f"  {some - few:,} more took {first:.1f} s of processors, as many again {second:.1f} s")
    assert second <= SLACK * (max(first, 0) + NOISE)


def loads(what: str, sizes: Iterable[int], messages: Callable[[int], Iterable[Message]]) -> dict[int, list[Cost]]:
    """Returns the costs by size: of a load into an empty file, of one with nothing new, and of one with a new line."""
    costs: dict[int, list[Cost]] = {}
    for size in sizes:
        folder = fresh(CACHE / "sizes" / f"{size} {what}")
        write(messages(size), folder / "archive" / "1.ndjson")
        costs[size] = [load(folder / "archive", folder), load(folder / "archive", folder)]
        write([message(10**6, {"k1": 1}, "Step 1")], folder / "archive" / "2.ndjson")
        costs[size].append(load(folder / "archive", folder))
        first, again, more = costs[size]
        show(f"{size:,} {what}", first=first, nothing_new=again, one_line_more=more)
    return costs


def check_all(costs: dict[int, list[Cost]]) -> None:
    for number in range(3):
        check_growth({size: runs[number] for size, runs in costs.items()})


def test_files_of_one_line() -> None:
    """Up to 100,000 files: the load of all of them, one with nothing new, and one with one file more."""
    costs: dict[int, list[Cost]] = {}
    for count in (10_000, 55_000, 100_000):
        folder = fresh(CACHE / "sizes" / f"{count} files")
        archive = tiny_files(folder / "archive", range(count))
        costs[count] = [load(archive, folder), load(archive, folder)]
        tiny_files(archive, [count])
        costs[count].append(load(archive, folder))
        first, again, more = costs[count]
        show(f"{count:,} files of a line", first=first, nothing_new=again, one_file_more=more)
    check_all(costs)


def test_event_tables() -> None:
    """As many events as may have tables."""
    check_all(loads("event tables", (20, 260, 500), names))


def test_columns() -> None:
    """A table of 1,500 columns, with 20 rows."""
    check_all(loads("columns", (100, 800, 1_500), lambda size: of_keys(size, 20, "Step 1")))


def test_keys_of_one_message() -> None:
    """One message of 10,000 keys."""
    check_all(loads("keys", (1_000, 5_500, 10_000), lambda size: of_keys(size, 1, "Step 1")))


def test_a_run_that_finds_little() -> None:
    """Compares a run that finds nothing, and one that finds ten events, with a run of dlt alone that finds nothing."""
    folder = fresh(CACHE / "sizes" / "little")
    archive = folder / "archive"
    sample.write(str(archive), 20_000)
    load(archive, folder)
    empty_dlt(folder / "empty")
    found: list[tuple[Cost, Cost, Cost]] = []
    for number in range(ROUNDS):
        empty, none = empty_dlt(folder / "empty"), load(archive, folder)
        ten = (message(10 * number + one, EMAIL, "Email Opened") for one in range(10))
        write(ten, archive / f"{number}.ndjson")
        found.append((empty, none, load(archive, folder)))
        show(f"round {number + 1}", empty_dlt=empty, nothing_new=none, ten_events=found[-1][2])
    for name, at in (("nothing new", 1), ("ten events", 2)):
        wall = statistics.median(run[at].wall / run[0].wall for run in found)
        cpu = statistics.median(run[at].cpu / run[0].cpu for run in found)
        print(f"  {name} / an empty run of dlt: {wall:.2f} in seconds, {cpu:.2f} in seconds of processors")


def empty_dlt(folder: Path) -> Cost:
    folder.mkdir(parents=True, exist_ok=True)
    return python(str(HERE / "empty_dlt.py"), "empty.duckdb", cwd=folder)
