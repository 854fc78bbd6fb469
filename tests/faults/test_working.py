"""dlt's working folder is set aside if it cannot be read, without losing or repeating rows, and does not grow."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from filelock import FileLock

import autopilothq
from autopilothq import runner
from autopilothq.warehouses import working_folder
from calling import Call, errors
from contract.duck import held
from faults.loads import assert_sound, content, file, in_memory, load, pipeline, track


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(bytes(range(128, 256))),
    "of another kind": lambda path: path.write_text("{}"),
    "a folder": replace_by_folder,
}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder after one complete load, with a package that is normalized and one that is extracted."""
    folder = tmp_path_factory.mktemp("left")
    archive = file(folder / "archive", "1.gz", [track(1)]).parent
    into = pipeline(folder, in_memory())
    load(into, archive)
    file(folder / "archive", "2.gz", [track(2), track(2, event="New 2")])
    into.extract(autopilothq.archive(str(archive)))
    into.normalize()
    into.extract([{"id": "of another source"}], table_name="more")
    return Path(into.working_dir)


HARMLESS = ("schema_updates.json", "of another kind")
READ = [
    "state.json", "schemas/autopilothq.schema.json", "load/.version", "normalize/.version",
    "load/normalized/*/schema.json", "load/normalized/*/load_package_state.json",
    "load/normalized/*/schema_updates.json", "load/normalized/*/.restore/state.json",
    "load/normalized/*/.restore/schemas/autopilothq.schema.json",
    "normalize/extracted/*/schema.json", "normalize/extracted/*/load_package_state.json",
    "normalize/extracted/*/.restore/state.json",
]  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_finds_what_dlt_could_not_read(name: str, left: Path, tmp_path: Path) -> None:
    assert working_folder.unreadable(left) is None
    for damage, do in DAMAGES.items():
        folder = tmp_path / damage
        shutil.copytree(left, folder)
        [path] = folder.glob(name)
        do(path)
        found = working_folder.unreadable(folder)
        # Any JSON object is valid for schema updates.
        assert (found and found[0]) == (None if (path.name, damage) == HARMLESS else path)


