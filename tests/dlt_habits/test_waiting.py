"""Rows that wait to be loaded do not count as stored, so another load is refused meanwhile."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.impl.duckdb.duck import DuckDbCopyJob
from dlt.extract import DltResource
from dlt.pipeline.exceptions import PipelineStepFailed

import stock
from autopilothq import archive
from dlt_habits.habits import Place, archive_of, identify, track

IN_ANOTHER_THREAD = (
    "Expected a source in one run at a time, but another thread runs it too: both would read and count for each other"
    r"\.\nMake a source for each run: archive\(\.\.\.\) in each thread\."
)


def two_archives() -> tuple[str, str]:
    """Two that share a message and a user."""
    opened = track("m1", "Email Opened", 1)
    return (
        archive_of("a.ndjson", identify("i1", "u1", 1, plan="pro"), opened),
        archive_of("b.ndjson", identify("i2", "u1", 2, city="Bern"), opened),
    )


def check_whole(place: Place, *stored: int) -> None:
    """Checks that all of both archives is stored once, and that the books say what each file brought."""
    [user] = place.rows("users")
    assert (user["plan"], user["city"]) == ("pro", "Bern")
    assert [place.count(name) for name in ("identifies", "tracks", "email_opened")] == [2, 1, 1]
    assert [row["stored"] for row in sorted(place.rows("_audit"), key=lambda row: str(row["file"]))] == [*stored]
    assert place.balances()


def test_two_sources_in_one_run() -> None:
    first, second = two_archives()
    place = Place()
    for other in (archive, archive.clone(name="other")):  # the same dlt schema, and one of its own
        with pytest.raises(PipelineStepFailed, match="Expected the rows of another source to be loaded") as raised:
            place.run([archive(first), other(second)])
        assert "Give all folders to one source, archive([...]), or run one source after the other" in str(raised.value)
        assert (place.names(), place.pipeline.has_pending_data) == ([], False)
    place.run(archive(first))
    place.run(archive(second))
    check_whole(place, 2, 1)


def test_a_source_is_not_extracted_while_another_ones_rows_wait() -> None:
    """Whether they are normalized or not."""
    first, second = two_archives()
    place = Place()
    place.pipeline.extract(archive(first))
    for step in (place.pipeline.normalize, place.pipeline.load):
        with pytest.raises(PipelineStepFailed, match=r"load with pipeline\.normalize\(\) and"):
            place.pipeline.extract(archive(second))
        step()
    place.run(archive(second))
    check_whole(place, 2, 1)


def test_rows_that_waited_while_stored_ones_were_lost() -> None:
    """In a dataset that is dropped or restored meanwhile, as in the other one here, they lack what was stored."""
    first, second = two_archives()
    place = Place()
    place.run(archive(first))
    place.pipeline.extract(archive(second))
    place.pipeline.run(dataset_name="third")
    assert [place.count(name, "third") for name in ("identifies", "tracks", "users")] == [1, 0, 1]
    place.run(archive([first, second]))
    place.dataset = "third"
    check_whole(place, 2, 0)  # the second identify was stored by the load that waited


def test_rows_that_waited_while_another_machine_replaced_the_stored_ones() -> None:
    """The file was rewritten in place, and its first version is no longer there."""
    first, second = two_archives()
    place = Place()
    other = dlt.pipeline("other", destination=stock.duckdb(place.con), dataset_name="data")
    place.run(archive(first))
    archive_of(
        first, identify("i1", "u1", 1, plan="pro"), track("m1", "Email Opened", 1), track("m2", "Shoe Bought", 3)
    )
    place.pipeline.extract(archive(first))
    other.run(archive(second), write_disposition="replace")
    place.pipeline.run()
    place.run(archive(first))
    found = [sorted(row["id"] for row in place.rows(name)) for name in ("tracks", "identifies")]
    assert found == [["m1", "m2"], ["i1", "i2"]]
    assert place.balances()


def test_other_tables_of_one_run_are_no_hindrance() -> None:
    first, second = two_archives()
    place = Place()
    place.run([archive(second).with_resources("tracks"), archive(first).with_resources("email_opened")])
    place.run(archive([first, second]))
    check_whole(place, 1, 1)  # the event was stored by the first run, which kept no books


def test_resources_of_two_in_a_source_of_ones_own() -> None:
    """dlt takes rows of both alternately."""
    first, second = two_archives()

    @dlt.source
    def mine() -> list[DltResource]:
        one, other = archive(first), archive(second)
        return [one.tracks, other.identifies, one.email_opened, other.users]

    place = Place()
    place.run(mine())
    place.run(archive([first, second]))
    check_whole(place, 1, 0)  # the event and the second identify were stored by the first run, which kept no books


def test_jobs_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that dlt completes without some rows is refused; what such a load left out is read again."""
    run = DuckDbCopyJob.run

    def fail(job: DuckDbCopyJob) -> None:
        if job.load_table_name == "email_opened":
            raise DatabaseTerminalException(ValueError("no"))
        run(job)

    place = Place()
    source = archive(archive_of("a.ndjson", track("m1", "Email Opened", 1)))
    source = source.with_resources("tracks", "email_opened", "_audit")
    monkeypatch.setenv("LOAD__RAISE_ON_FAILED_JOBS", "false")
    with pytest.raises(PipelineStepFailed, match=r"Expected load\.raise_on_failed_jobs to be true"):
        place.run(source)
    monkeypatch.delenv("LOAD__RAISE_ON_FAILED_JOBS")
    place.pipeline.extract(source)
    place.pipeline.normalize()
    with monkeypatch.context() as broken:
        broken.setattr(DuckDbCopyJob, "run", fail)
        assert place.pipeline.load(raise_on_failed_jobs=False).has_failed_jobs
    assert [place.count(table) for table in ("tracks", "email_opened", "_audit")] == [1, 0, 1]
    place.run(source)
    assert [place.count(table) for table in ("tracks", "email_opened", "_audit")] == [1, 1, 1]
    assert place.balances()


def test_one_source_in_two_threads() -> None:
    """The thread that comes second is refused, the first one's run is whole."""
    source, place, other = archive(two_archives()[0]), Place(), Place("other")

    def run_it_too(rows: Any) -> Any:
        with ThreadPoolExecutor(1) as pool, pytest.raises(PipelineStepFailed, match=IN_ANOTHER_THREAD):
            pool.submit(other.run, source).result()
        return rows

    source.tracks.add_map(run_it_too)
    place.run(source)
    assert (other.names(), other.pipeline.has_pending_data) == ([], False)
    assert [place.count(name) for name in ("identifies", "tracks", "email_opened", "users", "_audit")] == [1] * 5
    assert place.balances()


def test_two_selections_of_one_source_are_refused() -> None:
    """The second would find its rows taken by the first."""
    Path("events.ndjson").write_text(json.dumps(track("m1", "Email Opened", 1)))
    source = archive("events.ndjson")
    place = Place()
    with pytest.raises(PipelineStepFailed, match="Expected a source once in a run, but two selections"):
        place.run([source.with_resources("tracks"), source.with_resources("email_opened")])
    place.run(source.with_resources("tracks", "email_opened"))
    assert [place.count(table) for table in ("tracks", "email_opened")] == [1, 1]


def test_a_pipeline_without_a_destination_is_refused() -> None:
    """It ended with an error of Python's."""
    Path("a.ndjson").write_text("{}")
    with pytest.raises(PipelineStepFailed, match=r"Expected a pipeline with a destination, but it has none: "):
        dlt.pipeline("nowhere").extract(archive("a.ndjson"))
