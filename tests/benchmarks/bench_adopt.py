"""Adopts exported Parquet files into DuckDB, and prints seconds, processor seconds and the peak memory.

.venv/bin/python tests/benchmarks/bench_adopt.py --rows 10000000
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import duckdb

from benchmarks.processes import measured

FILES = 20
TABLES = ("email_delivered", "email_opened", "email_clicked", "email_bounced")
ROWS = """
SELECT md5('{table}' || i) AS id, TIMESTAMP '2016-01-01' + INTERVAL (i * 11) SECOND AS received_at,
    TIMESTAMP '2016-01-02' AS uuid_ts, 'u' || (i % 200000) AS user_id, NULL::VARCHAR AS anonymous_id,
    TIMESTAMP '2016-01-01' + INTERVAL (i * 11) SECOND AS "timestamp", TIMESTAMP '2016-01-01' AS sent_at,
    TIMESTAMP '2016-01-01' AS original_timestamp, '{table}' AS event, '{table}' AS event_text,
    'u' || (i % 200000) || '@example.com' AS context_traits_email, 'Journey ' || (i % 50) AS campaign_name,
    'e' || (i % 900) AS email_id, 'Hello ' || (i % 900) AS email_subject, i % 7 AS score
FROM range({first}, {last}) t(i)
"""


def write(folder: Path, rows: int) -> int:
    """Writes the files; returns their bytes."""
    each = rows // FILES
    with duckdb.connect() as con:
        for number in range(FILES):
            table = TABLES[number % len(TABLES)]
            (folder / table).mkdir(exist_ok=True, parents=True)
            path = folder / table / f"{number:04}_part_00.parquet"
            select = ROWS.format(table=table, first=number * each, last=(number + 1) * each)
            con.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def main() -> None:
    """Writes, adopts, adopts again, prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as home:
        size = write(Path(home, "unload"), rows)
        code = "from autopilothq.cli import main; main()"
        words = [sys.executable, "-c", code, "adopt", "unload", "--credentials", "adopted.duckdb"]
        for run in ("adopted", "again"):
            cost = measured(words, Path(home), {"DLT_DATA_DIR": f"{home}/dlt"})
            print(
                f"{run}: {rows:,} rows, {size / 1e6:,.0f} MB of Parquet: {cost.wall:.1f} s,"
                f" {cost.cpu:.1f} s of processors, peak {cost.memory:,.0f} MB"
            )


if __name__ == "__main__":
    main()
