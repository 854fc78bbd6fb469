"""The copies of rows that loads leave on this machine."""

import glob
import shutil
from pathlib import Path

import dlt

from .. import runner
from . import rewrite


def drop_working_copies(into: dlt.Pipeline) -> None:
    """Removes what loads leave in the pipeline's working folder, and a database's copy that was cut off.

    A load that was cut off is given up: the next one reads its files again. One into another place is not touched.
    """
    rewrite.clear(into)
    working = Path(into.working_dir)
    # Folders that could not be read were set aside, with all that was in them.
    for folder in working.parent.glob(f"{glob.escape(working.name)}.unreadable-*"):
        shutil.rmtree(folder, ignore_errors=True)
    # dlt's trace has the words of errors, and these the values of rows.
    (working / "trace.pickle").unlink(missing_ok=True)
    if into.has_pending_data:
        if not runner.is_unfinished_here(into):
            return
        into.abort_packages()
    for file in working.glob("load/loaded/*/*_jobs/*"):
        file.unlink()
    # Packages that a killed process had begun, which dlt does not look for. The absence of our own folders tells the
    # next load to look for copies that one that was killed left behind.
    for folder in (*working.glob("autopilothq*"), *working.glob("normalize/*/"), *working.glob("load/new/*")):
        if folder != working / "normalize" / "extracted":
            shutil.rmtree(folder, ignore_errors=True)
