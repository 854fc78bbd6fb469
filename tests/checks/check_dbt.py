"""A real dbt accepts what `schema --format dbt` writes, and finds a load's keys unique and its data fresh.

dbt and the development tools want different versions of one package (pathspec), so dbt lives in an environment of its
own, `build/dbt`, which is made at the first call and takes a minute. `make check` runs this, `make test` does not.
"""

import os
import subprocess
from pathlib import Path

import duckdb
import pytest

from autopilothq import archive, inspect, runner, sample
from autopilothq.inspect import FORMATS, TableInfo
from environments import dbt_program

HOME = Path(__file__).parents[2] / "build" / "dbt"


@pytest.fixture(scope="session")
def dbt() -> str:
    return str(dbt_program(HOME))


def asked(dbt: str, *words: str) -> tuple[int, str]:
    """What dbt says, and its exit status."""
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
        live = inspect.described(reader)
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
