"""Calls the program, and is killed on the way: a program of the tests. It prints the exit status of each plan.

Its argument is a file with a list of plans. Each runs in a process of its own, as `killed` does it.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import dlt

from autopilothq import autopilot, cli
from faults.killed import kill_when


class Plan(NamedTuple):
    """The words of a call in `folder`, its environment, and where it is killed: a place, or after so many seconds.

    The word `pipeline` and a file of rows run a dlt pipeline. `-` is the file of messages.
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
    """Runs a pipeline as a user's script would."""
    to_autopilot = dlt.pipeline("to_autopilot", destination=autopilot(), pipelines_dir="pipelines")
    while to_autopilot.has_pending_data:
        to_autopilot.run()
    to_autopilot.run(rows, table_name="rows")


def main() -> None:
    for plan in json.loads(Path(sys.argv[1]).read_text()):
        child = os.fork()
        if not child:
            status = 1
            try:
                call(Plan(*plan))
                status = 0
            except SystemExit as ended:
                status = int(ended.code or 0)
            except Exception:  # noqa: BLE001 - what it is, is printed
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        Path(plan[0], "status").write_text(str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main()
