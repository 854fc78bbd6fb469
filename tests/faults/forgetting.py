"""Forgets Ada, and is killed meanwhile. This program of the tests prints `number status` for each plan.

Its argument is a file with a list of plans. Each runs in a process of its own, which kills itself at the plan's point.
"""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from autopilothq import cli
from autopilothq.warehouses.dataset import SqlDataset
from faults.killed import kill_at, run_plans


def words(folder: str, rewrite: bool = False) -> list[str]:
    """Returns the arguments of the command, for the dataset and the archive in a folder."""
    place = ["--credentials", f"{folder}/autopilot.duckdb", "--archive", f"{folder}/archive"]
    return ["forget", "--email", "ada@example.com", *place, *(["--rewrite"] if rewrite else [])]


class Plan(NamedTuple):
    """The folder that has the dataset and the archive, and the point at which the command is killed.

    With `piecemeal` it runs as on a destination without transactions, so that each statement takes effect by itself.
    With `rewrite` it rewrites the database in the end.
    """

    folder: str
    point: tuple[str, str, int]
    piecemeal: bool
    rewrite: bool = False


def run(plan: Plan) -> None:
    os.chdir(plan.folder)
    os.environ["DLT_DATA_DIR"] = str(Path(plan.folder, "dlt"))
    if plan.piecemeal:
        setattr(SqlDataset, "transaction", lambda _: nullcontext())  # noqa: B010
    kill_at(*plan.point)
    sys.argv = ["autopilothq", *words(plan.folder, plan.rewrite)]
    cli.main()


if __name__ == "__main__":
    run_plans(lambda *plan: run(Plan(*plan)))
