"""Compares loading an archive into PostgreSQL with `COPY` of the same rows into the same tables; prints seconds.

.venv/bin/python tests/benchmarks/bench_postgres.py --events 1000000 --rounds 3
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parents[1]))

import psycopg2

from benchmarks.processes import measured
from servers import postgres_server

PROGRAM = [sys.executable, "-c", "from autopilothq.cli import main; main()"]
TABLES = """
    SELECT table_name FROM information_schema.tables
    WHERE table_schema = 'autopilothq' AND left(table_name, 4) <> '_dlt' ORDER BY 1"""


def load(home: Path, url: str) -> float:
    """Loads the archive as the command does; returns the seconds."""
    words = ["load", "archive", f"{home}/archive", "--destination", "postgres", "--credentials", url]
    return measured([*PROGRAM, *words], home, {"DLT_DATA_DIR": tempfile.mkdtemp(dir=home)}).wall


def copy(cursor: "psycopg2.extensions.cursor", home: Path) -> float:
    """Copies the loaded rows, as CSV, into equal tables with equal keys and indexes, one table after the other.

    Returns the seconds that it took, without writing the CSV.
    """
    cursor.execute(TABLES)
    tables = [str(name) for (name,) in cursor.fetchall()]
    cursor.execute("CREATE SCHEMA copied")
    seconds = 0.0
    for table in tables:
        cursor.execute(f"CREATE TABLE copied.{table} (LIKE autopilothq.{table} INCLUDING ALL)")
        with (home / "rows.csv").open("wb") as rows:
            cursor.copy_expert(f"COPY autopilothq.{table} TO STDOUT (FORMAT csv)", rows)
        with (home / "rows.csv").open("rb") as rows:
            started = time.monotonic()
            cursor.copy_expert(f"COPY copied.{table} FROM STDIN (FORMAT csv)", rows)
            seconds += time.monotonic() - started
    return seconds


def run(home: Path, rounds: int) -> Sequence[tuple[float, float]]:
    """Returns the seconds of loading and of copying in each round, which has a new database."""
    found = []
    with postgres_server() as server:
        for _ in range(rounds):
            with server.database() as url:
                loaded = load(home, url)
                with closing(psycopg2.connect(url)) as connection:
                    connection.autocommit = True
                    found.append((loaded, copy(connection.cursor(), home)))
                    print(f"load {found[-1][0]:.1f} s, COPY {found[-1][1]:.1f} s", flush=True)
    return found


def main() -> None:
    """Writes an archive, loads and copies it in rounds, and prints the seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        measured([*PROGRAM, "sample", "archive", "--events", str(options.events), "--seed", "1"], home)
        found = run(home, options.rounds)
    print(f"medians: load {median(load for load, _ in found):.1f} s, COPY {median(copy for _, copy in found):.1f} s,")
    print(f"the load {median(load / copy for load, copy in found):.2f} times")


if __name__ == "__main__":
    main()
