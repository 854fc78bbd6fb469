"""Has a receiver's open files published now, for who must see all that was received so far.

Files that no process holds are published here. Processes that run look at a hidden file below their folder, `ORDER`,
and publish what they have open when it changes.
"""

import os
import time
from pathlib import Path

from .files import LOGS, ORDER, open_files, recover

WAIT = 15.0  # seconds for processes that run
LOOK_SECONDS = 0.1  # seconds between looks


def receiver_folders(path: Path) -> list[Path]:
    """Returns the folders of receivers that have files at a path: the one that it lies in, or those below it.

    Example: `receiver_folders(Path("/data/segment-logs/v1")) == [Path("/data")]`.
    """
    for above in (path, *path.parents):
        if above.name == LOGS:
            return [above.parent]
    return sorted(logs.parent for logs in path.rglob(LOGS) if logs.is_dir())


def publish_open(folder: Path, wait: float = WAIT) -> list[Path]:
    """Publishes the files that are open now, and returns those that are still open after `wait` seconds.

    Raises OSError where the files may not be read or written.
    """
    before = list(open_files(folder))
    if before:
        recover(folder)
    until, ordered = time.monotonic() + wait, False
    while (before := [path for path in before if path.exists()]) and time.monotonic() < until:
        if not ordered:
            order(folder)
            ordered = True
        time.sleep(LOOK_SECONDS)
        recover(folder)  # a process may have been killed meanwhile
    return before


def order(folder: Path) -> None:
    """Has all processes that receive into a folder publish what they have open."""
    path = folder / f".{ORDER}"
    path.touch(0o600)
    now = time.time_ns()
    os.utime(path, ns=(now, now))  # a second order within the same tick of the file system is another one
