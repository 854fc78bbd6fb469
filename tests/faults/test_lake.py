"""A lake of Delta tables, on a disk and on a real S3 API, gets the same tables as DuckDB."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field, TableFeatures, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType
from dlt import Schema
from dlt.pipeline.exceptions import PipelineStepFailed

import autopilothq
import forked
import stock
from autopilothq import runner
from autopilothq.catalog import TRACKS
from autopilothq.errors import RunError
from autopilothq.extras import install
from autopilothq.warehouses.dataset import count_shared, drop_old_versions, open_dataset
from autopilothq.warehouses.dataset.delta import MOST_FILES, DeltaDataset, compact_tables
from autopilothq.warehouses.delta import KILL_POINT_ROWS_APPENDED, append_new, lake
from autopilothq.warehouses.dlt_internals.clients import client_for
from calling import Call, errors
from faults import killed
from faults.killed import Plan
from faults.loads import (
    Table,
    assert_same,
    assert_sound,
    content,
    file,
    in_memory,
    lake_content,
    load,
    messages,
    odd_archive,
    pipeline,
    track,
)
from faults.test_refused import rejects
from servers import S3

DELTA = {"table_format": "delta"}


def test_has_the_same_tables_as_duckdb_and_stores_nothing_twice(tmp_path: Path, s3: S3) -> None:
    archive = odd_archive(tmp_path / "archive", 0)
    bucket = f"{s3.bucket()}/lake"
    dlts = stock.filesystem(bucket, credentials=s3.credentials)
    into = pipeline(tmp_path / "lake", dlts)
    assert load(into, archive, **DELTA).files_known == 0
    database = in_memory()
    load(pipeline(tmp_path, database), archive)
    tables = lake_content(bucket, s3)
    assert_sound(tables)
    assert_same(tables, content(database))
    assert tables["_audit"].total("stored") == messages(tables)

    replay = tmp_path / "replay"
    shutil.copytree(archive, replay)
    # A machine that knows only the bucket.
    report = load(pipeline(tmp_path / "new machine", dlts), replay, **DELTA)
    assert (report.stored, report.duplicates + report.rejected) == (0, report.lines)
    again = lake_content(bucket, s3)
    assert len(again["_audit"].rows) == 2 * len(tables["_audit"].rows)
    # A rejected line has a row for each of its places.
    assert len(again["_rejects"].rows) == 2 * len(tables["_rejects"].rows)
    assert_same(again, tables, but=["_audit", "_rejects"])
    assert load(into, replay, **DELTA).files == 0


def test_takes_new_columns_and_changes_persons(tmp_path: Path) -> None:
    archive, database = tmp_path / "archive", in_memory()
    kinds = {"dlt's own": stock.filesystem, "the command's": lake}
    buckets = {kind: tmp_path / kind / "bucket" for kind in kinds}
    for n in (1, 2):
        lines = [
            track(n, event="Order", properties={"select": f"{n}", f"more_{n}": n}),
            track(0, event="Order", properties={"select": f"{n}"}),
            track(n, type="identify", messageId=f"i-{n}", traits={"plan": f"{n}", f"only_{n}": True}),
            track(n, type="identify", userId="once", messageId="i-0", traits={"plan": f"{n}"}),
        ]
        file(archive, f"{n}.gz", lines)
        for kind, bucket in buckets.items():
            destination: Any = kinds[kind](bucket.as_uri())
            report = load(pipeline(tmp_path / kind, destination), archive, **DELTA)
            assert (kind, report.stored, report.duplicates) == (kind, *((4, 0), (2, 2))[n - 1])
        load(pipeline(tmp_path, database), archive)
    expected = content(database)
    orders = sorted((row["id"], row["select"], row["more_1"], row["more_2"]) for row in expected["order"].dicts())
    assert orders == [("m-0", "1", None, None), ("m-1", "1", 1, None), ("m-2", "2", None, 2)]
    assert sorted((row["id"], row["plan"], row["only_1"], row["only_2"]) for row in expected["users"].dicts()) == [
        ("once", "1", None, None),
        ("u", "2", True, True),
    ]
    own, commands = (lake_content(str(bucket)) for bucket in buckets.values())
    assert_sound(own)
    assert_same(own, expected)
    assert_sound(commands)
    assert_same(commands, expected)


def test_many_small_files_are_compacted_and_deleted_as_late_as_the_table_says(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopilothq.warehouses.dataset.delta.MOST_FILES", 2)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    bucket, archive = tmp_path / "bucket", tmp_path / "archive"
    tables = {name: bucket / "autopilothq" / name for name in ("_audit", "email_opened", "tracks", "users")}
    words = ("load", "archive", str(archive), "--destination", "filesystem", "--credentials", bucket.as_uri())

    def loaded(n: int) -> tuple[list[str], dict[str, tuple[int, int]]]:
        """Loads one more file; returns the warnings, and how many files each table has: newest version, and in all."""
        person = track(n, type="identify", messageId=f"i-{n}", userId=f"u-{n}", traits={"plan": "pro"})
        file(archive, f"{n}.gz", [track(n), person])
        said = call(*words)
        assert said.status == 0
        found = {
            name: (len(DeltaTable(path).file_uris()), len(list(path.glob("*.parquet"))))
            for name, path in tables.items()
        }
        return errors(said), found

    assert loaded(1) == ([], dict.fromkeys(tables, (1, 1)))
    assert loaded(2) == ([], dict.fromkeys(tables, (2, 2)))
    # Files of older versions stay for a week, for those who are reading them.
    assert loaded(3) == ([], dict.fromkeys(tables, (1, 4)))
    DeltaTable(tables["tracks"]).alter.set_table_properties(
        {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    )
    assert loaded(4) == ([], dict.fromkeys(tables, (2, 5)))
    monkeypatch.setattr("autopilothq.warehouses.dataset.delta.MOST_FILES", 1)  # compacts in each load
    assert loaded(5) == ([], dict.fromkeys(tables, (1, 7)) | {"tracks": (1, 1)})

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the bucket lets nobody delete")

    monkeypatch.setattr(DeltaTable, "vacuum", refuse)
    [warning], _ = loaded(6)
    assert warning == (
        "Warning: Could not compact Delta tables, which are slow to read now: email_bounced, email_delivered,"
        " email_clicked, email_marked_as_spam, email_opened, email_unsubscribed, email_replied, tracks, identifies,"
        " users, _rejects, _discards, _audit; the bucket lets nobody delete"
    )
    monkeypatch.setattr("autopilothq.warehouses.dataset.delta_versions.open_table", refuse)
    assert loaded(7)[0] == []  # the load is complete, and the next one tries to compact again
    monkeypatch.delenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT")
    database = in_memory()
    load(pipeline(tmp_path, database), archive)
    assert_same(lake_content(str(bucket)), content(database))


def test_what_another_writer_brings_meanwhile_is_not_stored_twice(tmp_path: Path) -> None:
    rows = pa.table({"id": ["a", "b"], "n": [1, 2]})
    path = str(tmp_path / "it's.parquet")
    pq.write_table(rows, path)
    write_deltalake(tmp_path / "table", rows.slice(0, 1))
    seen = DeltaTable(tmp_path / "table")
    write_deltalake(tmp_path / "table", rows.slice(1, 1), mode="append")
    with duckdb.connect() as engine:
        for table, raised in (
            (seen, pytest.raises(CommitFailedError)),
            (DeltaTable(tmp_path / "table"), nullcontext()),
        ):
            with raised:
                append_new(engine, table, [path], ["id"])
            engine.execute("DROP TABLE stored_keys")
    assert sorted(pa.table(DeltaTable(tmp_path / "table").scan())["id"].to_pylist()) == ["a", "b"]


def loaded_lake(bucket: Path, archive: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Makes an archive of one message, loads it into a lake on the disk, and returns the options that name the lake."""
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    into = ("--destination", "filesystem", "--credentials", bucket.as_uri())
    file(archive, "1.gz", [track(1)])
    assert call("load", "archive", str(archive), *into).status == 0
    return into


