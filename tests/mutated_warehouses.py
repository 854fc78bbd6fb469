"""The tests that tests/mutate_sql.py runs for the SQL of the destinations, on a server that is started once."""

import atexit
from contextlib import ExitStack

import pytest

import test_sql_files
from servers import Postgres, postgres_server

_STACK = ExitStack()
_SERVER = _STACK.enter_context(postgres_server())
atexit.register(_STACK.close)
OF_DIALECTS = ("test_each_file",)
globals().update(
    {
        name: value
        for name, value in vars(test_sql_files).items()
        if name in ("odd", "odd_duckdb") or (name.startswith("test_") and not name.startswith(OF_DIALECTS))
    }
)


@pytest.fixture(scope="session")
def postgresql() -> Postgres:
    return _SERVER
