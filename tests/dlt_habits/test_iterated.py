"""A user's own resource or transformer that iterates a source while a pipeline extracts it gets all rows."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt import destinations

from autopilothq import archive
from autopilothq.warehouses.dlt_internals import resources as dlt_resources
from dlt_habits.habits import Target, identify, track


@pytest.fixture
def url() -> str:
    messages = [identify("i1", "u1", 1, plan="pro"), track("m1", "Email Opened", 1), track("m2", "Shoe Bought", 2)]
    Path("events.ndjson").write_text("\n".join(map(json.dumps, messages)))
    return "events.ndjson"


def ids(target: Target, table: str) -> list[str]:
    return sorted(row["id"] for row in target.rows(table))


def test_in_a_resource(url: str) -> None:
    """It gets the rows of a load into an empty dataset each time, also if the source is loaded in the same run."""

    @dlt.resource(name="mine")
    def mine() -> Iterator[Any]:
        for rows in archive(url).tracks:
            yield rows.select(["id"])

    @dlt.resource(name="number")
    def number() -> Iterator[Any]:
        yield {"rows": sum(rows.num_rows for rows in archive(url))}

    target = Target()
    target.run([mine, number])
    assert (target.names(), ids(target, "mine")) == (["mine", "number"], ["m1", "m2"])
    assert target.rows("number")[0]["rows"] == 7  # 3 messages, 2 of them also in event tables, a user, a file
    dlt_resources.record_extractions.cache_clear()  # as if two threads created the process's first source
    target.run([archive(url), mine()])
    assert (ids(target, "tracks"), ids(target, "mine")) == (["m1", "m2"], ["m1", "m1", "m2", "m2"])
    assert target.balances()


def test_in_a_transformer_of_another_source(url: str) -> None:
    @dlt.transformer(name="users_of", primary_key="id", write_disposition="merge")
    def users_of(_: pa.Table) -> Iterator[pa.Table]:
        for rows in archive(url).identifies:
            yield rows.select(["id", "plan"])

    target = Target()
    target.run(archive(url).tracks | users_of)
    assert [(row["id"], row["plan"]) for row in target.rows("users_of")] == [("i1", "pro")]


def test_into_a_destination_that_only_appends(url: str) -> None:
    taken: list[tuple[str, Any]] = []

    @dlt.destination(batch_size=10, loader_file_format="parquet", skip_dlt_columns_and_tables=True)
    def sink(items: Any, table: Any) -> None:
        taken.append((table["name"], items.to_pylist()))

    @dlt.resource(name="mine")
    def mine() -> Iterator[Any]:
        for rows in archive(url).email_opened:
            yield rows.select(["id"])

    dlt.pipeline("sink", destination=sink).run(mine)
    assert taken == [("mine", [{"id": "m1"}])]


def test_while_a_pipeline_is_active_whose_destination_merges_otherwise(url: str) -> None:
    """SQLite has no `insert-only` strategy, and dlt checks hints against the destination of the active pipeline."""
    dlt.pipeline("active", destination=destinations.sqlalchemy("sqlite:///never.db"), dataset_name="data")
    source = archive(url)
    assert {name: sum(len(rows) for rows in source.resources[name]) for name in ("tracks", "users", "_audit")} == {
        "tracks": 2, "users": 1, "_audit": 1,
    }  # fmt: skip


def test_what_is_extracted_is_known_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the run's own thread goes on: a resource that did not see the pipeline would read everything again."""
    found, asked, target = set[tuple[bool, str]](), Event(), Target()
    dlt_resources.record_extractions()

    @dlt.resource(name="asking", parallelized=True)
    def asking() -> Iterator[Any]:
        for _ in range(5_000):
            dlt_resources.dataset_of_run(target.pipeline)
            found.add((dlt_resources.extraction() is None, target.pipeline.dataset_name))
            target.pipeline.dataset_name = "data"
        asked.set()
        yield {"a": 1}

    @dlt.resource(name="going_on")
    def going_on() -> Iterator[Any]:
        while not asked.is_set():
            yield None

    monkeypatch.setenv("EXTRACT__FUTURES_POLL_INTERVAL", "0.00001")  # switches between resources all the time
    monkeypatch.setattr(target.pipeline, "normalize", lambda **_: None)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        target.pipeline.run([asking(), going_on()], dataset_name="third")
    finally:
        sys.setswitchinterval(interval)
    assert found == {(False, "third")}
