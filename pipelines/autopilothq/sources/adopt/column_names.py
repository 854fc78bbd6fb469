"""Finds the names of columns as a file has them: the engine numbers those that differ from another one only in case."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ...projection import engine
from .in_parts import LONGEST_OBJECT

_NUMBERED = re.compile(r"(.+)_\d+", re.DOTALL)
_NAMELESS = re.compile(r"C\d+")  # the engine's name for an empty key of JSON
_KEYS = """
SELECT key FROM (
    SELECT unnest(json_keys(json)) AS key, generate_subscripts(json_keys(json), 1) AS position, row
    FROM (SELECT json, row_number() OVER () AS row FROM read_ndjson_objects({path}, maximum_object_size = {size}))
) GROUP BY key ORDER BY min((row, position))
"""


def own_names(read: Sequence[str], in_file: Callable[[], Sequence[str]], in_order: bool = True) -> dict[str, str]:
    """Maps the column names that the engine has read to those in the file, which `in_file` returns.

    `in_file` is only called if the names may differ. If the engine keeps the file's order (`in_order`), names are
    matched by position, provided that all names in the file are different and not empty. Without that order, they are
    matched by position if the engine would number the file's names in exactly this way. Otherwise they are matched
    without regard to case and to the engine's numbers.

    Example: `own_names(["Foo", "foo_1"], lambda: ["Foo", "foo"]) == {"Foo": "Foo", "foo_1": "foo"}`.
    """
    lower = {name.lower() for name in read if name}
    may_differ = any(_stem(name).lower() in lower or (_NAMELESS.fullmatch(name) and not in_order) for name in read)
    if not may_differ:
        return {name: name for name in read}
    found = in_file()
    if len(set(filter(None, found))) == len(read) if in_order else _numbered(found) == [*read]:
        return dict(zip(read, found, strict=True))
    left = [name for name in found if name not in read]
    names: dict[str, str] = {}
    for name in read:
        own = name if name in found else _matching(left, _stem(name)) or name
        left = [other for other in left if other != own]
        names[name] = own
    return names


def _numbered(keys: Sequence[str]) -> list[str]:
    """Returns the names that the engine gives keys of JSON that it finds in this order."""
    repeated: dict[str, int] = {}
    names = []
    for index, key in enumerate(keys):
        name = key or f"C{index}"
        while (lower := name.lower()) in repeated:
            repeated[lower] += 1
            name = f"{name}_{repeated[lower]}"
        repeated[lower] = 0
        names.append(name)
    return names


def _stem(name: str) -> str:
    """Returns a name without the number at its end, or "" if it has no number."""
    numbered = _NUMBERED.fullmatch(name)
    return numbered[1] if numbered else ""


def _matching(names: Sequence[str], stem: str) -> str | None:
    """Returns the name that equals the stem, or else the first that differs from it only in case; None if none does."""
    same = [name for name in names if name.lower() == stem.lower()]
    return stem if stem in same else next(iter(same), None)


def parquet_names(path: Path) -> list[str]:
    """Returns the names of a Parquet file's columns; none if Arrow has no types for them."""
    with suppress(pa.ArrowException):
        return list(pq.read_schema(path).names)
    return []


def csv_names(con: duckdb.DuckDBPyConnection, read: str) -> list[str]:
    """Returns the names in the header of a CSV file; none if there is not enough memory for its rows.

    `read` is SQL that reads the file, with its header as a row.
    """
    with suppress(duckdb.OutOfMemoryException):
        header = con.execute(f"FROM {read} LIMIT 1").fetchone()
        return [name or "" for name in header or ()]
    return []


def json_names(con: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """Returns the keys of the objects in JSON lines, in the order in which they first appear.

    Returns none if there is not enough memory for the objects.
    """
    keys = _KEYS.format(path=engine.glob_literal(str(path)), size=LONGEST_OBJECT)
    with suppress(duckdb.OutOfMemoryException), engine.one_thread(con.execute, 0):  # reads in the file's order
        return [str(key) for (key,) in con.execute(keys).fetchall()]
    return []
