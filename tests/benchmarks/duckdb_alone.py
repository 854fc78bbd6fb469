"""DuckDB alone: an archive into `tracks` and the seven event tables, typed, without looking for duplicates."""

import sys

import duckdb

from autopilothq import catalog

TYPES = {"text": "VARCHAR", "bool": "BOOLEAN", "timestamp": "TIMESTAMPTZ"}
CONTEXT = {
    "traits": "STRUCT(email VARCHAR, contact_id VARCHAR)",
    "library": "STRUCT(name VARCHAR, version VARCHAR)",
    "integration": "STRUCT(name VARCHAR, version VARCHAR)",
    "ip": "VARCHAR",
    "userAgent": "VARCHAR",
}
PROPERTIES = {column.name: TYPES[column.type] for column in catalog.PROPERTIES + catalog.LINK}
FIELDS = {
    **dict.fromkeys(("messageId", "anonymousId", "userId", "event"), "VARCHAR"),
    **dict.fromkeys(("receivedAt", "sentAt", "originalTimestamp", "timestamp"), "TIMESTAMPTZ"),
    "context": f"STRUCT({', '.join(f'{name} {of}' for name, of in CONTEXT.items())})",
    "properties": f"STRUCT({', '.join(f'{name} {of}' for name, of in PROPERTIES.items())})",
}


def main(archive: str) -> None:
    columns = ", ".join(f"{name}: '{of}'" for name, of in FIELDS.items())
    con = duckdb.connect("alone.duckdb")
    con.execute("SET threads = 2; SET preserve_insertion_order = false")
    con.execute(f"""
        CREATE TEMP TABLE messages AS SELECT messageId AS id, receivedAt AS received_at, now() AS uuid_ts,
            coalesce(anonymousId, CASE WHEN userId IS NULL THEN context.traits.email END) AS anonymous_id,
            userId AS user_id, replace(lower(event), ' ', '_') AS event, event AS event_text,
            originalTimestamp AS original_timestamp, sentAt AS sent_at, timestamp,
            {", ".join(f"context.{'.'.join(column.path)} AS {column.name}" for column in catalog.CONTEXT)},
            {", ".join(f"properties.{name}" for name in PROPERTIES)}
        FROM read_json('{archive}/**/*.gz', format = 'newline_delimited', ignore_errors = true, columns = {{{columns}}})
        WHERE event IS NOT NULL""")
    for table in (catalog.TRACKS, *catalog.EVENT_TABLES):
        names = ", ".join(column.name for column in table.columns)
        where = "" if table is catalog.TRACKS else f"WHERE event = '{table.name}'"
        con.execute(f"CREATE TABLE {table.name} AS SELECT {names} FROM messages {where}")
    con.close()


if __name__ == "__main__":
    main(sys.argv[1])
