"""Exports to a folder on this machine: locks it, and gives the files their names once all are complete."""

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .. import disk, private
from ..catalog import ARCHIVE_FOLDER, EXPORT_MARK
from ..errors import BusyError, RunError
from .target import MARK_TEXT, ExportTarget, is_own_file, not_empty_error

STAGE = f"{EXPORT_MARK}.files"
KILL_POINT_EXPORT_SYNCED = f"{__name__}:_sync_all"  # for tests/faults, in their order
KILL_POINT_EXPORT_NAMED = f"{__name__}:_publish_file"
KILL_POINT_EXPORT_UNMARKED = f"{__name__}:_unmark"


class ExportFolder(ExportTarget):
    """A folder of this machine. Raises BusyError if another export writes to it.

    The files wait in a hidden folder in it. An archive is renamed as a whole, tables one by one. The mark is removed
    last; until then no load reads any of the files.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.stage = path, path / STAGE

    def __enter__(self) -> "ExportFolder":
        try:
            private.folder(self.path)
            if not (self.path / EXPORT_MARK).exists() and any(self.path.iterdir()):
                raise not_empty_error(self.path)
            self._mark = self._lock()
            try:
                self._clear()
                self.stage.mkdir(private.FOLDER_MODE)
            except BaseException:
                self._mark.close()
                raise
        except OSError as error:
            raise RunError(f"Cannot write to {self.path}: {error.strerror}.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mark.close()

    def publish(self) -> int:
        """Gives all files their names once the disk has them, and returns how many there are."""
        _sync_all(self.stage)
        for waiting in sorted(self.stage.iterdir()):
            _publish_file(waiting, self.path / waiting.name)
        self.stage.rmdir()
        _sync(self.path)
        _unmark(self.path / EXPORT_MARK)
        return len(self._sizes)

    def _lock(self) -> IO[Any]:
        """Marks the folder as an export's, and returns the open mark, which is locked until it is closed."""
        mark = open(  # noqa: SIM115 - open for as long as the export runs
            self.path / EXPORT_MARK, "ab", opener=lambda name, flags: os.open(name, flags, private.FILE_MODE)
        )
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check_mark(mark)
        except OSError as error:
            mark.close()
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise BusyError(f"Another export writes to {self.path}. Name another folder, or wait for it.") from None
            raise
        except RunError:
            mark.close()
            raise
        return mark

    def _check_mark(self, mark: IO[Any]) -> None:
        """Writes the text of a new mark. Raises RunError if another export ended just before this one locked its mark.

        The folder then has files that were not there when this export checked that it was empty.
        """
        state = os.fstat(mark.fileno())
        if not state.st_nlink:
            raise not_empty_error(self.path)
        if not state.st_size:  # this export made it
            if [entry.name for entry in self.path.iterdir()] != [EXPORT_MARK]:
                (self.path / EXPORT_MARK).unlink()
                raise not_empty_error(self.path)
            mark.write(MARK_TEXT)
            mark.flush()
            _sync(self.path / EXPORT_MARK, self.path)
            with suppress(PermissionError):
                _sync(self.path.absolute().parent)

    def _clear(self) -> None:
        """Removes what an interrupted export left, published or not.

        Raises RunError if the archive's folder has anything else, because a folder cannot be renamed over another one.
        """
        if self.stage.exists():
            shutil.rmtree(self.stage)
        for file in [*self.path.glob("*.parquet"), *self.path.glob(f"{ARCHIVE_FOLDER}/*/*/*")]:
            if is_own_file(file.relative_to(self.path).as_posix()):
                file.unlink()
        for folder in [
            *self.path.glob(f"{ARCHIVE_FOLDER}/*/*"),
            *self.path.glob(f"{ARCHIVE_FOLDER}/*"),
            self.path / ARCHIVE_FOLDER,
        ]:
            with suppress(OSError):  # what is not an empty folder belongs to somebody else
                folder.rmdir()
        if (self.path / ARCHIVE_FOLDER).exists():
            raise not_empty_error(self.path)


def _sync_all(folder: Path) -> None:
    """Syncs all files and names below a folder to the disk."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(*paths: Path) -> None:
    """Syncs files, or the names in folders, to the disk."""
    for path in paths:
        try:
            disk.sync(path)
        except OSError as error:
            if error.errno != errno.EINVAL:  # raised by file systems that cannot sync a folder
                raise


def _publish_file(waiting: Path, named: Path) -> None:
    waiting.rename(named)


def _unmark(mark: Path) -> None:
    mark.unlink()
    _sync(mark.parent)
