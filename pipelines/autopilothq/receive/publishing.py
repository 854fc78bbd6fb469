"""Publishes a receiver's open files now, for callers that must see all messages received so far.

Files that no process has locked are published here. Running processes watch the hidden file `ORDER` in their folder,
and publish their open files when it changes.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..catalog import ARCHIVE_FOLDER
from ..display import visible
from ..errors import BusyError
from .files import ORDER, open_files, recover

COMPACTING = ".compacting"
"""The suffix of the hidden file into which several files are being joined."""
WAIT = 15.0  # seconds that running processes have to publish
LOOK_SECONDS = 0.1  # seconds between checks whether all files are published


def receiver_folders(path: Path) -> list[Path]:
    """Returns the folders of receivers that have files at a path: the folder that it is in, or those below it.

    Example: `receiver_folders(Path("/data/segment-logs/v1")) == [Path("/data")]`.
    """
    for above in (path, *path.parents):
        if above.name == ARCHIVE_FOLDER:
            return [above.parent]
    return sorted(logs.parent for logs in path.rglob(ARCHIVE_FOLDER) if logs.is_dir())


def publish_open(folder: Path) -> list[Path]:
    """Publishes the files that are open now; returns those that are still open after `WAIT` seconds.

    Raises OSError if the files may not be read or written.
    """
    before = list(open_files(folder))
    if before:
        recover(folder)
    until, ordered = time.monotonic() + WAIT, False
    while (before := [path for path in before if path.exists()]) and time.monotonic() < until:
        if not ordered:
            order(folder)
            ordered = True
        time.sleep(LOOK_SECONDS)
        recover(folder)  # a process may have been killed meanwhile
    return before


def order(folder: Path) -> None:
    """Makes all processes that receive into a folder publish their open files."""
    path = folder / f".{ORDER}"
    path.touch(0o600)
    now = time.time_ns()
    os.utime(path, ns=(now, now))  # otherwise two orders within one tick of the file system's clock would look the same


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other compactions and deletions of persons from changing a receiver's published files.

    Raises BusyError if one is running, OSError if there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"Expected to change the files in {visible(str(folder))} alone, but another program compacts them, or"
                " forgets a person.\nTry again when it has ended."
            ) from None
        yield
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Deletes the unfinished files of killed compactions. Call it within `alone`."""
    for path in (folder / ARCHIVE_FOLDER).glob(f"*/*/.*{COMPACTING}"):
        path.unlink()
