"""Keeps a query's rows, so that its connection can be closed: it may hold the file that the delivery log needs."""

import copyreg
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any

KEPT_BYTES = 10_000_000  # above this size, rows move from memory to an unnamed temporary file


class _Pickler(pickle.Pickler):
    """Pickles memory views as bytes: psycopg2 returns views for binary values, also inside arrays."""

    dispatch_table = copyreg.dispatch_table | {memoryview: lambda view: (bytes, (view.tobytes(),))}


class KeptRows:
    """Rows in the order in which they were added. They can be iterated over several times."""

    def __init__(self, file: "SpooledTemporaryFile[bytes]") -> None:
        self._file = file

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Adds rows as one batch, which is later read into memory as a whole."""
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
    """Yields an empty KeptRows, which is deleted when the block ends.

    Example: `with kept_rows() as rows: rows.add([("a@b.c", "pro")])`.
    """
    with SpooledTemporaryFile(max_size=KEPT_BYTES) as file:
        yield KeptRows(file)
