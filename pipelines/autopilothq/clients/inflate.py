"""Decodes the `Content-Encoding` of an HTTP body, in pieces of a bounded size.

A few kilobytes can inflate to a gigabyte. No step here produces more than some megabytes at a time, so a caller can
stop at a limit before it runs out of memory.
"""

import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import zstandard

ACCEPTED = "gzip, deflate, zstd"
"""The `Accept-Encoding` of a request: the encodings that `inflated` reads."""

_PIECE = 256 * 1024  # bytes that gzip and deflate return at once
_MOST_CODINGS = 4  # encodings of one answer; servers use one
# Four bytes can encode a block of 128 KiB, and zstandard decodes all of its input at once, so it gets few bytes.
_ZSTD_INPUT = 128  # bytes, which decode to 4 MiB at most
_ZSTD_WINDOW = 8 * 1024 * 1024  # bytes; RFC 9659 allows no larger one over HTTP


class Undecodable(Exception):
    """The bytes are not what the encoding says, or end too early."""


class UnknownEncoding(Exception):
    """An encoding that the request did not accept; `args[0]` is its name."""


class TooBig(Exception):
    """The content has more than `most` bytes."""


def inflated(raw: Iterator[bytes], encodings: str, most: int) -> Iterator[bytes]:
    """Returns an iterator of the decoded pieces of a body; `encodings` is its `Content-Encoding`.

    `most` limits the bytes that each encoding may produce. Raises UnknownEncoding at once; the iterator raises TooBig
    and Undecodable. An empty body has no content, whatever its encoding.

    Example: `b"".join(inflated(iter([gzip.compress(b"{}")]), "gzip", 1024)) == b"{}"`.
    """
    names = [name for part in encodings.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    for name in names:
        if name not in _READERS:
            raise UnknownEncoding(name[:40])
    if len(names) > _MOST_CODINGS:
        raise UnknownEncoding(", ".join(names)[:40])
    pieces = _bounded(raw, most)
    for name in reversed(names):  # the one applied last is decoded first
        pieces = _bounded(_READERS[name](pieces), most)
    return pieces


def _bounded(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise TooBig
        yield piece


# Decodes some bytes of a stream and yields their content. Returns the bytes after the end of the stream, or None if the
# stream goes on.
_Reader = Callable[[Any, bytes], Generator[bytes, None, bytes | None]]


def _zlib_pieces(stream: Any, data: bytes) -> Generator[bytes, None, bytes | None]:
    while True:
        piece = stream.decompress(data, _PIECE)
        data = stream.unconsumed_tail
        if piece:
            yield piece
        if stream.eof:
            return bytes(stream.unused_data)
        if not data and len(piece) < _PIECE:  # after a full piece there may be more content, even without more input
            return None


def _zstd_pieces(stream: Any, data: bytes) -> Generator[bytes, None, bytes | None]:
    for at in range(0, len(data), _ZSTD_INPUT):
        if piece := stream.decompress(data[at : at + _ZSTD_INPUT]):
            yield piece
        if stream.eof:
            return bytes(stream.unused_data + data[at + _ZSTD_INPUT :])
    return None


def _streams(raw: Iterator[bytes], begin: Callable[[bytes], Any], read: _Reader) -> Iterator[bytes]:
    """Yields the content of concatenated streams. Zeros between and after them are padding."""
    stream, ended = None, False
    for chunk in raw:
        data = chunk
        while data := data.lstrip(b"\0") if ended and stream is None else data:
            stream = stream or begin(data)
            try:
                rest = yield from read(stream, data)
            except (zlib.error, zstandard.ZstdError) as error:
                raise Undecodable(str(error)) from None
            if rest is None:
                break
            stream, ended, data = None, True, rest
    if stream is not None:
        raise Undecodable("its compressed data end too early")


def _gunzipped(raw: Iterator[bytes]) -> Iterator[bytes]:
    return _streams(raw, lambda _: zlib.decompressobj(31), _zlib_pieces)


def _undeflated(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Decodes zlib's format, as in RFC 9110, and the raw deflate stream that some servers send.

    The lower four bits of zlib's first byte are 8; those of a raw stream never are.
    """
    return _streams(raw, lambda start: zlib.decompressobj(15 if start[0] & 0x0F == 8 else -15), _zlib_pieces)


def _unzstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return _streams(raw, lambda _: reader.decompressobj(), _zstd_pieces)


_READERS = {"gzip": _gunzipped, "x-gzip": _gunzipped, "deflate": _undeflated, "zstd": _unzstd}
