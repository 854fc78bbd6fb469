"""The receiver's files: open ones, which are hidden, and published ones, which `load archive` reads.

Files are in `segment-logs/{endpoint}/{day}/`, where `day` is the midnight (UTC) of the day of receipt, in milliseconds
since 1970. The names of open files begin with a dot, and the process that writes a file holds a lock on it. Publishing
compresses a file into another one and then renames that one, so a file of the archive is always complete. The lock on a
killed process's file is free, so another process publishes the file.
"""

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isal import igzip

from .. import disk, private
from ..catalog import ARCHIVE_FOLDER
from ..utc import DAY_MS

OPEN, PART, DONE = ".open", ".part", ".gz"
ORDER = "publish"
"""The hidden file in the folder that makes all processes publish their open files when it changes."""
MOST_VECTORS = 1000  # buffers of one writev; Linux accepts 1,024
PIECE_SIZE = 1 << 20  # bytes that are read at once
TRY_SIZE = 64 << 10  # bytes; more than most requests


@dataclass
class OpenFile:
    """A file that messages are appended to. `size` is the number of bytes that are known to be on the disk."""

    path: Path
    descriptor: int
    opened: float
    size: int = 0
    lines: int = 0
    day: int = 0

    def append(self, pieces: list[bytes]) -> None:
        """Appends bytes and syncs them to the disk. If it raises OSError, nothing was appended."""
        try:
            _write_all(self.descriptor, pieces)
            os.fdatasync(self.descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, self.size)
            raise
        self.size += sum(map(len, pieces))

    def is_deleted(self) -> bool:
        """Returns whether the file was removed, so that messages appended to it would be lost."""
        return os.fstat(self.descriptor).st_nlink == 0

    def close(self) -> None:
        """Closes the file and so releases its lock."""
        os.close(self.descriptor)


def _write_all(descriptor: int, pieces: list[bytes]) -> None:
    for start in range(0, len(pieces), MOST_VECTORS):
        buffers = pieces[start : start + MOST_VECTORS]
        missing = sum(map(len, buffers)) - os.writev(descriptor, buffers)
        if missing:  # a full disk, or a signal; writing the rest either succeeds or raises
            rest = b"".join(buffers)[-missing:]
            while rest:
                rest = rest[os.writev(descriptor, [rest]) :]


def midnight(at: float) -> int:
    """Returns when the UTC day of a time began, in milliseconds since 1970; `at` is in seconds since 1970."""
    return int(at * 1000) // DAY_MS * DAY_MS


def open_file(folder: Path, endpoint: str, now: float) -> OpenFile:
    """Creates a file for an endpoint's messages of today, and syncs its name to the disk."""
    day = midnight(now)
    folder_of_day = folder / ARCHIVE_FOLDER / endpoint / str(day)
    while True:
        make_folder(folder_of_day)
        path = folder_of_day / f".{int(now * 1000)}-{uuid.uuid4().hex}{OPEN}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if _is_ours(descriptor):
                disk.sync(folder_of_day)
                return OpenFile(path, descriptor, time.monotonic(), day=day)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def try_disk(folder: Path, endpoint: str, now: float) -> None:
    """Raises OSError if an endpoint's messages cannot be written. Leaves no file of the archive, even if killed."""
    file = open_file(folder, endpoint, now)
    try:
        file.append([b" " * TRY_SIZE])  # without a line break: if the process is killed, recovery cuts it off
    finally:
        with contextlib.suppress(FileNotFoundError):
            file.path.unlink()
        file.close()


def _is_ours(descriptor: int) -> bool:
    """Locks a new file; returns False if another process took it for one of a killed process and may remove it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def make_folder(folder: Path) -> None:
    """Creates a folder and its missing parents, and syncs the name of each to the disk. Raises OSError."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        private.folder(each)
        disk.sync(each.parent)


def publish(path: Path) -> Path | None:
    """Turns a closed file into a file of the archive; returns the new path, or None if the file is empty.

    It can be repeated after a kill at any moment: the published file has the same name and the same lines.
    """
    done = published_name(path)
    if not path.stat().st_size:
        path.unlink()
        return None
    if not done.exists():
        part = path.with_name(path.name.removesuffix(OPEN) + PART)
        compress(path, part)
        rename(part, done)
    path.unlink()
    disk.sync(path.parent)
    return done


def published_name(path: Path) -> Path:
    """Returns the path of an open file after its publication."""
    return path.with_name(path.name.removeprefix(".").removesuffix(OPEN) + DONE)


def compress(path: Path, part: Path) -> None:
    """Writes a file's gzip and syncs it to the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with private.naming(part), open(path, "rb") as lines, open(os.open(part, flags, 0o600), "wb") as raw:
        with igzip.open(raw, "wb", compresslevel=2) as packed:  # type: ignore[no-untyped-call]
            while piece := lines.read(PIECE_SIZE):
                packed.write(piece)
        disk.sync_open(raw)


def rename(part: Path, done: Path) -> None:
    """Renames a file, and syncs the name to the disk."""
    part.rename(done)
    disk.sync(done.parent)


def open_files(folder: Path) -> Iterator[Path]:
    """Yields the open files, including those of running processes."""
    yield from sorted((folder / ARCHIVE_FOLDER).glob(f"*/*/.*{OPEN}"))


def published_files(folder: Path) -> Iterator[Path]:
    """Yields the files of the archive."""
    yield from sorted((folder / ARCHIVE_FOLDER).glob(f"*/*/[!.]*{DONE}"))


def begun_at(path: Path) -> float:
    """Returns when a file was created according to its name, or when it was last changed, in seconds since 1970.

    Example: `begun_at(Path(".1772600767000-0f.open")) == 1772600767.0`.
    """
    name = path.name.removeprefix(".").partition("-")[0]
    return int(name) / 1000 if name.isascii() and name.isdigit() else path.stat().st_mtime


def recover(folder: Path) -> list[Path]:
    """Publishes the files of killed processes, without incomplete last lines; returns their new paths.

    A file that fails does not hold up the others: all are tried, then the last OSError is raised.
    """
    found, failed = [], None
    for path in open_files(folder):
        try:
            found += _publish_left(path)
        except OSError as error:
            failed = error
    for part in (folder / ARCHIVE_FOLDER).glob(f"*/*/.*{PART}"):
        if not part.with_name(part.name.removesuffix(PART) + OPEN).exists():
            part.unlink(missing_ok=True)
    if failed:
        raise failed
    return found


def _publish_left(path: Path) -> list[Path]:
    with _left(path) as is_left:
        if not is_left:
            return []
        _cut_torn_line(path)
        done = publish(path)
        return [done] if done else []


@contextlib.contextmanager
def _left(path: Path) -> Iterator[bool]:
    """Locks a file. Yields False if a running process holds the lock, or if the file is missing."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield path.exists()  # it may have been published before it was locked
    finally:
        os.close(descriptor)


def _cut_torn_line(path: Path) -> None:
    """Truncates a file after its last line break. The rest was not acknowledged to any sender."""
    with open(path, "r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - PIECE_SIZE)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            disk.sync_open(file)
