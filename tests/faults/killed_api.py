"""Scans an account, and is killed meanwhile. This program of the tests prints `number status` for each plan.

Its argument is a file with a list of plans, each `[url of the API, key, folder, point]` with a point as in `killed`.
"""

from pathlib import Path

import autopilothq
from faults.killed import kill_at, run_plans
from faults.loads import pipeline

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
    """Loads as a user's script does, with a pipeline in that folder."""
    kill_at(*point)
    source = autopilothq.api(key, base_url=url, requests_per_second=10_000)
    pipeline(Path(folder)).run(source.with_resources(*TABLES))


if __name__ == "__main__":
    run_plans(load)
