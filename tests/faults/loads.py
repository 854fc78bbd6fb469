"""What the tests of this folder share: an archive with every oddity, a load, and whole tables to compare."""

import gzip
import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb
import fsspec
import psycopg2
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from dlt.common.configuration.specs import AwsCredentials
from dlt.common.libs.deltalake import deltalake_storage_options

import autopilothq
from autopilothq import sample
from autopilothq.warehouses.duckdb import direct
from autopilothq.warehouses.duckdb_open import keep_database_open
from autopilothq.warehouses.working_folder import drop_partial_files
from servers import S3

DATASET = "autopilothq"
OLD_DAY = "1551398400000"
# Columns that depend on the load that stored a row, so they differ between any two loads.
WHEN = {"uuid_ts", "load_id", "loaded_at", "rejected_at", "discarded_at"}
OTHERS = {
    "tracks", "identifies", "users", "aliases", "groups", "accounts", "pages", "screens", "_rejects", "_discards",
    "_audit", "_suppressions",
}  # fmt: skip
TYPES = {
    "VARCHAR": "text",
    "character varying": "text",
    "BIGINT": "bigint",
    "DOUBLE": "double",
    "double precision": "double",
    "numeric": "double",
    "BOOLEAN": "bool",
    "boolean": "bool",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
    "timestamp with time zone": "timestamp",
    "string": "text",
    "int64": "bigint",
    "double": "double",
    "bool": "bool",
    "timestamp[us, tz=UTC]": "timestamp",
}


class Table(NamedTuple):
    """A whole table: its columns in their order, with their types, and its rows in a fixed order."""

    columns: dict[str, str]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def by_name(self) -> list[list[tuple[str, Any]]]:
        """Returns the rows regardless of the order of columns, because those of a later load are appended."""
        return sorted((sorted(row.items()) for row in self.dicts()), key=repr)

    def total(self, column: str) -> int:
        return sum(row[column] for row in self.dicts())


def track(number: int, event: str | None = "Email Opened", **fields: Any) -> dict[str, Any]:
    """Returns a small track; a higher number was received later."""
    clock = f"2019-03-01T00:{number // 60 % 60:02d}:{number % 60:02d}.{number // 3600:03d}Z"
    message = {"type": "track", "event": event, "messageId": f"m-{number}", "userId": "u", "receivedAt": clock}
    return message | {"timestamp": clock, "properties": {"campaign_id": f"c-{number}"}} | fields


