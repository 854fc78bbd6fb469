"""Tables as warehouses export them, for the tests of `adopt`, with each one's case, types, times and nulls."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

Row = dict[str, Any]

# The rows of `email_opened`.
OPENED = [
    ("o1", "2019-03-01 10:00:00.123", "u1", "ann@example.com", "Welcome", 3, 0.5, True, None),
    ("o2", "2019-03-01 23:59:59", "u2", "bob@example.com", "Welcome", None, 12.25, False, "x" * 512),
    ("o3", "2019-03-02 00:00:00", None, "cyd@example.com", "", -1, None, None, 'a "quoted", text'),
]


def at(text: str) -> datetime:
    """Returns a time in UTC, the zone of exported times."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def redshift_parquet(folder: Path) -> None:
    """Writes files as UNLOAD ... FORMAT PARQUET does: times without a zone, files numbered by slice and part."""
    folder.mkdir(parents=True)
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE t (id VARCHAR, received_at TIMESTAMP, uuid_ts TIMESTAMP, user_id VARCHAR,"
            " context_traits_email VARCHAR, campaign_name VARCHAR, score BIGINT, ratio DOUBLE, transactional BOOLEAN,"
            " note VARCHAR, event VARCHAR, event_text VARCHAR, uuid BIGINT)"
        )
        for number, row in enumerate(OPENED):
            con.execute(
                "INSERT INTO t VALUES (?, ?, '2019-03-05', ?, ?, ?, ?, ?, ?, ?, 'email_opened', 'Email Opened', 7)", row
            )
            if number != 1:
                part = f"{number:04}_part_00.parquet"
                con.execute(f"COPY t TO '{folder / part}' (FORMAT parquet)")
                con.execute("DELETE FROM t")


def snowflake_parquet(folder: Path) -> None:
    """Writes files as COPY INTO @stage does: names in capitals, times as text, numbers as decimals."""
    folder.mkdir(parents=True)
    with duckdb.connect() as con:
        con.execute(
            "COPY (SELECT 'c1' AS ID, '2019-03-03 10:00:00.000 Z' AS RECEIVED_AT, 'u1' AS USER_ID,"
            " '2019-03-03 09:59:58.500 -0800' AS ORIGINAL_TIMESTAMP, 'https://example.com' AS LINK_URL,"
            " 12345678901::DECIMAL(38, 0) AS CLICKS, 1.5::DECIMAL(10, 2) AS PRICE, -0.25::DECIMAL(4, 4) AS SHARE,"
            " {'DECIMAL(9,1) {}': 1.50::DECIMAL(9, 2), 'tax': [0::DECIMAL(15, 3)], 'off': 0.5::DECIMAL(16, 16)}"
            " AS COSTS, '2019-03-03 10:00:00.000 Z' AS SEEN_AT, 'email_clicked' AS EVENT,"
            " 'Email Clicked' AS EVENT_TEXT)"
            f" TO '{folder / 'data_0_0_0.snappy.parquet'}' (FORMAT parquet)"
        )


def bigquery_json(folder: Path) -> None:
    """Writes files as EXPORT DATA ... JSON does: nulls left out, INT64 as text, times followed by UTC."""
    rows = [
        {"id": "b1", "received_at": "2019-03-04 10:00:00.000123 UTC", "loaded_at": "2019-03-04 11:00:00 UTC",
         "user_id": "u1", "event": "email_bounced", "event_text": "Email Bounced", "code": "550", "parts": ["a", 1]},
        {"id": "b2", "received_at": "2019-03-04 10:00:01 UTC", "user_id": "u3", "event": "email_bounced",
         "event_text": "Email Bounced", "soft": True},
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "email_bounced-000000000000.json").write_text(text)


def postgres_csv(folder: Path) -> None:
    r"""Writes files as COPY ... WITH (FORMAT csv, HEADER, NULL '\N') does: booleans as letters, zones as hours."""
    (folder / "identifies.csv").write_text(
        "id,received_at,user_id,anonymous_id,context_traits_email,plan,seats,active,since,zip\n"
        'i1,2019-03-01 10:00:00.5+00,u1,\\N,ann@example.com,free,3,t,2019-01-01 00:00:00+00,"00123"\n'
        'i2,2019-03-02 10:00:00+00,u1,\\N,ann@example.com,pro,\\N,f,\\N,"00124"\n'
        "i3,2019-03-02 11:00:00+00,u2,a9,,free,5,t,2019-01-02 00:00:00+00,\\N\n"
    )
    (folder / "users.csv").write_text(
        "id,received_at,plan,company\nu1,2018-01-01 00:00:00+00,trial,Acme\nu9,2018-01-01 00:00:00+00,trial,\\N\n"
    )
    (folder / "accounts.csv").write_text("id,received_at,plan,town\na1,2018-01-01 00:00:00+00,trial,Rome\n")
    (folder / "tracks.csv").write_text(
        "id,received_at,user_id,event,event_text\n"
        "o1,2019-03-01 10:00:00.123+00,u1,email_opened,Email Opened\n"
        "b1,2019-03-04 10:00:00.000123+00,u1,email_bounced,Email Bounced\n"
        "g1,2018-01-01 10:00:00+00,u1,plan_changed,Plan Changed\n"
        "lost,2018-01-02 10:00:00+00,u1,email_opened,Email Opened\n"
    )


def exported(folder: Path) -> Path:
    """Returns the folder, after writing the files of all exporters into it."""
    redshift_parquet(folder / "email_opened")
    snowflake_parquet(folder / "EMAIL_CLICKED")
    bigquery_json(folder)
    postgres_csv(folder)
    (folder / "manifest.txt.bak").write_text("not a table")
    (folder / "_SUCCESS").write_text("")
    return folder


def rows(file: Path, table: str, without: Sequence[str] = ()) -> list[Row]:
    """Returns a table's rows in order, without nulls, the time of the load, and the columns in `without`."""
    return tables(file, [table], without)[table]


def tables(file: Path, names: Sequence[str], without: Sequence[str] = ()) -> dict[str, list[Row]]:
    """Returns the rows of several tables as `rows` does; opening the file takes longer than reading a table."""
    with duckdb.connect(str(file), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        return {table: _rows(con, table, without) for table in names}


def _rows(con: duckdb.DuckDBPyConnection, table: str, without: Sequence[str]) -> list[Row]:
    found = con.execute(f"FROM autopilothq.{table} ORDER BY ALL")
    names = [column[0] for column in found.description]
    made = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    assert all(row.pop("uuid_ts", True) for row in made)
    return [{name: value for name, value in row.items() if value is not None and name not in without} for row in made]
