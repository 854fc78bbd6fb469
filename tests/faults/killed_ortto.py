"""Pulls from Ortto in parts, and is killed meanwhile. This program of the tests prints `number status` for each plan.

Its argument is a file with a list of plans, each `[folder, url of the API, key, point]` with a point as in `killed`.
"""

import os
from pathlib import Path
from typing import Any

import dlt

import autopilothq
from autopilothq import LoadReport, runner
from faults.killed import kill_at, run_plans
from faults.loads import pipeline

PEOPLE_PER_LOAD = 4


def pull(into: dlt.Pipeline, url: str, key: str) -> None:
    """Loads until nobody is due, as the command does."""
    reports: list[LoadReport] = []
    pace: dict[str, Any] = {"requests_per_second": 1000, "activity_requests_per_second": 1000, "tries": 1}
    while not reports or reports[-1].people < (reports[-1].people_total or 0):
        source = autopilothq.ortto(key, base_url=url, people_per_load=PEOPLE_PER_LOAD, progress=reports.append, **pace)
        runner.run(
            into, source.with_resources("_profiles", "tracks", "email_opened", "_rejects", "_discards", "_audit")
        )


def load(folder: str, url: str, key: str, point: tuple[str, str, int]) -> None:
    kill_at(*point)
    os.chdir(folder)
    pull(pipeline(Path(folder)), url, key)


if __name__ == "__main__":
    run_plans(load)
