"""Finds the dialect of a CSV file; it is the same whether the file is read at once or in parts."""

import re
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import duckdb

from ...display import plural
from ...projection import engine
from ...warehouses.duckdb_parts import BYTES_AT_ONCE
from .csv_rows import (
    Signs,
    has_long_rows,
    last_row_end,
    row_ends,
    row_pieces,
    split_row,
)
from .files import folded_name
from .in_parts import Contents, UnreadableLine, check_row_length

_USUAL_SIGNS = [
    Signs(quote=quote, escape=escape, newline=newline)
    for quote, escape in (('"', '"'), ('"', "\\"), ("'", "'"), ("'", "\\"), ("", ""))
    for newline in (r"\n", r"\r")
]
_DELIMITER = re.compile(r"[,;|\t]")
SNIFFED_ROWS = 20_480  # rows that the engine looks at
_SNIFF = """
SELECT Delimiter, Quote, Escape, NewLineDelimiter, SkipRows, list_transform(Columns, lambda c: c.name)
FROM sniff_csv({path}, all_varchar = true, header = true, comment = ''{more})
"""


class Dialect(NamedTuple):
    """The dialect of a CSV file: its signs, the number of rows before the header, and the names of the columns.

    The signs have no escape if no value that needs one has been seen.
    """

    signs: Signs
    skip: int
    columns: tuple[str, ...]

    def read(self, path: str, null: str, header: bool = True, skip: int | None = None) -> str:
        """Returns SQL that reads a file, whose name in SQL is `path`; `skip` is the number of rows to skip.

        By default, that is the number of rows before the header of the file whose dialect this is.
        """
        names = ", ".join(f"{engine.literal(name)}: 'VARCHAR'" for name in self.columns)
        no_value = self.signs.row_end.decode()  # no value has it without quotes
        signs = {
            "delim": self.signs.delimiters,
            "quote": self.signs.quote,
            "escape": self.signs.escape or self.signs.quote,
            "new_line": self.signs.newline,
            "comment": "",
            "nullstr": no_value if self._escapes(null) else null,
        }
        options = ", ".join(f"{name} = {engine.literal(sign)}" for name, sign in signs.items())
        skipped = self.skip if skip is None else skip
        return (
            f"read_csv({path}, auto_detect = false, columns = {{{names}}}, {options}, header = {header},"
            f" skip = {skipped}, allow_quoted_nulls = false, hive_partitioning = false)"
        )

    def template(self, null: str) -> str:
        """Returns a template of the SQL for a value of a file that is read with this null."""
        return f"nullif({{}}, {engine.literal(null)})" if self._escapes(null) else "{}"

    def _escapes(self, null: str) -> bool:
        """Returns whether a null begins with the sign that escapes quotes; the engine refuses such a null."""
        return bool(self.signs.escape) and null.startswith(self.signs.escape)


def dialect_of(con: duckdb.DuckDBPyConnection, path: str, contents: Contents, piece: Path) -> tuple[Dialect, bool]:
    """Returns the dialect of a file, whose name in SQL is `path`, and whether there is memory to read it at once.

    `piece` is the path of a file that is made for the engine. Raises UnreadableLine if rows differ in their number of
    values.
    """
    if not has_long_rows(contents):
        with suppress(duckdb.OutOfMemoryException):
            dialect = _detected(con, path, contents)
            _check_header(dialect, contents)
            return dialect, True
    rows, sampled = first_csv_rows(con, contents(), BYTES_AT_ONCE, piece)
    if sampled is None:
        piece.write_bytes(rows)
        sampled = _detected(con, engine.glob_literal(str(piece)), lambda: [rows])
    _check_header(sampled, contents)
    return sampled, False


