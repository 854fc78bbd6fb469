"""Makes files and folders that only their owner can read, whatever the process's umask is.

The program sets its umask (`cli.main`), which covers all files that it and its libraries make. As a library, this
package leaves the umask alone, and makes its own files and folders with these functions.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from .errors import FolderNotOwned, RunError

UMASK = 0o077
FILE_MODE = 0o600
FOLDER_MODE = 0o700
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OF_THE_DISK = (*_NO_ROOM, errno.EIO)
_WRITERS = {stat.S_IWGRP: stat.S_IRGRP | stat.S_IWGRP, stat.S_IWOTH: stat.S_IROTH | stat.S_IWOTH}


def folder(path: Path) -> Path:
    """Makes a folder and its missing parents with mode 700, and returns it. An existing folder stays as it is."""
    missing = list(takewhile(lambda each: not each.exists(), (path, *path.parents)))
    for each in reversed(missing):
        with suppress(FileExistsError):  # another run made it at this moment
            each.mkdir(FOLDER_MODE)
    return path


def opened(path: Path | str, mode: str = "wb") -> IO[Any]:
    """Opens a new file of mode 600 for writing. An existing file or link is removed, never written through."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_EXCL, FILE_MODE))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns disk errors of the block, which writes files in a folder, into a RunError that names the folder.

    Errors of writing and syncing name no file. Errors that name a file elsewhere stay as they are.
    """
    try:
        yield
    except OSError as error:
        named = error.filename and Path(os.fsdecode(error.filename))
        if folder in (named, *named.parents) if named else error.errno in _OF_THE_DISK:
            raise RunError(f"Cannot write to {folder}: {error.strerror}.") from error
        raise


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Adds a file's name to disk errors while the block writes it, because errors of writing and syncing name none."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_THE_DISK and error.filename is None:
            error.filename = str(path)
        raise


def restrict(path: Path) -> None:
    """Sets a folder's mode to 700 if this process may do so."""
    with suppress(OSError):
        path.chmod(FOLDER_MODE)


def check_own(path: Path) -> None:
    """Raises FolderNotOwned if a part of a path belongs to another user, in a folder that everybody may write to.

    In such a folder (`/tmp`), anybody can prepare a folder or a link under a known name. Root is trusted.
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
    """Makes an empty DuckDB file of mode 600 if none exists. If that fails, DuckDB reports why when it opens the file.

    Raises OSError, or DuckDB's error, if the disk is full: DuckDB itself would leave part of a file behind, which it
    could never open again.
    """
    if path.exists():
        return
    import duckdb

    try:
        # Made in a temporary folder and then linked: in its place, others could open it until its mode is changed.
        with TemporaryDirectory(prefix=".", dir=path.parent) as temporary:
            new = Path(temporary, "new")
            duckdb.connect(str(new)).close()
            new.chmod(FILE_MODE)
            os.link(new, path)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise


def share_lock(lock: Path, guarded: Path) -> None:
    """Lets everybody who may write to a file, such as a database that a group shares, take the lock that guards it.

    The lock's permissions stay as they are if that file does not exist yet, or the lock belongs to another user.
    """
    with suppress(OSError):
        found = guarded.stat()
        os.chown(lock, -1, found.st_gid)
        lock.chmod(FILE_MODE | sum(both for bit, both in _WRITERS.items() if found.st_mode & bit))
