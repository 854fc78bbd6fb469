"""The SQL files of the destinations: each is read by some module, and each is SQL of its destination."""

import re
from pathlib import Path

import pytest
import sqlglot

from autopilothq.warehouses.sql_files import sql_file

PACKAGE = Path(__file__).parents[1] / "pipelines" / "autopilothq"
FILES = sorted(path.name for path in (PACKAGE / "warehouses").glob("*.sql"))


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_read_by_a_module(name: str) -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if f'"{name}"' in path.read_text()] != []


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_one_statement_that_reads(name: str) -> None:
    """Parameters and names that are put in later stand for a column here."""
    dialect = name.removesuffix(".sql").rpartition("_")[2] if "_" in name else None
    text = sql_file(name).replace("%(pid)s", "x").replace("%%", "%").replace("%s", "x")
    text = re.sub(r"\{(\w+)\}", r"\1", text)
    [statement] = sqlglot.parse(text, dialect=dialect if dialect in ("postgres", "duckdb") else None)
    assert isinstance(statement, sqlglot.exp.Query)
