"""Keeps the rows of a query while the query's connection is closed, which may have the log's file open."""

import copyreg
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any

KEPT_BYTES = 10_000_000  # bytes that are kept in memory; more are written to a temporary file without a name


class _Pickler(pickle.Pickler):
    """Writes views of memory, which psycopg2 reads for bytes, alone and in arrays, as bytes."""

    dispatch_table = copyreg.dispatch_table | {memoryview: lambda view: (bytes, (view.tobytes(),))}


class KeptRows:
    """Rows in the order in which they were added. They can be iterated over several times."""

    def __init__(self, file: "SpooledTemporaryFile[bytes]") -> None:
        self._file = file

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Adds rows, which are read together."""
        _Pickler(self._file, pickle.HIGHEST_PROTOCOL).dump(list(map(tuple, rows)))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        position, end = 0, self._file.seek(0, 2)
        while position < end:
            self._file.seek(position)
            rows = pickle.load(self._file)  # noqa: S301 - written above
            position = self._file.seek(0, 1)
            yield from rows


@contextmanager
def kept_rows() -> Iterator[KeptRows]:
    """Yields no rows yet. They are gone afterwards.

    Example: `with kept_rows() as rows: rows.add([("a@b.c", "pro")])`.
    """
    with SpooledTemporaryFile(max_size=KEPT_BYTES) as file:
        yield KeptRows(file)
