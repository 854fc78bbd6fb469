"""The folder of a load: what it keeps of other loads, and when it is deleted, without a load."""

import gc
import os
import shutil
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autopilothq.sources import load_folder
from autopilothq.sources.load_folder import LOADS_FOLDER, LoadFolder

BEGUN = datetime(2019, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


class Anything:
    """The object with which a folder is deleted: a source, or a pipeline with this `working_dir`."""

    last_trace: object = None

    def __init__(self, working_dir: Path | None = None) -> None:
        self.working_dir = str(working_dir)


def begin(pipeline: Any, load_id: str | None, keeper: object) -> LoadFolder:
    return load_folder.begin_folder(pipeline, load_id, BEGUN, keeper)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_load_may_find_copies_on_a_new_machine_and_after_a_kill(tmp_path: Path) -> None:
    pipeline, keeper = Anything(tmp_path / "working"), Anything()
    Path(pipeline.working_dir).mkdir(mode=0o755)
    home = Path(pipeline.working_dir, LOADS_FOLDER)
    path, may_have_copies = begin(pipeline, "1", keeper)
    assert (may_have_copies, path.name, names(path)) == (True, "waiting", ["begun"])
    assert {mode(folder) for folder in (home.parent, home, path.parent)} == {0o700}
    assert load_folder.handed_over_at(pipeline) == BEGUN  # type: ignore[arg-type]
    # A load of another source in the same load package deletes nothing.
    other, may_have_copies = begin(pipeline, "1", keeper)
    assert (may_have_copies, path.exists(), other.parent.name.partition("-")[0]) == (False, True, "1")
    # Everything that other packages left is deleted, also if a package's id begins with this one's.
    Path(home, "12-x", "waiting").mkdir(parents=True)
    _, may_have_copies = begin(pipeline, "1", keeper)
    assert (may_have_copies, path.exists(), {name.partition("-")[0] for name in names(home)}) == (True, True, {"1"})
    Path(home.parent).chmod(0o750)  # a user may change the mode of an existing folder
    last, may_have_copies = begin(pipeline, "2", keeper)
    assert (may_have_copies, names(home), mode(home.parent)) == (True, [last.parent.name], 0o750)
    load_folder.drop_files(pipeline)  # type: ignore[arg-type]
    assert names(home) == []
    assert begin(pipeline, "3", keeper).may_have_copies is False


@pytest.mark.parametrize(
    ("left", "error", "may_have_copies"),
    [
        (["1-a", "1-b"], None, False),
        (["1-a"], "refused", True),
        (["1-a", "12-b"], None, True),
        (["0-a"], None, True),
    ],
)
def test_what_a_run_that_ended_well_left_is_no_sign_of_a_kill(
    tmp_path: Path, left: list[str], error: str | None, may_have_copies: bool
) -> None:
    """In a process that loads every hour, the last load's folder exists until Python deletes its pipeline."""
    pipeline = Anything(tmp_path)
    for name in left:
        Path(tmp_path, LOADS_FOLDER, name).mkdir(parents=True)
    loads = SimpleNamespace(loads_ids=["1"])
    pipeline.last_trace = SimpleNamespace(
        steps=[
            SimpleNamespace(step=step, step_exception=error if step == "load" else None, step_info=loads)
            for step in ("extract", "normalize", "load", "run")
        ]
    )
    folder, found = begin(pipeline, "2", pipeline)
    assert (found, names(folder.parent.parent)) == (may_have_copies, [folder.parent.name])


def test_a_folder_goes_with_what_keeps_it(tmp_path: Path) -> None:
    gc.freeze()  # excludes objects of other tests, which would take a second each time
    pipeline, keeper = Anything(tmp_path), Anything()
    folder = begin(pipeline, "1", keeper).path
    temporary = load_folder.temporary_folder(keeper)
    assert temporary.exists()
    assert temporary.name.startswith(LOADS_FOLDER)
    del keeper
    gc.collect()
    assert (temporary.exists(), folder.exists(), folder.parent.exists()) == (False, False, True)
    del pipeline
    gc.collect()
    assert not folder.parent.exists()


def test_what_is_gone_already_or_no_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", noted.append)
    pipeline, keeper = Anything(tmp_path), Anything()
    home = tmp_path / LOADS_FOLDER
    home.mkdir()
    (home / "a file").touch()
    folder = begin(pipeline, "1", keeper).path.parent
    temporary = load_folder.temporary_folder(keeper)
    shutil.rmtree(folder)
    temporary.rmdir()
    # A link is not deleted, and its target stays.
    link = home / "link"
    link.symlink_to(tmp_path)
    load_folder.drop_files(pipeline)  # type: ignore[arg-type]
    assert (link.is_symlink(), home.is_dir(), names(home)) == (True, True, ["a file", "link"])
    del keeper, pipeline
    gc.collect()
    assert noted == []


def test_files_of_rows_get_their_name_once_and_are_found_by_their_table(tmp_path: Path) -> None:
    pipeline = Anything(tmp_path)
    path = begin(pipeline, "1", pipeline).path
    ready = [load_folder.ready_file(path, number, table) for number, table in enumerate(["a", "rows-ready", "a"], 1)]
    for file in ready:
        file.write_text(file.name)
    taken = [load_folder.hand_over_file(file) for file in ready[:2]]
    assert [load_folder.hand_over_file(file) for file in ready[:2]] == taken
    assert [file.read_text() for file in taken] == ["ready-1-a", "ready-2-rows-ready"]
    assert names(path) == ["begun", "ready-3-a", "rows-1-a", "rows-2-rows-ready"]
    assert load_folder.handed_over(pipeline) == {"a": [taken[0]], "rows-ready": [taken[1]]}  # type: ignore[arg-type]


def test_another_attempt_begins_without_what_the_one_before_made(tmp_path: Path) -> None:
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    scratch = load_folder.scratch_of_projection(waiting)
    Path(scratch, "of the first attempt").touch()
    for name in ("ready-1-a", "rows-1-a", "begun"):
        Path(waiting, name).touch()
    origin = load_folder.scratch_of_origin(waiting)
    Path(origin, "page").touch()
    assert load_folder.scratch_of_projection(waiting) == scratch
    assert (os.listdir(scratch), os.listdir(origin)) == ([], ["page"])
    assert names(waiting) == ["begun", "origin", "projection", "rows-1-a"]
