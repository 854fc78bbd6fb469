"""Calls the program, and is killed meanwhile: a program of the tests.

Its argument is a file with a list of plans. Each runs in a process of its own, whose exit status is then in the file
`status` in its folder.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import dlt

from autopilothq import autopilot, cli
from faults.killed import kill_when, run_apart


class Plan(NamedTuple):
    """The words of a call in `folder`, its environment, and when it is killed: at a place, or after so many seconds.

    The word `pipeline` with a file of rows runs a dlt pipeline instead. `-` is the file of messages.
    """

    folder: str
    words: list[str]
    environment: dict[str, str]
    point: "tuple[str, str, int] | float"


def call(plan: Plan) -> None:
    os.chdir(plan.folder)
    os.environ.update(plan.environment)
    if "-" in plan.words:
        os.dup2(os.open("messages.ndjson", os.O_RDONLY), 0)
    kill_when(plan.point)
    if plan.words[0] == "pipeline":
        pipeline(json.loads(Path(plan.words[1]).read_text()))
    else:
        sys.argv = ["autopilothq", *plan.words]
        cli.main()


def pipeline(rows: list[dict[str, Any]]) -> None:
    """Runs a pipeline as a user's script does."""
    to_autopilot = dlt.pipeline("to_autopilot", destination=autopilot(), pipelines_dir="pipelines")
    while to_autopilot.has_pending_data:
        to_autopilot.run()
    to_autopilot.run(rows, table_name="rows")


def main() -> None:
    for plan in json.loads(Path(sys.argv[1]).read_text()):
        Path(plan[0], "status").write_text(str(run_apart(call, Plan(*plan))))


if __name__ == "__main__":
    main()
