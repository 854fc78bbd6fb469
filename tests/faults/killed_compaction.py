"""Joins a receiver's files, and is killed meanwhile. This program of the tests prints `number status` for each plan.

Its argument is a file with a list of plans, each with a folder that has the archive and the dataset, and the point at
which it is killed. Each runs in a process of its own.
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
