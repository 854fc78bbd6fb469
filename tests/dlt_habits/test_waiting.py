"""Rows that wait to be loaded do not count as stored, so another load is refused meanwhile."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.impl.duckdb.duck import DuckDbCopyJob
from dlt.extract import DltResource
from dlt.pipeline.exceptions import PipelineStepFailed

import stock
from autopilothq import archive
from autopilothq.projection import Deduplicated
from autopilothq.sources import completion
from autopilothq.warehouses.dlt_internals import logger
from autopilothq.warehouses.dlt_internals.clients import file_of
from autopilothq.warehouses.duckdb import direct
from dlt_habits.habits import Target, archive_of, identify, track

IN_ANOTHER_THREAD = (
    "Expected a source in one run at a time, but another thread runs it too: both would read and count for each other"
    r"\.\nMake a source for each run: archive\(\.\.\.\) in each thread\."
)


def two_archives() -> tuple[str, str]:
    """Makes two archives that share a message and a user; returns their paths."""
    opened = track("m1", "Email Opened", 1)
    return (
        archive_of("a.ndjson", identify("i1", "u1", 1, plan="pro"), opened),
        archive_of("b.ndjson", identify("i2", "u1", 2, city="Bern"), opened),
    )


def check_whole(target: Target, *stored: int) -> None:
    """Checks that everything in both archives is stored once, and that the books have these counts for each file."""
    [user] = target.rows("users")
    assert (user["plan"], user["city"]) == ("pro", "Bern")
    assert [target.count(name) for name in ("identifies", "tracks", "email_opened")] == [2, 1, 1]
    assert [row["stored"] for row in sorted(target.rows("_audit"), key=lambda row: str(row["file"]))] == [*stored]
    assert target.balances()


def test_two_sources_in_one_run() -> None:
    first, second = two_archives()
    target = Target()
    for other in (archive, archive.clone(name="other")):  # with the same dlt schema, and with its own
        with pytest.raises(PipelineStepFailed, match="Expected the rows of another source to be loaded") as raised:
            target.run([archive(first), other(second)])
        assert "Give all folders to one source, archive([...]), or run one source after the other" in str(raised.value)
        assert (target.names(), target.pipeline.has_pending_data) == ([], False)
    target.run(archive(first))
    target.run(archive(second))
    check_whole(target, 2, 1)


def test_a_source_is_not_extracted_while_another_ones_rows_wait() -> None:
    """Whether those rows are normalized already or not."""
    first, second = two_archives()
    target = Target()
    target.pipeline.extract(archive(first))
    for step in (target.pipeline.normalize, target.pipeline.load):
        with pytest.raises(PipelineStepFailed, match=r"load with pipeline\.normalize\(\) and"):
            target.pipeline.extract(archive(second))
        step()
    target.run(archive(second))
    check_whole(target, 2, 1)


def test_rows_that_waited_while_stored_ones_were_lost() -> None:
    """In a dataset that was dropped or restored meanwhile (here another one), the load lacks rows stored before."""
    first, second = two_archives()
    target = Target()
    target.run(archive(first))
    target.pipeline.extract(archive(second))
    target.pipeline.run(dataset_name="third")
    assert [target.count(name, "third") for name in ("identifies", "tracks", "users")] == [1, 0, 1]
    target.run(archive([first, second]))
    target.dataset = "third"
    check_whole(target, 2, 0)  # the waiting load, without books, stored the second identify


def test_rows_that_waited_while_another_machine_replaced_the_stored_ones() -> None:
    """The file was rewritten in place, so its first version can no longer be read."""
    first, second = two_archives()
    target = Target()
    other = dlt.pipeline("other", destination=stock.duckdb(target.con), dataset_name="data")
    target.run(archive(first))
    archive_of(
        first, identify("i1", "u1", 1, plan="pro"), track("m1", "Email Opened", 1), track("m2", "Shoe Bought", 3)
    )
    target.pipeline.extract(archive(first))
    other.run(archive(second), write_disposition="replace")
    target.pipeline.run()
    target.run(archive(first))
    found = [sorted(row["id"] for row in target.rows(name)) for name in ("tracks", "identifies")]
    assert found == [["m1", "m2"], ["i1", "i2"]]
    assert target.balances()


@pytest.mark.parametrize("when", ["it waits", "dlt takes its rows", "it makes rows"])
def test_users_of_a_load_that_another_machine_overtook(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its older row of the user must not replace the newer one for good: traits of the other file would be lost."""
    first = archive_of("a.ndjson", identify("i1", "u1", 1, plan="free", city="Bern"))
    second = archive_of("b.ndjson", identify("i2", "u1", 2, plan="pro", age=3))
    target = Target()
    other = dlt.pipeline("other", destination=stock.duckdb(target.con), dataset_name="data")

    def overtake(rows: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(other.run, archive(second)).result()
        return rows

    source = archive(first)
    if when == "it waits":
        target.pipeline.extract(source)
        other.run(archive(second))
        target.pipeline.run()
    elif when == "dlt takes its rows":
        source.identifies.add_map(overtake)
        target.run(source)
    else:
        made = Deduplicated.discards

        def overtaken(load: Deduplicated) -> Any:
            monkeypatch.setattr(Deduplicated, "discards", made)
            return overtake(made(load))

        monkeypatch.setattr(Deduplicated, "discards", overtaken)
        target.run(source)
    target.run(archive(first))
    [user] = target.rows("users")
    assert (user["plan"], user["city"], user["age"]) == ("pro", "Bern", 3)
    assert target.balances()


LINES: dict[str, Callable[[str], dict[str, Any]]] = {
    "tracks": lambda name: track(name, "Email Opened", 1),
    "_rejects": lambda name: {"type": name},
    "users": lambda name: identify(name, "u1", 1, **{name: name}),
}
STORED: dict[str, Callable[[dict[str, Any]], set[str]]] = {
    "tracks": lambda row: {row["id"]},
    "_rejects": lambda row: {json.loads(row["raw"])["type"]},
    "users": lambda row: {"a", "b"} & row.keys(),
}


@pytest.mark.parametrize(
    ("table", "cut_off", "goes_on"),
    [
        ("tracks", None, False),
        ("tracks", "before tracks", True),
        ("_rejects", "before _audit", False),
        ("users", "after users", False),
        ("users", "after users", True),
    ],
)
def test_rows_that_another_pipeline_took_away_while_they_were_staged(
    table: str, cut_off: str | None, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both pipelines stage rows in the same tables, and each load of dlt empties these first, even if it fails then.

    The books never say that the lost rows are stored.
    """
    names = [table, "_audit", *(["identifies"] if table == "users" else [])]
    first, second = (archive(archive_of(f"{name}.ndjson", LINES[table](name))).with_resources(*names) for name in "ab")
    target, run, said = Target(), DuckDbCopyJob.run, list[str]()
    other = dlt.pipeline("other", destination=stock.duckdb(target.con), dataset_name="data")
    monkeypatch.setattr(logger, "warning", said.append)
    if cut_off is None:
        first.tracks.add_map(lambda rows: rows)  # a step, which might drop rows

    def complete() -> set[str]:
        files = {Path(file).stem for (file,) in target.con.execute(COMPLETE).fetchall()}
        assert files <= set[str]().union(*map(STORED[table], target.rows(table)))
        return files

    def overtake(job: DuckDbCopyJob) -> None:
        is_other = Path(other.working_dir) in Path(file_of(job)).parents
        if is_other and cut_off == f"before {job.load_table_name}":
            raise DatabaseTerminalException(ValueError("killed"))
        run(job)
        if is_other and cut_off == f"after {job.load_table_name}":
            raise DatabaseTerminalException(ValueError("killed"))
        if not is_other and job.load_table_name == table:
            with ThreadPoolExecutor(1) as pool, pytest.raises(PipelineStepFailed) if cut_off else nullcontext():
                pool.submit(other.run, second).result()

    monkeypatch.setattr(DuckDbCopyJob, "run", overtake)
    target.run(first)
    monkeypatch.setattr(DuckDbCopyJob, "run", run)
    assert [text.partition(" had staged for ")[2].partition(" ")[0] for text in said] == [table]
    assert complete() == (set() if cut_off else {"b"})
    target.run(first)
    assert complete() == ({"a"} if cut_off else {"a", "b"})
    if cut_off:
        (other.run if goes_on else other.abort_packages)()
    other.run(second)
    assert complete() == {"a", "b"}
    assert target.balances()


def test_a_warehouse_that_does_not_say_what_is_staged_keeps_no_load_from_being_completed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To fail in each run would be worse than to miss a loss."""

    def refuse(*_: Any) -> None:
        raise DatabaseTerminalException(ValueError("no such function"))

    target, said = Target(), list[str]()
    monkeypatch.setattr(completion, "rows_of_statement", refuse)
    monkeypatch.setattr(logger, "warning", said.append)
    target.run(archive(archive_of("a.ndjson", track("m1", "Email Opened", 1))).with_resources("tracks", "_audit"))
    assert said == ["Could not check whether the rows of this load are still there: no such function"]
    assert target.con.execute(COMPLETE).fetchall() != []
    assert target.balances()


def test_a_load_whose_times_a_user_has_changed_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Into text, into times beyond Python's range, or rounded by a hint: rows are not identified by these times."""

    def changed(times: Any, type_: pa.DataType) -> Callable[[pa.Table], pa.Table]:
        return lambda rows: rows.set_column(
            rows.schema.get_field_index("uuid_ts"), "uuid_ts", pa.array([times] * len(rows), type_)
        )

    target, said = Target(), list[str]()
    monkeypatch.setattr(logger, "warning", said.append)
    lines = track("m1", "Email Opened", 1), {"type": "page", "userId": "u1", "messageId": "p1"}
    source = archive(archive_of("a.ndjson", *lines)).with_resources("tracks", "pages", "email_opened", "_audit")
    source.tracks.add_map(changed("2019-03-20 10:00:00+00", pa.string()))
    source.pages.add_map(changed(400_000_000_000_000_000, pa.timestamp("us", "UTC")))
    source.email_opened.apply_hints(columns={"uuid_ts": {"precision": 0, "timezone": False}})
    target.run(source)
    assert (target.con.execute(COMPLETE).fetchall(), said) == ([(str(Path("a.ndjson").resolve()),)], [])
    assert [target.count(name) for name in ("tracks", "pages", "email_opened")] == [1, 1, 1]


COMPLETE = "SELECT file FROM data._audit SEMI JOIN (FROM data._dlt_loads WHERE status = 0) USING (load_id)"


def test_a_load_that_was_cut_off_and_went_on_after_a_backup_was_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that were finished before the restore lack rows, and dlt does not load them again."""
    first = archive_of("a.ndjson", identify("i1", "u1", 1, plan="pro"), track("m1", "Email Opened", 1))
    new = identify("i2", "u2", 2, plan="free"), track("m2", "Email Opened", 2), {"type": "delete"}
    second = archive_of("b.ndjson", *new)
    run = DuckDbCopyJob.run

    def fail(job: DuckDbCopyJob) -> None:
        if job.load_table_name in ("_audit", "email_opened"):
            raise DatabaseTerminalException(ValueError("the database is gone"))
        run(job)

    target = Target()
    target.run(archive(first))
    target.con.execute("ATTACH 'backup.duckdb' AS backup; COPY FROM DATABASE memory TO backup")
    with monkeypatch.context() as broken:
        broken.setattr(DuckDbCopyJob, "run", fail)
        for source in (archive(second), None):  # the second run merges what the first one staged
            with pytest.raises(PipelineStepFailed, match="the database is gone"):
                target.run(source)
    assert [target.count(name) for name in ("identifies", "tracks", "email_opened", "_audit")] == [2, 2, 1, 1]
    target.con.execute(
        "DROP SCHEMA data CASCADE; DROP SCHEMA data_staging CASCADE; COPY FROM DATABASE backup TO memory"
    )
    target.pipeline.run()
    assert [target.count(name) for name in ("identifies", "tracks", "email_opened", "_audit")] == [1, 1, 2, 2]
    target.run(archive([first, second]))
    found = [sorted(row["id"] for row in target.rows(name)) for name in ("identifies", "tracks", "email_opened")]
    assert found == [["i1", "i2"], ["m1", "m2"], ["m1", "m2"]]
    assert sorted((row["id"], row["plan"]) for row in target.rows("users")) == [("u1", "pro"), ("u2", "free")]
    assert (target.count("_rejects"), target.balances()) == (1, True)


def test_rows_that_waited_while_a_table_and_a_column_were_dropped() -> None:
    """dlt keeps the schema as stored and would not check again, so that every later run of the pipeline would fail."""
    pipeline = dlt.pipeline("waits", destination=direct("waits.duckdb"), dataset_name="data")
    pipeline.run(archive(archive_of("a.ndjson", track("m1", "Email Opened", 1, campaign="a"))))
    pipeline.extract(archive(archive_of("b.ndjson", track("m2", "Email Opened", 2, campaign="b"))))
    with duckdb.connect("waits.duckdb") as con:
        con.execute("DROP TABLE data.tracks; ALTER TABLE data.email_opened DROP COLUMN campaign")
    pipeline.run()
    with duckdb.connect("waits.duckdb") as con:
        assert con.sql("SELECT id FROM data.tracks").fetchall() == [("m2",)]
        opened = con.sql("SELECT id, campaign FROM data.email_opened ORDER BY id").fetchall()
    assert opened == [("m1", None), ("m2", "b")]


def test_other_tables_of_one_run_are_no_hindrance() -> None:
    first, second = two_archives()
    target = Target()
    target.run([archive(second).with_resources("tracks"), archive(first).with_resources("email_opened")])
    target.run(archive([first, second]))
    check_whole(target, 1, 1)  # the event was stored by the first run, which kept no books


def test_resources_of_two_in_a_source_of_ones_own() -> None:
    """dlt takes rows from both sources alternately."""
    first, second = two_archives()

    @dlt.source
    def mine() -> list[DltResource]:
        one, other = archive(first), archive(second)
        return [one.tracks, other.identifies, one.email_opened, other.users]

    target = Target()
    target.run(mine())
    target.run(archive([first, second]))
    check_whole(target, 1, 0)  # the event and the second identify were stored by the first run, which kept no books


def test_jobs_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that let dlt complete a load without some rows are refused; rows left out that way are read again."""
    run = DuckDbCopyJob.run

    def fail(job: DuckDbCopyJob) -> None:
        if job.load_table_name == "email_opened":
            raise DatabaseTerminalException(ValueError("no"))
        run(job)

    target = Target()
    source = archive(archive_of("a.ndjson", track("m1", "Email Opened", 1)))
    source = source.with_resources("tracks", "email_opened", "_audit")
    monkeypatch.setenv("LOAD__RAISE_ON_FAILED_JOBS", "false")
    with pytest.raises(PipelineStepFailed, match=r"Expected load\.raise_on_failed_jobs to be true"):
        target.run(source)
    monkeypatch.delenv("LOAD__RAISE_ON_FAILED_JOBS")
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "0")
    with pytest.raises(PipelineStepFailed, match=r"Expected load\.raise_on_max_retries to be at least 1, .* has 0: "):
        target.run(source)
    monkeypatch.delenv("LOAD__RAISE_ON_MAX_RETRIES")
    target.pipeline.extract(source)
    target.pipeline.normalize()
    with monkeypatch.context() as broken:
        broken.setattr(DuckDbCopyJob, "run", fail)
        assert target.pipeline.load(raise_on_failed_jobs=False).has_failed_jobs
    assert [target.count(table) for table in ("tracks", "email_opened", "_audit")] == [1, 0, 1]
    target.run(source)
    assert [target.count(table) for table in ("tracks", "email_opened", "_audit")] == [1, 1, 1]
    assert target.balances()


def test_one_source_in_two_threads() -> None:
    """The second thread is refused, and the first one's run is complete."""
    source, target, other = archive(two_archives()[0]), Target(), Target("other")

    def run_it_too(rows: Any) -> Any:
        with ThreadPoolExecutor(1) as pool, pytest.raises(PipelineStepFailed, match=IN_ANOTHER_THREAD):
            pool.submit(other.run, source).result()
        return rows

    source.tracks.add_map(run_it_too)
    target.run(source)
    assert (other.names(), other.pipeline.has_pending_data) == ([], False)
    assert [target.count(name) for name in ("identifies", "tracks", "email_opened", "users", "_audit")] == [1] * 5
    assert target.balances()


def test_two_selections_of_one_source_are_refused() -> None:
    """The second selection would find its rows taken by the first."""
    Path("events.ndjson").write_text(json.dumps(track("m1", "Email Opened", 1)))
    source = archive("events.ndjson")
    target = Target()
    with pytest.raises(PipelineStepFailed, match="Expected a source once in a run, but two selections"):
        target.run([source.with_resources("tracks"), source.with_resources("email_opened")])
    target.run(source.with_resources("tracks", "email_opened"))
    assert [target.count(table) for table in ("tracks", "email_opened")] == [1, 1]


def test_a_pipeline_without_a_destination_is_refused() -> None:
    """The message names what is missing; without this check, an error inside dlt would end the run."""
    Path("a.ndjson").write_text("{}")
    with pytest.raises(PipelineStepFailed, match=r"Expected a pipeline with a destination, but it has none: "):
        dlt.pipeline("nowhere").extract(archive("a.ndjson"))
