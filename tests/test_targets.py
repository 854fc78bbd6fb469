"""Paths begin in the current folder, each target has its own pipeline, and dlt's commands find it."""

import json
import os
import re
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb
import pytest
from dlt.destinations.impl.ducklake.sql_client import DuckLakeSqlClient
from dlt.sources.credentials import ConnectionStringCredentials
from filelock import FileLock

import forked
from autopilothq import archive, runner
from autopilothq.warehouses import pipeline_names
from autopilothq.warehouses.pipeline_names import assign_pipeline_name, database_of, pipeline_name
from autopilothq.warehouses.resolve import resolve_target
from autopilothq.warehouses.settings import TargetOptions
from calling import Call, Said, errors
from prepared import as_prepared, preparing
from shared_loads import command

MESSAGE = (
    '{"type": "track", "event": "Email Opened", "messageId": "m1", "receivedAt": "2019-03-01T00:00:00Z",'
    ' "timestamp": "2019-03-01T00:00:00Z", "anonymousId": "ada@example.com", "properties": {}}\n'
)
OTHER = r"autopilot_events_[0-9a-f]{8}"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Returns two folders to work in; an archive is next to them."""
    (tmp_path / "archive.ndjson").write_text(MESSAGE)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    return tmp_path / "a", tmp_path / "b"


class Loaded(NamedTuple):
    """Two folders, in the first of which a load was called, and its output."""

    home: Path
    said: Said


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    with preparing(tmp_path_factory.mktemp("placed")) as home:
        Path("archive.ndjson").write_text(MESSAGE)
        for name in ("a", "b"):
            Path(name).mkdir()
        os.chdir("a")
        said = command("load", "archive", "../archive.ndjson")
    return Loaded(home, said)


@pytest.fixture
def loaded(prepared: Loaded) -> Iterator[tuple[Path, Path]]:
    """Works in a copy of the folders after that load; returns them and its output."""
    with as_prepared(prepared.home) as home:
        os.chdir("a")
        yield home / "work/a", home / "work/b"


def ids(file: Path) -> list[str]:
    with duckdb.connect(str(file), read_only=True) as con:
        return [id_ for (id_,) in con.execute("SELECT id FROM autopilothq.email_opened ORDER BY id").fetchall()]


def last_line(call: Call, *words: str) -> str:
    return last_of(call("load", "archive", "../archive.ndjson", *words))


def last_of(said: Said) -> str:
    assert (said.status, errors(said)) == (0, [])
    return said.out.splitlines()[-1]


def test_each_folder_has_its_own_file_and_pipeline(
    loaded: tuple[Path, Path], prepared: Loaded, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = loaded
    first = f"into {a}/autopilot.duckdb, dataset autopilothq, pipeline autopilot_events"
    assert last_of(prepared.said) == first
    monkeypatch.chdir(b)
    second = re.fullmatch(
        rf"into {re.escape(str(b))}/autopilot\.duckdb, dataset autopilothq, pipeline ({OTHER})", last_line(call)
    )
    assert second
    assert (ids(a / "autopilot.duckdb"), ids(b / "autopilot.duckdb")) == (["m1"], ["m1"])
    # From another folder and spelt differently, it is the same target.
    assert last_line(call, "--credentials", "../a/autopilot.duckdb") == first
    assert last_line(call, "--credentials", "duckdb:///../a/autopilot.duckdb") == first

    # The targets are separate: a load that waits in one does not concern the other.
    runner.pipeline(credentials=str(a / "autopilot.duckdb")).extract(archive("../archive.ndjson"))
    assert "waiting" not in call("status").out
    waiting = call("status", "--credentials", "../a/autopilot.duckdb").out
    assert "waiting    1, under way or cut off" in waiting

    # With dlt's own functions, from a third folder.
    monkeypatch.chdir(a.parent)
    for name, folder in (("autopilot_events", a), (second[1], b)):
        assert_found(name)
        # Like `dlt pipeline NAME sync`, which deletes the working folder and recreates it from the destination.
        pipeline = dlt.attach(name).drop()
        pipeline.sync_destination()
        assert (pipeline.first_run, pipeline.schema_names) == (False, ["autopilothq"])
        assert_found(name)
        assert not [file for file in a.parent.rglob("*.duckdb") if file.name != "autopilot.duckdb"]
        monkeypatch.chdir(folder)
        assert last_line(call).endswith(f"pipeline {name}")


def assert_found(name: str) -> None:
    """Checks that dlt's own functions find the rows."""
    with dlt.attach(name).sql_client() as client:
        assert client.execute_sql("SELECT id, event FROM email_opened") == [("m1", "email_opened")]
    dataset = dlt.attach(name).dataset()
    assert dataset["tracks"].select("id", "event_text").fetchall() == [("m1", "Email Opened")]


