"""The folder of an export: whose it is, and files that have their names only once all of them are whole."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .. import private
from ..errors import BusyError, RunError

EXPORT_MARK = ".autopilothq-export"
"""The file that says that a folder is an export's which has not ended."""
SOURCE_FOLDER = "autopilothq"
"""What stands in place of the id of Segment's source: rows do not say which source they came from."""


class ExportFolder:
    """A folder that is empty, or has an export that was cut off, which starts anew.

    Files are written under hidden names. They get their own when `publish` is called. Raises RunError where the folder
    has something else, BusyError where another export writes to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[Path, int] = {}

    def __enter__(self) -> "ExportFolder":
        try:
            private.folder(self.path)
            if not (self.path / EXPORT_MARK).exists() and any(self.path.iterdir()):
                raise RunError(
                    f"Expected {self.path} to be an empty folder, or a new one, but there is something in it.\n"
                    "Name another folder, or move what is in it."
                )
            self._mark = self._locked()
        except OSError as error:
            raise RunError(f"Cannot write to {self.path}: {error.strerror}.") from error
        for file in _own_files(self.path):
            file.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mark.close()

    def append(self, name: str, data: bytes) -> int:
        """Appends to a file that is not published yet, and returns its size."""
        file = self.path / name
        if file not in self._files:
            private.folder(file.parent)
        with self._opened(file) as out:
            out.write(data)
        self._files[file] = self._files.get(file, 0) + len(data)
        return self._files[file]

    def create(self, name: str) -> IO[Any]:
        """Returns a new file that is not published yet, for writing."""
        file = self.path / name
        private.folder(file.parent)
        self._files[file] = 0
        return private.opened(hidden(file))

    def publish(self) -> int:
        """Gives all files their names, and returns how many there are."""
        for file in self._files:
            os.replace(hidden(file), file)
        (self.path / EXPORT_MARK).unlink()
        return len(self._files)

    def _opened(self, file: Path) -> IO[Any]:
        return open(hidden(file), "ab") if file in self._files else private.opened(hidden(file))

    def _locked(self) -> IO[Any]:
        """Marks the folder as an export's; the mark is locked for as long as it is open."""
        mark = open(  # noqa: SIM115 - open for as long as the export runs
            self.path / EXPORT_MARK, "ab", opener=lambda name, flags: os.open(name, flags, private.FILE_MODE)
        )
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            mark.close()
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise BusyError(f"Another export writes to {self.path}. Name another folder, or wait for it.") from None
            raise
        return mark


def hidden(file: Path) -> Path:
    """Returns the name of a file before it is published. Loads leave out files whose names begin with a dot."""
    return file.with_name(f".{file.name}.part")


def _own_files(folder: Path) -> Iterator[Path]:
    """Yields what an export that was cut off has left, published or not."""
    for pattern in (f"segment-logs/{SOURCE_FOLDER}/*/export-*.gz", "*.parquet"):
        yield from folder.glob(pattern)
        yield from folder.glob(str(hidden(Path(pattern))))
