"""Exports a DuckDB file to a folder and to a bucket; prints seconds, processor seconds and the peak memory.

.venv/bin/python tests/benchmarks/bench_export.py --copies 50
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import duckdb

from benchmarks.processes import measured
from servers import s3_server

EVENTS = 20_000  # in the sample, whose rows are copied, each time a week later
MAIN = (sys.executable, "-c", "from autopilothq.cli import main; main()")
TIMES = ("received_at", "sent_at", "timestamp", "original_timestamp")


def write(home: Path, copies: int, env: Mapping[str, str]) -> int:
    """Makes the database; returns the number of its messages."""
    measured([*MAIN, "sample", "archive", "--events", str(EVENTS)], home, env)
    measured([*MAIN, "load", "archive", "archive", "--credentials", "events.duckdb"], home, env)
    with duckdb.connect(str(home / "events.duckdb")) as con:
        con.execute("USE autopilothq")
        rows = con.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE schema_name = 'autopilothq'")
        columns: dict[str, set[str]] = {}
        for table, column in rows.fetchall():
            columns.setdefault(table, set()).add(column)
        messages = [table for table, names in columns.items() if names >= {"id", *TIMES}]
        for table in messages:
            later = ", ".join(f"{name} + to_weeks(n::INT) AS {name}" for name in TIMES)
            con.execute(
                f"INSERT INTO {table} SELECT * EXCLUDE (n) REPLACE (id || '-' || n AS id, {later})"
                f" FROM {table}, range(1, {copies}) t(n)"
            )
        every = " UNION ALL ".join(f"SELECT id FROM {table}" for table in messages if table != "tracks")
        return len(con.sql(every))


def main() -> None:
    """Makes a database, exports it in each way, and prints the costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=50)
    copies = parser.parse_args().copies
    with tempfile.TemporaryDirectory() as name, s3_server() as s3:
        home = Path(name)
        env = {"DLT_DATA_DIR": f"{home}/dlt"} | {
            f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{key.upper()}": value for key, value in s3.credentials.items()
        }
        messages = write(home, copies, env)
        for target in ("out", s3.bucket()):
            for form in ("archive", "parquet"):
                to = f"{target}/{form}"
                words = ("export", to, "--format", form, "--credentials", "events.duckdb")
                cost = measured([*MAIN, *words], home, env)
                print(
                    f"{form} to {to.partition(':')[0]}: {messages:,} messages: {cost.wall:.1f} s,"
                    f" {cost.cpu:.1f} s of processors, peak {cost.memory:,.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