# Runs dlt's command `pipeline` with each word in a forked process; prints the exit statuses.
DLT_COMMANDS = """
import os, sys
from dlt._workspace.cli._dlt import main
for operation in sys.argv[1:]:
    if not os.fork():
        out = os.open(f"../{operation}.out", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["dlt", "--yes", "pipeline", "autopilot_events", operation]
        sys.exit(main("dlt"))
    print(operation, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_dlts_commands_find_the_pipeline(loaded: tuple[Path, Path]) -> None:
    wanted = {
        "info": "Found pipeline autopilot_events in",
        "sync": "Restoring from destination",
        "schema": "email_opened",
    }
    done = forked.run("-c", DLT_COMMANDS, *wanted, cwd=loaded[1])
    for operation, words in wanted.items():
        said = (loaded[1].parent / f"{operation}.out").read_text()
        assert (f"{operation} 0" in done.stdout.splitlines(), words in said) == (True, True), said + done.stderr
    assert sorted(file.name for file in loaded[1].iterdir()) == []


def test_the_result_for_programs_says_where(folders: tuple[Path, Path], call: Call) -> None:
    wanted = {
        "destination": "duckdb",
        "location": f"{folders[0]}/x ü%20.duckdb",
        "dataset": "mail",
        "pipeline": "autopilot_events",
    }
    words = ("--credentials", "x ü%20.duckdb", "--dataset", "mail", "--json")
    dry = call("load", "archive", "../archive.ndjson", *words, "--dry-run")
    assert json.loads(dry.out)["into"] == wanted
    assert not Path("x ü%20.duckdb").exists()
    assert json.loads(call("load", "archive", "../archive.ndjson", *words).out)["into"] == wanted
    gone = call("forget", "--email", "ada@example.com", *words)
    assert json.loads(gone.out)["from"] == wanted


def test_a_relative_lake_is_in_this_folder(
    folders: tuple[Path, Path], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    for folder in folders:
        monkeypatch.chdir(folder)
        line = last_line(call, "--destination", "filesystem", "--credentials", "lake")
        assert line.startswith(f"into file://{folder}/lake, dataset autopilothq, pipeline autopilot_events")
        assert (folder / "lake/autopilothq/email_opened/_delta_log").is_dir()


@pytest.mark.usefixtures("folders")
def test_a_ducklake_is_attached_without_inlining() -> None:
    """Otherwise it refuses tables with a column `row_id`, such as `_discards`. `make check` loads into a real one."""
    assert resolve_target(TargetOptions("ducklake")).kind == "ducklake"
    statement = DuckLakeSqlClient.build_attach_statement(
        ducklake_name="lake", catalog=ConnectionStringCredentials("duckdb:///lake.duckdb"), storage_url="s3://b (1)/"
    )
    assert statement == (
        "ATTACH IF NOT EXISTS 'ducklake:lake.duckdb' AS lake (DATA_PATH 's3://b (1)/', DATA_INLINING_ROW_LIMIT 0)"
    )


@pytest.mark.usefixtures("folders")
def test_a_file_that_dlt_places_is_told_and_found(call: Call) -> None:
    place = ("--credentials", ":pipeline:")
    file = Path(dlt.current.run_context().data_dir, "pipelines/autopilot_events/autopilot_events.duckdb")
    assert f"There is no dataset autopilothq in {file}." in call("export", "out", *place).err
    assert last_line(call, *place) == f"into {file}, dataset autopilothq, pipeline autopilot_events"
    assert ids(file) == ["m1"]
    assert call("export", "out", *place).out == "out: 1 message, 1 file\n"


def test_what_an_earlier_version_left_goes_on(folders: tuple[Path, Path], call: Call) -> None:
    """An interrupted load whose package waits, and whose state does not mention its target."""
    a, b = folders
    into = dlt.pipeline(
        "autopilot_events", destination=dlt.destinations.duckdb(str(a / "autopilot.duckdb")), dataset_name="autopilothq"
    )
    into.extract(archive("../archive.ndjson"))
    into.set_local_state_val(runner.UNFINISHED_TARGET, runner.target_of(into))
    into.normalize()
    other = resolve_target(TargetOptions(credentials=str(b / "autopilot.duckdb")))
    assert pipeline_name(str(other)) != "autopilot_events"
    assert last_line(call).endswith("pipeline autopilot_events")
    assert not into.has_pending_data
    assert ids(a / "autopilot.duckdb") == ["m1"]


def test_a_pipeline_made_in_python_keeps_its_file(folders: tuple[Path, Path], call: Call) -> None:
    into = dlt.pipeline("autopilot_events", destination="duckdb", dataset_name="autopilothq")
    into.run(archive("../archive.ndjson"))
    assert re.fullmatch(rf"into {folders[0]}/autopilot\.duckdb, .* pipeline {OTHER}", last_line(call))
    again = dlt.pipeline("autopilot_events", destination="duckdb", dataset_name="autopilothq")
    with again.sql_client() as client:
        assert client.execute_sql("SELECT current_database()") == [("autopilot_events",)]
    # The same target, now given as an option, has the same pipeline.
    assert last_line(call, "--credentials", "autopilot_events.duckdb").endswith("pipeline autopilot_events")


@dlt.source(name="autopilothq")
def scan(seen: list[int]) -> Any:
    """Returns a source that continues from its cursor, like those of the APIs."""

    @dlt.resource(name="tracks", columns=[{"name": "id", "data_type": "text"}])
    def pages() -> Iterator[dict[str, str]]:
        state = dlt.current.source_state()
        state["page"] = state.get("page", 0) + 1
        seen.append(state["page"])
        yield {"id": f"m{state['page']}"}

    return pages


@pytest.mark.usefixtures("folders")
def test_scans_go_on_under_other_names_of_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    names = []
    for machine, places in (("one", ["x"]), ("two", ["y", "x"]), ("three", ["x"]), ("two", ["x"])):
        monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / machine))
        for place in places:
            into = runner.pipeline(credentials=f"{place}.duckdb")
            names.append(into.pipeline_name)
            runner.run(into, scan(seen))
    own = names[2]
    assert re.fullmatch(OTHER, own)
    assert names == ["autopilot_events", "autopilot_events", own, "autopilot_events", own]
    assert seen == [1, 1, 2, 2, 3]


def _claim(place: str) -> str:
    return assign_pipeline_name(place, None)


def test_first_runs_at_once_get_names_of_their_own() -> None:
    places = [f"duckdb duckdb:////somewhere/{i}.duckdb, dataset autopilothq" for i in range(6)]
    with get_context("fork").Pool(6) as pool:
        names = pool.map(_claim, places, chunksize=1)
    assert len(set(names)) == 6
    assert names.count("autopilot_events") == 1
    assert [pipeline_name(place) for place in places] == names
    assert database_of("no/such/folder") is None


def test_a_first_run_that_stopped_does_not_block_all_others_for_ever(
    monkeypatch: pytest.MonkeyPatch, call: Call, folders: tuple[Path, Path]
) -> None:
    monkeypatch.setattr(pipeline_names, "NAMING_TIME", 0.1)
    path = pipeline_names.pipelines_dir() / ".autopilot_events.lock"
    path.parent.mkdir(parents=True)
    with FileLock(path, is_singleton=False):
        said = call("load", "archive", "../archive.ndjson")
    assert (said.status, errors(said)) == (
        75,
        [
            f"Error: Another run holds {path}, and makes no progress: it was suspended, or its disk does not respond.",
            f"Continue or end it (fuser {path} shows its process), or wait for it: --wait 10m",
        ],
    )
    assert list(folders[0].iterdir()) == []


def test_a_server_is_found_by_its_credentials_which_are_not_shown(
    call: Call, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.ndjson").write_text(MESSAGE)
    said = call("load", "archive", "a.ndjson", "--destination", "postgres", "--credentials", postgres)
    assert said.status == 0
    user = re.sub(r"^.*//([^:@]*).*$", r"\1", postgres)
    assert re.fullmatch(
        rf"into postgres(ql)?://{user}(:\*+)?@.*, dataset autopilothq, pipeline autopilot_events",
        said.out.splitlines()[-1],
    )
    assert postgres not in Path("../dlt/pipelines/autopilot_events.place").read_text()
    found = dlt.attach("autopilot_events", destination=dlt.destinations.postgres(postgres)).dataset()
    assert found["tracks"].select("id").fetchall() == [("m1",)]
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    assert dlt.attach("autopilot_events").dataset()["tracks"].select("id").fetchall() == [("m1",)]
