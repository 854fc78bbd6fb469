"""Reads rows from the Parquet files that a load handed over."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

# The errors of DuckDB and PostgreSQL for a column that must not be null.
_NOT_NULL = re.compile(r'(?:NOT NULL constraint failed: (?:[^.]*\.)*|null value in column ")(\w+)')


class FileRows(NamedTuple):
    """The rows of some Parquet files, numbered from 0."""

    files: Sequence[Path]

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return sum(pq.read_metadata(file).num_rows for file in self.files)

    def between(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Yields the rows from `start` to before `stop`, at most a row group of a file at a time."""
        first = 0
        for file in map(pq.ParquetFile, self.files):
            for group in range(file.num_row_groups):
                in_group = file.metadata.row_group(group).num_rows
                begin, end = max(start - first, 0), min(stop - first, in_group)
                if begin < end:
                    yield file.read_row_group(group).slice(begin, end - begin)
                first += in_group

    def lack(self, error: str) -> bool:
        """Returns whether an error is about a column that must not be null and that none of the files has."""
        column = _NOT_NULL.search(error)
        return column is not None and all(column[1] not in pq.read_schema(file).names for file in self.files)

    def at(self, number: int) -> dict[str, Any]:
        """Returns the row with this number: its values by column."""
        [row] = next(self.between(number, number + 1)).to_pylist()
        return dict(row)
