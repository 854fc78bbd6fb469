"""The jobs that copy a file into PostgreSQL, each run alone: what they store, and which error they end with."""

import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partialmethod
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adbc_driver_manager import IntegrityError, OperationalError, ProgrammingError
from dlt import Schema
from dlt.destinations.exceptions import DatabaseTerminalException, DatabaseTransientException

from autopilothq.errors import BusyError
from autopilothq.warehouses import postgres_copies
from autopilothq.warehouses.dlt_internals.clients import client_for
from autopilothq.warehouses.postgres import postgres as segment_postgres
from autopilothq.warehouses.postgres_adbc import SharedConnection
from autopilothq.warehouses.postgres_copies import CopyNew, PostgresCopyJob
from faults.loads import pipeline
from servers import ask

NAME = '"autopilothq"."t"'
TABLE: Any = {"name": "t", "columns": {"id": {"name": "id", "data_type": "text", "primary_key": True}}}


@contextmanager
def job(url: str, of: type[PostgresCopyJob], rows: dict[str, Any]) -> Iterator[Any]:
    """Yields the job that copies a file of these rows into the table `t`."""
    path = Path("t.1.0.parquet").absolute()
    pq.write_table(pa.table(rows), path)
    with client_for(pipeline(Path("state").absolute(), segment_postgres(url)), Schema("s")) as client:
        made: Any = of(str(path))
        made.set_run_vars("1", Schema("s"), TABLE)
        made._job_client = client
        yield made


def create(url: str, of_key: str = "text") -> None:
    """Creates the table, with the row `b`."""
    ask(url, f"CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.t (id {of_key} PRIMARY KEY, n smallint)")
    ask(url, "INSERT INTO autopilothq.t VALUES ('b', 1)")


def stored(url: str) -> list[tuple[object, ...]]:
    return ask(url, "SELECT id, n FROM autopilothq.t ORDER BY id")


TRIGGER = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON autopilothq.t FOR EACH ROW EXECUTE FUNCTION refuse()"""


class Ended(NamedTuple):
    """The error that a copy ends with, a part of its text, and what is logged."""

    error: type[Exception]
    text: str
    logged: str = ""


ENDS = {
    "a value that the column cannot hold": Ended(DatabaseTerminalException, "incorrect binary data format"),
    "a row that is there": Ended(IntegrityError, "duplicate key"),
    "no table": Ended(ProgrammingError, "does not exist"),
    "a trigger that raises an error": Ended(OperationalError, "not today"),
    "a lock": Ended(BusyError, "Waited for the table autopilothq.t of ", "Waiting for the table autopilothq.t of "),
    "a connection that breaks": Ended(DatabaseTransientException, "[libpq]"),
}


@pytest.mark.parametrize("what", ENDS)
def test_what_ends_a_copy(
    what: str, postgres: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """dlt tries again after an error that it takes for a passing one, and only then."""
    create(postgres)
    monkeypatch.setenv("DESTINATION__POSTGRES__LOCK_TIMEOUT", "0.6")
    rows = {"id": ["b" if what == "a row that is there" else "c"], "n": pa.array([1], pa.int16())}
    expected, commit = ENDS[what], SharedConnection.commit

    def breaking(self: SharedConnection) -> None:
        with suppress(Exception), self.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        commit(self)

    with closing(psycopg2.connect(postgres)) as other, job(postgres, PostgresCopyJob, rows) as copy:
        if what == "a value that the column cannot hold":
            pq.write_table(pa.table({**rows, "n": [1]}), copy._file_path)
        elif what == "no table":
            ask(postgres, "ALTER TABLE autopilothq.t RENAME TO u")
        elif what == "a trigger that raises an error":
            ask(postgres, TRIGGER)
        elif what == "a lock":
            other.cursor().execute("LOCK TABLE autopilothq.t IN SHARE MODE")
        elif what == "a connection that breaks":
            monkeypatch.setattr(SharedConnection, "commit", breaking)
        with pytest.raises(expected.error, match=re.escape(expected.text)):
            copy.run()
        assert copy._closed.is_set()
    ask(postgres, "ALTER TABLE IF EXISTS autopilothq.u RENAME TO t")
    assert stored(postgres) == [("b", 1)]
    said = [record.message for record in caplog.records if record.name.startswith("autopilothq.")]
    assert [expected.logged in message for message in said] == [True] * bool(expected.logged), said


@pytest.mark.parametrize(
    ("ids", "files"),
    [
        (["a", "b", "c"], ["t.1.0.parquet", "t.1.0.parquet"]),
        (["b", "b"], ["t.1.0.parquet"]),
        (["a"], ["t.1.0.parquet"]),
    ],
)
def test_rows_that_are_there_are_left_out(
    ids: list[str], files: list[str], postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is copied if it would have no rows."""
    create(postgres)
    copied, run = list[str](), PostgresCopyJob.run
    whole = str(Path("t.1.0.parquet").absolute())

    def noted(self: PostgresCopyJob) -> None:
        path: str = self._file_path
        assert (path == whole) == (not copied)
        copied.append(Path(path).name)
        run(self)

    monkeypatch.setattr(PostgresCopyJob, "run", noted)
    with job(postgres, CopyNew, {"id": ids, "n": pa.array([2] * len(ids), pa.int16())}) as copy:
        copy.run()
        assert copy._file_path == whole
    assert copied == files
    assert stored(postgres) == sorted([("b", 1), *((of, 2) for of in ids if of != "b")])


@pytest.mark.parametrize("spare", [0, 1])
def test_the_first_file_of_a_new_table_is_large_from_a_number_of_bytes_on(
    spare: int, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the index is created in the transaction that stores the rows."""
    create(postgres)
    ask(postgres, "TRUNCATE autopilothq.t")
    with job(postgres, CopyNew, {"id": ["a"], "n": pa.array([1], pa.int16())}) as copy:
        monkeypatch.setattr(postgres_copies, "LARGE_FILE", Path(copy._file_path).stat().st_size + spare)
        new_tables = copy._job_client.config.new_tables
        new_tables[NAME] = threading.Lock()
        copy.run()
        assert (dict(new_tables), copy._indexes_last) == ({}, False)
    assert stored(postgres) == [("a", 1)]
    index = "SELECT xmin FROM pg_index WHERE indrelid = 'autopilothq.t'::regclass"
    assert ask(postgres, f"SELECT xmin = ({index}) FROM autopilothq.t") == [(not spare,)]


def test_the_others_of_all_batches_are_kept(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the key has a type that pads it with blanks."""
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", partialmethod(pq.ParquetFile.iter_batches, 2))
    create(postgres, "char(4)")
    with job(postgres, CopyNew, {"id": [*"aabcab"], "n": range(6)}) as copy:
        assert copy._write_new_rows("rest.parquet") == 2
    assert pq.read_table("rest.parquet").to_pydict() == {"id": ["a", "c"], "n": [0, 3]}
