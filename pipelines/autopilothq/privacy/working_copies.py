"""Deletes the copies of rows that loads leave on this machine."""

import glob
import shutil
from pathlib import Path

import dlt

from .. import runner
from ..warehouses.working_folder import drop_incomplete_packages
from . import rewrite


def drop_working_copies(into: dlt.Pipeline) -> None:
    """Removes rows from the pipeline's working folder, and an unfinished copy of a database.

    An unfinished load is aborted: the next one reads its files again. A load into another target is not touched.
    """
    rewrite.clear(into)
    working = Path(into.working_dir)
    # Folders that could not be read were set aside with their contents.
    for folder in working.parent.glob(f"{glob.escape(working.name)}.unreadable-*"):
        shutil.rmtree(folder, ignore_errors=True)
    if not into.has_pending_data or runner.is_unfinished_here(into):
        _drop_packages(into, working)
    # dlt's trace has the texts of errors, which quote values of rows. It goes last: aborting a load writes it again.
    (working / "trace.pickle").unlink(missing_ok=True)


def _drop_packages(into: dlt.Pipeline, working: Path) -> None:
    """Removes the rows of all loads, finished or not."""
    if into.has_pending_data:
        into.abort_packages()
    for file in working.glob("load/loaded/*/*_jobs/*"):
        file.unlink()
    drop_incomplete_packages(into)
    # If our own folders are missing, the next load looks for rows that a killed load stored twice.
    for folder in working.glob("autopilothq*"):
        shutil.rmtree(folder, ignore_errors=True)
