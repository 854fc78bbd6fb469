"""The work folder of an engine as its workers see it: elsewhere, closed to them, or gone while they are still at it."""

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

import autopilothq
from autopilothq.errors import EngineError
from autopilothq.projection.partition import LoadFacts, RefusedIds
from autopilothq.sources.engine.tasks import WorkerContext
from autopilothq.sources.engine.work_folder import WorkFolder, work_folder
from faults.loads import content, file, track
from servers import S3
from test_engine import Inline, into

NAME_ONE = "\nName a folder or a bucket as --work-url (work_url) that this machine and all workers may change."


class Elsewhere(Inline):
    """An executor whose workers run in another folder; what `/proc/self/cwd` names is another one to them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        folder.mkdir()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        with chdir(self.folder):
            return super().submit(fn, *args, **kwargs)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


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
    # One without a slash before it is the coordinator's own.
    pipeline.run(autopilothq.archive(str(archive), executor=workers, work_url="work"))
    assert len(content(tmp_path / "two.duckdb")["tracks"].rows) == 2
    assert not files_in(Path("work"))
    assert not files_in(workers.folder)


def context_of(folder: WorkFolder) -> WorkerContext:
    facts = LoadFacts("2026-01-02T03:04:05+00:00", 400, 1, str, str)
    return WorkerContext(folder, facts, RefusedIds({}, {}), None)


@pytest.fixture(params=["folder", "bucket"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where work folders are."""
    if request.param == "folder":
        yield str(tmp_path / "work")
        return
    s3: S3 = request.getfixturevalue("s3")
    for name, value in s3.credentials.items():
        monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
    yield f"{s3.bucket()}/work"


def test_a_task_that_outlives_its_load_leaves_nothing(home: str, tmp_path: Path) -> None:
    with work_folder(home, "owner") as folder:
        task = context_of(folder).engine()
        _, scratch = task.__enter__()
        (tmp_path / "found").write_text("personal")
        folder.put(str(tmp_path / "found"), "before")
    assert not folder.is_there

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


def test_a_folder_that_a_worker_may_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "found").write_text("personal")
    with work_folder(str(tmp_path / "work"), "owner") as folder, monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        patch.setattr("shutil.copyfile", refuse)
        with pytest.raises(EngineError) as raised:
            folder.put(str(tmp_path / "found"), "rows")

    assert str(raised.value) == (
        f"Expected to read and write {folder.url} on {socket.gethostname()}, but got PermissionError:"
        f" [Errno 13] Permission denied: '{tmp_path / 'found'}'{NAME_ONE}"
    )
