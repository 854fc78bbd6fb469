"""Splits the content of archive files into batches of lines (docs/contract/archive.md#variations).

JSON is not parsed here. Damage and long lines become rejects, so every byte is accounted for, and no file stops a run.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...segment.json_text import BLANK
from ...segment.message import BOM, MAX_LINE, Batch, Reject, without_bom
from ...segment.not_json import too_long
from ..records import LINES_SCHEMA
from .blocks import BLOCK_BYTES, BlockReader, DamagedFile, UnreadableFile, open_readers
from .decompress import decompressed
from .listing import READ_TIMEOUT, File

Int64s = npt.NDArray[np.int64]

BATCH_BYTES = 32 << 20  # bytes of a batch
PIECE_BYTES = 1 << 20  # bytes of decompressed content at a time
CHUNK_ROWS = 8192  # rows of each chunk of a batch's table
ROW_BYTES = 24  # bytes that a line takes in a batch besides its text
NEWLINE = 10
BLANKS = BLANK.encode()


def read_batches(
    files: Sequence[File], *, batch_bytes: int = BATCH_BYTES, max_line: int = MAX_LINE, timeout: float = READ_TIMEOUT
) -> Iterator[Batch]:
    """Yields the files' lines in order, in batches of at most about `batch_bytes`, and rejects for what is unreadable.

    Gzip, zstd and plain text are recognised by their first bytes. Each line ends with `\\n`, even if the last line of a
    file does not; a `\\r` before it stays. Blank lines (of BLANKS) are counted, but may be left out.

    A damaged file ends with a `truncated` reject. So does a file that could not be read to its end, for which
    `Batch.ended` has the reason. A line of more than `max_line` bytes, not counting a byte-order mark at its start,
    becomes a `line_too_long` reject.

    A thread prepares the next batch while the caller uses this one. Memory stays within a few times `batch_bytes`,
    whatever the files hold. `timeout` is in seconds, for each block of up to 8 MiB of a file in an object store. Raises
    ArchiveError if MAX_UNANSWERED files in a row timed out.

    Example: `[len(batch.lines) for batch in read_batches(list_files(["exports"]))]`.
    """
    stop = Event()
    with closing(_batches(files, batch_bytes, max_line, timeout, stop)) as batches, ThreadPoolExecutor(1) as thread:
        try:
            ahead = thread.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = thread.submit(next, batches, None)
                yield batch
        finally:
            stop.set()


class _Stopped(Exception):
    """The consumer has stopped taking batches."""


class _Run(NamedTuple):
    """Whole lines of one file, numbered from `line`: the joined `parts`, split at `ends` (after each newline)."""

    file: int
    line: int
    size: int
    parts: list[bytes | memoryview]
    ends: Int64s


def _batches(
    files: Sequence[File], batch_bytes: int, max_line: int, timeout: float, stop: Event
) -> Generator[Batch, None, None]:
    piece = max(1, min(PIECE_BYTES, batch_bytes // 4))
    with closing(open_readers(files, piece, timeout)) as readers:
        yield from _fill(readers, piece, batch_bytes, max_line, stop)


def _fill(
    readers: Iterable[BlockReader], piece: int, batch_bytes: int, max_line: int, stop: Event
) -> Generator[Batch, None, None]:
    """Yields batches that are as full as `batch_bytes` allows; a batch may have lines of several files."""
    runs: list[_Run] = []
    rejects: list[Reject] = []
    ended: list[tuple[int, str | None]] = []
    weight = taken = 0
    for index, reader in enumerate(readers):
        lines = _lines(_until(stop, _without_bom(decompressed(reader, piece))), index, max_line)
        known = 0
        while True:
            try:
                item = next(lines)
            except StopIteration as end:
                ended.append((index, end.value))
                taken += max(0, reader.position - known)
                break
            more = len(item.raw) if isinstance(item, Reject) else item.size + ROW_BYTES * len(item.ends)
            if weight and weight + more > batch_bytes:
                yield _batch(runs, rejects, ended, taken, max_line)
                runs, rejects, ended, weight, taken = [], [], [], 0, 0
            weight += more
            taken, known = taken + max(0, reader.position - known), max(known, reader.position)
            if isinstance(item, Reject):
                rejects.append(item)
            else:
                runs.append(item)
    if ended:  # true unless there are no files, because the last one has ended by now
        yield _batch(runs, rejects, ended, taken, max_line)


def _batch(
    runs: list[_Run], rejects: list[Reject], ended: list[tuple[int, str | None]], taken: int, max_line: int
) -> Batch:
    table, long = _table(runs, max_line)
    return Batch(table, sorted(rejects + long, key=lambda reject: reject[:2]), ended, taken)


def _table(runs: list[_Run], max_line: int) -> tuple[pa.Table, list[Reject]]:
    """Returns the lines of the runs as one table over one buffer, and those that are too long as rejects."""
    if not runs:
        return LINES_SCHEMA.empty_table(), []
    text = b"".join(part for run in runs for part in run.parts)
    counts = np.array([len(run.ends) for run in runs])
    before = np.cumsum([0, *(run.size for run in runs[:-1])])
    rows = np.cumsum(counts) - counts
    offsets = np.zeros(counts.sum() + 1, np.int64)
    np.add(np.concatenate([run.ends for run in runs]), np.repeat(before, counts), out=offsets[1:])
    file = np.repeat(np.array([run.file for run in runs], np.int32), counts)
    line = np.arange(len(file)) + np.repeat(np.array([run.line for run in runs], np.int64) - rows, counts)
    column = pa.Array.from_buffers(pa.large_binary(), len(file), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    table = pa.Table.from_arrays([pa.array(file), pa.array(line), column], schema=LINES_SCHEMA)
    long = np.diff(offsets) - 1 > max_line
    rejects: list[Reject] = []
    for row in np.flatnonzero(long):
        content = without_bom(text[offsets[row] : offsets[row + 1] - 1])
        long[row] = len(content) > max_line
        if long[row] and content.strip(BLANKS):
            rejects.append(_too_long(int(file[row]), int(line[row]), len(content), content, max_line))
    if long.any():
        table = table.filter(pa.array(~long))
    return pa.Table.from_batches(table.to_batches(max_chunksize=CHUNK_ROWS), LINES_SCHEMA), rejects


def _too_long(file: int, line: int, size: int, start: bytes, max_line: int) -> Reject:
    cause = f" Likely cause: {why}." if (why := too_long(start)) else ""
    message = f"Expected a line of at most {max_line:,} bytes, but it has {size:,}.{cause}"
    return Reject(file, line, "line_too_long", message, start[:MAX_LINE])


# ---- lines of one file ---------------------------------------------------------------------------------------------


def _lines(pieces: Iterable[bytes], file: int, max_line: int) -> Generator[_Run | Reject, None, str | None]:
    """Yields the lines of a file's content. Returns why the file should be read again, or None."""
    splitter = _LineSplitter(file, max_line)
    trouble: DamagedFile | UnreadableFile | None = None
    try:
        for piece in pieces:
            yield from splitter.add(piece)
    except (DamagedFile, UnreadableFile) as error:
        trouble = error
    yield from splitter.end(trouble)
    return str(trouble) if isinstance(trouble, UnreadableFile) else None


