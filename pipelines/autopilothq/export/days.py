"""Writes the files of an archive: takes lines in any order, and writes a folder for each day."""

import zlib

from ..catalog import ARCHIVE_FOLDER
from ..utc import DAY_MS
from .target import SOURCE_FOLDER, ExportTarget

BUFFERED = 48_000_000  # bytes of lines, for all days together
MOST_FILE_BYTES = 100_000_000  # bytes of a compressed file; then the next file begins, as in Segment's archives
LEVEL = 4


class DayFiles:
    """Writes lines to the files of their days, in parts: one for each day, each time the buffers are full.

    A part is a gzip member, so that no file stays open and memory does not grow with the days.
    """

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        self._buffers: dict[int, list[bytes]] = {}
        self._numbers: dict[int, int] = {}
        self._buffered = 0

    def add(self, day: int, line: bytes) -> None:
        """Adds a line, with its line break, to a day, which is a number of days since 1970."""
        self._buffers.setdefault(day, []).append(line)
        self._buffered += len(line)
        if self._buffered >= BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Writes what is buffered."""
        for day, lines in self._buffers.items():
            number = self._numbers.get(day, 1)
            name = f"{ARCHIVE_FOLDER}/{SOURCE_FOLDER}/{day * DAY_MS}/export-{number:04}.gz"
            if self._target.append(name, _compressed(b"".join(lines))) >= MOST_FILE_BYTES:
                self._numbers[day] = number + 1
        self._buffers.clear()
        self._buffered = 0


def _compressed(data: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)  # 31: a member of gzip, without a time
    return packer.compress(data) + packer.flush()
