"""If workers do not see the work folder, may not change it or lose it, an error says so and nothing is left."""

import errno
import fcntl
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from fsspec.implementations.memory import MemoryFileSystem

import autopilothq
import forked
from autopilothq.errors import EngineError
from autopilothq.projection import RefusedIds
from autopilothq.projection.partition import PartitionedLoad
from autopilothq.sources.engine.tasks import WorkerContext
from autopilothq.sources.engine.work_folder import WorkFolder, work_folder
from autopilothq.sources.file_systems import open_bucket
from faults.loads import content, file, files_in, load, track
from servers import S3
from test_engine import Inline, into, same

NAME_ONE = "\nName a folder or a bucket as --work-url (work_url) that this machine and all workers may change."


class Elsewhere(Inline):
    """An executor whose workers run in another folder, so that `/proc/self/cwd` is another place for them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        folder.mkdir()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        with chdir(self.folder):
            return super().submit(fn, *args, **kwargs)


def test_workers_have_the_work_folder_of_the_coordinator_or_say_that_they_do_not(tmp_path: Path) -> None:
    archive = file(tmp_path / "archive", "1.gz", [track(1), track(2)])
    pipeline, workers = into(tmp_path, "two"), Elsewhere(tmp_path / "elsewhere")
    unseen = "/proc/self/cwd/unseen"

    with pytest.raises(PipelineStepFailed) as raised:
        pipeline.run(autopilothq.archive(str(archive), executor=workers, work_url=unseen))

    error = raised.value.__cause__
    while error is not None and not isinstance(error, EngineError):
        error = error.__cause__
    text, found = str(error).replace(unseen, "FOLDER"), f"on every worker, but on {socket.gethostname()} it is not"
    assert text.startswith("Expected the work folder FOLDER/autopilothq-work/two-"), text
    assert text.endswith(f" {found} there.{NAME_ONE}"), text
    assert workers.calls == 1
    assert not files_in(Path("unseen"))
    assert not files_in(workers.folder)
    # A relative path is resolved by the coordinator.
    pipeline.run(autopilothq.archive(str(archive), executor=workers, work_url="work"))
    assert len(content(tmp_path / "two.duckdb")["tracks"].rows) == 2
    assert not files_in(Path("work"))
    assert not files_in(workers.folder)


def context_of(folder: WorkFolder) -> WorkerContext:
    load = PartitionedLoad(
        loaded_at="2026-01-02T03:04:05+00:00", memory=400, partitions=1, shorten=str, event_table=str
    )
    return WorkerContext(folder, load, RefusedIds({}, {}), None)


@pytest.fixture(params=["folder", "bucket"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The folder or bucket for work folders."""
    if request.param == "folder":
        yield str(tmp_path / "work")
        return
    s3: S3 = request.getfixturevalue("s3")
    open_to_all(s3, monkeypatch)
    yield f"{s3.bucket()}/work"