class _LineSplitter:
    """Splits the content of one file after newlines, piece by piece."""

    def __init__(self, file: int, max_line: int) -> None:
        self._file, self._max_line = file, max_line
        self._line = 1  # the number of the line that has begun
        self._begun = _BegunLine(max(max_line, MAX_LINE))

    def add(self, piece: bytes) -> Iterator[_Run | Reject]:
        """Yields the lines that end in the next piece of the content; blank lines may only be counted."""
        if self._begun.blank and _is_blank(piece):
            cut = piece.rfind(b"\n") + 1
            self._line += int(np.count_nonzero(np.frombuffer(piece, np.uint8) == NEWLINE))
            if cut:
                self._begun = _BegunLine(self._begun.room)
            self._begun.add(piece[cut:])
            return
        ends = line_ends(piece)
        if not len(ends):
            self._begun.add(piece)
            return
        cut = int(ends[-1])
        yield from self._whole_lines(memoryview(piece)[:cut], ends)
        self._line += len(ends)
        self._begun = _BegunLine(self._begun.room)
        self._begun.add(piece[cut:])

    def _whole_lines(self, data: memoryview, ends: Int64s) -> Iterator[_Run | Reject]:
        """Yields the lines that end in `data`; the first of them began in earlier pieces."""
        begun = self._begun
        if begun.size <= begun.room:
            start = begun.start
            yield _Run(self._file, self._line, len(start) + len(data), [start, data], ends + len(start))
            return
        first = int(ends[0])
        begun.add(bytes(data[: first - 1]))
        if not begun.blank:
            yield _too_long(self._file, self._line, begun.size, bytes(begun.text), self._max_line)
        if len(ends) > 1:
            yield _Run(self._file, self._line + 1, len(data) - first, [data[first:]], ends[1:] - first)

    def end(self, trouble: Exception | None) -> Iterator[_Run | Reject]:
        """Yields the last line, if it has no newline, or a reject if `trouble` cut the content off."""
        begun = self._begun
        text = b"" if begun.blank else bytes(begun.text)
        if trouble:
            yield Reject(self._file, self._line, "truncated", str(trouble), text[:MAX_LINE])
        elif text and begun.size > self._max_line:
            yield _too_long(self._file, self._line, begun.size, text, self._max_line)
        elif text:
            start = begun.start
            yield _Run(self._file, self._line, len(start) + 1, [start, b"\n"], np.array([len(start) + 1]))


