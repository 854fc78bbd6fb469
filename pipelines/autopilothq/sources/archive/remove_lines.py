"""Rewrites an archive file without some of its lines, for the deletion of a person."""

import os
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import zstandard
from fsspec.implementations.local import LocalFileSystem

from ... import private
from ...disk import replace, sync_open
from ...display import visible
from ...errors import ArchiveError
from .batches import PIECE_BYTES, line_ends
from .blocks import BLOCK_BYTES, BlockReader, DamagedFile, UnreadableFile
from .decompress import compression, decompressed
from .listing import File, filesystem_errors, is_unchanged

TEMPORARY_SUFFIX = ".forgetting"  # of a file that is being written; the name begins with a dot, so no load reads it
KILL_POINT_FILE_REWRITTEN = f"{__name__}:_rewritten"  # for tests/faults
KILL_POINT_FILE_COMPARED = f"{__name__}:is_unchanged"  # for tests/faults
KILL_POINT_FILE_REPLACED = f"{__name__}:replace"  # for tests/faults


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def remove_lines(file: File, lines: Collection[int]) -> None:
    """Rewrites a file without these lines (numbered from 1), compressed as before; its other content stays the same.

    The new content is written to a temporary file that replaces the old one atomically (in a bucket: by one upload), so
    every reader finds either the old file or the new one. Raises ArchiveError, and leaves the file as it is, if it
    cannot be read to its end or was changed meanwhile.
    """
    local = isinstance(file.fs, LocalFileSystem)
    if not local and not file.fs.async_impl:
        raise ArchiveError(
            f"Expected a local file or one in a bucket, which can be replaced in one step, at {visible(file.url)}."
        )
    path = os.path.realpath(file.path) if local else file.path
    with ExitStack() as stack:
        if local:
            folder, name = os.path.split(path)
            temporary = os.path.join(folder, f".{name}{TEMPORARY_SUFFIX}")
            stack.callback(Path(temporary).unlink, missing_ok=True)  # if anything fails; otherwise it was renamed
        else:
            temporary = os.path.join(stack.enter_context(TemporaryDirectory()), "new")
        _write(file, frozenset(lines), temporary)
        file.fs.invalidate_cache()
        with filesystem_errors(file.url):
            if not is_unchanged(file):
                raise ArchiveError(f"{visible(file.url)} was changed by another program. Run this again.")
            if local:
                replace(temporary, path)
            else:
                file.fs.put_file(temporary, path)


def _write(file: File, lines: frozenset[int], temporary: str) -> None:
    with private.naming(temporary), private.opened(temporary) as out:
        try:
            out.writelines(_rewritten(file, lines))
        except (DamagedFile, UnreadableFile) as error:
            raise ArchiveError(f"{visible(file.url)} was left as it is. {error}") from error
        sync_open(out)


def _rewritten(file: File, lines: frozenset[int]) -> Iterator[bytes]:
    """Yields the bytes to store for a file without these lines of its content."""
    with closing(BlockReader(file, BLOCK_BYTES)) as reader:
        format_ = compression(reader.peek(4))
        kept = _without(decompressed(reader, PIECE_BYTES), lines)
        match format_:
            case "gzip":
                yield from _compressed(kept, zlib.compressobj(wbits=31))
            case "zstd":
                yield from _compressed(kept, zstandard.ZstdCompressor().compressobj())
            case None:
                yield from kept


def _compressed(pieces: Iterable[bytes], compressor: _Compressor) -> Iterator[bytes]:
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _without(pieces: Iterable[bytes], lines: frozenset[int]) -> Iterator[bytes]:
    """Yields the content without these lines, whose numbers are those of `read_batches`."""
    line = 1
    for piece in pieces:
        at = 0
        for end in [*line_ends(piece).tolist(), len(piece)]:
            if line not in lines:
                yield piece[at:end]
            at = end
            line += 1
        line -= 1  # the line after the last newline continues in the next piece
