"""Finds rows with characters that the encoding of a PostgreSQL database lacks, such as LATIN1, without asking it.

There may be many of them, and searching for each by separate loads would take minutes.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from .file_rows import FileRows
from .refused import ESCAPED

_LACKS = re.compile(r'has no equivalent in encoding "((?:LATIN|WIN)\d+|ISO_8859_[5-8]|KOI8[RU]|EUC_CN)"')


def encoding_of(error: str) -> str | None:
    """Returns the encoding of a database if an error says that it lacks a character.

    Only those that have the same characters in Python as in PostgreSQL. EUC_JP and others are left to the search for
    single rows.
    """
    found = _LACKS.search(error)
    return found[1] if found else None


def fits(text: str, encoding: str | None) -> bool:
    """Returns whether an encoding has all characters of a text; None stands for one that does."""
    return encoding is None or _lacking(text, _codec(encoding)) is None


def find_unfit(encoding: str, tables: Mapping[str, FileRows]) -> Iterator[tuple[str, dict[int, str]]]:
    """Yields each table with unfit rows, and why, by row number. Texts that are loaded with escapes always fit."""
    for table, rows in tables.items():
        if unfit := unfit_rows(rows.between(0, rows.row_count), encoding, ESCAPED.get(table, ())):
            yield table, unfit


def unfit_rows(parts: Iterable[pa.Table], encoding: str, but: Collection[str] = ()) -> dict[int, str]:
    """Returns why rows are unfit for an encoding, by their number; `but` are columns that do not matter.

    Example: `unfit_rows([pa.table({"a": ["é", "→"]})], "LATIN1") == {1: "its encoding LATIN1 lacks U+2192"}`.
    """
    codec = _codec(encoding)
    found: dict[int, str] = {}
    start = 0
    for part in parts:
        for field in part.schema:
            if field.name in but or not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
                continue
            texts = part[field.name].combine_chunks()
            for row in pc.indices_nonzero(pc.invert(pc.string_is_ascii(texts))).to_pylist():
                if lacking := _lacking(texts[row].as_py(), codec):
                    found[start + row] = f"its encoding {encoding} lacks {lacking}"
        start += part.num_rows
    return found


def _codec(encoding: str) -> str:
    return "gb2312" if encoding == "EUC_CN" else encoding.lower().replace("win", "cp").replace("koi8", "koi8_")


def _lacking(text: str, codec: str) -> str | None:
    """Returns the first character that a codec lacks, None if there is none."""
    try:
        text.encode(codec)
    except UnicodeEncodeError as error:
        return f"U+{ord(text[error.start]):04X}"
    return None
