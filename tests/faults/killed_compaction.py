"""Puts a receiver's files together, and is killed on the way: a program of the tests.

Its argument is a file with a list of plans: a folder with the archive, beside the dataset, and the point where it is
killed. It prints `number status` for each. Each runs in a process of its own.
"""

import os
import time
from pathlib import Path

from autopilothq import compaction
from autopilothq.warehouses.settings import TargetOptions
from faults.killed import kill_at, run_plans


def run(folder: str, point: tuple[str, str, int] | None) -> None:
    os.chdir(folder)
    os.environ["DLT_DATA_DIR"] = str(Path(folder, "dlt"))
    if point:
        kill_at(*point)
    target = TargetOptions(credentials=str(Path(folder).with_name("autopilot.duckdb")))
    compaction.compact(f"{folder}/archive", target, now=time.time())


if __name__ == "__main__":
    run_plans(run)
