"""The tests that tests/mutate_sql.py runs for the models and for the report, over a load that is made once.

The load is made on import, so that all changes share it. There are no views, because they would keep the unchanged SQL.
"""

import re
import tempfile
from pathlib import Path

import duckdb
import pytest

import counted_models as counted
import test_models
import test_report_numbers
from autopilothq import models
from autopilothq.report import Report
from contract.loading import write
from shared_loads import command, isolation

# All tests except those that make views, loads or destinations of their own, which notice no other changes.
OF_MODELS = ("test_each_number", "test_the_timeline", "test_identities", "test_columns_of_other_types", "test_a_period")
NOT_OF_REPORTS = ("test_what_is_missing", "test_a_question", "test_a_dataset", "test_questions")
globals().update({name: test for name, test in vars(test_models).items() if name.startswith(OF_MODELS)})
globals().update(
    {
        name: test
        for name, test in vars(test_report_numbers).items()
        if name.startswith("test_") and not name.startswith(NOT_OF_REPORTS)
    }
)
_HOME = tempfile.TemporaryDirectory()
FILE = str(Path(_HOME.name, "events.duckdb"))
with isolation(Path(_HOME.name)):
    write("1.ndjson", *counted.archive())
    assert command("load", "archive", "archive", "--destination", "duckdb", "--credentials", FILE).status == 0
with duckdb.connect(FILE, read_only=True) as con:
    columns = "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE schema_name = 'autopilothq' GROUP BY 1"
    EXISTING = dict(con.execute(columns).fetchall())


class Loaded(test_models.Loaded):
    """The loaded archive; in queries, the SQL of a model replaces the name of its view."""

    def rows(self, sql: str) -> list[test_models.Row]:
        def model(found: re.Match[str]) -> str:
            return f"({models.sql(found[1], EXISTING, schema='autopilothq')})"

        return super().rows(re.sub(r"autopilothq_models\.(\w+)", model, sql))


@pytest.fixture
def loaded() -> Loaded:
    return Loaded("duckdb", FILE)


@pytest.fixture
def target() -> tuple[str, str]:
    return "duckdb", FILE


@pytest.fixture(scope="module")
def report() -> Report:
    return test_report_numbers.read(("duckdb", FILE))
