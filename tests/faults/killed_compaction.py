"""Puts a receiver's files together, and is killed on the way: a program of the tests.

Its argument is a file with a list of plans: a folder with the dataset and the archive, and the point where it is
killed. It prints `number status` for each. Each runs in a process of its own.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

from autopilothq import compaction
from faults.killed import kill_at


def run(folder: str, point: tuple[str, str, int] | None) -> None:
    os.chdir(folder)
    os.environ["DLT_DATA_DIR"] = str(Path(folder, "dlt"))
    if point:
        kill_at(*point)
    compaction.compact(f"{folder}/archive", credentials=f"{folder}/autopilot.duckdb", now=time.time())


def main() -> None:
    for number, plan in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        child = os.fork()
        if not child:
            try:
                sys.stdout = sys.stderr
                run(*plan)
                os._exit(0)
            except BaseException:  # noqa: BLE001 - what it is, is printed
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{number} {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
