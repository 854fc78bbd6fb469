"""No line that a stranger sends stops a load into DuckDB or PostgreSQL (docs/contract/warehouse.md#limits)."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from autopilothq.catalog import COLUMN_RESERVE, LIMITS, OTHER_LIMITS
from calling import Call
from contract.loading import identify, message, raw

LONG = "An event's name " * 15
MARK = b"\xef\xbb\xbf"


def wide(number: int, load: int) -> str:
    """Returns a message of an event with `number` properties that no other load has."""
    properties = {f"property_{load}_{n}": n for n in range(number)}
    return json.dumps(message("Wide", messageId=f"wide{load}", properties=properties))


def hostile() -> list[bytes]:
    """Returns lines that do harm, on purpose or by accident."""
    texts = {f"text_{n}": "x" * 30 for n in range(600)}
    deep = "[" * 400 + "1.10" + "]" * 400
    system = {name: name for name in ("xmin", "xmax", "cmin", "cmax", "ctid", "tableoid", "oid")}
    lines: list[Any] = [
        message(LONG, messageId="long"),
        message("Sale", messageId="texts", properties=texts),
        identify(messageId="traits", traits=texts),
        message(messageId="system", properties=system),
        identify(messageId="system traits", traits=system),
        message("\\ud800", messageId="half", properties={"event": "x"}),
        raw(message("$e", messageId="nested"), e='{"a":' * 400 + "1" + "}" * 400),
        raw(message(messageId="array", properties={"a": "$a"}), a=deep),
        message("Keys", messageId="keys", properties={f"k{n}": n for n in range(12_000)}),
        message(messageId="year", timestamp="219-03-04T05:06:27.412Z"),
        message(messageId="zone", timestamp="Fri, 24 Jan 2020 06:29:02 EST"),
        raw(message(messageId="digits", properties={"campaign_id": "$n"}), n="0.00001"),
        '{"type":"track","event":"\\ud800","messageId":"surrogate","userId":"u1","properties":{"event":"x"}}',
    ]
    found = [line.encode() if isinstance(line, str) else json.dumps(line).encode() for line in lines]
    marked = MARK + json.dumps(message(messageId="marked")).encode()
    return [*found, marked, MARK, b"\xff\xfe{", b"\0", b"{" * 500_000, b'"' * 900_000]


STORED = {
    "long", "texts", "system", "half", "keys", "year", "zone", "digits", "surrogate", "marked",
    *(f"plain{n}" for n in range(50)),
}  # fmt: skip


class Database:
    """Reads what the command has loaded."""

    def __init__(self, call: Call, target: str | duckdb.DuckDBPyConnection) -> None:
        self.call, self.target = call, target
        self.url = target if isinstance(target, str) else None
        self.words = ["--destination", "postgres", "--credentials", self.url] if self.url else []

    def load(self, *more: str) -> dict[str, Any]:
        """Loads the archive; returns the result."""
        said = self.call("load", "archive", "archive", "--json", *self.words, *more)
        assert (said.status, said.err.count("Traceback")) == (0, 0), said.err
        result: dict[str, Any] = json.loads(said.out)
        return result

    def status(self) -> dict[str, Any]:
        """Returns what `status` says. The command opens a DuckDB file itself, so no query can follow."""
        if not isinstance(self.target, str):
            self.target.close()
        told: dict[str, Any] = json.loads(self.call("status", "--json", *self.words).out)
        return told

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a query."""
        if not isinstance(self.target, str):
            return self.target.execute(sql).fetchall()
        with psycopg2.connect(self.target) as con, con.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def columns(self, table: str) -> list[str]:
        """Returns the names of a table's columns."""
        places = f"table_schema = 'autopilothq' AND table_name = '{table}'"
        return [name for (name,) in self.query(f"SELECT column_name FROM information_schema.columns WHERE {places}")]


