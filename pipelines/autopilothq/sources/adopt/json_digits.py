"""Keeps the digits of numbers in JSON lines: the engine would read `1.50` as `1.5`, and `1e2` as `100.0`.

Lines that would make the engine crash the process, or that do not fit into memory, are refused before it reads them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from secrets import token_hex

import pyarrow as pa
import pyarrow.compute as pc

from ...catalog import MAX_DEPTH
from ...segment.json_text import DECODER, JsonNumber, JsonObject, is_deeper, to_json
from ...segment.message import BOM, without_bom
from .in_parts import Contents, UnreadableLine, check_length

# Numbers that the engine may spell differently: -0, with an exponent, with a zero at the end, near 0, or with so many
# digits that a float may not have all of them.
_LONG = "|".join(rf"\d{{{before},}}\.\d{{{16 - before},}}" for before in range(1, 16))
_NUMBER = rf"-0|-?(?:\d+(?:\.\d+)?[eE][-+]?\d+|\d+\.\d+0|0\.0000\d+|{_LONG})"
_CHANGING = rf"[:\[,]\s*(?:{_NUMBER})\s*[,}}\]]"
_CHANGING_IN_TEXT = re.compile(_CHANGING)
_COLUMN = f"digits {token_hex(8)} "  # no key of a file begins with it
# A comma before the end of an object or array, which the engine accepts. Texts, which may contain one, match first.
_TRAILING_COMMA = r",\s*[}\]]"
_TRAILING_COMMA_IN_LINE = re.compile(rb'"(?:[^"\\]|\\.)*"|(' + _TRAILING_COMMA.encode() + b")")
# Numbers that the engine reads, but the decoder does not. Texts, which may contain such words, match first.
_NOT_FINITE = re.compile(r'("(?:[^"\\]|\\.)*")|-?(?:nan|inf(?:inity)?)', re.IGNORECASE)


def unreadable_line(contents: Contents) -> UnreadableLine | None:
    """Returns the error for the first line that is not a JSON object or repeats a key; None if there is none."""
    number = 1
    for text in _whole_lines(contents()):
        for index, line in enumerate(text.split(b"\n"), number):
            if why := _unreadable(without_bom(line).strip()):
                return UnreadableLine(f"line {index} {why}")
        number = index
    return None


def _unreadable(line: bytes) -> str:
    """Returns why a line cannot be read; empty if it can be, or is blank."""
    if not line:
        return ""
    try:
        found = DECODER.decode(_NOT_FINITE.sub(lambda word: word[1] or "0", line.decode()))
    except ValueError as error:
        return f"is not JSON: {getattr(error, 'msg', error)}"
    if not isinstance(found, JsonObject):
        return "is JSON, but not an object"
    keys = Counter(key for key, _ in found)
    return next((f"repeats the key {to_json(key)}" for key, times in keys.items() if times > 1), "")


def copied_with_digits(contents: Contents, copy: Path) -> dict[str, str]:
    """Copies JSON lines if the engine would change digits in them, or if a line begins with a byte-order mark.

    Returns the keys of the values whose digits would change, each with the name of a column in the copy that has these
    values as JSON text, and is null elsewhere. The copy has no byte-order marks. The contents are read to their end,
    which shows whether a compressed file is whole. Raises UnreadableLine if a line is too long, or as `_checked` does.
    """
    columns: dict[str, str] = {}
    if any([_has_bom(text) or _may_change([text])[0] for text in _checked(_whole_lines(contents()))]):  # noqa: C419
        with copy.open("wb") as copied:
            for text in _whole_lines(contents()):
                lines = [without_bom(line) for line in text.split(b"\n")]
                changing = zip(lines, _may_change(lines), strict=True)
                copied.write(b"\n".join(_with_texts(line, columns) if changes else line for line, changes in changing))
    return columns


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields a text in pieces of whole lines. Raises UnreadableLine if a line is too long."""
    kept, number = bytearray(), 1
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            kept += chunk[:end]
            yield bytes(kept)
            kept.clear()
            number += chunk.count(b"\n")
        kept += chunk[end:]
        check_length(len(kept), number)
    yield bytes(kept)


def _checked(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yields pieces of whole lines. Raises UnreadableLine for a null, a trailing comma, or a line nested too deeply.

    The engine recurses once per level: some tens of thousands of levels crash the process, and in a thread with a small
    stack, a thousand may.
    """
    number = 1
    for text in texts:
        [may_trail] = pc.match_substring_regex(pa.array([text], pa.large_binary()), _TRAILING_COMMA).to_pylist()
        for index, line in enumerate(text.split(b"\n"), number):
            if line.strip(b" \t\r") == b"null":  # the engine would make a row of it
                raise UnreadableLine(f"line {index} is JSON, but not an object")
            if may_trail and any(found[1] for found in _TRAILING_COMMA_IN_LINE.finditer(line)):
                raise UnreadableLine(f"line {index} is not JSON: it has a comma before the end of an object or array")
            if len(line) > MAX_DEPTH and is_deeper(line, MAX_DEPTH):
                levels = f"more than {MAX_DEPTH} objects or arrays in another"
                raise UnreadableLine(f"line {index} is nested too deeply to be read: {levels}; take that line out")
        number = index
        yield text


def _has_bom(text: bytes) -> bool:
    """Returns whether a line begins with a byte-order mark."""
    return text.startswith(BOM) or b"\n" + BOM in text


def _may_change(texts: Sequence[bytes]) -> list[bool]:
    """Returns whether each text may have a number whose digits the engine would change."""
    found: list[bool] = pc.match_substring_regex(pa.array(texts, pa.large_binary()), _CHANGING).to_pylist()
    return found


def _with_texts(line: bytes, columns: dict[str, str]) -> bytes:
    """Returns a line with the JSON texts of the values whose digits would change; adds their keys to `columns`."""
    try:
        texts = _changing_values(line)
    except ValueError:
        return line  # it is not JSON, which the engine will report
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
