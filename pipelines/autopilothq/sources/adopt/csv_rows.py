"""Finds where the rows of CSV text end, as the engine would, so that large files can be read in parts."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, islice
from typing import NamedTuple

from ...segment.message import without_bom
from ...warehouses.duckdb_parts import BYTES_AT_ONCE, LONG, VECTOR
from .in_parts import Contents, check_row_length

_NULL = re.compile(rb"[,|;\t\r\n]\\N[,|;\t\r\n]")


class Signs(NamedTuple):
    r"""The signs of a CSV file: the delimiters of values, the quote, and what escapes a quote; empty if it has none.

    `newline` is the end of a line as the engine spells it: `\n`, `\r` or `\r\n`, with a backslash.
    """

    delimiters: str = ",;|\t"
    quote: str = '"'
    escape: str = '"'
    newline: str = r"\n"

    @property
    def row_end(self) -> bytes:
        """The last byte of a line."""
        return b"\r" if self.newline == r"\r" else b"\n"


@cache
def _value(signs: Signs) -> str:
    """Returns the pattern of a value. A quote counts only at its beginning, where blanks may precede it."""
    quote, escape = re.escape(signs.quote), re.escape(signs.escape or signs.quote)
    inner = rf"(?:[^{quote}{escape}]++|{escape}{quote if escape == quote else '.'})*+"
    quoted = rf"(?: *+{quote}{inner}{quote}|(?! *+{quote}))" if quote else ""
    return rf"{quoted}[^{re.escape(signs.delimiters)}{signs.row_end.decode()}]*+"


@cache
def _row(signs: Signs) -> re.Pattern[bytes]:
    """Returns the pattern of a complete row."""
    value = _value(signs)
    row = rf"(?:{value}[{re.escape(signs.delimiters)}])*+{value}{signs.row_end.decode()}"
    return re.compile(row.encode(), re.DOTALL)


def split_row(row: bytes, signs: Signs) -> list[str]:
    """Returns the values of a row, without their quotes."""
    text = without_bom(row).rstrip(b"\r\n") + signs.delimiters[:1].encode()
    values = re.findall(rf"({_value(signs)})[{re.escape(signs.delimiters)}]".encode(), text, re.DOTALL)
    return [value.decode(errors="replace").strip().strip(signs.quote) for value in values]


def row_ends(text: bytes, signs: Signs) -> Iterator[int]:
    """Yields the end of each complete row of a CSV text."""
    end = 0
    while found := _row(signs).match(text, end):
        end = found.end()
        yield end


def last_row_end(text: bytes, signs: Signs) -> int:
    """Returns the end of the last complete row of a CSV text; 0 if none is complete."""
    if not signs.quote or signs.quote.encode() not in text:
        return text.rfind(signs.row_end) + 1
    return max(row_ends(text, signs), default=0)


def row_pieces(chunks: Iterable[bytes], signs: Signs) -> Iterator[bytes]:
    """Yields a CSV text in pieces of whole rows. Raises UnreadableLine if a row is too long."""
    kept = b""
    for chunk in chunks:
        kept += chunk
        if len(kept) < BYTES_AT_ONCE:
            continue
        if end := last_row_end(kept, signs):
            yield kept[:end]
            kept = kept[end:]
        check_row_length(len(kept))
    if kept:
        yield kept


def has_long_rows(contents: Contents) -> bool:
    """Returns whether the first rows of a CSV file are so long that the engine may have no memory for 2,048 of them."""
    text = b""
    for chunk in contents():
        text += chunk
        if len(text) >= BYTES_AT_ONCE:
            break
    if len(text) < BYTES_AT_ONCE:
        return False
    ends = row_ends(text, Signs(newline=r"\n" if b"\n" in text else r"\r"))
    return not any(islice(ends, len(text) * VECTOR // LONG, None))


def has_null_marks(chunks: Iterable[bytes], to_end: bool) -> bool:
    r"""Returns whether a CSV file writes nulls as `\N`. In other files, an empty value without quotes is null.

    With `to_end`, the text is read to its end, which raises an error if it is cut off.
    """
    kept, found = b"", False
    for chunk in chain([b"\n"], chunks, [b"\n"]):
        text = kept + chunk
        found = found or (b"\\N" in text and bool(_NULL.search(text)))
        if found and not to_end:
            break
        kept = text[-3:]
    return found
