"""Decompresses gzip, zstd and plain files, up to the last good byte of a damaged one."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

import zstandard
from isal import igzip_lib

from .blocks import BLOCK_BYTES, BlockReader, DamagedFile

HEADER = 1024

_INTACT_ZSTD = {
    "Dictionary mismatch": "a dictionary: compress the file again without one",
    "Frame requires too much memory": "a window of over 128 MiB: compress the file again without --long and --ultra",
}
"""What libzstd says of data that are not damaged, and what such data need."""


def compression(head: bytes) -> Literal["gzip", "zstd"] | None:
    """Returns a file's compression by its first four bytes, or fewer if it has no more; None for plain text."""
    if head[:2] == b"\x1f\x8b" or head == b"\x1f":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or head[1:4] == b"\x2a\x4d\x18" or head in (b"\x28\xb5", b"\x28\xb5\x2f"):
        return "zstd"
    return None


def decompressed(reader: BlockReader, piece: int) -> Iterator[bytes]:
    """Yields a file's content in pieces of about `piece` bytes.

    Raises DamagedFile or UnreadableFile after the last good byte.
    """
    match compression(reader.peek(4)):
        case "gzip":
            yield from _gunzip(reader, piece)
        case "zstd":
            yield from (data[at : at + piece] for data in _unzstd(reader) for at in range(0, len(data), piece))
        case None:
            yield from iter(lambda: reader.read(piece), b"")


# ---- gzip ----------------------------------------------------------------------------------------------------------


class _Inflater(Protocol):
    """The interface of isal's decompressor of one gzip member."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _gunzip(reader: BlockReader, piece: int) -> Iterator[bytes]:
    given = 0
    try:
        for data in _gzip_members(reader, piece, lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)):
            given += len(data)
            yield data
    except igzip_lib.IsalError:  # type: ignore[misc]  # its stub says that this is an exception, not a class
        # isal returns nothing of the piece in which it fails: the file is read again, slowly, up to the last good byte.
        reader.restart()
        yield from _skip(given, _gzip_members(reader, piece, _SlowInflater))


def _gzip_members(reader: BlockReader, piece: int, inflater: Callable[[], _Inflater]) -> Iterator[bytes]:
    """Yields the content of all gzip members of a file, one after another."""
    member = inflater()
    reader.peek(HEADER)
    while True:
        data = reader.read(BLOCK_BYTES) if member.needs_input else b""
        if member.needs_input and not data:
            raise DamagedFile(
                f"The file was cut off: it ends at byte {reader.position:,}, in the middle of its gzip data."
            )
        try:
            inflated = member.decompress(data, piece)
        except zlib.error as error:
            at = reader.position - len(getattr(member, "pending", b""))
            raise DamagedFile(f"The file is damaged: its gzip data are wrong near byte {at:,} ({error}).") from error
        if inflated:
            yield inflated
        if member.eof:
            if not _has_another_member(reader, member.unused_data):
                return
            member = inflater()
            # If a header comes in two pieces, isal mistakes its checksum for content.
            reader.peek(HEADER)


def _has_another_member(reader: BlockReader, rest: bytes) -> bool:
    """Returns whether another gzip member follows; zeros between and after members are skipped."""
    reader.unread(rest)
    while data := reader.read():
        if found := data.lstrip(b"\0"):
            reader.unread(found)
            if not found.startswith(b"\x1f"):
                raise DamagedFile(
                    f"The file is damaged: its gzip data are followed by garbage at byte {reader.position:,}."
                )
            return True
    return False


class _SlowInflater:
    """Decompresses one gzip member. It raises an error only after it has returned all good bytes before it."""

    def __init__(self) -> None:
        self.inflater = zlib.decompressobj(31)
        self.pending = b""

    @property
    def eof(self) -> bool:
        return self.inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self.pending

    @property
    def unused_data(self) -> bytes:
        return self.inflater.unused_data + self.pending

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self.pending += data
        size = len(self.pending)
        while True:
            before = self.inflater.copy()
            try:
                inflated = self.inflater.decompress(self.pending[:size], max_length)
            except zlib.error:
                self.inflater = before
                if size > 1:
                    size //= 2
                elif max_length > 1:
                    max_length //= 2
                else:
                    raise
            else:
                self.pending = self.inflater.unconsumed_tail + self.pending[size:]
                return inflated


# ---- zstd ----------------------------------------------------------------------------------------------------------


def _unzstd(reader: BlockReader) -> Iterator[bytes]:
    given = 0
    try:
        for data in _zstd_frames(reader, None):
            given += len(data)
            yield data
    except zstandard.ZstdError:
        # As with gzip: read again, byte by byte, up to the damage.
        good = reader.position
        reader.restart()
        yield from _skip(given, _zstd_frames(reader, good))


def _zstd_frames(reader: BlockReader, good: int | None) -> Iterator[bytes]:
    """Yields the content of all zstd frames of a file.

    With `good`, it decompresses bytes from that position on one by one, and raises DamagedFile for an error.
    """
    frame, fresh = zstandard.ZstdDecompressor().decompressobj(), True
    # Four bytes can expand to 128 KiB, and zstd returns all of it at once, so it gets only few bytes at a time.
    while data := reader.read(1024 if good is None else min(1024, max(1, good - reader.position))):
        fresh = False
        try:
            inflated = frame.decompress(data)
        except zstandard.ZstdError as error:
            reader.unread(data)
            if good is None:
                raise
            raise DamagedFile(_zstd_message(error, reader.position)) from error
        if inflated:
            yield inflated
        if frame.eof:
            reader.unread(frame.unused_data)
            frame, fresh = zstandard.ZstdDecompressor().decompressobj(), True
    if not fresh:
        raise DamagedFile(f"The file was cut off: it ends at byte {reader.position:,}, in the middle of its zstd data.")


def _zstd_message(error: zstandard.ZstdError, position: int) -> str:
    for words, cause in _INTACT_ZSTD.items():
        if words in str(error):
            return f"The zstd data near byte {position:,} need {cause}."
    return f"The file is damaged: its zstd data are wrong near byte {position:,} ({error})."


def _skip(given: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the pieces without their first `given` bytes."""
    for piece in pieces:
        if rest := piece[given:]:
            yield rest
        given = max(0, given - len(piece))
