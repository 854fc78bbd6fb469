"""Keeps the digits of numbers in JSON lines, of which the engine would read `1.50` as `1.5`, and `1e2` as `100.0`."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ...segment.json_text import DECODER, JsonNumber, JsonObject, to_json
from .in_parts import Contents

# Numbers that the engine may spell differently: -0, with an exponent, with a zero at the end, near 0, or with so many
# digits that a float may not have all of them.
_LONG = "|".join(rf"\d{{{before},}}\.\d{{{16 - before},}}" for before in range(1, 16))
_NUMBER = rf"-0|-?(?:\d+(?:\.\d+)?[eE][-+]?\d+|\d+\.\d+0|0\.0000\d+|{_LONG})"
_CHANGING = rf"[:\[,]\s*(?:{_NUMBER})\s*[,}}\]]"
_CHANGING_IN_TEXT = re.compile(_CHANGING)
_COLUMN = "digits:"


def copied_with_digits(contents: Contents, copy: Path) -> dict[str, str]:
    """Copies JSON lines if the engine would change digits in them; returns the keys of the values that have these.

    Each key comes with the name of a column in the copy: it has these values as JSON text, and is null elsewhere. The
    contents are read to their end, which shows whether a compressed file is whole.
    """
    columns: dict[str, str] = {}
    if any([_may_change([text])[0] for text in _whole_lines(contents())]):  # noqa: C419 - to the end
        with copy.open("wb") as copied:
            for text in _whole_lines(contents()):
                lines = text.split(b"\n")
                changing = zip(lines, _may_change(lines), strict=True)
                copied.write(b"\n".join(_with_texts(line, columns) if changes else line for line, changes in changing))
    return columns


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields a text in pieces of whole lines."""
    kept = b""
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            yield kept + chunk[:end]
            kept = b""
        kept += chunk[end:]
    yield kept


def _may_change(texts: Sequence[bytes]) -> list[bool]:
    """Returns whether each text may have a number whose digits the engine would change."""
    found: list[bool] = pc.match_substring_regex(pa.array(texts, pa.large_binary()), _CHANGING).to_pylist()
    return found


def _with_texts(line: bytes, columns: dict[str, str]) -> bytes:
    """Returns a line with the JSON texts of the values whose digits would change; adds their keys to `columns`."""
    try:
        texts = _changing_values(line)
    except (ValueError, RecursionError):
        return line  # it is no JSON, which the engine says, or nested hundreds of levels deep
    if not texts:
        return line
    cells = JsonObject((columns.setdefault(key, f"{_COLUMN}{len(columns)}"), text) for key, text in texts)
    end = line.rindex(b"}")
    return line[:end] + b"," + to_json(cells).removeprefix("{").encode() + line[end + 1 :]


def _changing_values(line: bytes) -> list[tuple[str, str]]:
    """Returns the keys and the JSON texts of an object's values whose digits would change."""
    message = DECODER.decode(line.decode())
    values = message if isinstance(message, JsonObject) else []
    texts = ((key, to_json(value)) for key, value in values if isinstance(value, JsonNumber | list))
    return [(key, text) for key, text in texts if _CHANGING_IN_TEXT.search(f"[{text}]")]