@pytest.fixture(params=["duckdb", "postgres"])
def database(request: pytest.FixtureRequest, call: Call) -> Iterator[Database]:
    if request.param == "duckdb":
        # This process keeps the file open, because to open one with such wide tables takes half of the time.
        with duckdb.connect("autopilot.duckdb") as file:
            yield Database(call, file)
    else:
        yield Database(call, request.getfixturevalue("postgres"))


def test_no_line_stops_the_command(database: Database) -> None:
    plain = [json.dumps(message(messageId=f"plain{n}", properties={"n": n})).encode() for n in range(50)]
    bad = hostile()
    lines = [*plain[:25], *bad, *plain[25:]]
    Path("archive").mkdir()
    width = 900 if database.url else 9  # PostgreSQL has no room for twice as many; for DuckDB, `keys` tries the limit
    Path("archive/1.gz").write_bytes(gzip.compress(b"\n".join([*lines, wide(width, 1).encode()])))
    first = database.load()
    Path("archive/2.gz").write_bytes(gzip.compress(wide(width, 2).encode()))
    later = database.load()
    assert (later["files"], later["stored"]) == (1, 1)
    stored = {id_ for (id_,) in database.query("SELECT id FROM autopilothq.tracks")}
    assert stored == STORED | {"wide1", "wide2"}
    assert {id_ for (id_,) in database.query("SELECT id FROM autopilothq.identifies")} == {"traits", "system traits"}

    # Every line is accounted for.
    assert first["lines"] == len(lines) == first["stored"] + first["duplicates"] + first["rejected"]
    reasons = dict(database.query("SELECT reason, count(*) FROM autopilothq._rejects GROUP BY reason"))
    assert reasons == first["rejects"] == {"not_json": 6}
    assert sum(reasons.values()) == first["rejected"]

    # Other lines are unharmed.
    assert database.query("SELECT n FROM autopilothq.email_opened WHERE id LIKE 'plain%' ORDER BY n") == [
        (n,) for n in range(50)
    ]

    # Names.
    (event, text), *_ = database.query("SELECT event, event_text FROM autopilothq.tracks WHERE id = 'long'")
    assert text == LONG
    assert len(event) == (127 if database.url is None else 63)
    assert database.query(f'SELECT id FROM autopilothq."{event}"') == [("long",)]
    own = "xmin" if database.url is None else "_xmin"
    assert database.query(f"SELECT {own} FROM autopilothq.email_opened WHERE id = 'system'") == [("xmin",)]

    # Values beyond the limits of columns and rows are discards.
    most = (OTHER_LIMITS if database.url is None else LIMITS["postgres"]).columns - COLUMN_RESERVE
    assert len(database.columns("keys")) == most
    assert len(database.columns("wide")) == min(most, len(database.columns("tracks")) + 2 * width)
    lost = dict(database.query("SELECT reason, count(*) FROM autopilothq._discards GROUP BY reason"))
    assert lost["too_many_keys"] >= 2_000
    assert lost["too_many_columns"] >= 10_000 - most
    assert ("row_too_wide" in lost) == (database.url is not None)
    assert set(first["beyond_limits"]) >= {"too_many_keys", "too_many_columns"}

    # Clocks and digits.
    rows = database.query("SELECT id, timestamp FROM autopilothq.tracks WHERE id IN ('year', 'zone') ORDER BY id")
    assert [(id_, at and at.utctimetuple()[:5]) for id_, at in rows] == [
        ("year", None),
        ("zone", (2020, 1, 24, 11, 29)),
    ]
    assert database.query("SELECT campaign_id FROM autopilothq.email_opened WHERE id = 'digits'") == [("0.00001",)]

    # Another load, or a dry run, finds nothing new, and `status` works.
    assert database.load(*(["--dry-run"] if database.url is None else []))["files"] == 0
    told = database.status()
    beyond = len(database.columns("tracks")) + 2 * width - most if database.url else 0
    lost_now = {"too_many_columns": beyond, "row_too_wide": later["discards"] - beyond}
    wide_lost = {reason: {"wide": number} for reason, number in lost_now.items() if number}
    assert told["beyond_limits"] == later["beyond_limits"] == wide_lost
