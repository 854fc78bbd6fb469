"""Scans an account, and is killed on the way: a program of the tests. It prints `number status` for each plan.

Its argument is a file with a list of plans, each `[url of the API, key, folder, point]` with a point as in `killed`.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import dlt

import autopilothq
from autopilothq.warehouses.duckdb import direct
from faults.killed import kill_at

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
    for number, plan in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        child = os.fork()
        if not child:
            try:
                load(*plan)
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