def test_a_note_of_a_load_that_a_kill_cut_off_stops_no_command(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, archive = tmp_path / "bucket", tmp_path / "archive"
    into = loaded_lake(bucket, archive, call, monkeypatch)
    [cut] = (bucket / "autopilothq" / "_dlt_loads").glob("*.jsonl")
    cut.write_bytes(cut.read_bytes()[:20])
    file(archive, "2.gz", [track(2), track(3)])
    assert call("load", "archive", str(archive), *into).status == 0
    said = call("status", *into, "--json")
    assert (said.status, errors(said)) == (0, [f"Warning: dlt's file {cut} is incomplete, and is left out"])
    found = json.loads(said.out)
    assert (found["last_load"]["lines"], found["last_load"]["stored"]) == (2, 2)


def test_files_of_dlts_that_a_kill_cut_off_stop_no_load_of_a_new_machine(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, archive = tmp_path / "bucket", tmp_path / "archive"
    into = loaded_lake(bucket, archive, call, monkeypatch)
    folder = bucket / "autopilothq"
    [version], [state] = (folder / "_dlt_version").glob("*"), (folder / "_dlt_pipeline_state").glob("*")
    version.write_bytes(version.read_bytes()[:20])
    (folder / "init").write_bytes(b"\0" * 20)
    file(archive, "2.gz", [track(2), track(3)])
    for machine, cuts in ("second", [version, folder / "init"]), ("third", [state]):
        monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / machine))
        said = call("load", "archive", str(archive), *into)
        warnings = [f"Warning: dlt's file {cut} is incomplete, and is left out" for cut in cuts]
        assert (said.status, errors(said)) == (0, warnings)
        state.write_bytes(b"")
    assert json.loads((folder / "init").read_text()) == {"initial_version": 1, "current_version": 2}
    tracks = lake_content(bucket.as_uri())["tracks"]
    assert [row["id"] for row in tracks.dicts()] == ["m-1", "m-2", "m-3"]


