"""A DuckDB script as an expert would write it by hand, which shows how fast a load can be.

It does the load's job and nothing more: typed columns, a table for each event, `tracks`, a table for each other type of
message, one row for each id in this load and in all stored ones, and known files skipped. It has no rejects, no books
and no unknown columns, and it trusts its lines. The archive's columns are hard-coded, as is usual in such a script.
Usage: `python expert_duckdb.py ARCHIVE DATABASE`, any number of times.
"""

import sys

import duckdb

FIELDS = {
    "messageId": "VARCHAR",
    "type": "VARCHAR",
    "event": "VARCHAR",
    "anonymousId": "VARCHAR",
    "userId": "VARCHAR",
    "previousId": "VARCHAR",
    "groupId": "VARCHAR",
    "name": "VARCHAR",
    "category": "VARCHAR",
    "receivedAt": "TIMESTAMP",
    "sentAt": "TIMESTAMP",
    "originalTimestamp": "TIMESTAMP",
    "timestamp": "TIMESTAMP",
    "context": "STRUCT(traits STRUCT(email VARCHAR, contact_id VARCHAR), library STRUCT(name VARCHAR, version VARCHAR),"
    " integration STRUCT(name VARCHAR, version VARCHAR), ip VARCHAR, userAgent VARCHAR)",
    "properties": "STRUCT(campaign_id VARCHAR, campaign_name VARCHAR, email_id VARCHAR, email_name VARCHAR,"
    " email_subject VARCHAR, transactional BOOLEAN, link_id VARCHAR, link_url VARCHAR)",
}
NEW_FILES = "SELECT file FROM glob($pattern) ANTI JOIN files USING (file)"
# One pass over the new files. Times are read as UTC without a zone, and get the zone when the rows are written.
MESSAGES = """
    CREATE TEMP TABLE messages AS SELECT
        messageId AS id, receivedAt AS received_at,
        coalesce(anonymousId, CASE WHEN userId IS NULL THEN context.traits.email END) AS anonymous_id,
        userId AS user_id, originalTimestamp AS original_timestamp, sentAt AS sent_at, timestamp,
        context.traits.email AS context_traits_email, context.traits.contact_id AS context_traits_contact_id,
        context.library.name AS context_library_name, context.library.version AS context_library_version,
        context.integration.name AS context_integration_name,
        context.integration.version AS context_integration_version,
        context.ip AS context_ip, context.userAgent AS context_user_agent,
        type AS kind, replace(lower(event), ' ', '_') AS event, event AS event_text,
        unnest(properties), previousId AS previous_id, groupId AS group_id, name, category
    FROM read_json($files, format = 'newline_delimited', columns = {columns}, ignore_errors = true)
    WHERE type IS NOT NULL
"""
COMMON = """id, received_at AT TIME ZONE 'UTC' AS received_at, now() AS uuid_ts, anonymous_id, user_id,
    original_timestamp AT TIME ZONE 'UTC' AS original_timestamp, sent_at AT TIME ZONE 'UTC' AS sent_at,
    timestamp AT TIME ZONE 'UTC' AS timestamp, context_traits_email, context_traits_contact_id, context_library_name,
    context_library_version, context_integration_name, context_integration_version, context_ip, context_user_agent"""
TRACK = f"{COMMON}, event, event_text"
EMAIL = f"{TRACK}, campaign_id, campaign_name, email_id, email_name, email_subject, transactional"
EVENTS = dict.fromkeys(
    (
        "email_bounced",
        "email_delivered",
        "email_marked_as_spam",
        "email_opened",
        "email_unsubscribed",
        "email_replied",
    ),
    EMAIL,
) | {"email_clicked": f"{EMAIL}, link_id, link_url"}
KINDS = {
    "identify": ("identifies", COMMON),
    "alias": ("aliases", f"{COMMON}, previous_id"),
    "page": ("pages", f"{COMMON}, name, category"),
    "screen": ("screens", f"{COMMON}, name, category"),
    "group": ("groups", f"{COMMON}, group_id"),
}


def main(archive: str, database: str) -> None:
    con = duckdb.connect(database)
    con.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    con.execute("CREATE TABLE IF NOT EXISTS files (file VARCHAR)")
    found = con.execute(NEW_FILES, {"pattern": f"{archive}/**/*.gz"}).fetchall()
    files = [file for (file,) in found]
    if not files:
        return
    con.execute("BEGIN")
    con.execute(MESSAGES.format(columns=FIELDS), {"files": files})
    drop_duplicates(con)
    add_rows(con, "tracks", TRACK, "kind = 'track'")
    for (event,) in con.execute("SELECT DISTINCT event FROM messages WHERE kind = 'track'").fetchall():
        add_rows(con, event, EVENTS.get(event, TRACK), f"event = '{event}'")
    for (kind,) in con.execute("SELECT DISTINCT kind FROM messages WHERE kind <> 'track'").fetchall():
        add_rows(con, *KINDS[kind], f"kind = '{kind}'")
    con.execute("INSERT INTO files SELECT unnest($files)", {"files": files})
    con.execute("COMMIT")
    con.close()


def drop_duplicates(con: duckdb.DuckDBPyConnection) -> None:
    """Drops stored messages, and all but the earliest of those with the same id; sorts only the rows of such ids."""
    for table in ("tracks", *(table for table, _ in KINDS.values())):
        if con.execute(f"SELECT 1 FROM duckdb_tables() WHERE table_name = '{table}'").fetchone():
            con.execute(f"DELETE FROM messages WHERE id IN (SELECT id FROM {table})")
    con.execute("""
        DELETE FROM messages WHERE rowid IN (
            SELECT rowid FROM messages WHERE id IN (SELECT id FROM messages GROUP BY id HAVING count(*) > 1)
            QUALIFY row_number() OVER (PARTITION BY id ORDER BY received_at) > 1)""")


def add_rows(con: duckdb.DuckDBPyConnection, table: str, columns: str, where: str) -> None:
    rows = f"SELECT {columns} FROM messages WHERE {where}"
    con.execute(f"CREATE TABLE IF NOT EXISTS {table} AS {rows} LIMIT 0; INSERT INTO {table} BY NAME {rows}")


if __name__ == "__main__":
    main(*sys.argv[1:])