def open_to_all(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the credentials of the buckets where workers find them."""
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)


def test_a_task_that_outlives_its_load_leaves_nothing(home: str, tmp_path: Path) -> None:
    with work_folder(home, "owner") as folder:
        task = context_of(folder).engine()
        _, scratch = task.__enter__()
        (tmp_path / "found").write_text("personal")
        folder.put(str(tmp_path / "found"), "before")
    assert not folder.is_there()

    Path(scratch).mkdir(parents=True, exist_ok=True)
    (tmp_path / "found").write_text("personal")
    folder.put(str(tmp_path / "found"), "rows/after")
    copy = folder.get("rows/after", scratch)
    task.__exit__(None, None, None)

    for name in ("before", "rows/after"):
        with pytest.raises(FileNotFoundError):
            folder.take(name, tmp_path / "taken")
    assert not Path(copy).exists()
    with pytest.raises(EngineError, match="on every worker"), context_of(folder).engine():
        pass


def test_a_listing_that_a_worker_remembers_does_not_answer_for_the_bucket(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all(s3, monkeypatch)
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__READ_ONLY", "true")  # with this setting, dlt caches listings
    folder = WorkFolder(f"{s3.bucket()}/work")
    folder.begin()
    listing = open_bucket(folder.url).ls(folder.url, detail=False)
    fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options).rm(folder.url, recursive=True)
    assert open_bucket(folder.url).ls(folder.url, detail=False) == listing

    assert not folder.is_there()


@dataclass
class Losing:
    """A place for work folders where the second look at a load's mark, after its first task, fails.

    The function `of.name` looks; `asked` counts how often.
    """

    home: str
    of: object
    name: str
    asked: int = 0

    def begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replaces the function by one that counts and fails."""
        found = getattr(self.of, self.name)

        def ask(*args: Any, **kwargs: Any) -> Any:
            if re.search("/[0-9a-f]{16}/under-way$", str(args[-1])):
                self.asked += 1
                if self.asked == 2:
                    raise TimeoutError(110, "Connection timed out")
            return found(*args, **kwargs)

        monkeypatch.setattr(self.of, self.name, ask)


@pytest.fixture(params=["folder", "bucket"])
def losing(request: pytest.FixtureRequest, tmp_path: Path) -> Losing:
    """A folder or a bucket in memory for work folders, whose connection can be lost."""
    if request.param == "folder":
        return Losing(str(tmp_path / "work"), os, "stat")
    return Losing("memory://work", MemoryFileSystem, "info")


def test_a_load_under_way_keeps_its_folder_when_a_task_cannot_ask_for_it(
    losing: Losing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is tried again and finds the files of all other tasks."""
    archive = str(file(tmp_path / "archive", "1.gz", [track(1), track(2)]).parent)
    load(into(tmp_path, "one"), archive)
    losing.begin(monkeypatch)

    load(into(tmp_path, "two"), archive, executor=Inline(), work_url=losing.home)

    assert losing.asked > 2
    same(tmp_path)
    assert not files_in(tmp_path / "work")
    assert not [name for name in MemoryFileSystem.store if name.startswith("/work/")]


def test_nothing_is_deleted_when_a_task_cannot_ask_whether_its_load_has_ended(
    losing: Losing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with work_folder(losing.home, "owner") as folder:
        (tmp_path / "found").write_text("personal")
        folder.put(str(tmp_path / "found"), "rows/before")
        losing.begin(monkeypatch)
        with pytest.raises(TimeoutError), context_of(folder).engine():
            pass

        assert losing.asked == 2
        assert folder.is_there()
        folder.take("rows/before", tmp_path / "taken")
        assert (tmp_path / "taken").read_text() == "personal"


def test_only_what_killed_tasks_of_this_machine_left_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The work folder may be shared with other machines, and with containers that have this machine's name.
    with subprocess.Popen(["true"]) as ended:
        pass
    home, here = tmp_path / "scratch", f"autopilothq-worker-{socket.gethostname()}-"
    others = ["autopilothq-worker-elsewhere-a", f"{here}2-a", "autopilothq-new-worker-b", "rows"]
    for name in [*others, f"{here}c"]:
        (home / name).mkdir(parents=True)
        (home / name / "held").touch()
    (home / f"{here}d").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        in_container = WorkFolder(str(tmp_path)).scratch()
        kept = [*others, Path(in_container.__enter__()).name]
    with WorkFolder(str(tmp_path)).scratch() as own:
        assert Path(own).name.startswith(here)
        assert sorted(path.name for path in home.iterdir()) == sorted([*kept, Path(own).name])
    assert sorted(path.name for path in home.iterdir()) == sorted(kept)
    in_container.__exit__(None, None, None)
    assert sorted(path.name for path in home.iterdir()) == sorted(kept[:-1])


def test_what_another_user_or_a_disk_without_locks_has_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "scratch" / f"autopilothq-worker-{socket.gethostname()}-a"
    left.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
        with WorkFolder(str(tmp_path)).scratch() as own:
            assert left.exists()
        assert not Path(own).exists()

    def unlocked(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unlocked)
    (left / "held").touch()
    with WorkFolder(str(tmp_path)).scratch() as own:
        assert sorted(path.name for path in left.parent.iterdir()) == sorted([left.name, Path(own).name])


KILLED = """
from autopilothq.sources.engine.work_folder import WorkFolder, os
task = WorkFolder(os.getcwd()).scratch()
task.__enter__()
os.kill(os.getpid(), 9)
"""


def test_what_a_task_of_a_killed_process_left_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert forked.start("-c", KILLED).wait() == -9
    [left] = (tmp_path / "scratch").iterdir()
    assert [path.name for path in left.iterdir()] == ["held"]
    with WorkFolder(str(tmp_path)).scratch():
        assert not left.exists()


@pytest.mark.parametrize(
    ("error", "is_explained"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_a_folder_that_a_worker_may_not_change(
    error: OSError, is_explained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "found").write_text("personal")
    with work_folder(str(tmp_path / "work"), "owner") as folder, monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        patch.setattr("shutil.copyfile", refuse)
        with pytest.raises(EngineError if is_explained else OSError) as raised:
            folder.put(str(tmp_path / "found"), "rows")

    explained = f"Expected to read and write {folder.url} on {socket.gethostname()}, but got {type(error).__name__}:"
    assert str(raised.value) == (f"{explained} {error}{NAME_ONE}" if is_explained else str(error))


def test_files_of_another_disk_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, found = os.replace, [tmp_path / "found.0", tmp_path / "found.1"]

    def across(path: str, target: object) -> None:
        if Path(path).parent == tmp_path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(path, str(target))

    for path in found:
        path.write_text(path.suffix)
    monkeypatch.setattr(os, "replace", across)
    folder = WorkFolder(f"file://{tmp_path}/work")
    names = ["rows/1-0.parquet", "rows/1-1.parquet"]
    assert folder.put_all(list(map(str, found)), "rows/1") == names
    assert folder.get_all(names, "nowhere") == [f"{tmp_path}/work/{name}" for name in names]
    assert sorted(files_in(tmp_path)) == [tmp_path / "work" / name for name in names]
    assert [(tmp_path / "work" / name).read_text() for name in names] == [".0", ".1"]


def test_a_file_in_a_bucket_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, found, fetched = WorkFolder("memory://fetched"), tmp_path / "found", list[str]()
    get_file = MemoryFileSystem.get_file

    def noted(self: MemoryFileSystem, url: str, path: str) -> None:
        fetched.append(url)
        get_file(self, url, path)

    monkeypatch.setattr(MemoryFileSystem, "get_file", noted)
    found.write_text("personal")
    folder.put(str(found), "rows/1")
    assert not found.exists()
    copies = [folder.get("rows/1", str(tmp_path / "scratch")) for _ in range(2)]
    assert copies == [f"{tmp_path}/scratch/fetched/rows/1"] * 2
    assert Path(copies[0]).read_text() == "personal"
    assert len(fetched) == 1
    folder.take("rows/1", found)
    assert found.read_text() == "personal"
    folder.delete()
    folder.delete()
    assert not [name for name in MemoryFileSystem.store if name.startswith("/fetched")]


@pytest.mark.parametrize(("given", "home"), [("work//", "{}/work"), ("memory://work//", "memory://work")])
def test_a_work_folder_is_an_owners_only_one(given: str, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = f"{home.format(Path.cwd())}/autopilothq-work"
    left = [WorkFolder(f"{home}/{name}") for name in ("owner/1", "owner2/1")]
    for folder in left:
        folder.begin()
    with work_folder(given, "owner") as own:
        assert re.fullmatch(f"{re.escape(home)}/owner/[0-9a-f]{{16}}", own.url)
        assert [folder.is_there() for folder in (*left, own)] == [False, True, True]
    assert [folder.is_there() for folder in (*left, own)] == [False, True, False]
    left[1].delete()

    def refuse(_: WorkFolder) -> None:
        raise ValueError("no")

    with monkeypatch.context() as patch:
        with work_folder(given, "owner"):
            patch.setattr(WorkFolder, "delete", refuse)  # then the next load tries again
        with pytest.raises(EngineError) as raised, work_folder(given, "owner"):
            pass
    assert str(raised.value) == (
        f"Expected to list, write and delete below {home}/owner, but got ValueError: no{NAME_ONE}"
    )
    WorkFolder(f"{home}/owner").delete()
