"""Writes files atomically: each is on the disk completely or not at all, even if the process or the machine stops."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from . import private


def local_path(url: str) -> str:
    """Returns the local path that a path or a URL `file://…` names; a `~` at its beginning is the home folder.

    A shell expands no `~` in quotes or in settings. fsspec and DuckDB expand it as this function does.
    """
    return os.path.expanduser(url.removeprefix("file://"))


def sync_open(file: IO[Any]) -> None:
    """Syncs an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync(path: Path | str) -> None:
    """Syncs a file, or the names in a folder, to the disk. Raises OSError (EINVAL) if its file system cannot."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def rewriting(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Yields a new file of mode 600, which is synced to the disk and renamed to `path` when the block ends.

    Until then, and if the block raises an error, an existing file of that name stays as it was.
    """
    unfinished = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with private.naming(path), private.opened(unfinished, mode) as file:
            yield file
            sync_open(file)
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # it was renamed, or could not be made
            unfinished.unlink()


def replace(new: str, path: str) -> None:
    """Replaces the file at `path` with `new`, keeping its mode and, as far as permitted, its owner and group.

    If the group cannot be kept, the new group and all others get only the rights that both the old group and all others
    had. `new` must be a synced file on the same disk; its new name is synced here.
    """
    old = os.stat(path)
    mode = stat.S_IMODE(old.st_mode)
    if not (_chown(new, old.st_uid, old.st_gid) or _chown(new, -1, old.st_gid)):
        both = mode >> 3 & mode & stat.S_IRWXO
        mode = mode & stat.S_IRWXU | both << 3 | both
    os.chmod(new, mode)  # after the change of group, or another group could read it for a moment
    os.replace(new, path)
    sync(os.path.dirname(path))


def _chown(path: str, owner: int, group: int) -> bool:
    """Changes a file's owner (-1: keeps it) and group. Returns whether that is permitted."""
    try:
        os.chown(path, owner, group)
    except OSError:
        return False
    return True
