"""Keeps the rows of a query while the query's connection is closed, which may have the log's file open."""

import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any

KEPT_BYTES = 10_000_000  # bytes that are kept in memory; more are written to a temporary file without a name


class KeptRows:
    """Rows in the order in which they were added. They can be iterated over several times."""

    def __init__(self, file: "SpooledTemporaryFile[bytes]") -> None:
        self._file = file

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Adds rows, which are read together."""
        pickle.dump([tuple(map(_plain, row)) for row in rows], self._file, pickle.HIGHEST_PROTOCOL)

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


def _plain(value: Any) -> Any:
    """Returns a value of a driver as one that can be written: psycopg2 reads bytes as a view of memory."""
    return bytes(value) if isinstance(value, memoryview) else value
