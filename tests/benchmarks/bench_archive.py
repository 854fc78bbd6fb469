"""Measures how long a load takes compared with DuckDB alone, and how much memory it needs: `make bench`.

Each run is a process of its own. The runs that are compared alternate, so that their ratio holds on a noisy machine.
`AUTOPILOTHQ_BENCH_EVENTS` sets the size (1,000,000). FIGURES.md beside this file keeps what was measured.
"""

import gzip
import os
import shutil
import sys
import time
from pathlib import Path

import duckdb
import pytest

from autopilothq import sample
from benchmarks.processes import Cost, measured

EVENTS = int(os.environ.get("AUTOPILOTHQ_BENCH_EVENTS", "1000000"))
ROUNDS = 3
CACHE = Path(__file__).parent.parent.parent / "build" / "bench"
HERE = Path(__file__).parent


def load(archive: Path, folder: Path) -> Cost:
    """Loads an archive into folder/autopilot.duckdb, and returns the cost."""
    folder.mkdir(parents=True, exist_ok=True)
    return python("-c", "from autopilothq.cli import main; main()", "load", "archive", str(archive), cwd=folder)


def python(*words: str, cwd: Path) -> Cost:
    """Runs a Python program in this environment, and returns its cost."""
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "DLT_DATA_DIR": str(cwd / "dlt")}
    return measured([sys.executable, *words], cwd, paths)


def duckdb_alone(archive: Path, folder: Path) -> Cost:
    """Has DuckDB read the same files into the same columns, without dropping duplicates; returns the cost."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return python(str(HERE / "duckdb_alone.py"), str(archive), "alone.duckdb", cwd=folder)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture(scope="module")
def archive() -> Path:
    """Returns a sample archive of EVENTS messages, which is made only once."""
    folder = CACHE / f"sample-{EVENTS}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        sample.write(str(folder), EVENTS)
        (folder / "done").touch()
    return folder


def renamed(archive: Path, to: Path, ids: bytes | None = None) -> Path:
    """Copies the archive's files under other names; with `ids`, the message ids get that beginning. Returns `to`."""
    shutil.rmtree(to, ignore_errors=True)
    for file in archive.rglob("*.gz"):
        copy = to / file.relative_to(archive).with_name(f"again-{file.name}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if ids is None:
            os.link(file, copy)
        else:
            text = gzip.decompress(file.read_bytes()).replace(b'"messageId":"api-', b'"messageId":"' + ids)
            copy.write_bytes(gzip.compress(text, 1))
    return to


def show(title: str, **costs: Cost) -> None:
    print(f"\n{title}")
    for name, cost in costs.items():
        print(f"  {name:24} {cost.wall:7.1f} s   {cost.cpu:7.1f} s of processors   {cost.memory:6.0f} MB")


def test_first_and_second_load(archive: Path) -> None:
    """Into an empty file, beside DuckDB alone; then all of it again under new names."""
    again = renamed(archive, CACHE / "again")
    ratios = []
    for _ in range(ROUNDS):
        alone = duckdb_alone(archive, CACHE / "alone")
        first = load(archive, fresh(CACHE / "load"))
        second = load(again, CACHE / "load")
        show(f"{EVENTS:,} events", duckdb_alone=alone, load=first, all_duplicates=second)
        ratios.append((first.wall / alone.wall, second.wall / first.wall))
    wall, repeated = (sorted(column)[len(ratios) // 2] for column in zip(*ratios, strict=True))
    print(f"  load / DuckDB alone {wall:.2f}, all duplicates / load {repeated:.2f} (medians of {ROUNDS})")


def test_a_little_into_much(archive: Path) -> None:
    """10,000 new events into none and into ten times EVENTS."""
    little = CACHE / "little"
    if not little.exists():
        sample.write(str(little), 10_000, seed=99)
    none, full = fresh(CACHE / "none"), fresh(CACHE / "full")
    load(archive, full)
    with duckdb.connect(str(full / "autopilot.duckdb")) as con:
        for table in ("tracks", "email_delivered", "email_opened", "email_clicked"):
            con.execute(f"""INSERT INTO autopilothq.{table} BY NAME
                SELECT * REPLACE (id || '-' || n AS id) FROM autopilothq.{table}, range(9) r(n)""")
        started = time.monotonic()
        for batch in con.execute("SELECT id, event FROM autopilothq.tracks").to_arrow_reader(100_000):
            assert batch.num_rows
        reading = time.monotonic() - started
    into_none, into_full = load(little, none), load(little, full)
    show(f"10,000 events into none and into {10 * EVENTS:,}", into_none=into_none, into_full=into_full)
    ratio = (into_full.wall - reading) / into_none.wall
    print(f"  reading the key column {reading:.1f} s; (into full - that) / into none {ratio:.2f}")


def test_memory_at_ten_times(archive: Path) -> None:
    """Peak memory at EVENTS and at ten times as many."""
    tenfold = CACHE / "tenfold"
    for number in range(10):
        if not (tenfold / str(number)).exists():
            renamed(archive, tenfold / str(number), b"a%d-" % number)
    one, ten = load(archive, fresh(CACHE / "one")), load(tenfold, fresh(CACHE / "ten"))
    show("memory", one=one, ten=ten)
    print(f"  ten times the events take {ten.memory / one.memory:.2f} times the memory")


def test_nothing_new(archive: Path) -> None:
    """A run that finds 100,000 known files."""
    folder = fresh(CACHE / "known")
    load(archive, folder)
    many = CACHE / "many"
    if not many.exists():
        for number in range(100_000):
            day = many / "segment-logs" / "AbC123xYz9" / str(1551398400000 + 86_400_000 * (number // 1000))
            day.mkdir(parents=True, exist_ok=True)
            (day / f"{number}.gz").write_bytes(
                b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"
            )
    first, second = load(many, folder), load(many, folder)
    show("100,000 files", new=first, known=second)
