"""Finds the quotes of CSV files whose first rows have none: the engine looks at no more than some 20,000 rows."""

import re
from collections.abc import Callable, Iterable

import duckdb

from ...projection import engine

_QUOTED = re.compile(rb'[,|;\t\r\n]"')  # the beginning of a value in quotes


def late_quotes(con: duckdb.DuckDBPyConnection, path: str, contents: Callable[[], Iterable[bytes]]) -> str:
    """Returns options for the quotes of a CSV file if only later rows have any; else empty. `path` is its name in SQL.

    They are those that all rows fit, or the usual ones if there is no memory for all rows.
    """
    if detected_signs(con, path)[1] or not _has_quotes(contents()):
        return ""
    try:
        _, quote, escape = detected_signs(con, path, ", sample_size = -1")
    except duckdb.OutOfMemoryException:
        quote = escape = '"'
    return f", quote = {engine.literal(quote)}, escape = {engine.literal(escape)}" if quote else ""


def _has_quotes(chunks: Iterable[bytes]) -> bool:
    """Returns whether a value of a CSV text begins with a quote."""
    kept = b"\n"
    for chunk in chunks:
        if b'"' in chunk and _QUOTED.search(kept + chunk):
            return True
        kept = chunk[-1:]
    return False


def detected_signs(con: duckdb.DuckDBPyConnection, path: str, more: str = "") -> tuple[str, str, str]:
    """Returns the signs for delimiters, for quotes and for quotes within quotes; "" for each that a file does not have.

    `path` is the file's name in SQL, and `more` further options.
    """
    sql = f"SELECT Delimiter, Quote, Escape FROM sniff_csv({path}, all_varchar = true, header = true{more})"
    delimiter, quote, escape = ("" if sign == "(empty)" else sign for sign in con.execute(sql).fetchone() or ("",) * 3)
    return delimiter, quote, escape