@pytest.mark.parametrize("init", [False, True])
def test_dlt_drops_tables_where_it_stored_no_schema(tmp_path: Path, init: bool) -> None:
    """dlt's `refresh` does so in a staging dataset, and earlier versions left an empty one."""
    bucket = tmp_path / "bucket"
    client: Any = client_for(pipeline(tmp_path, lake(f"{bucket}")), Schema("autopilothq"))
    staging = bucket / f"{Path(client.dataset_path).name}_staging"
    for name in ("tracks", "kept"):
        (staging / name).mkdir(parents=True)
        (staging / name / "a.parquet").touch()
    if init:
        (staging / "init").write_text('{"versions": 2}')
    with client.with_staging_dataset():
        client.drop_tables("tracks")
    assert [path.name for path in staging.rglob("*.parquet")] == ["a.parquet"]
    assert (staging / "kept" / "a.parquet").exists()


def test_no_refresh_leaves_a_staging_dataset(tmp_path: Path) -> None:
    """Not even an empty one, which for dlt is a folder, a file `init` and a folder for schemas."""
    rows = dlt.resource([{"id": "a"}], name="tracks")
    loaded = pipeline(tmp_path, lake(f"{tmp_path}/bucket"))
    for _ in range(2):
        loaded.run(rows, refresh="drop_resources", loader_file_format="jsonl")
    assert [path.name for path in (tmp_path / "bucket").iterdir()] == [loaded.dataset_name]
    assert len([*(tmp_path / "bucket").glob("*/tracks/*.jsonl*")]) == 1


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    table = tmp_path / "bucket" / "autopilothq" / "tracks"
    write_deltalake(table, pa.table({"id": ["a"]}))
    (tmp_path / "bucket" / "autopilothq" / "init").touch()
    into = pipeline(tmp_path, lake((tmp_path / "bucket").as_uri()))
    [lost], [log] = table.glob("*.parquet"), (table / "_delta_log").glob("*.json")
    lost.unlink()
    readers: list[Callable[[], object]] = [
        lambda: list(open_dataset(into).read("tracks", ["id"])),
        lambda: open_dataset(into).rows("count({id})", "tracks"),
    ]
    for reader in readers:
        with pytest.raises(RunError) as error, runner.explained():
            reader()
        assert str(error.value) == (
            f"Expected the file {lost} of a Delta table, but there is none.\n"
            "Bring it back, or give up its rows as how-to/warehouses.md says."
        )
    log.write_bytes(log.read_bytes()[:40])
    named = pytest.raises(RunError, match=r"^The table tracks cannot be opened: .+\nThe folder _delta_log of ")
    with named, runner.explained():
        open_dataset(into).columns()