class _BegunLine:
    """A line of which only the beginning has been read: its size so far, and its first `room` bytes, `text`.

    The byte-order marks at its start (`marks` of them) are part of neither, and do not matter for whether it is blank.
    """

    def __init__(self, room: int) -> None:
        self.room, self.size, self.marks, self.text, self.blank = room, 0, 0, bytearray(), True

    def add(self, data: bytes) -> None:
        if self.size < len(BOM):  # a mark may be divided among pieces
            start = bytes(self.text) + data
            data = without_bom(start)
            self.marks += (len(start) - len(data)) // len(BOM)
            self.size, self.text, self.blank = 0, bytearray(), True
        self.text += data[: self.room - len(self.text)]
        self.size += len(data)
        self.blank = self.blank and _is_blank(data)

    @property
    def start(self) -> bytes:
        """The beginning of the line with its byte-order marks, of which at most `room` are kept."""
        return BOM * min(self.marks, self.room) + self.text


def _is_blank(data: bytes) -> bool:
    # isspace() is fast, but accepts one more character than BLANKS has.
    return not data or (data.isspace() and b"\x0b" not in data)


def line_ends(data: bytes) -> Int64s:
    """Returns the position after each newline."""
    view = np.frombuffer(data, np.uint8)
    if len(view) <= BLOCK_BYTES:
        return np.flatnonzero(view == NEWLINE) + 1
    # In blocks that stay in the processor's cache: twice as fast.
    blocks = range(0, len(view), BLOCK_BYTES)
    return np.concatenate([np.flatnonzero(view[at : at + BLOCK_BYTES] == NEWLINE) + (at + 1) for at in blocks])


def _until(stop: Event, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if stop.is_set():
            raise _Stopped
        yield piece


def _without_bom(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the same bytes without a byte-order mark at their beginning."""
    start = b""
    trouble: Exception | None = None
    try:
        while len(start) < len(BOM):
            start += next(pieces)
    except StopIteration:
        pass
    except (DamagedFile, UnreadableFile) as error:
        trouble = error
    if start := start.removeprefix(BOM):
        yield start
    if trouble:
        raise trouble
    yield from pieces
