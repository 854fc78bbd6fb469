"""Where an export is written: the files wait on this machine, and are published once all of them are complete."""

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any

from .. import private
from ..catalog import ARCHIVE_FOLDER
from ..errors import RunError

SOURCE_FOLDER = "autopilothq"
"""Stands in for the id of Segment's source, because rows do not say which source they came from."""
MARK_TEXT = b"This export has not ended, or was cut off. An export to this place starts from scratch.\n"
_OWN_FILE = re.compile(rf"{ARCHIVE_FOLDER}/{SOURCE_FOLDER}/-?[0-9]+/export-[0-9]+\.gz|[^/]+\.parquet")


class ExportTarget(ABC):
    """A folder, or a prefix of a bucket, for an export. An interrupted export in it is started from scratch.

    Files wait in a folder of this machine until `publish` is called. Entering the target raises RunError if it has
    anything but an interrupted export.
    """

    stage: Path
    """Where the files wait; it exists once the target was entered."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def append(self, name: str, data: bytes) -> int:
        """Appends to a file that is not published yet, and returns its size."""
        file = self.stage / name
        if name not in self._sizes:
            private.folder(file.parent)
        with file.open("ab") if name in self._sizes else private.opened(file) as out:
            out.write(data)
        self._sizes[name] = self._sizes.get(name, 0) + len(data)
        return self._sizes[name]

    def create(self, name: str) -> IO[Any]:
        """Returns a new file that is not published yet, for writing."""
        self._sizes[name] = 0
        return private.opened(private.folder((self.stage / name).parent) / Path(name).name)

    @abstractmethod
    def publish(self) -> int:
        """Publishes all files under their names, and returns how many there are."""


def is_own_file(name: str) -> bool:
    """Returns whether a name below the target is one that exports give to their files.

    Example: `is_own_file("segment-logs/autopilothq/1551398400000/export-0001.gz")`.
    """
    return _OWN_FILE.fullmatch(name) is not None


def not_empty_error(target: object) -> RunError:
    """Returns the error for a target that has anything but an interrupted export."""
    return RunError(
        f"Expected {target} to be an empty folder, or a new one, but there is something in it.\n"
        "Name another folder, or move what is in it."
    )
