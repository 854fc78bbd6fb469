"""polars reads an archive lazily into Parquet, and DuckDB makes the tables of it; duplicates stay.

polars refuses a byte-order mark, so the files that have one are read into memory without it. Usage:
`python polars_parquet.py ARCHIVE DATABASE`.
"""

import gzip
import io
import sys
from pathlib import Path

import duckdb
import polars as pl
from peer_columns import PROPERTIES, TIMES, create_tables

MARK = b"\xef\xbb\xbf"
TEXT = pl.String
NAMED = pl.Struct({"name": TEXT, "version": TEXT})
SCHEMA = {
    **dict.fromkeys(("messageId", "anonymousId", "userId", "event", *TIMES), TEXT),
    "context": pl.Struct(
        {
            "traits": pl.Struct({"email": TEXT, "contact_id": TEXT}),
            "library": NAMED,
            "integration": NAMED,
            "ip": TEXT,
            "userAgent": TEXT,
        }
    ),
    "properties": pl.Struct({name: pl.Boolean if of == "BOOLEAN" else TEXT for name, of in PROPERTIES.items()}),
}


def without_mark(file: Path) -> Path | io.BytesIO:
    with gzip.open(file) as content:
        if content.read(3) != MARK:
            return file
        return io.BytesIO(content.read())


def main(archive: str, database: str) -> None:
    parquet = Path(database).with_suffix(".parquet")
    context = pl.col("context").struct
    traits, library, integration = (context.field(name).struct for name in ("traits", "library", "integration"))
    received, sent, original, timestamp = (
        pl.col(name).str.to_datetime(time_zone="UTC", strict=False) for name in TIMES
    )
    email = pl.when(pl.col("userId").is_null()).then(traits.field("email"))
    files = [without_mark(file) for file in sorted(Path(archive).rglob("*.gz"))]
    lines = pl.concat(pl.scan_ndjson(file, schema=SCHEMA, ignore_errors=True) for file in files)
    lines.filter(pl.col("event").is_not_null()).select(
        pl.col("messageId").alias("id"),
        received.alias("received_at"),
        pl.lit(None, pl.Datetime("us", "UTC")).alias("uuid_ts"),
        pl.coalesce("anonymousId", email).alias("anonymous_id"),
        pl.col("userId").alias("user_id"),
        pl.col("event").str.to_lowercase().str.replace_all(" ", "_").alias("event"),
        pl.col("event").alias("event_text"),
        original.alias("original_timestamp"),
        sent.alias("sent_at"),
        timestamp.alias("timestamp"),
        traits.field("email").alias("context_traits_email"),
        traits.field("contact_id").alias("context_traits_contact_id"),
        library.field("name").alias("context_library_name"),
        library.field("version").alias("context_library_version"),
        integration.field("name").alias("context_integration_name"),
        integration.field("version").alias("context_integration_version"),
        context.field("ip").alias("context_ip"),
        context.field("userAgent").alias("context_user_agent"),
        *(pl.col("properties").struct.field(name) for name in PROPERTIES),
    ).sink_parquet(parquet)
    with duckdb.connect(database) as con:
        create_tables(con, f"read_parquet('{parquet}')")
    parquet.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
