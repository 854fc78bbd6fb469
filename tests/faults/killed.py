"""Loads an archive, and is killed meanwhile. This program of the tests prints `number status` for each plan.

Its argument is a file with a list of plans. Each runs in a forked process of its own, which kills itself (SIGKILL: no
handler, no `finally`) at the plan's point.
"""

import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import dlt

import autopilothq
import calling
import stock
from autopilothq import runner as run
from autopilothq.warehouses.delta import lake
from autopilothq.warehouses.duckdb import direct
from autopilothq.warehouses.postgres import postgres

MAIN = f"import sys; sys.argv[0] = 'autopilothq'; {calling.MAIN}"
"""Code that runs the program under its own name by `python -c`."""


class Plan(NamedTuple):
    """A load of `archive` by a pipeline in `folder`, into DuckDB there, a PostgreSQL or a lake.

    `staged` is dlt's own DuckDB destination, which has staging tables; the command's has none.

    `point` is where it is killed: `module:Class.method`, `before` or `after`, and the number of the call; or after how
    many seconds. On a new machine, only the destination is left of earlier runs. With `run` it loads as the command
    does, otherwise as a script. `begun` is the folder of a killed load that this one continues, in a copy.
    """

    archive: str
    folder: str
    point: "tuple[str, str, int] | float"
    new_machine: bool = False
    staged: bool = False
    postgres: str | None = None
    lake: str | None = None
    run: bool = False
    begun: str | None = None


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(place: str, when: str, call: int) -> None:
    """Makes a method kill the process before or after its n-th call, in any thread."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    method: Callable[..., Any] = getattr(owner, name)
    lock, calls = threading.Lock(), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            mine = calls == call
        if mine and when == "before":
            die()
        result = method(*args, **kwargs)
        if mine:
            die()
        return result

    setattr(owner, name, deadly)


def load(plan: Plan) -> None:
    """Loads as a user's script or the command does."""
    if plan.begun:
        shutil.copytree(plan.begun, plan.folder, dirs_exist_ok=True)
        # If the destination has no state yet, dlt would drop the pending packages, and extract the data again.
        os.environ["RESTORE_FROM_DESTINATION"] = "false"
    if plan.new_machine:
        shutil.rmtree(Path(plan.folder, "state"), ignore_errors=True)
    database = str(Path(plan.folder, "autopilot.duckdb"))
    if plan.postgres:
        destination: Any = postgres(plan.postgres)
    elif plan.lake:
        destination = lake(plan.lake)
    else:
        destination = stock.duckdb(database) if plan.staged else direct(database)
    pipeline = dlt.pipeline(
        "autopilot_events",
        pipelines_dir=str(Path(plan.folder, "state")),
        destination=destination,
        dataset_name="autopilothq",
    )
    kill_when(plan.point)
    if plan.run:
        run.run(pipeline, autopilothq.archive(plan.archive))
        return
    while pipeline.has_pending_data:
        pipeline.run()
    pipeline.run(autopilothq.archive(plan.archive, table_format="delta" if plan.lake else None))


def kill_when(point: "tuple[str, str, int] | float") -> None:
    """Makes a method kill the process, as `kill_at` does, or a timer after so many seconds."""
    if isinstance(point, float):
        timer = threading.Timer(point, die)
        timer.daemon = True
        timer.start()
    else:
        kill_at(*point)


def run_plans(run: Callable[..., object]) -> None:
    """Runs each plan of the file named by the argument, in a process of its own, and prints its exit status."""
    statuses, sys.stdout = sys.stdout, sys.stderr
    for number, plan in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        statuses.write(f"{number} {run_apart(run, *plan)}\n")
        statuses.flush()


def run_apart(run: Callable[..., object], *words: Any) -> int:
    """Calls a function in a process of its own, and returns the exit status, minus the signal if it was killed."""
    child = os.fork()
    if not child:
        status = 1
        try:
            run(*words)
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        except BaseException:  # noqa: BLE001 - what it is, is printed
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    run_plans(lambda *plan: load(Plan(*plan)))
