"""Measures `autopilothq report` on a large dataset in DuckDB: seconds, processor seconds and peak memory.

`python tests/benchmarks/bench_report.py --events 10000000`: an archive of `autopilothq sample` is loaded, and SQL
repeats its week until there are so many events. Persons come again only after some weeks.
"""

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import duckdb

from autopilothq import sample
from benchmarks.processes import Cost, measured

WEEK = 200_000
PROGRAM = (sys.executable, "-c", "from autopilothq.cli import main; main()")
PEOPLE = 10  # weeks after which the same persons come again


def run(folder: str, *words: str) -> Cost:
    """Runs the program in a folder, and returns what it took."""
    settings = {"DLT_DATA_DIR": f"{folder}/dlt", "RUNTIME__DLTHUB_TELEMETRY": "false"}
    return measured([*PROGRAM, *words], Path(folder), settings)


def repeat(week: str, file: str, weeks: int) -> int:
    """Writes a dataset with the rows of a week `weeks` times, and returns the number of its email events."""
    with duckdb.connect(file) as con:
        con.execute(f"SET TimeZone = 'UTC'; ATTACH '{week}' AS week (READ_ONLY); CREATE SCHEMA autopilothq")
        of_week = "database_name = 'week' AND schema_name = 'autopilothq'"
        tables = con.execute(f"SELECT table_name FROM duckdb_tables() WHERE {of_week}").fetchall()
        events = 0
        for (table,) in tables:
            rows = f'week.autopilothq."{table}"'
            names = {name for name, *_ in con.execute(f"DESCRIBE {rows}").fetchall()}
            changes = (
                "n || id AS id, timestamp + to_days(7 * n) AS timestamp, received_at + to_days(7 * n) AS received_at"
            )
            if "context_traits_email" in names:
                changes += f", n % {PEOPLE} || context_traits_email AS context_traits_email"
            repeated = f"SELECT t.* REPLACE ({changes}) FROM range({weeks}) r(n), {rows} t"
            query = repeated if {"timestamp", "received_at"} <= names else f"FROM {rows}"
            con.execute(f'CREATE TABLE autopilothq."{table}" AS {query}')
            if table.startswith("email_"):
                found = con.execute(f'SELECT count(*) FROM autopilothq."{table}"').fetchone()
                events += found[0] if found else 0
    return events


def main() -> None:
    """Makes the dataset and the report, and prints the report's cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as folder:
        sample.write(f"{folder}/archive", events=min(events, WEEK))
        run(folder, "load", "archive", "archive", "--credentials", "week.duckdb")
        count = repeat(f"{folder}/week.duckdb", f"{folder}/all.duckdb", math.ceil(events / WEEK))
        large = Path(f"{folder}/all.duckdb").stat().st_size / 1e6
        cost = run(folder, "report", "--credentials", "all.duckdb", "--output", "report.html")
        page = Path(f"{folder}/report.html").stat().st_size / 1000
        print(f"{count:,} email events, a file of {large:,.0f} MB, load average {os.getloadavg()[0]:.1f}")
        print(
            f"report: {cost.wall:.1f} s, {cost.cpu:.1f} processor seconds, peak {cost.memory:,.0f} MB,"
            f" a page of {page:,.0f} kB"
        )


if __name__ == "__main__":
    main()
