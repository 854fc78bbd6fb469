"""Looks for texts in every byte of some folders: in files as they are, and in what compressed files hold."""

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
    """The files below a folder that hold one of the texts, in any case and in JSON's escapes too."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(mentions(content, texts) for content in contents(path.read_bytes()))
    }


def mentions(content: bytes, texts: Collection[str]) -> bool:
    """Whether bytes hold one of the texts, in any case and in JSON's escapes too."""
    lower = content.decode(errors="replace").lower()
    plain = _ESCAPED.sub(lambda escape: chr(int(escape[1], 16)).lower(), lower) if "\\u" in lower else lower
    return any(text.lower() in form for text in texts for form in (lower, plain))


def contents(content: bytes) -> Iterator[bytes]:
    """A file's bytes as they are, and what they are when inflated."""
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    elif content[:4] == b"\x28\xb5\x2f\xfd":
        yield zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()
    elif content[:4] == content[-4:] == b"PAR1":
        rows = pq.read_table(io.BytesIO(content)).to_pylist()
        yield json.dumps(rows, default=str, ensure_ascii=False).encode()
