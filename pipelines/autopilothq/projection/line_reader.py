"""Reads batches of lines one after the other in an engine, with a statement that is planned only once."""

import itertools
from pathlib import Path

import duckdb
import pyarrow as pa

from . import engine

PLANS = 4  # prepared statements that are kept; lines of new shapes need a new one
_NO_LINES = pa.table({"seq": pa.array([], pa.int64()), "text": pa.array([], pa.large_string())})
_NO_SHAPES = pa.table({"shape": pa.array([], pa.string()), "has_nulls": pa.array([], pa.bool_())})


class LineReader:
    """Lets SQL in one engine read the lines of a batch as `lines` (`seq`, `text`), and shapes as `known_shapes`.

    Planning takes an eighth of the time of a batch, so each query is prepared once and kept. Only one thread at a time
    may use a reader. It has its own connection, `con`, so other statements in the engine do not interfere. Example:

        with engine.connect(None, memory=400, threads=1) as con, closing(LineReader(con)) as reader:
            reader.read(lines)
            reader.copy("SELECT seq, text FROM lines", "lines.parquet")
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con.cursor()
        self._lines, self._shapes = _Table(_NO_LINES), _Table(_NO_SHAPES)
        self.con.register("lines", self._lines)
        self.con.register("known_shapes", self._shapes)
        self._plans: dict[str, tuple[str, Path]] = {}
        self._numbers = itertools.count()

    def close(self) -> None:
        """Frees the memory."""
        self.con.close()

    def read(self, lines: pa.Table, known_shapes: pa.Table = _NO_SHAPES) -> None:
        """Replaces the lines and the shapes (`shape`, `has_nulls`) that SQL reads."""
        self._lines.rows, self._shapes.rows = lines, known_shapes

    def copy(self, query: str, path: str) -> None:
        """Writes the rows of a query to a Parquet file."""
        name, file = self._plans.get(query) or self._plan(query, path)
        try:
            self.con.execute(f"EXECUTE {name}")
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        file.rename(path)

    def _plan(self, query: str, path: str) -> tuple[str, Path]:
        """Prepares the COPY of a query; returns the statement's name and the file that it writes each time."""
        while len(self._plans) >= PLANS:
            name, _ = self._plans.pop(next(iter(self._plans)))
            self.con.execute(f"DEALLOCATE {name}")
        name, file = f"copy_{next(self._numbers)}", Path(f"{path}.made")
        self.con.execute(f"PREPARE {name} AS {engine.copy_statement(query, str(file))}")
        self._plans[query] = name, file
        return name, file


class _Table:
    """An Arrow table that SQL reads under one name, and whose rows can be replaced between two statements."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)
