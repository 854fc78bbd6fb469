"""Files that are on the disk as a whole or not at all, whenever the process is killed or the machine stops."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from . import private


def sync_open(file: IO[Any]) -> None:
    """Syncs what was written to an open file to the disk."""
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
    """Opens a new file of mode 600, which is renamed to `path` when the block ends and the disk has its content.

    Until then a file of that name stays as it was, and if the block raises an error, too.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with private.opened(unfinished, mode) as file:
            yield file
            sync_open(file)
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # it has its name, or could not be made
            unfinished.unlink()


def replace(new: str, path: str) -> None:
    """Renames a file to `path`, with the owner, as far as permitted, and mode of the file there; syncs the name.

    The new file is in the same folder, or on the same disk, and synced.
    """
    old = os.stat(path)
    with suppress(PermissionError):
        os.chown(new, old.st_uid, old.st_gid)
    os.chmod(new, stat.S_IMODE(old.st_mode))  # last: else another group could read it for a moment
    os.replace(new, path)
    sync(os.path.dirname(path))