def _detected(con: duckdb.DuckDBPyConnection, path: str, contents: Contents) -> Dialect:
    """Returns the dialect of a file. The engine looks at no more than some 20,000 rows.

    If only later rows have quotes, quote and escape are those of all rows, or the usual ones if the memory does not
    suffice to look at all rows.
    """
    dialect = _sniffed(con, path)
    if dialect.signs.quote == "'" and (plain := _without_apostrophes(con, path, dialect)):
        dialect = plain
    if _may_have_late_signs(dialect.signs, contents()):
        try:
            late = _sniffed(con, path, ", sample_size = -1").signs
        except duckdb.OutOfMemoryException:
            late = Signs()
        dialect = dialect._replace(signs=dialect.signs._replace(quote=late.quote, escape=late.escape))
    return dialect


def _without_apostrophes(con: duckdb.DuckDBPyConnection, path: str, dialect: Dialect) -> Dialect | None:
    """Returns the dialect in which apostrophes are part of the values, or None if they are the file's quotes.

    They are quotes if rows make no sense otherwise, or if they enclose an id or all values of a column: a single text
    may just begin and end with them, as in `'Hello'`. They are not quotes if the engine skips the header because of
    them.
    """
    with suppress(duckdb.InvalidInputException):
        plain = _sniffed(con, path, ", quote = '\"', escape = '\"'")
        enclosed = " OR ".join(
            f"bool_{'or' if folded_name(name) == 'id' else 'and'}({engine.name(name)}[1] = chr(39)) IS TRUE"
            for name in plain.columns
        )
        sql = f"SELECT {enclosed} FROM (FROM {plain.read(path, '')} LIMIT {SNIFFED_ROWS})"
        is_same = (plain.columns, plain.skip) == (dialect.columns, dialect.skip)
        keeps_header = plain.skip < dialect.skip and "id" in map(folded_name, plain.columns)
        if keeps_header or (is_same and con.execute(sql).fetchone() == (False,)):
            return plain
    return None


def first_csv_rows(
    con: duckdb.DuckDBPyConnection, chunks: Iterable[bytes], size: int, piece: Path
) -> tuple[bytes, Dialect | None]:
    """Returns the first complete rows of a text: those within `size` bytes, or else some more; and their dialect.

    A text of less than `size` bytes, or without a complete row, is returned as it is, without a dialect. `piece` is the
    path of a file that is made for the engine. Raises UnreadableLine if a row is too long.
    """
    kept = b""
    for chunk in chunks:
        kept += chunk
        for text in (kept[:size], kept) if len(kept) >= size else ():
            if dialect := _sampled(con, text, piece):
                return text[: last_row_end(text, dialect.signs)], dialect
        check_row_length(len(kept))
    return kept, None


def _sampled(con: duckdb.DuckDBPyConnection, text: bytes, piece: Path) -> Dialect | None:
    """Returns the dialect of a text, of which the last row may be incomplete; None if no row is complete.

    The engine needs whole rows, but where they end depends on the signs. So the text is cut for each of the usual signs
    in turn, until the engine finds the same signs in it.
    """
    found = None
    for signs in _USUAL_SIGNS:
        quote = signs.quote.encode()
        if quote not in text or signs.row_end not in text:
            continue
        if not (end := last_row_end(text, signs)):
            return None
        rows = text[:end]
        piece.write_bytes(rows)
        with suppress(duckdb.InvalidInputException):
            found = _detected(con, engine.glob_literal(str(piece)), partial(list[bytes], [rows]))
            if _is_like(found.signs, signs) or quote not in rows:
                return _with_usual_quotes(found, rows)
    return found


def _is_like(found: Signs, usual: Signs) -> bool:
    """Returns whether rows end at the same places with both sets of signs."""
    return (found.quote, found.escape or found.quote, found.row_end) == (usual.quote, usual.escape, usual.row_end)


def _with_usual_quotes(dialect: Dialect, text: bytes) -> Dialect:
    """Returns the dialect of a text with the usual quotes if only later rows may have any."""
    if dialect.signs.quote or _may_have_late_signs(dialect.signs, [text]):
        return dialect
    return dialect._replace(signs=dialect.signs._replace(quote='"'))


