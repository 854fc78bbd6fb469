"""What the peers' scripts share: the columns of an archive's messages, and the tables that are made of them.

The scripts run in environments without this package's requirements, so the catalogue is imported from its file alone.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from autopilothq import catalog
else:
    sys.path.append(str(Path(__file__).parents[2] / "pipelines" / "autopilothq"))
    import catalog

TYPES = {"text": "VARCHAR", "bool": "BOOLEAN", "timestamp": "TIMESTAMPTZ"}
TIMES = ("receivedAt", "sentAt", "originalTimestamp", "timestamp")
CONTEXT = (
    "STRUCT(traits STRUCT(email VARCHAR, contact_id VARCHAR), library STRUCT(name VARCHAR, version VARCHAR),"
    " integration STRUCT(name VARCHAR, version VARCHAR), ip VARCHAR, userAgent VARCHAR)"
)
PROPERTIES = {column.name: TYPES[column.type] for column in catalog.PROPERTIES + catalog.LINK}


def sql_columns() -> str:
    """Returns the SQL for all columns of `tracks` and of the event tables, over messages read as JSON."""
    return f"""messageId AS id, receivedAt AS received_at, now() AS uuid_ts,
        coalesce(anonymousId, CASE WHEN userId IS NULL THEN context.traits.email END) AS anonymous_id,
        userId AS user_id, replace(lower(event), ' ', '_') AS event, event AS event_text,
        originalTimestamp AS original_timestamp, sentAt AS sent_at, timestamp,
        {", ".join(f"context.{'.'.join(column.path)} AS {column.name}" for column in catalog.CONTEXT)},
        {", ".join(f"properties.{name} AS {name}" for name in PROPERTIES)}"""


def create_tables(con: "duckdb.DuckDBPyConnection", messages: str) -> None:
    """Creates `tracks` and the event tables from a table or file that has all of their columns."""
    for table in (catalog.TRACKS, *catalog.EVENT_TABLES):
        names = ", ".join(column.name for column in table.columns)
        where = "" if table is catalog.TRACKS else f"WHERE event = '{table.name}'"
        con.execute(f"CREATE TABLE {table.name} AS SELECT {names} FROM {messages} {where}")
