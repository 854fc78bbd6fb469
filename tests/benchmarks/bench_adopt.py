"""Adopts exported files into DuckDB, and prints seconds, processor seconds and the peak memory.

.venv/bin/python tests/benchmarks/bench_adopt.py --rows 10000000
.venv/bin/python tests/benchmarks/bench_adopt.py --avro
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import duckdb
import fastavro

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


AVRO = {"VARCHAR": "string", "BIGINT": "long", "TIMESTAMP": {"type": "long", "logicalType": "timestamp-micros"}}


def write_avro(path: Path) -> None:
    """Replaces a Parquet file by the same rows as Avro."""
    with duckdb.connect() as con:
        types = [row[:2] for row in con.execute(f"DESCRIBE FROM '{path}'").fetchall()]
        fields = [{"name": name, "type": ["null", AVRO[of]]} for name, of in types]
        batches = con.execute(f"FROM '{path}'").to_arrow_reader(10_000)
        records = (record for batch in batches for record in batch.to_pylist())
        with path.with_suffix(".avro").open("wb") as out:
            fastavro.writer(out, {"type": "record", "name": "Root", "fields": fields}, records, codec="deflate")
    path.unlink()


def write(folder: Path, rows: int, avro: bool) -> int:
    """Writes the files; returns their size in bytes."""
    each = rows // FILES
    with duckdb.connect() as con:
        for number in range(FILES):
            table = TABLES[number % len(TABLES)]
            (folder / table).mkdir(exist_ok=True, parents=True)
            path = folder / table / f"{number:04}_part_00.parquet"
            select = ROWS.format(table=table, first=number * each, last=(number + 1) * each)
            con.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
            if avro:
                write_avro(path)
    return sum(path.stat().st_size for path in folder.rglob("*.*"))


def main() -> None:
    """Writes the files, adopts them twice, and prints the costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--avro", action="store_true", help="Avro in place of Parquet")
    settings = parser.parse_args()
    rows = settings.rows
    with tempfile.TemporaryDirectory() as home:
        size = write(Path(home, "unload"), rows, settings.avro)
        code = "from autopilothq.cli import main; main()"
        words = [sys.executable, "-c", code, "adopt", "unload", "--credentials", "adopted.duckdb"]
        for run in ("adopted", "again"):
            cost = measured(words, Path(home), {"DLT_DATA_DIR": f"{home}/dlt"})
            print(
                f"{run}: {rows:,} rows, {size / 1e6:,.0f} MB of files: {cost.wall:.1f} s,"
                f" {cost.cpu:.1f} s of processors, peak {cost.memory:,.0f} MB"
            )


if __name__ == "__main__":
    main()