def line(message: Any) -> bytes:
    return (message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n"


def file(folder: Path, name: str, messages: Sequence[Any], day: str = OLD_DAY) -> Path:
    """Writes a file of an archive into a day folder, and returns its path."""
    path = folder / "segment-logs" / "AbC123xYz9" / day / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(map(line, messages))
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    return path


ODDITIES: list[Any] = [
    # Rejects.
    b"no JSON",
    b"[1]",
    b'{"type":"track","event":"Email Opened","messageId":"half',
    track(1, messageId="nobody", userId=" "),
    {"type": "delete", "userId": "u", "messageId": "delete"},
    track(2, messageId="no-event", event=None),
    track(3, messageId="no-properties", properties=[1]),
    b'{"type":"track","bytes":"\xff"}',
    # Discards: text that no warehouse can store, values that do not fit, keys that collide, a name without a slug.
    track(4, messageId="nul", properties={"note": "a\0b", "email_subject": "c\0d"}),
    b'{"type":"track","event":"Email Opened","messageId":"lone","userId":"u","properties":{"note":"\\ud800"}}',
    b'{"type":"track","event":"Email Opened","messageId":"nan","userId":"u","properties":{"a":NaN,"transactional":3}}',
    track(5, messageId="same", properties={"linkURL": "loses", "link_url": "wins", "日本": "no column"}),
    track(6, event="🎉", messageId="no-slug", properties={"a": 1}),
    track(7, messageId="clock", timestamp="yesterday"),
    track(8, event="Big", properties={"n": 2**63 - 1}),
    track(9, event="Big", properties={"n": 2**63}),
    # Values and names.
    track(10, properties={"text": "🎉 „ä“ \t\\ \"'", "empty": "", "list": [1, {"a": None}], "price": 3}),
    track(11, properties={"price": 3.5, "when": "2019-03-01T00:00:00+01:00", "flag": True, "timestamp": "own"}),
    track(12, event="Users", context={"traits": {"email": "a@example.com", "deep": {"er": 1}}}),
    # Persons and the other messages.
    {"type": "identify", "userId": "u", "messageId": "i1", "receivedAt": "2019-03-02T00:00:00Z", "traits": {"a": 1}},
    {"type": "identify", "userId": "u", "messageId": "i2", "receivedAt": "2019-03-01T00:00:00Z", "traits": {"a": 2}},
    {"type": "identify", "anonymousId": "a", "messageId": "i3", "traits": {"b": "x\0"}},
    {"type": "alias", "userId": "u", "previousId": "a", "messageId": "a1"},
    {"type": "page", "userId": "u", "name": "Home", "messageId": "p1", "properties": {"path": "/"}},
    {"type": "screen", "userId": "u", "name": "Main", "messageId": "s1"},
    {"type": "group", "userId": "u", "groupId": "g", "messageId": "g1", "traits": {"plan": "pro"}},
    # Twice in one file, and a message without an id.
    track(13),
    track(13, receivedAt="2018-01-01T00:00:00Z"),
    {"type": "track", "event": "Email Opened", "userId": "u"},
]

# The oddities in tracks of one event and of persons, because each table takes time. Other types of messages are stored
# as identifies are, and accounts are merged as users are.
FEW_TABLES = [
    line
    for line in ODDITIES
    if isinstance(line, bytes)
    or line["type"] in ("identify", "delete")
    or (line["type"] == "track" and line.get("event") in ("Email Opened", None))
]


def odd_archive(folder: Path, events: int, oddities: Sequence[Any] = ODDITIES) -> Path:
    """Writes an archive with oddities, some of them twice; with `events`, also a realistic source of so many messages.

    The realistic source adds a dozen tables, and a load takes longer the more tables it has.
    """
    if events:
        sample.write(str(folder), events, 3)
    file(folder, "odd.gz", oddities)
    file(folder, "replayed.json", oddities[-10:])
    return folder


def in_memory() -> duckdb.DuckDBPyConnection:
    """Returns a DuckDB without a file: a load takes a quarter less time there, one with nothing new half."""
    return duckdb.connect(":memory:", config={"threads": 1})  # so few rows leave no work for a second one


def pipeline(folder: Path, destination: Any = None) -> dlt.Pipeline:
    """Returns a pipeline with its working folder in `folder`, and by default its DuckDB file."""
    if isinstance(destination, duckdb.DuckDBPyConnection):
        destination = direct(destination)
    return dlt.pipeline(
        "autopilot_events",
        pipelines_dir=str(folder / "state"),
        destination=destination or direct(str(folder / "autopilot.duckdb")),
        dataset_name=DATASET,
    )


def load(into: dlt.Pipeline, url: Path | str, **options: Any) -> autopilothq.LoadReport:
    """Makes one complete load, whatever an earlier one left behind; returns its report."""
    reports: list[autopilothq.LoadReport] = []
    with keep_database_open(into):
        drop_partial_files(into)  # as the command does
        while into.has_pending_data:
            into.run()
        into.run(autopilothq.archive(str(url), progress=reports.append, **options))
    return reports[-1]


def files_in(folder: Path) -> list[Path]:
    """Returns all files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def content(database: Path | str | duckdb.DuckDBPyConnection) -> dict[str, Table]:
    """Returns all tables of the dataset in a DuckDB file or, by its URL, a PostgreSQL database, except dlt's own."""
    if isinstance(database, duckdb.DuckDBPyConnection):
        connection = database.execute("SET TimeZone = 'UTC'")
        return _content(lambda sql: connection.execute(sql).fetchall())
    if isinstance(database, Path):
        with duckdb.connect(str(database), read_only=True) as file:
            return content(file)
    with closing(psycopg2.connect(database)) as server, server.cursor() as cursor:

        def query(sql: str) -> list[tuple[Any, ...]]:
            cursor.execute(sql)
            return cursor.fetchall()

        return _content(query)


def lake_content(bucket: str, s3: S3 | None = None) -> dict[str, Table]:
    """Returns all Delta tables of the dataset in a bucket or folder, without dlt's own files."""
    folder = (
        fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options) if s3 else fsspec.filesystem("file")
    )
    options = deltalake_storage_options(AwsCredentials(**dict[str, Any](s3.credentials))) if s3 else None
    paths = folder.ls(f"{bucket}/{DATASET}", detail=True)
    names = [path["name"].rpartition("/")[2] for path in paths if path["type"] == "directory"]
    tables = {}
    for name in sorted(names):
        if name.startswith("_dlt_"):
            continue
        with suppress(TableNotFoundError):  # checking first whether it is a table takes as long as reading it
            table = DeltaTable(f"{bucket}/{DATASET}/{name}", storage_options=options)
            found = pa.table(table.scan()).cast(pa.schema(table.schema().to_arrow()))
            types = {field.name: TYPES[str(field.type)] for field in found.schema}
            columns, cells = list(types), found.to_pylist()
            assert all(row[column] for row in cells for column in WHEN.intersection(columns))
            rows = [tuple(_cell(column, row[column]) for column in columns) for row in cells]
            tables[name] = Table(types, sorted(rows, key=repr))
    return tables


