"""ClickHouse's engine gets the rows that DuckDB gets, and every command reads them there.

Its server has no package, so the engine runs in this process (chDB), without a connection. It is installed below
`build/`, with the drivers.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from autopilothq import models, sample
from calling import Call, Said, errors
from checks import clickhouse_engine
from checks.clickhouse_engine import URL, Engine
from checks.same_rows import KEYS, assert_same_rows, write_keys
from fake_autopilot import FakeAutopilot
from sending import configure, posts

DRIVERS = Path(__file__).parents[2] / "build" / "clickhouse"
WORDS = ("--destination", "clickhouse", "--credentials", URL)
# They mean something in a statement.
ODD_KEYS = ("it's", "a\\b", "a\\'b", "a%sb", "x\ty\nz", "NULL", "\\N", 'a`"b', "a;b", "--c", "/*x*/", "{a}")

KILLED = """
import sys
from pathlib import Path
from checks import clickhouse_engine
from faults.killed import MAIN, kill_at
clickhouse_engine.install(Path(sys.argv.pop(1)))
kill_at(sys.argv.pop(1), "after", int(sys.argv.pop(1)))
exec(MAIN)
"""


@pytest.fixture(scope="module", autouse=True)
def drivers() -> Iterator[None]:
    """The drivers and the engine, behind all packages of the tests."""
    if not (DRIVERS / "chdb").exists():
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        packages = ("chdb>=4.4", "clickhouse-connect>=1.12", "clickhouse-driver>=0.2.11")
        subprocess.run([*pip, "--target", DRIVERS, *packages], check=True)
    sys.path.append(str(DRIVERS))
    yield
    sys.path.remove(str(DRIVERS))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = clickhouse_engine.install(tmp_path / "clickhouse")
    yield engine
    engine.close()


def in_clickhouse(value: Any) -> Any:
    """Returns a value of DuckDB in the form that the drivers return."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def both(call: Call, *words: str) -> tuple[Said, Said]:
    """Calls a command for DuckDB and for ClickHouse."""
    return call(*words), call(*words, *WORDS)


def both_say(call: Call, *words: str) -> tuple[Any, Any]:
    """Returns the JSON that a command prints for DuckDB and for ClickHouse."""
    mine, theirs = (json.loads(said.out) for said in both(call, *words, "--json"))
    return mine, theirs


def test_the_same_rows_as_in_duckdb(engine: Engine, call: Call) -> None:
    for number in range(2):  # the same people, and partly the same messages
        sample.write(f"archive{number}", 150 * (number + 1))
        write_keys(f"archive{number}/keys.ndjson", number, (*KEYS, *ODD_KEYS))
        for said in both(call, "load", "archive", f"archive{number}"):
            assert (said.status, errors(said)) == (0, [])
        assert_same_rows(engine.rows, in_clickhouse)
    assert {key for (key,) in engine.ask("SELECT id FROM autopilothq___users")} >= {*KEYS, *ODD_KEYS}


@pytest.mark.parametrize(
    ("point", "number"),
    [("dlt.load.load:Load.complete_jobs", 2), ("dlt.load.load:Load.create_followup_jobs", 3)],
    ids=["jobs", "merges"],
)
def test_a_killed_load_is_completed_by_the_next(
    engine: Engine, call: Call, tmp_path: Path, point: str, number: int
) -> None:
    write_keys("keys.ndjson")
    words = ("load", "archive", "keys.ndjson", *WORDS)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "clickhouse"), point, str(number), *words]
    assert subprocess.run(command, env=env, check=False).returncode == -9
    engine.ask("DELETE FROM autopilothq____locks WHERE true")  # the killed run's lease, which would expire in a while
    said = call(*words)
    assert (said.status, errors(said)) == (0, [])
    assert sorted(engine.ask("SELECT id FROM autopilothq___tracks")) == sorted((key,) for key in KEYS)
    assert sorted(engine.ask("SELECT id FROM autopilothq___users")) == sorted((key,) for key in KEYS)