def test_a_table_with_a_feature_that_the_library_lacks_is_named(tmp_path: Path) -> None:
    table = tmp_path / "bucket" / "autopilothq" / "tracks"
    write_deltalake(table, pa.table({"id": ["a"]}))
    DeltaTable(table).alter.add_feature(TableFeatures.DeletionVectors, allow_protocol_versions_increase=True)
    (tmp_path / "bucket" / "autopilothq" / "init").touch()
    into = pipeline(tmp_path, lake((tmp_path / "bucket").as_uri()))
    with pytest.raises(RunError) as error, runner.explained():
        open_dataset(into).rows("count({id})", "tracks")
    assert str(error.value) == (
        "The table tracks cannot be opened: The table has set these reader features: {'deletionVectors'} but these are"
        " not yet supported by the deltalake reader.\nSomebody enabled a feature of that table that the package"
        " deltalake cannot read: install a newer one, or drop the feature with the program that enabled it (ALTER TABLE"
        " ... DROP FEATURE)."
    )


def test_a_table_that_cannot_be_compacted_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def opened(name: str) -> Any:
        def compact(**_: Any) -> None:
            done.append(f"compact {name}")

        def vacuum(**_: Any) -> None:
            if name == "torn":
                raise DeltaError("torn")
            done.append(f"vacuum {name}")

        files = ["file"] * (MOST_FILES + (name != "small"))
        if name == "gone":
            return None
        return SimpleNamespace(
            file_uris=lambda: files,
            optimize=SimpleNamespace(compact=compact),
            create_checkpoint=lambda: done.append(f"checkpoint {name}"),
            vacuum=vacuum,
        )

    compact_tables(["gone", "torn", "small", "large"], opened)
    assert done == [
        *("compact torn", "checkpoint torn"),
        "vacuum small",
        *("compact large", "checkpoint large", "vacuum large"),
    ]
    assert caplog.messages == ["Could not compact Delta tables, which are slow to read now: torn; torn"]


def test_columns_may_be_named_like_placeholders(tmp_path: Path) -> None:
    dataset = open_dataset(pipeline(tmp_path, lake((tmp_path / "bucket").as_uri())))
    write_deltalake(tmp_path / "bucket" / "autopilothq" / "odd", pa.table({"a%s": ["x", "y"], "50%": [1, 2]}))
    odd, half = (dataset.quoted("odd", name) for name in ("a%s", "50%"))
    assert list(dataset.stream(f"SELECT {odd}, {half}, '%%' FROM", "odd", f"WHERE {odd} = %s", ["y"])) == [
        ("y", 2, "%")
    ]