def test_what_is_not_there_yet_is_not_unreadable(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert working_folder.unreadable(tmp_path / "new") is None
    folder = tmp_path / "folder"
    shutil.copytree(left, folder)
    for name in ("load/.version", "normalize/.version"):
        (folder / name).unlink()
        assert working_folder.unreadable(folder) is None
    (folder / "state.json").rename(tmp_path / "state.json")
    assert working_folder.unreadable(folder) is None
    (tmp_path / "state.json").rename(folder / "state.json")
    [schema] = folder.glob("schemas/*")
    schema.unlink()  # the state refers to it
    assert working_folder.unreadable(folder) == (schema, "No such file or directory")

    def refused(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(PermissionError):  # the folder is not at fault, and another one would not help
        working_folder.unreadable(left)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture
def killed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """An archive with one loaded file and one in a load package, and the working folder with that package.

    The first test makes them. The others get a copy at the same path, because files in the folder contain that path.
    The database is held open.
    """
    here, kept = site / "here", site / "kept"
    shutil.rmtree(here, ignore_errors=True)
    made = kept.exists()
    if made:
        shutil.copytree(kept, here)
    else:
        here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("DLT_DATA_DIR", str(here / "dlt"))
    archive = here / "archive"
    if not made:
        file(archive, "1.gz", [track(1), track(2)])
        runner.run(runner.pipeline(), autopilothq.archive(str(archive)))
        file(archive, "2.gz", [track(2), track(3), b"no JSON"])
        into = runner.pipeline()
        into.extract(autopilothq.archive(str(archive)))
        into.normalize()
        shutil.copytree(here, kept)
    with held():
        yield archive, here / "dlt" / "pipelines" / "autopilot_events"


def assert_loaded_once() -> None:
    with held() as database:
        tables = content(database)
    assert_sound(tables)
    assert [row["id"] for row in tables["email_opened"].dicts()] == ["m-1", "m-2", "m-3"]
    assert (tables["_audit"].total("lines"), tables["_audit"].total("stored"), len(tables["_rejects"].rows)) == (
        5,
        3,
        1,
    )


@pytest.mark.parametrize("name", ["state.json", "load/normalized/*/load_package_state.json"])
def test_goes_on_without_a_folder_that_cannot_be_read(name: str, killed: tuple[Path, Path], call: Call) -> None:
    archive, folder = killed
    [path] = folder.glob(name)
    path.write_bytes(path.read_bytes()[:20])
    with FileLock(f"{folder}.lock"):
        # While another run holds the lock, the folder is not touched.
        assert call("load", "archive", str(archive)).status != 0
        assert path.exists()
    said = call("load", "archive", str(archive))
    assert said.status == 0
    [aside] = folder.parent.glob("*.unreadable-*")
    [warning] = errors(said)
    assert re.fullmatch(
        rf"Warning: dlt's {re.escape(str(path))} cannot be read \(JSONDecodeError: .+\). Its folder is set aside as"
        rf" {re.escape(str(aside))}, and the run goes on with what the destination knows: nothing is lost or stored"
        r" twice. Delete that folder: it may contain rows.",
        warning,
    )
    assert_loaded_once()
    again = call("load", "archive", str(archive))
    assert (again.status, errors(again), again.out.splitlines()[0][:8]) == (0, [], "0 lines,")


def test_reads_again_what_a_cut_file_of_rows_had(killed: tuple[Path, Path], call: Call) -> None:
    archive, folder = killed
    [path] = folder.glob("load/normalized/*/new_jobs/tracks.*.parquet")
    DAMAGES["cut"](path)
    said = call("load", "archive", str(archive))
    assert said.status == 0
    [warning] = errors(said)
    assert warning.startswith("Warning: What an earlier run left cannot be loaded, and is set aside;")
    assert_loaded_once()


def test_what_a_killed_process_had_begun_to_write_stops_no_load_and_goes(killed: tuple[Path, Path], call: Call) -> None:
    archive, folder = killed

    def cut_off() -> Iterator[dict[str, str]]:
        yield {"id": "a row"}
        raise ConnectionError

    with pytest.raises(PipelineStepFailed):
        runner.pipeline().extract(cut_off(), table_name="rows")
    (folder / "load" / "new" / "1500000000.25" / "new_jobs").mkdir(parents=True)
    begun = [*folder.glob("normalize/*/"), *folder.glob("load/new/*")]
    assert len(begun) == 3
    for packages in ("load/normalized", "normalize/extracted"):
        for jobs in (folder / packages).glob("*/new_jobs"):
            for name in ("d028f6742c80a737aa173784163f0934", ".nfs00000001", "tracks.1.x.parquet"):
                (jobs / name).write_bytes(b"INSERT INTO")
    said = call("load", "archive", str(archive))
    assert (said.status, errors(said)) == (0, [])
    assert [path for path in begun if path.exists()] == [folder / "normalize" / "extracted"]
    assert_loaded_once()


def test_packages_of_old_loads_are_deleted(killed: tuple[Path, Path], call: Call) -> None:
    archive, folder = killed
    finished = folder / "load" / "loaded"
    [first] = [package.name for package in finished.iterdir()]
    old = [f"{1_500_000_000 + hour * 3600}.25" for hour in range(100)]
    for load_id in old:
        (finished / load_id / "completed_jobs").mkdir(parents=True)
        (finished / load_id / "completed_jobs" / "rows").write_text("of an aborted load")
    assert call("load", "archive", str(archive)).status == 0
    kept = sorted(package.name for package in finished.iterdir())
    into = runner.pipeline()
    assert kept == into.list_completed_load_packages()
    assert kept[:-2] == [*old[3:], first]  # then come the waiting package and the new load
    assert into.get_load_package_info(kept[-1]).state == "loaded"
