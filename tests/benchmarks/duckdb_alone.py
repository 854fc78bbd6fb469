"""DuckDB alone loads an archive into `tracks` and the seven event tables, typed, without looking for duplicates.

Usage: `python duckdb_alone.py ARCHIVE DATABASE`.
"""

import sys

import duckdb
from peer_columns import CONTEXT, PROPERTIES, TIMES, create_tables, sql_columns

TEXTS = ("messageId", "anonymousId", "userId", "event")
COLUMNS = {
    **dict.fromkeys(TEXTS, "VARCHAR"),
    **dict.fromkeys(TIMES, "TIMESTAMPTZ"),
    "context": CONTEXT,
    "properties": f"STRUCT({', '.join(f'{name} {of}' for name, of in PROPERTIES.items())})",
}


def main(archive: str, database: str) -> None:
    columns = ", ".join(f"{name}: '{of}'" for name, of in COLUMNS.items())
    with duckdb.connect(database) as con:
        con.execute("SET preserve_insertion_order = false")
        con.execute(f"""
            CREATE TEMP TABLE messages AS SELECT {sql_columns()} FROM read_json('{archive}/**/*.gz',
                format = 'newline_delimited', ignore_errors = true, columns = {{{columns}}})
            WHERE event IS NOT NULL""")
        create_tables(con, "messages")


if __name__ == "__main__":
    main(*sys.argv[1:])
