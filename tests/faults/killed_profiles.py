"""Pulls from the Profile API in parts, and is killed meanwhile: a program of the tests.

Its argument is a file with a list of plans, each `[folder with people.txt, url of the API, token, space, point]` with a
point as in `killed`. It prints `number status` for each plan.
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


def pull(into: dlt.Pipeline, url: str, token: str, space: str) -> None:
    """Loads until nobody is due, as the command does."""
    reports: list[LoadReport] = []
    settings: dict[str, Any] = {"base_url": url, "requests_per_second": 1000, "tries": 1, "progress": reports.append}
    while not reports or reports[-1].people < (reports[-1].people_total or 0):
        source = autopilothq.profiles(token, space, people="people.txt", people_per_load=PEOPLE_PER_LOAD, **settings)
        runner.run(into, source)


def load(folder: str, url: str, token: str, space: str, point: tuple[str, str, int]) -> None:
    kill_at(*point)
    os.chdir(folder)
    pull(pipeline(Path(folder)), url, token, space)


if __name__ == "__main__":
    run_plans(load)