def csv_in_parts(contents: Contents, dialect: Dialect, null: str, piece: Path) -> Generator[str]:
    """Yields SQL for pieces of a file."""
    try:
        for number, text in enumerate(row_pieces(contents(), dialect.signs)):
            piece.write_bytes(text)
            path = engine.glob_literal(str(piece))
            yield dialect.read(path, null, header=False, skip=0) if number else dialect.read(path, null)
    finally:
        piece.unlink(missing_ok=True)


def has_names_as_ids(con: duckdb.DuckDBPyConnection, rows: str, names: Iterable[str]) -> bool:
    """Returns whether the id of a row is the name of a column; `rows` is the path of the buffered rows."""
    bare = """trim("c:id", chr(65279) || '"')"""  # a file that was put behind another one may have a byte-order mark
    return bool(engine.count(con, f"(FROM {engine.literal(rows)} WHERE {engine.is_one_of(bare, names)})"))


def check_for_headers(con: duckdb.DuckDBPyConnection, path: str, contents: Contents, piece: Path) -> None:
    """Raises UnreadableLine if a row below the header is one, too; the arguments are those of `dialect_of`."""
    dialect, _ = dialect_of(con, path, contents, piece)
    _check_header(dialect, contents, sys.maxsize)


def _check_header(dialect: Dialect, contents: Contents, least: int = 0) -> None:
    """Raises UnreadableLine if rows differ in their number of values, or if a row below the header is one, too.

    If they differ, the engine takes a later row for the header and skips all rows before it, or takes each row for a
    single value. Otherwise only `least` rows are looked at.
    """
    signs, most = dialect.signs, max(least, dialect.skip + 1 if dialect.skip else 0)
    if len(dialect.columns) == 1 and (delimiter := _DELIMITER.search(dialect.columns[0])):
        signs, most = signs._replace(delimiters=delimiter[0]), sys.maxsize
    header = width = 0
    names: set[str] = set()
    for number, row in enumerate(islice(_rows(contents(), signs), most), 1):
        values = split_row(row, signs)
        if width and row.strip(b"\r\n") and len(values) != width:
            raise UnreadableLine(
                f"row {number} has {plural(len(values), 'value')}, but the header in row {header} has {width:,}"
            )
        if 2 * sum(value in names for value in values) > width > 0:
            raise UnreadableLine(
                f"row {number} is a header like row {header}; take the files apart that were put into this one"
            )
        if not width and "id" in map(folded_name, values):
            header, width, names = number, len(values), {*filter(None, values)}
    if header and header <= dialect.skip:
        raise UnreadableLine(f"row {dialect.skip + 1} has another number of values than the header in row {header}")


def _rows(chunks: Iterable[bytes], signs: Signs) -> Iterator[bytes]:
    """Yields the rows of a CSV text."""
    for text in row_pieces(chunks, signs):
        start = 0
        for end in row_ends(text, signs):
            yield text[start:end]
            start = end
        if start < len(text):
            yield text[start:]


def _may_have_late_signs(signs: Signs, chunks: Iterable[bytes]) -> bool:
    """Returns whether values of a CSV text may have quotes, or escapes of quotes, that the signs lack."""
    if signs.quote and signs.escape:
        return False
    pattern = re.escape(b"\\" + signs.quote.encode()) if signs.quote else rb'[,|;\t\r\n]"'
    kept = b"\n"
    for chunk in chunks:
        if b'"' in chunk and re.search(pattern, kept + chunk):
            return True
        kept = chunk[-1:]
    return False


def _sniffed(con: duckdb.DuckDBPyConnection, path: str, more: str = "") -> Dialect:
    """Returns the dialect that the engine finds in a file; `path` is its name in SQL, and `more` further options."""
    found = con.execute(_SNIFF.format(path=path, more=more)).fetchone()
    delimiter, quote, escape, newline, skip, columns = found or ("",) * 6
    signs = Signs(*("" if sign == "(empty)" else sign for sign in (delimiter, quote, escape, newline)))
    return Dialect(signs, int(skip), tuple(columns))
