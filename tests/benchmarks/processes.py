"""Measures what programs cost, with all their child processes: wall time, processor time, and memory."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

EVERY = 0.1  # seconds between two measurements of all processes' memory


class Cost(NamedTuple):
    """What a program took: seconds of wall time, seconds of processor time, and peak memory in MB."""

    wall: float
    cpu: float
    memory: float


class Failed(Exception):
    """A program ended with a status other than 0, or not in time; the message is the end of its output."""


def measured(
    words: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None, timeout: float | None = None
) -> Cost:
    """Runs a program to its end, and returns its cost. Raises Failed.

    The memory is the maximum of what any of its processes took, and of what all took together when it was measured.
    """
    with (cwd / "output.txt").open("wb") as output:
        started = time.monotonic()
        child = subprocess.Popen(
            words, cwd=cwd, env=os.environ | (env or {}), stdout=output, stderr=output, start_new_session=True
        )
        together = 0.0
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            together = max(together, _resident(child.pid))
            if timeout is not None and time.monotonic() - started > timeout:
                os.killpg(child.pid, 9)
            time.sleep(EVERY if time.monotonic() - started > 1 else EVERY / 10)
        wall = time.monotonic() - started
    child.returncode = os.waitstatus_to_exitcode(status)  # otherwise Popen would take it for still running
    if child.returncode:
        said = (cwd / "output.txt").read_text(errors="replace").strip().splitlines()
        raise Failed(said[-1] if said else f"status {child.returncode}")
    largest = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return Cost(wall, usage.ru_utime + usage.ru_stime, max(largest, together))


def _resident(session: int) -> float:
    """Returns the memory of all processes of a session in MB; 0 if the system has no `/proc`."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                pages += int((process / "statm").read_text().split()[1])
        except OSError:  # it has ended
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
