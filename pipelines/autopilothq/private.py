"""Files and folders that only their owner can read, whatever umask the process has.

The program sets its umask (`cli.main`), which covers all that it and its libraries make. As a library this package
leaves the process's umask alone, and makes its own files and folders with these functions.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import duckdb

from .errors import FolderNotOwned

UMASK = 0o077
FILE = 0o600
FOLDER = 0o700
_WRITERS = {stat.S_IWGRP: stat.S_IRGRP | stat.S_IWGRP, stat.S_IWOTH: stat.S_IROTH | stat.S_IWOTH}


def folder(path: Path) -> Path:
    """Makes a folder, and those above it that are missing, with mode 700. One that is there stays as it is."""
    missing = [path, *path.parents]
    for each in reversed(missing[: next(n for n, each in enumerate(missing) if each.exists())]):
        with suppress(FileExistsError):  # another run made it at this moment
            each.mkdir(FOLDER)
    return path


def opened(path: Path | str, mode: str = "wb") -> IO[Any]:
    """Opens a new file of mode 600 for writing. What is there by that name goes: it is not written through."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_EXCL, FILE))


def narrow(path: Path) -> None:
    """Takes a folder away from everybody but its owner, where this process may do so."""
    with suppress(OSError):
        path.chmod(FOLDER)


def check_own(path: Path) -> None:
    """Raises FolderNotOwned where another user, not root, owns a part of a path whose folder all may write to.

    In such a folder (`/tmp`) anybody can make a folder or a link by a name that is known before.
    """
    path = path.absolute()
    for above, part in zip(path.parents, (path, *path.parents), strict=False):
        try:
            shared, owner = above.stat().st_mode & stat.S_IWOTH, part.lstat().st_uid
        except FileNotFoundError:
            continue
        if shared and owner not in (0, os.geteuid()):
            raise FolderNotOwned(
                f"Expected {part} to be a folder of this user, because everybody may write to {above}, but it belongs"
                f" to user {owner}.\nName another folder for dlt's data: DLT_DATA_DIR=/path/to/folder"
            )


def database(path: Path) -> None:
    """Makes an empty DuckDB file of mode 600 where there is none; where it cannot, DuckDB says why when it opens it."""
    if path.exists():
        return
    # Made aside and linked: as DuckDB makes it, it could be opened by others until its mode is changed.
    with suppress(OSError, duckdb.Error), TemporaryDirectory(prefix=".", dir=path.parent) as aside:
        made = Path(aside, "new")
        duckdb.connect(str(made)).close()
        made.chmod(FILE)
        os.link(made, path)


def share_lock(lock: Path, guarded: Path) -> None:
    """Lets those take a lock who may write the file that it guards: a database that a group was given, say.

    The lock stays as it is where the file is not there yet, or the lock is another user's.
    """
    with suppress(OSError):
        found = guarded.stat()
        os.chown(lock, -1, found.st_gid)
        lock.chmod(FILE | sum(both for bit, both in _WRITERS.items() if found.st_mode & bit))
