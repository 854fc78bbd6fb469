"""Finds rows with characters that the encoding of a PostgreSQL database, such as LATIN1, lacks, by asking the server.

There may be many such rows, and finding them with separate loads would take minutes.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..warehouses.dataset import Dataset, lacking_characters
from .file_rows import FileRows
from .refused import ESCAPED

# A character, and the mark after it that EUC_JIS_2004 has only together with some kana.
_UNIT = re.compile("[^\0-\x7f]\u309a?")
_MARKED = re.compile("[^\0-\x7f]\u309a")


class Lacking(NamedTuple):
    """A database's encoding, and the `units` of some texts that it lacks: characters, alone or with a mark."""

    encoding: str
    units: Collection[str]

    def first(self, text: str) -> str | None:
        """Returns the first character of one of the texts that the encoding lacks, or None if it has all of them.

        Example: `Lacking("LATIN1", {"→"}).first("é→") == "→"`.
        """
        unfit = (unit for unit in _UNIT.findall(text) if unit in self.units)
        return next((character for unit in unfit for character in unit if character in self.units), None)


def lacking_of(dataset: Dataset, parts: Iterable[Collection[str]]) -> Lacking | None:
    """Returns which characters of texts, given in `parts`, a PostgreSQL database lacks; None if it cannot be asked."""
    units: set[str] = set()
    for texts in parts:
        joined = "\n".join(texts)
        units.update(joined, _MARKED.findall(joined))
    found = lacking_characters(dataset, [unit for unit in units if not unit.isascii()])
    return Lacking(*found) if found else None


def find_unfit(tables: Mapping[str, FileRows], lacking: Lacking) -> Iterator[tuple[str, dict[int, str]]]:
    """Yields each table that has unfit rows, with the reason for each row by its number."""
    for table, rows in tables.items():
        if unfit := unfit_rows(rows.between(0, rows.row_count), lacking, ESCAPED.get(table, ())):
            yield table, unfit


def unfit_rows(parts: Iterable[pa.Table], lacking: Lacking, ignored: Collection[str] = ()) -> dict[int, str]:
    """Returns why rows are unfit for an encoding, by their number; columns in `ignored` do not matter.

    Example: `unfit_rows([pa.table({"a": ["é", "→"]})], Lacking("LATIN1", {"→"}))
    == {1: "its encoding LATIN1 lacks U+2192"}`.
    """
    found: dict[int, str] = {}
    start = 0
    for part in parts:
        for numbers, texts in _texts(part, ignored):
            for row, text in zip(numbers, texts, strict=True):
                if character := lacking.first(text):
                    found[start + row] = f"its encoding {lacking.encoding} lacks U+{ord(character):04X}"
        start += part.num_rows
    return found


def texts_of(tables: Mapping[str, FileRows]) -> Iterator[list[str]]:
    """Yields the texts of rows that are not ASCII, in parts. Texts that are loaded with escapes do not count."""
    for table, rows in tables.items():
        for part in rows.between(0, rows.row_count):
            yield from (texts for _, texts in _texts(part, ESCAPED.get(table, ())))


def _texts(part: pa.Table, ignored: Collection[str]) -> Iterator[tuple[list[int], list[str]]]:
    """Yields the texts of each column that are not ASCII, with the numbers of their rows."""
    for field in part.schema:
        if field.name not in ignored and (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
            column = part[field.name].combine_chunks()
            numbers = pc.indices_nonzero(pc.invert(pc.string_is_ascii(column)))
            yield numbers.to_pylist(), column.take(numbers).to_pylist()
