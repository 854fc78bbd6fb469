"""Searches all files of a folder for texts, as they are and decompressed."""

import gzip
import io
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import zstandard

_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


def found_in(folder: Path, texts: Collection[str]) -> set[str]:
    """Returns the files below a folder that contain one of the texts, in any case, also with JSON's escapes."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(mentions(content, texts) for content in contents(path.read_bytes()))
    }


def mentions(content: bytes, texts: Collection[str]) -> bool:
    """Returns whether the bytes contain one of the texts, in any case, also with JSON's escapes."""
    lower = content.decode(errors="replace").lower()
    forms = [lower, _ESCAPED.sub(lambda escape: chr(int(escape[1], 16)).lower(), lower)] if "\\u" in lower else [lower]
    return any(text in form for text in {text.lower() for text in texts} for form in forms)


def contents(content: bytes) -> Iterator[bytes]:
    """Yields a file's bytes as they are, and decompressed if it is gzip, zstd or Parquet."""
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    elif content[:4] == b"\x28\xb5\x2f\xfd":
        yield zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()
    elif content[:4] == content[-4:] == b"PAR1":
        rows = pq.read_table(io.BytesIO(content)).to_pylist()
        yield json.dumps(rows, default=str, ensure_ascii=False).encode()
