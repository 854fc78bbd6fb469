"""Pulls from the Profile API in parts, and is killed on the way: a program of the tests.

Its argument is a file with a list of plans, each `[folder with people.txt, url of the API, token, space, point]` with a
point as in `killed`. It prints `number status` for each.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import dlt

import autopilothq
from autopilothq import LoadReport, runner
from autopilothq.warehouses.duckdb import direct
from faults.killed import kill_at

PEOPLE_PER_LOAD = 4


def pull(into: dlt.Pipeline, url: str, token: str, space: str) -> None:
    """Loads until nobody is due, as the command does."""
    reports: list[LoadReport] = []
    settings: dict[str, Any] = {"base_url": url, "requests_per_second": 1000, "tries": 1, "progress": reports.append}
    while not reports or reports[-1].people < (reports[-1].people_total or 0):
        source = autopilothq.profiles(token, space, people="people.txt", people_per_load=PEOPLE_PER_LOAD, **settings)
        runner.run(into, source)


def pipeline() -> dlt.Pipeline:
    """All of it in the working folder."""
    return dlt.pipeline(
        "autopilot_events",
        pipelines_dir=str(Path("state").absolute()),
        destination=direct(str(Path("autopilot.duckdb").absolute())),
        dataset_name="autopilothq",
    )


def main() -> None:
    for number, (folder, url, token, space, point) in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        child = os.fork()
        if not child:
            try:
                kill_at(*point)
                os.chdir(folder)
                pull(pipeline(), url, token, space)
            except Exception:  # noqa: BLE001 - what it is, is printed
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{number} {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
