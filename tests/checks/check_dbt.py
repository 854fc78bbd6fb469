"""A real dbt accepts what `schema --format dbt` writes, and finds a load's keys unique and its data fresh.

The models that it builds from the package have the same rows as the views of `models apply`.

dbt and the development tools need different versions of one package (pathspec), so dbt has an environment of its own,
`build/dbt`, which the first call creates in a minute. `make check` runs this, `make test` does not.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psycopg2
import pytest

import counted_models as counted
from autopilothq import archive, inspect, models, runner, sample
from autopilothq.inspect import FORMATS, TableInfo
from calling import Call
from contract.loading import write
from environments import dbt_program

HOME = Path(__file__).parents[2] / "build" / "dbt"


@pytest.fixture(scope="session")
def dbt() -> str:
    return str(dbt_program(HOME))


def asked(dbt: str, *words: str) -> tuple[int, str]:
    """Calls dbt; returns its exit status and its output."""
    Path("dbt_project.yml").write_text("{name: check, version: '1.0', profile: check, model-paths: [models]}")
    Path("profiles.yml").write_text(
        "check: {target: dev, outputs: {dev: {type: duckdb, path: events.duckdb, threads: 1}}}"
    )
    said = subprocess.run(
        [dbt, "--no-use-colors", *words],
        env=os.environ | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    return said.returncode, said.stdout + said.stderr


def sources(tables: list[TableInfo]) -> None:
    Path("models").mkdir(exist_ok=True)
    Path("models/sources.yml").write_text(FORMATS["dbt"](tables, "autopilothq"))


def test_dbt_accepts_the_sources(dbt: str) -> None:
    sample.write("archive", events=2000)
    runner.run(runner.pipeline("duckdb", "events.duckdb"), archive("archive"))
    with inspect.reading("duckdb", "events.duckdb") as reader:
        live = inspect.described_tables(reader)
    for tables in (inspect.catalogue(), live):
        sources(tables)
        assert asked(dbt, "--warn-error", "parse", "--no-partial-parse")[0] == 0
        status, said = asked(dbt, "test")
        assert (status, "ERROR=0" in said, "PASS=0" in said) == (0, True, False), said
        status, said = asked(dbt, "source", "freshness")
        assert (status, said.count("PASS freshness")) == (0, 2), said


def test_dbt_finds_what_is_wrong(dbt: str) -> None:
    sample.write("archive", events=500)
    runner.run(runner.pipeline("duckdb", "events.duckdb"), archive("archive"))
    with duckdb.connect("events.duckdb") as con:
        con.execute("INSERT INTO autopilothq.tracks SELECT * FROM autopilothq.tracks LIMIT 1")
        con.execute("UPDATE autopilothq._audit SET loaded_at = loaded_at - INTERVAL 3 DAY")
        con.execute("INSERT INTO autopilothq._audit SELECT * FROM autopilothq._audit LIMIT 1")
    sources(inspect.catalogue())
    status, said = asked(dbt, "test")
    assert status == 1, said
    assert "PASS=32 WARN=0 ERROR=2" in said
    assert "FAIL 1 source_unique_autopilothq_tracks_id" in said
    status, said = asked(dbt, "source", "freshness")
    assert (status, "ERROR STALE freshness of autopilothq._audit" in said) == (1, True), said


# ---- the package -----------------------------------------------------------------------------------------------------

PACKAGE = Path(__file__).parents[2] / "pipelines" / "dbt"


def build(dbt: str, output: str, *words: str) -> str:
    """Builds the package with dbt; returns dbt's output. The package's folder stays unchanged."""
    Path("profiles.yml").write_text(f"autopilothq: {{target: dev, outputs: {{dev: {output}}}}}")
    folders = ("--project-dir", PACKAGE, "--profiles-dir", ".", "--target-path", "target", "--log-path", "logs")
    said = subprocess.run(
        [dbt, "--no-use-colors", "--warn-error", "build", "--profile", "autopilothq", *folders, *words],
        env=os.environ | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_the_package_has_the_rows_of_the_views(dbt: str, kind: str, call: Call, postgres: str) -> None:
    """On DuckDB also after a second load, whose rows dbt adds to those that it made before."""
    credentials = "events.duckdb" if kind == "duckdb" else postgres
    target = ("--destination", kind, "--credentials", credentials)
    server = urlsplit(postgres)
    output = (
        "{type: duckdb, path: events.duckdb, schema: marts, threads: 2}"
        if kind == "duckdb"
        else f"{{type: postgres, host: {server.hostname}, port: {server.port}, user: {server.username},"
        f" password: '{server.password}', dbname: {server.path[1:]}, schema: marts, threads: 2}}"
    )
    messages = counted.archive(200)
    for part in (messages[:100], messages[100:]) if kind == "duckdb" else (messages,):
        write(f"{len(part)}.ndjson", *part)
        assert call("load", "archive", "archive", *target).status == 0
        assert "ERROR=0" in build(dbt, output)
    assert call("models", "apply", *target).status == 0
    with views_at(kind, credentials) as rows:
        for model in models.MODELS:
            columns = ", ".join(model.columns)
            assert rows(f"SELECT {columns} FROM marts.{model.name}") == rows(
                f"SELECT {columns} FROM autopilothq_models.{model.name}"
            ), model.name


SLOW_TO_LIST = """
import threading, time
from dbt.adapters.base.impl import BaseAdapter
from dbt.adapters.cache import RelationsCache

add, find, late = RelationsCache.add, BaseAdapter.list_relations, []

def add_slowly(self, relation):
    time.sleep(0.05 * (relation.schema == "autopilothq"))
    return add(self, relation)

def find_later(self, database, schema):
    if schema == "autopilothq" and threading.current_thread().name.startswith("Thread-1") and not late:
        late.append(True)
        time.sleep(0.3)
    return find(self, database, schema)

RelationsCache.add, BaseAdapter.list_relations = add_slowly, find_later
"""


def test_all_threads_find_the_tables_while_one_of_them_lists_them(
    dbt: str, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("a.ndjson", *counted.archive(50))
    assert call("load", "archive", "archive", "--credentials", "events.duckdb").status == 0
    (tmp_path / "sitecustomize.py").write_text(SLOW_TO_LIST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # If tables were taken for missing, messages would be in the timeline twice, which a test of the package finds.
    assert "ERROR=0" in build(dbt, "{type: duckdb, path: events.duckdb, schema: marts, threads: 2}")
    with views_at("duckdb", "events.duckdb") as rows:
        assert rows("SELECT count(DISTINCT id) FROM marts.person_timeline") == rows(
            "SELECT count(*) FROM marts.person_timeline"
        )


@contextmanager
def views_at(kind: str, credentials: str) -> Iterator[Callable[[str], set[tuple[Any, ...]]]]:
    """Yields a function that returns the rows of a query, as a set."""
    connect: Callable[[str], Any] = duckdb.connect if kind == "duckdb" else psycopg2.connect
    with closing(connect(credentials)) as connection:

        def rows(query: str) -> set[tuple[Any, ...]]:
            cursor = connection.cursor()
            cursor.execute(query)
            return set(cursor.fetchall())

        yield rows
