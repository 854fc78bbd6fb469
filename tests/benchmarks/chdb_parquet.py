"""chDB (ClickHouse in process) reads an archive into Parquet, and DuckDB makes the tables of it; duplicates stay.

Usage: `python chdb_parquet.py ARCHIVE DATABASE`.
"""

import sys
from pathlib import Path

import chdb
import duckdb
from peer_columns import CONTEXT, PROPERTIES, TIMES, create_tables, sql_columns

TEXT, FLAG = "Nullable(String)", "Nullable(Bool)"
COLUMNS = {
    **dict.fromkeys(("messageId", "anonymousId", "userId", "event"), TEXT),
    **dict.fromkeys(TIMES, "Nullable(DateTime64(6, 'UTC'))"),
    "context": CONTEXT.replace("STRUCT", "Tuple").replace("VARCHAR", TEXT),
    "properties": "Tuple("
    + ", ".join(f"{name} {FLAG if of == 'BOOLEAN' else TEXT}" for name, of in PROPERTIES.items())
    + ")",
}


def main(archive: str, database: str) -> None:
    parquet = Path(database).with_suffix(".parquet")
    columns = ", ".join(f"{name} {of}" for name, of in COLUMNS.items())
    chdb.query(f"""
        SELECT {sql_columns()} FROM file('{archive}/**/*.gz', JSONEachRow, $${columns}$$) WHERE event IS NOT NULL
        INTO OUTFILE '{parquet}' FORMAT Parquet
        SETTINGS prefer_column_name_to_alias = 1,
            date_time_input_format = 'best_effort', input_format_skip_unknown_fields = 1,
            input_format_null_as_default = 1, output_format_parquet_string_as_string = 1""")
    with duckdb.connect(database) as con:
        create_tables(con, f"read_parquet('{parquet}')")
    parquet.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
