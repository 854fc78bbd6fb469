"""Copies the engine's macros from a file, only in tests: DuckDB takes six times as long to create them from their text.

Each engine needs them, and a small load has an engine of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from autopilothq.projection import engine

_DEFINITIONS = (
    "SELECT function_name, parameters, macro_definition FROM duckdb_functions()"
    " WHERE database_name = 'memory' AND NOT internal ORDER BY ALL"
)


@contextmanager
def copied_macros(folder: Path) -> Iterator[None]:
    """Has engines copy the macros from a file in `folder` while the block runs; the file is made from their text."""
    file = str(folder / "macros.duckdb")
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{file}' AS macros (STORAGE_VERSION 'latest'); USE macros")
        con.execute(engine.MACROS)
    copy = f"ATTACH '{file}' AS macros (READ_ONLY); COPY FROM DATABASE macros TO memory (SCHEMA); DETACH macros"
    assert _created(copy) == _created(engine.MACROS) != []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "MACROS", copy)
        yield


def text_of_macros() -> str:
    """Returns the text that creates the macros, with any change that a test has made, for tests that change it."""
    return engine.MACROS if "CREATE MACRO" in engine.MACROS else engine.script("macros.sql")


def _created(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as con:
        con.execute(sql)
        return con.execute(_DEFINITIONS).fetchall()
