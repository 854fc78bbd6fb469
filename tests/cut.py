"""Adopted rows with texts that Segment cut, and an archive that has them whole, for the tests of mending."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
from deltalake import DeltaTable
from psycopg2.extras import RealDictCursor

from adopted import Row

URL = "https://example.com/" + "a" * 600
DUCKS = "🦆" * 600  # 512 characters are 2,048 bytes, and 1,024 units of UTF-16
TEXTS = ("x" * 512, "y" * 513, "z" * 512)
TABLES = ("email_opened", "tracks", "identifies", "users", "_audit")
AT = "2019-03-01T10:00:00.000Z"


def message(id_: str, kind: str = "track", **more: Any) -> Row:
    times = dict.fromkeys(("receivedAt", "sentAt", "originalTimestamp", "timestamp"), AT)
    return {"messageId": id_, "type": kind, "userId": "u1", "context": {"page": {"url": URL}}, **times, **more}


def opened(id_: str, **properties: Any) -> Row:
    return message(id_, event="Email Opened", properties=properties)


def identify(id_: str, **traits: Any) -> Row:
    return message(id_, "identify", traits=traits)


FIRST_FILE = [
    opened("o1", note=DUCKS, campaign_name=URL, tree={"deep": URL}, only_archive=URL, score=1),
    opened("o2", note="changed " + URL),
    opened("o3", note=TEXTS[0]),
    opened("o4", note=TEXTS[1], score=URL),
    opened("o6", note=URL, **{"Odd Key": URL, "odd_key": "irregular"}),
    message("t1", event="Plan Changed", properties={"plan": "pro"}),
    opened("new", note=URL),
    opened("early", note="e" * 512),
]
SECOND_FILE = [
    opened("o5", note=URL, nothing=None),
    opened("o1", note=DUCKS, campaign_name=URL, tree={"deep": URL}) | {"receivedAt": "2019-03-01T10:00:01.000Z"},
    identify("i1", bio=URL, plan="free"),
]
ADOPTED: dict[str, list[Row]] = {
    "email_opened": [
        {"id": "o1", "note": DUCKS[:512], "campaign_name": URL[:512], "tree_deep": URL[:512], "score": 5, "mine": "a"},
        {"id": "o2", "note": URL[:512]},
        {"id": "o3", "note": TEXTS[0]},
        {"id": "o4", "note": TEXTS[1][:511]},
        {"id": "o5", "note": URL[:512]},
        {"id": "o6", "note": URL[:512]},
        {"id": "nowhere", "note": URL[:512]},
    ],
    "tracks": [{"id": "t1", "event": "plan_changed", "event_text": "Plan Changed"}],
    "identifies": [{"id": "i1", "bio": URL[:512], "plan": "free"}],
}


CHANGED = [opened("early", note="e" * 600)]  # a message that the archive itself has with a shorter text


def write(folder: Path, files: dict[str, Sequence[Row]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def unload(folder: Path, tables: dict[str, list[Row]] = ADOPTED) -> Path:
    """Writes the tables that Segment's loader left, with cut texts in the contexts, too; returns their folder."""
    common = {"received_at": "2019-03-01 10:00:00+00", "user_id": "u1", "context_page_url": URL[:512]}
    return write(folder, {f"{name}.json": [common | row for row in found] for name, found in tables.items()})


def archive(folder: Path) -> Path:
    """Writes the archive, with all texts whole; returns its folder."""
    return write(folder, {"1.json": FIRST_FILE, "2.json": SECOND_FILE})


def of_duckdb(file: str) -> Callable[[str], list[Row]]:
    def rows(table: str) -> list[Row]:
        with duckdb.connect(file, read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            return list(con.execute(f"FROM autopilothq.{table}").to_arrow_table().to_pylist())

    return rows


def of_postgres(url: str) -> Callable[[str], list[Row]]:
    def rows(table: str) -> list[Row]:
        with closing(psycopg2.connect(url)) as server, server.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute("SET TimeZone = 'UTC'")
            cursor.execute(f"SELECT * FROM autopilothq.{table}")
            return [dict(row) for row in cursor.fetchall()]

    return rows


def of_lake(folder: str) -> Callable[[str], list[Row]]:
    return lambda table: list(DeltaTable(f"{folder}/autopilothq/{table}").to_pyarrow_table().to_pylist())


def tables(rows: Callable[[str], list[Row]], names: Sequence[str] = TABLES) -> dict[str, list[Row]]:
    """Returns the rows of the tables without nulls, in the order of their ids."""
    return {
        table: sorted(
            ({name: value for name, value in row.items() if value is not None} for row in rows(table)),
            key=lambda row: str(row.get("id", row.get("file"))),
        )
        for table in names
    }