@pytest.fixture
def loaded_twice(engine: Engine, call: Call) -> Engine:
    """The engine with the events that `autopilot.duckdb` has, and next to them another dataset's tables."""
    sample.write("archive", 1_500)
    assert [said.status for said in both(call, "load", "archive", "archive")] == [0, 0]
    for dataset in ("other", "autopilothq_too"):
        engine.ask(f"CREATE TABLE {dataset}___tracks (id String, received_at DateTime) ENGINE = MergeTree ORDER BY id")
    return engine


@pytest.mark.usefixtures("loaded_twice")
def test_the_inspecting_commands_read_this_dataset_alone(call: Call) -> None:
    mine, theirs = both_say(call, "status")
    assert [*theirs["tables"]] == [*mine["tables"]]
    assert [table["received_at"] for table in theirs["tables"].values()] == [
        table["received_at"] for table in mine["tables"].values()
    ]
    said = call("schema", "diff", *WORDS)
    assert (said.status, said.out.splitlines()[-1]) == (0, "0 differences break queries, 37 do not.")
    live = [json.loads(said.out)["tables"] for said in both(call, "schema", "--live", "--format", "json")]
    assert [*live[1]] == [*live[0]]


def test_the_models_and_the_report_have_the_same_numbers(loaded_twice: Engine, call: Call) -> None:
    said = call("models", "apply", *WORDS)
    assert (said.status, said.out) == (0, "8 views in autopilothq_models: 8 created.\n")
    said = call("models", "apply", *WORDS)
    assert (said.status, said.out) == (0, "8 views in autopilothq_models: 8 unchanged.\n")
    assert call("models", "apply").status == 0
    with duckdb.connect("autopilot.duckdb", read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        for name in models.BY_NAME:
            columns = [column for column, *_ in con.execute(f"DESCRIBE autopilothq_models.{name}").fetchall()]
            names = ", ".join(column for column in columns if column != "loaded_at")
            found = con.execute(f"SELECT {names} FROM autopilothq_models.{name}").fetchall()
            theirs = loaded_twice.ask(f"SELECT {names} FROM `autopilothq_models___{name}`")
            assert in_order(theirs) == in_order(found), name
    reports = both_say(call, "report")
    parts = ("period", "totals", "days", "journeys", "links", "domains", "opening", "sending", "cohorts", "arrival")
    assert {part: reports[1][part] for part in parts} == {part: reports[0][part] for part in parts}


def in_order(rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Returns rows in an order. The last digits of shares are left out, as they may differ."""
    cells = (tuple(round(cell, 9) if isinstance(cell, float) else in_clickhouse(cell) for cell in row) for row in rows)
    return sorted(cells, key=repr)


def test_what_is_exported_and_forgotten_is_the_same(loaded_twice: Engine, call: Call) -> None:
    assert [call("export", "mine").status, call("export", "theirs", *WORDS).status] == [0, 0]
    assert messages("theirs") == messages("mine") != []
    [(email,)] = loaded_twice.ask("SELECT max(context_traits_email) FROM autopilothq___email_opened")
    mine, theirs = both_say(call, "forget", "--email", email)
    assert theirs["rows"] == mine["rows"] != {}
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("DROP TABLE autopilothq._suppressions")  # its digests have a salt
    assert_same_rows(loaded_twice.rows, in_clickhouse)
    assert call("load", "archive", "mine", *WORDS).status == 0  # it has the person's messages
    assert loaded_twice.ask(f"SELECT count() FROM autopilothq___tracks WHERE context_traits_email = '{email}'") == [
        (0,)
    ]


def messages(folder: str) -> list[str]:
    """Returns the lines of an archive, sorted."""
    return sorted(line for file in Path(folder).rglob("*.gz") for line in gzip.open(file, "rt", encoding="utf-8"))


def test_messages_are_sent_once(
    loaded_twice: Engine, call: Call, server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, server)
    query = "SELECT DISTINCT context_traits_email AS email, 1 AS opened FROM autopilothq___email_opened"
    [(emails,)] = loaded_twice.ask(f"SELECT count() FROM ({query})")
    for _ in range(2):
        said = call("send", "traits", "--query", query, *WORDS)
        assert (said.status, errors(said)) == (0, [])
    assert sum(len(body["contacts"]) for _, body in posts(server)) == emails > 0
    columns = ("status", "http_status", "message", "user_id")
    assert loaded_twice.rows("_deliveries", columns) == [("delivered", 200, None, None)] * emails
