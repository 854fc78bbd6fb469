"""Reads lines from a pipe or a file in chunks as they come; nothing is read while a chunk is processed."""

import os
import select
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from ..errors import RunError
from ..segment.json_text import BLANK
from ..segment.message import MAX_LINE, is_blank_line, without_bom

CHUNK_LINES: Final = 1000  # one query of the delivery log covers as many
CHUNK_BYTES: Final = 8 << 20
CHUNK_SECONDS: Final = 1.0  # how long the first line of a chunk waits for others
_PIECE = 1 << 16  # bytes; a pipe holds no more
_GZIP = b"\x1f\x8b"


class StopSignal:
    """A flag that ends a stream; signal handlers may set it. Its pipe wakes the thread that waits for lines."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self.is_set = False

    def set(self) -> None:
        """Asks the stream to end after the lines that were read."""
        if not self.is_set:
            self.is_set = True
            os.write(self._writing, b".")

    def wait(self, seconds: float) -> bool:
        """Waits until the stream is asked to end, at most `seconds`. Returns whether it was asked to."""
        select.select([self._reading], [], [], seconds)
        return self.is_set

    def readable(self, file: int, seconds: float | None) -> bool:
        """Waits for data in a file and returns True; returns False after `seconds`, or if asked to end."""
        ready, _, _ = select.select([file, self._reading], [], [], seconds)
        return file in ready and not self.is_set

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self._reading)
        os.close(self._writing)


def read_chunks(
    file: int, stop: StopSignal, most: int = CHUNK_LINES, seconds: float = CHUNK_SECONDS
) -> Iterator[list[bytes]]:
    """Yields the lines of a file descriptor in chunks, without line ends and blank lines, until `stop` or the end.

    A chunk ends after `most` lines, after 8 MiB, or `seconds` after its first line was read. While the caller uses a
    chunk, nothing is read, so that the writer blocks. A line of more than 1 MiB is truncated to 1 MiB and a byte.

    Raises RunError for compressed input.

    Example: `for lines in read_chunks(0, StopSignal()): print(len(lines))`.
    """
    reader = _Reader(file, stop)
    while not reader.ended or reader.lines:
        chunk: list[bytes] = []
        size = 0
        until: float | None = None
        while len(chunk) < most and size < CHUNK_BYTES:
            if not reader.lines and not reader.read(None if until is None else until - time.monotonic()):
                break
            until = until or time.monotonic() + seconds
            if reader.lines:
                chunk.append(reader.lines.popleft())
                size += len(chunk[-1])
        if chunk:
            yield chunk


class _Reader:
    """Reads a file descriptor, and buffers the lines that were read and not taken yet."""

    def __init__(self, file: int, stop: StopSignal) -> None:
        self.lines: deque[bytes] = deque()
        self.ended = False
        self._file = file
        self._stop = stop
        self._begun = b""
        self._first = True

    def read(self, seconds: float | None) -> bool:
        """Waits for data and reads it. Returns False if none came within `seconds`, or none will come."""
        if self.ended or (seconds is not None and seconds <= 0):
            return False
        if not self._stop.readable(self._file, seconds):
            self.ended = self._stop.is_set  # an unfinished line is dropped
            return False
        piece = os.read(self._file, _PIECE)
        if self._first and piece.startswith(_GZIP):
            raise RunError("Expected lines of JSON from -, got gzip.\nUnpack it on the way: zcat FILE | autopilothq …")
        self._first = False
        if not piece:
            self.ended = True
            self._take([self._begun])
            return bool(self.lines)
        *whole, rest = piece.split(b"\n")
        if whole:
            whole[0] = self._begun + whole[0]
            self._begun = b""
            self._take(whole)
        self._begun = _shortened(without_bom(self._begun + rest))
        return True

    def _take(self, lines: list[bytes]) -> None:
        self.lines.extend(_shortened(without_bom(line)) for line in lines if not is_blank_line(line))


def _shortened(line: bytes) -> bytes:
    """Returns the first MAX_LINE + 1 bytes of a line. If all are blank, the last one is replaced by one that is not."""
    start, rest = line[: MAX_LINE + 1], line[MAX_LINE + 1 :].strip(BLANK.encode())
    return start[:-1] + rest[:1] if rest and is_blank_line(start) else start
