"""A DuckLake gets the rows that DuckDB gets, and every command works with it.

DuckDB downloads its extensions from a server of its own. Here those for lakes and for SQLite, which has the lake's
catalogue, are packages, in an environment below `build/` with the release of DuckDB for which they were made.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from autopilothq import sample
from calling import MAIN, Call
from checks.same_rows import KEYS, assert_same_rows, write_keys
from contract.duck import held
from faults.loads import line

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "ducklake"
PYTHON = HOME / "bin" / "python"
EXTENSIONS = ("duckdb-extension-ducklake", "duckdb-extension-sqlite-scanner")
WORDS = ("--destination", "ducklake")
KILLED = """
import sys
from faults.killed import MAIN, kill_at
kill_at(sys.argv.pop(1), "after", int(sys.argv.pop(1)))
exec(MAIN)
"""
OPEN = """
import duckdb
lake = duckdb.connect()
lake.execute("SET TimeZone = 'UTC'; ATTACH 'ducklake:ducklake.sqlite' AS lake (META_TYPE 'sqlite')")
lake.execute("USE lake.autopilothq")
"""
COPY = f"""{OPEN}
for name, in lake.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'autopilothq'").fetchall():
    lake.execute(f"COPY (FROM \\"{{name}}\\") TO 'copied/{{name}}.parquet'")
"""
UNLOCK = f'{OPEN}lake.execute("DELETE FROM _locks")'  # a killed run's lease, which would expire in a while


@pytest.fixture(scope="module", autouse=True)
def installed() -> list[Path]:
    """The files of the extensions."""
    if not (HOME / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", HOME], check=True)
        pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", "--editable", f"{ROOT}[dev]"], check=True)
        subprocess.run([*pip, "--no-deps", *EXTENSIONS], check=True)
        version = f"import importlib.metadata as of; print(of.version('{EXTENSIONS[0]}'))"
        made_for = subprocess.run([PYTHON, "-c", version], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([*pip, "--no-deps", f"duckdb=={made_for}"], check=True)
        (HOME / "done").touch()
    return sorted(HOME.glob("lib/python3*/site-packages/duckdb_extension_*/extensions/*/*.duckdb_extension"))


@pytest.fixture(autouse=True)
def has_extensions(installed: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the extensions where DuckDB looks for them."""
    [(platform,)] = duckdb.sql("PRAGMA platform").fetchall()
    for file in installed:
        folder = tmp_path / "home" / ".duckdb" / "extensions" / file.parent.name / platform
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'pipelines'}:{ROOT / 'tests'}")


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code in the environment of the lake."""
    return subprocess.run([PYTHON, "-c", code, *words], capture_output=True, text=True, check=False)


def lake(*words: str) -> str:
    """Calls a command for the lake, and returns what it prints."""
    done = run(f"import sys; sys.argv[0] = 'autopilothq'; {MAIN}", *words, *WORDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Returns the rows of a table that were copied from the lake."""
    names = ", ".join(f'"{column}"' for column in columns)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        return sorted(con.execute(f"SELECT {names} FROM 'copied/{table}.parquet'").fetchall(), key=repr)


def copy() -> None:
    """Copies the tables of the lake, for `rows`."""
    shutil.rmtree("copied", ignore_errors=True)
    Path("copied").mkdir()
    done = run(COPY)
    assert done.returncode == 0, done.stderr


def test_the_same_rows_as_in_duckdb(call: Call) -> None:
    for number in range(2):  # the same people, and partly the same messages
        sample.write(f"archive{number}", 150 * (number + 1))
        write_keys(f"archive{number}/keys.ndjson", number)
        reserved = {"type": "track", "event": "Order", "messageId": f"r{number}", "properties": {"row_id": number}}
        Path(f"archive{number}/reserved.ndjson").write_bytes(line(reserved))
        with held():
            assert call("load", "archive", f"archive{number}").status == 0
        lake("load", "archive", f"archive{number}")
        copy()
        assert_same_rows(rows)


@pytest.mark.parametrize(
    ("point", "number"),
    [("dlt.load.load:Load.complete_jobs", 2), ("dlt.load.load:Load.create_followup_jobs", 3)],
    ids=["jobs", "merges"],
)
def test_a_killed_load_is_completed_by_the_next(point: str, number: int) -> None:
    write_keys("keys.ndjson")
    words = ("load", "archive", "keys.ndjson")
    assert run(KILLED, point, str(number), *words, *WORDS).returncode == -9
    assert run(UNLOCK).returncode == 0
    lake(*words)
    copy()
    assert rows("tracks", ["id"]) == rows("users", ["id"]) == sorted(((key,) for key in KEYS), key=repr)


def test_all_commands_give_what_they_give_in_duckdb(call: Call) -> None:
    sample.write("archive", 1_500)
    with held():
        assert call("load", "archive", "archive").status == 0
    lake("load", "archive", "archive")
    mine = partial(json_of, call)
    assert [*json.loads(lake("status", "--json"))["tables"]] == [*mine("status")["tables"]]
    assert lake("schema", "diff").splitlines()[-1] == "0 differences break queries, 37 do not."
    assert lake("models", "apply") == "8 views in autopilothq_models: 8 created.\n"
    assert lake("models", "apply") == "8 views in autopilothq_models: 8 unchanged.\n"
    reports = mine("report"), json.loads(lake("report", "--json"))
    parts = ("period", "totals", "days", "journeys", "links", "domains", "opening", "sending", "cohorts", "arrival")
    assert {part: reports[1][part] for part in parts} == {part: reports[0][part] for part in parts}
    with duckdb.connect("autopilot.duckdb") as con:
        [(email,)] = con.execute("SELECT max(context_traits_email) FROM autopilothq.email_opened").fetchall()
    words = ("forget", "--email", email)
    assert json.loads(lake(*words, "--json"))["rows"] == mine(*words)["rows"] != {}
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("DROP TABLE autopilothq._suppressions")  # its digests have a salt
    copy()
    assert_same_rows(rows)


def json_of(call: Call, *words: str) -> Any:
    """Returns the JSON that a command prints for DuckDB."""
    return json.loads(call(*words, "--json").out)
