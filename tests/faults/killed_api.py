"""Scans an account, and is killed on the way: a program of the tests. It prints `number status` for each plan.

Its argument is a file with a list of plans, each `[url of the API, key, folder, point]` with a point as in `killed`.
"""

from pathlib import Path

import dlt

import autopilothq
from autopilothq.warehouses.duckdb import direct
from faults.killed import kill_at, run_plans

TABLES = (
    "tracks",
    "email_opened",
    "contacts",
    "lists",
    "lists_contacts",
    "triggers",
    "_discards",
    "_rejects",
    "_audit",
)


def load(url: str, key: str, folder: str, point: tuple[str, str, int]) -> None:
    """As a user's script would, by a pipeline in that folder."""
    kill_at(*point)
    pipeline = dlt.pipeline(
        "autopilot_events",
        pipelines_dir=str(Path(folder, "state")),
        destination=direct(str(Path(folder, "autopilot.duckdb"))),
        dataset_name="autopilothq",
    )
    source = autopilothq.api(key, base_url=url, requests_per_second=10_000)
    pipeline.run(source.with_resources(*TABLES))


def main() -> None:
    run_plans(load)


if __name__ == "__main__":
    main()
