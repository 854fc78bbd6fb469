"""The folder of a load, in the pipeline's working folder: its scratch files, and the files of rows that dlt takes."""

import shutil
import weakref
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import dlt

from .. import private
from ..warehouses.dlt_internals.resources import uncut_loads

LOADS_FOLDER = "autopilothq"  # the folder of loads, below the pipeline's working folder
_WAITING = "waiting"
_PROJECTION = "projection"
_ORIGIN = "origin"
_READY = "ready"  # how files of rows are named until dlt takes them
_HANDED_OVER = "rows"
_BEGUN = "begun"


class LoadFolder(NamedTuple):
    """An empty folder for one load.

    `may_have_copies` is true if an earlier load may have been killed and stored rows twice: its folder was still there
    and it was not loaded by a run that ended well, or this machine is new and knows nothing of other machines' loads.
    """

    path: Path
    may_have_copies: bool


def begin_folder(pipeline: dlt.Pipeline, load_id: str | None, loaded_at: datetime, keeper: object) -> LoadFolder:
    """Makes the folder of a load, and deletes the folders of earlier loads.

    The folder is deleted once `keeper` is garbage-collected. Other folders of dlt's load package `load_id` stay:
    another source's load may be handing over its rows there.
    """
    home = Path(pipeline.working_dir, LOADS_FOLDER)
    new_machine = not home.exists()
    if new_machine:  # dlt makes the pipeline's folder with the umask's permissions, and puts rows there
        private.restrict(Path(pipeline.working_dir))
    private.folder(home)
    ours = f"{load_id}-"
    left = [old for old in home.iterdir() if not old.name.startswith(ours)]
    # In a process that runs several loads, the folder of the previous load is still there, even if it ended well.
    whole = tuple(f"{uncut}-" for uncut in uncut_loads(pipeline)) if left else ()
    folder = Path(mkdtemp(prefix=ours, dir=home))
    weakref.finalize(pipeline, shutil.rmtree, folder, ignore_errors=True)
    for old in left:
        shutil.rmtree(old, ignore_errors=True)
    waiting = folder / _WAITING
    waiting.mkdir()
    (waiting / _BEGUN).write_text(loaded_at.isoformat(), encoding="utf-8")
    weakref.finalize(keeper, shutil.rmtree, waiting, ignore_errors=True)
    return LoadFolder(waiting, new_machine or any(not old.name.startswith(whole) for old in left))


def drop_files(pipeline: dlt.Pipeline) -> None:
    """Deletes what a complete load left on the disk; otherwise the next load would think that this one was killed."""
    for folder in Path(pipeline.working_dir, LOADS_FOLDER).glob("*/"):
        shutil.rmtree(folder, ignore_errors=True)


def temporary_folder(keeper: object) -> Path:
    """Makes and returns the folder of a load without a pipeline, deleted once `keeper` is garbage-collected."""
    folder = Path(mkdtemp(prefix=LOADS_FOLDER))
    weakref.finalize(keeper, shutil.rmtree, folder, ignore_errors=True)
    return folder


def scratch_of_origin(folder: Path) -> Path:
    """Makes and returns the folder for what an origin needs during a load."""
    scratch = folder / _ORIGIN
    scratch.mkdir()
    return scratch


def scratch_of_projection(folder: Path) -> Path:
    """Makes and returns an empty folder for the projection; deletes the files and rows of an earlier attempt."""
    scratch = folder / _PROJECTION
    shutil.rmtree(scratch, ignore_errors=True)
    for path in folder.glob(f"{_READY}-*"):
        path.unlink()
    scratch.mkdir()
    return scratch


def ready_file(folder: Path, number: int, table: str) -> Path:
    """Returns the path for some rows of a table, before dlt takes them."""
    return folder / f"{_READY}-{number}-{table}"


def hand_over_file(ready: Path) -> Path:
    """Renames a file of rows to the name under which dlt takes it, unless that was done before; returns its path."""
    path = ready.with_name(ready.name.replace(_READY, _HANDED_OVER, 1))
    if not path.exists():
        ready.rename(path)
    return path


def handed_over(pipeline: dlt.Pipeline) -> dict[str, list[Path]]:
    """Returns the Parquet files of each table that the pipeline's last load handed over to dlt.

    They exist as long as the load's source does, whether or not the load succeeded.
    """
    files: dict[str, list[Path]] = {}
    for path in Path(pipeline.working_dir, LOADS_FOLDER).glob(f"*/{_WAITING}/{_HANDED_OVER}-*"):
        files.setdefault(path.name.split("-", 2)[2], []).append(path)
    return files


def handed_over_at(pipeline: dlt.Pipeline) -> datetime:
    """Returns when the pipeline's last load began, which is the `uuid_ts` of its rows."""
    [path] = Path(pipeline.working_dir, LOADS_FOLDER).glob(f"*/{_WAITING}/{_BEGUN}")
    return datetime.fromisoformat(path.read_text(encoding="utf-8"))