def _content(query: Callable[[str], list[tuple[Any, ...]]]) -> dict[str, Table]:
    columns: dict[str, dict[str, str]] = {}
    for table, column, of in query(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        f" WHERE table_schema = '{DATASET}' ORDER BY table_name, ordinal_position"
    ):
        if not table.startswith("_dlt_"):
            columns.setdefault(table, {})[column] = TYPES.get(of, of)
    return {table: Table(types, _rows(query, table, list(types))) for table, types in columns.items()}


def _rows(query: Callable[[str], list[tuple[Any, ...]]], table: str, columns: list[str]) -> list[tuple[Any, ...]]:
    names = ", ".join(f'"{column}"' for column in columns)
    found = query(f'SELECT {names} FROM {DATASET}."{table}"')
    assert all(row[columns.index(column)] for row in found for column in WHEN.intersection(columns))
    rows = [tuple(_cell(column, cell) for column, cell in zip(columns, row, strict=True)) for row in found]
    return sorted(rows, key=repr)


def _cell(column: str, cell: Any) -> Any:
    if column in WHEN:
        return "when"
    if isinstance(cell, Decimal):
        return float(cell)
    return cell.timestamp() if isinstance(cell, datetime) else cell


def messages(tables: dict[str, Table]) -> int:
    """Returns the number of stored messages, from the tables in which each message has exactly one row."""
    kinds = ("tracks", "identifies", "aliases", "pages", "screens", "groups")
    return sum(len(tables[kind].rows) for kind in kinds if kind in tables)


def assert_sound(tables: dict[str, Table]) -> None:
    """Checks what holds after any load: keys are unique, each track has an event row, every line is accounted for."""
    for name, table in tables.items():
        keys = [(row["file"], row["version"]) if name == "_audit" else row["id"] for row in table.dicts()]
        assert len(set(keys)) == len(keys), f"{name} has a key twice"
    tracks = {(row["id"], row["event"]) for row in tables["tracks"].dicts() if row["event"]}
    # A table's name may be shortened, but `event` is not.
    rows = {(row["id"], row["event"]) for name in tables if name not in OTHERS for row in tables[name].dicts()}
    assert rows == tracks
    for row in tables["_audit"].dicts():
        assert row["lines"] == row["stored"] + row["duplicates"] + row["rejected"]


def assert_same(found: dict[str, Table], expected: dict[str, Table], but: Sequence[str] = ()) -> None:
    """Compares whole tables one by one, so that only the difference is shown."""
    assert found.keys() == expected.keys()
    for name in expected.keys() - set(but):
        assert (name, found[name].columns) == (name, expected[name].columns)
        if found[name].by_name() != expected[name].by_name():
            new, missing = (
                [row for row in these.dicts() if row not in those.dicts()]
                for these, those in ((found[name], expected[name]), (expected[name], found[name]))
            )
            raise AssertionError(
                f"{name}: {len(new)} rows are new: {new[:3]}; {len(missing)} are missing: {missing[:3]}"
            )


def touch(path: Path, mtime_ns: int) -> None:
    os.utime(path, ns=(mtime_ns, mtime_ns))