def test_rows_are_deleted_by_their_time(tmp_path: Path) -> None:
    """A load deletes its own rows that way if the destination refuses others."""
    dataset = open_dataset(pipeline(tmp_path, lake((tmp_path / "bucket").as_uri())))
    times = [datetime(2019, 3, 1, hour, tzinfo=UTC) for hour in range(3)]
    for number, time in enumerate(times):
        rows = pa.table({"id": [number], "uuid_ts": pa.array([time], pa.timestamp("us", "UTC"))})
        write_deltalake(tmp_path / "bucket" / "autopilothq" / "timed", rows, mode="append")
    dataset.delete("timed", f"{dataset.quoted('timed', 'uuid_ts')} >= %s", [times[1]])
    assert list(dataset.stream("SELECT id FROM", "timed")) == [(0,)]


def test_an_event_with_the_name_of_anothers_table_has_another_table(tmp_path: Path) -> None:
    """Also if the other table uses features that the library does not know."""
    events = ("Bill", "Receipt", "Order", "Refund", "Payment")
    file(tmp_path / "archive", "1.gz", [track(n, event=event) for n, event in enumerate(events)])
    bucket = tmp_path / "bucket"
    when = pa.array([datetime(2019, 3, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    total = pa.field("total", pa.int64(), nullable=False)
    for name, rows in {
        "bill": pa.table({"n": [1]}),
        "receipt": pa.table([["a"], when, [1]], pa.schema([("id", pa.string()), ("received_at", when.type), total])),
        "order": pa.table({"id": ["of another pipeline"], "received_at": when}),
        "refund": pa.table({"id": ["a"], "received_at": when}),
    }.items():
        write_deltalake(bucket / "autopilothq" / name, rows)
    [log] = (bucket / "autopilothq" / "refund" / "_delta_log").glob("*.json")
    log.write_text(log.read_text().replace('"minReaderVersion":1', '"minReaderVersion":99'))
    (bucket / "autopilothq" / "init").write_text('{"initial_version": 1, "current_version": 2}')
    into = pipeline(tmp_path, lake(bucket.as_uri()))
    payments = dlt.resource([{"n": 1}], name="payment", table_format="delta")
    into.run(payments, schema=dlt.Schema("autopilothq"))  # a user's own resource
    load(into, tmp_path / "archive", **DELTA)
    ids = {
        name: sorted(DeltaTable(bucket / "autopilothq" / name).to_pyarrow_table()["id"].to_pylist())
        for name in ("bill_table", "receipt_table", "order", "refund_table", "payment_table")
    }
    assert ids == {
        "bill_table": ["m-0"],
        "receipt_table": ["m-1"],
        "order": ["m-2", "of another pipeline"],
        "refund_table": ["m-3"],
        "payment_table": ["m-4"],
    }


def test_rows_whose_id_another_table_has_are_counted(tmp_path: Path) -> None:
    dataset = open_dataset(pipeline(tmp_path, lake((tmp_path / "bucket").as_uri())))
    for name, ids, of in (("tracks", "abcd", "xxyz"), ("x", "ae", "xx"), ("50%", "d", "z")):
        write_deltalake(tmp_path / "bucket" / "autopilothq" / name, pa.table({"id": list(ids), "event": list(of)}))
    (tmp_path / "bucket" / "autopilothq" / "init").touch()
    assert count_shared(dataset, "tracks", "event", ["x", "50%"]) == {"x": 1, "z": 1}


END = "dlt.destinations.impl.filesystem.filesystem:FilesystemClient.complete_load"
# The machine of the next load, and the kill.
KILLS: dict[str, tuple[str, tuple[str, str, int]]] = {
    "on a new machine": ("new machine", (KILL_POINT_ROWS_APPENDED, "after", 9)),
    "on the same machine": ("killed", (KILL_POINT_ROWS_APPENDED, "before", 7)),
    "at the end": ("killed", (END, "before", 1)),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture
def undisturbed(house: Path) -> dict[str, Table]:
    """The tables of an undisturbed load into DuckDB; the first test that needs them makes this load and the kills."""
    archive = house / "archive"
    if not archive.exists():
        # These persons are stored already, and the killed load changes them.
        file(archive, "1.gz", [track(1, type="identify", userId=f"{n}", messageId=f"i-{n}") for n in range(5)])
        start = house / "start"
        load(pipeline(start / "killed", lake((start / "bucket").as_uri())), archive, **DELTA)
        for name in KILLS:
            shutil.copytree(start, house / name)
        odd_archive(archive, 0)
        file(archive, "2.gz", [track(2, type="identify", userId=f"{n}", messageId=f"j-{n}") for n in range(5)])
        kill(house, archive)
        load(pipeline(house), archive)
    return content(house / "autopilot.duckdb")


@pytest.mark.parametrize("name", KILLS)
def test_completes_a_load_that_was_killed(name: str, house: Path, undisturbed: dict[str, Table]) -> None:
    archive, folder, (machine, _) = house / "archive", house / name, KILLS[name]
    own = lake((folder / "bucket").as_uri())
    load(pipeline(folder / machine, own), archive, **DELTA)
    tables = lake_content(str(folder / "bucket"))
    assert_sound(tables)
    assert_same(tables, undisturbed, but=["_audit"])
    assert load(pipeline(folder / machine, own), archive, **DELTA).files == 0


def kill(house: Path, archive: Path) -> None:
    """Runs a load for each of KILLS, which ends by `kill -9`."""
    plans = house / "plans.json"
    plans.write_text(
        json.dumps(
            [
                Plan(str(archive), str(house / name / "killed"), point, lake=(house / name / "bucket").as_uri())
                for name, (_, point) in KILLS.items()
            ]
        )
    )
    done = forked.run(killed.__file__, str(plans), env={"RUNTIME__DLTHUB_TELEMETRY": "false"})
    assert sorted(done.stdout.splitlines()) == [f"{number} -9" for number in range(len(KILLS))], done.stderr


def test_the_command_loads_into_a_lake(tmp_path: Path, s3: S3, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "archive", "1.gz", [track(1), track(2)])
    bucket = s3.bucket()
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"DESTINATION__FILESYSTEM__CREDENTIALS__{name.upper()}", value)
    words = ("load", "archive", str(tmp_path / "archive"), "--destination", "filesystem", "--credentials", bucket)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    for stored in (2, 0):
        done = call(*words, "--json")
        assert (done.status, json.loads(done.out)["stored"]) == (0, stored), done.err
    assert [row["id"] for row in lake_content(bucket, s3)["email_opened"].dicts()] == ["m-1", "m-2"]


@pytest.mark.parametrize(
    ("table_format", "expected"),
    [
        (None, "Expected a destination that can merge, but dlt can only append to plain files"),
        ("iceberg", "Expected a table_format that is loaded into filesystem (delta), but got 'iceberg'."),
        ("native", "Expected a table_format that is loaded into filesystem (delta), but got 'native'."),
    ],
)
def test_refuses_what_would_only_append_before_anything_is_read(
    table_format: str | None, expected: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    if table_format:
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", table_format)
    bucket = tmp_path / "bucket"
    done = call("load", "archive", "nothing-is-here", "--destination", "filesystem", "--credentials", bucket.as_uri())
    assert done.status == 1
    assert expected in done.err
    assert 'table_format = "delta" in [sources.autopilothq]' in done.err
    assert not (bucket / "autopilothq").exists() or list((bucket / "autopilothq").rglob("*.*")) == []


def test_names_the_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(PipelineStepFailed, match=re.escape(install("deltalake"))):
        load(pipeline(tmp_path, lake((tmp_path / "bucket").as_uri())), tmp_path, **DELTA)


def test_refuses_a_table_format_where_there_is_none(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(tmp_path / "archive", "1.gz", [track(1)])
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    done = call("load", "archive", str(tmp_path / "archive"))
    assert done.status == 1
    assert "Leave table_format out of [sources.autopilothq]." in done.err


def test_takes_the_table_format_as_an_argument_of_dlt_too_and_rejects_a_row_that_a_table_refuses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")  # dlt would try refused rows five times
    archive, bucket = tmp_path / "archive", tmp_path / "bucket"
    file(archive, "1.gz", [track(1)])
    into = pipeline(tmp_path, dlt.destinations.filesystem(bucket.as_uri()))
    into.run(autopilothq.archive(str(archive)), table_format="delta")
    assert len(lake_content(str(bucket))["tracks"].rows) == 1
    DeltaTable(bucket / "autopilothq" / "email_opened").alter.add_constraint({"sane": "id NOT IN ('m-2', 'm-4')"})
    file(archive, "2.gz", [track(2), track(3)])
    runner.run(into, autopilothq.archive(str(archive), table_format="delta"))
    tables = lake_content(str(bucket))
    assert_sound(tables)
    assert [[row["id"] for row in tables[name].dicts()] for name in ("email_opened", "tracks")] == [["m-1", "m-3"]] * 2
    [(refused, (*_, message))] = rejects(tables).items()
    about, _, why = message.partition(": ")
    assert (refused, about) == ("m-2", "its row of email_opened is refused by the destination")
    assert why.endswith("1 rows failed validation check.")
    assert [text for text in caplog.messages if text.startswith("The destination")] == [
        f"The destination refuses rows of email_opened: they are looked for among 2, and all others are loaded. {why}"
    ]
    mine = Field("mine", PrimitiveType("string"), nullable=False)
    DeltaTable(bucket / "autopilothq" / "tracks").alter.add_columns([mine])
    file(archive, "3.gz", [track(4)])
    with pytest.raises(RunError) as required:
        runner.run(into, autopilothq.archive(str(archive), table_format="delta"))
    assert str(required.value) == (
        "Expected nulls to be allowed in the column mine of tracks, which no message has, but somebody made it"
        " required.\nAllow them (ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL), or drop the column. Nothing of it"
        " counts as loaded."
    )


@pytest.mark.parametrize(
    ("layout", "folder"),
    [
        ("{table_name}/{load_id}.{file_id}.{ext}", "tracks"),
        ("raw/{table_name}/{load_id}.{file_id}.{ext}", "raw/tracks"),
        ("raw/tracks_{table_name}.{load_id}.{file_id}.{ext}", "raw/tracks_tracks."),
    ],
)
def test_finds_tables_in_the_folders_that_the_layout_gives_them(tmp_path: Path, layout: str, folder: str) -> None:
    into = pipeline(tmp_path, lake(tmp_path.as_uri(), layout=layout))
    dataset = open_dataset(into)
    assert isinstance(dataset, DeltaDataset)
    dataset.create(TRACKS)
    table = tmp_path / into.dataset_name / folder
    table.with_name("tracks_").mkdir()
    assert set(dataset.tables(["tracks", "pages"])) == set(dataset.tables(["tracks"])) == {"tracks"}
    assert set(dataset.columns()) >= {"tracks"}
    dataset.insert(TRACKS, [])
    drop_old_versions(dataset.client, "tracks")
    assert [DeltaTable(table).version(), len([*table.glob("_delta_log/*0.json")])] == [1, 0]


def test_only_tables_that_have_a_folder_cost_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a dataset that dlt has not initialized, like this one."""
    into = pipeline(tmp_path, lake(tmp_path.as_uri()))
    asked: list[str] = []
    usual = DeltaTable.is_deltatable

    def is_table(location: str, options: dict[str, str] | None = None) -> bool:
        asked.append(Path(location).name)
        return usual(location, options)

    monkeypatch.setattr(DeltaTable, "is_deltatable", is_table)
    assert open_dataset(into).tables(["tracks", "pages"]) == {}
    folder = tmp_path / into.dataset_name
    write_deltalake(f"{folder}/tracks", pa.table({"id": ["m"]}))
    (folder / "pages").mkdir()
    assert open_dataset(into).tables(["tracks", "pages", "groups"]) == {"tracks": {"id": "text"}}
    assert open_dataset(into).tables(["tracks"]) == {"tracks": {"id": "text"}}
    assert asked == ["tracks", "pages", "tracks"]
