"""The indexes of a new table in PostgreSQL are created after its rows, and exist in the end whatever happens."""

import copy
import logging
import random
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pyarrow as pa
import pytest
from dlt.sources import DltSource

import autopilothq
from autopilothq.warehouses import postgres_copies
from autopilothq.warehouses.postgres import postgres as segment_postgres
from autopilothq.warehouses.postgres_adbc import SharedConnection
from contract.loading import message, write
from faults.loads import pipeline
from servers import Postgres
from shared_loads import isolation
from test_segment_postgres import described, opened, query

# Whether each index of the large tables was created in the transaction that stored the rows.
WITH_THE_ROWS = """
    SELECT i.indexrelid::regclass::text, i.xmin = (SELECT r.xmin FROM autopilothq.tracks r LIMIT 1)
        OR i.xmin = (SELECT r.xmin FROM autopilothq.email_opened r LIMIT 1)
    FROM pg_index i WHERE i.indrelid IN ('autopilothq.tracks'::regclass, 'autopilothq.email_opened'::regclass)
    ORDER BY 1"""
NUMBER = 600  # the number of messages
STORED = "SELECT (SELECT count(*) FROM autopilothq.tracks), (SELECT count(*) FROM autopilothq.email_opened)"
OPENED = [
    "CREATE UNIQUE INDEX email_opened_pkey ON email_opened USING btree (id)",
    "CREATE INDEX email_opened_received_at_idx ON email_opened USING btree (received_at)",
]


class Made(NamedTuple):
    """The result of a load: all tables, and which indexes of the large ones were created with the rows."""

    tables: dict[str, list[tuple[Any, ...]]]
    with_the_rows: dict[str, bool]


def load(
    url: str,
    change: Callable[[pa.Table], Any] | None = None,
    source: Callable[[], DltSource] = opened,
    /,
    **settings: str,
) -> None:
    """Loads messages whose ids are not ordered by time; `change` is a user's step for the rows of `email_opened`."""
    numbers = list(range(NUMBER))
    random.Random(1).shuffle(numbers)
    times = (f"2019-03-04T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z" for second in range(NUMBER))
    write("1.ndjson", *(message(messageId=f"m{n}", receivedAt=at) for n, at in zip(numbers, times, strict=True)))
    archive = source()
    if change:
        archive.resources["email_opened"].add_yield_map(change)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        pipeline(Path("state"), segment_postgres(url)).run(archive)


def indexes(url: str) -> list[str]:
    """Returns the indexes of `email_opened`."""
    return [line[1] for line in described(url)["email_opened"] if "INDEX" in str(line[1])]


@pytest.fixture(scope="module")
def made(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """The same load with indexes that are created last, and with indexes that existed before the rows."""
    found = {}
    for name, large in (("last", 0), ("first", 2**60)):
        with ExitStack() as stack:
            url = stack.enter_context(postgresql.database())
            stack.enter_context(isolation(tmp_path_factory.mktemp(name)))
            stack.enter_context(pytest.MonkeyPatch.context()).setattr(postgres_copies, "LARGE_FILE", large)
            load(url, None, partial(autopilothq.archive, "archive"))
            assert query(url, STORED) == [(NUMBER, NUMBER)]
            found[name] = Made(described(url), dict(query(url, WITH_THE_ROWS)))
    return found


@pytest.fixture
def every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all new tables get their indexes last, even the smallest."""
    monkeypatch.setattr(postgres_copies, "LARGE_FILE", 0)


def test_a_new_table_has_the_same_columns_keys_and_indexes(made: dict[str, Made]) -> None:
    assert made["last"].tables == made["first"].tables
    assert [line[1] for line in made["last"].tables["email_opened"] if "INDEX" in str(line[1])] == OPENED


def test_its_indexes_are_made_in_the_transaction_that_stores_its_rows(made: dict[str, Made]) -> None:
    names = [
        f"autopilothq.{table}{index}" for table in ("email_opened", "tracks") for index in ("_pkey", "_received_at_idx")
    ]
    assert made["last"].with_the_rows == dict.fromkeys(names, True)
    assert made["first"].with_the_rows == dict.fromkeys(names, False)


@pytest.mark.usefixtures("every_file")
def test_rows_that_a_users_step_doubles_are_stored_once(postgres: str) -> None:
    load(postgres, lambda rows: [pa.concat_tables([rows, rows])])
    assert query(postgres, STORED) == [(NUMBER, NUMBER)]
    assert indexes(postgres) == OPENED


@pytest.mark.usefixtures("every_file")
def test_all_files_of_a_table_are_stored(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    """Files are copied in parallel, and all others wait until the first one has created the indexes."""

    def cut(rows: pa.Table) -> list[pa.Table]:
        return [rows.slice(first, 100) for first in range(0, NUMBER, 100)]

    files = {"DATA_WRITER__FILE_MAX_ITEMS": "100", "DATA_WRITER__BUFFER_MAX_ITEMS": "100"}
    load(postgres, cut, DESTINATION__POSTGRES__LOCK_TIMEOUT="5", **files)
    assert query(postgres, STORED) == [(NUMBER, NUMBER)]
    assert indexes(postgres) == OPENED
    assert [record.message for record in caplog.records if "Waiting" in record.message] == []


@pytest.mark.usefixtures("every_file")
def test_an_index_that_cannot_be_made_last_is_there_all_the_same(
    postgres: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For example because the server has no room to sort."""
    found = postgres_copies._indexes_of

    def impossible(*asked: Any) -> list[tuple[str, str]]:
        return [(drop, f"{create} WITH (fillfactor = 1)") for drop, create in found(*asked)]

    monkeypatch.setattr(postgres_copies, "_indexes_of", impossible)
    caplog.set_level(logging.INFO, postgres_copies.__name__)
    load(postgres)
    assert query(postgres, STORED) == [(NUMBER, NUMBER)]
    assert indexes(postgres) == OPENED
    said = [record.message for record in caplog.records if record.message.startswith("The indexes of ")]
    assert len(said) == 2
    assert "value 1 out of bounds" in said[0]


@pytest.mark.usefixtures("every_file")
def test_a_connection_that_breaks_before_the_indexes_are_made(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its transaction is rolled back, and the load tries again."""
    broken: list[int] = []
    commit = SharedConnection.commit

    def breaking(self: SharedConnection) -> None:
        if self.last_statements and len(broken) < 2:
            with self.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                broken.append(cursor.fetchall()[0][0])
            query(postgres, f"SELECT pg_terminate_backend({broken[-1]})")
        commit(self)

    monkeypatch.setattr(SharedConnection, "commit", breaking)
    load(postgres)
    assert len(broken) == 2
    assert query(postgres, STORED) == [(NUMBER, NUMBER)]
    assert indexes(postgres) == OPENED


# An obstacle, and the log's message.
OBSTACLES = {
    "a row": ("INSERT INTO t VALUES ('m1', now())", ""),
    "a view that groups by the key": (
        "CREATE VIEW v AS SELECT id, at FROM t GROUP BY id",
        "other objects depend on it",
    ),
    "a key that refers to the table": ("CREATE TABLE u (t text REFERENCES t)", "other objects depend on it"),
    "a reader": ("", "could not obtain lock"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_is_in_the_way_keeps_the_indexes(obstacle: str, postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    statement, said = OBSTACLES[obstacle]
    query(postgres, f"CREATE TABLE t (id text PRIMARY KEY, at timestamptz); CREATE INDEX ON t (at); {statement}")
    before = described(postgres, "public")
    caplog.set_level(logging.INFO, postgres_copies.__name__)
    with closing(psycopg2.connect(postgres)) as reader, closing(SharedConnection(postgres)) as connection:
        if obstacle == "a reader":
            reader.cursor().execute("SELECT * FROM t")
        postgres_copies.create_indexes_last(connection, "t")
        # The table is not locked for others in the meantime.
        query(postgres, "SET lock_timeout = '2s'; INSERT INTO t VALUES ('m2', now())")
        connection.commit()
    assert described(postgres, "public") == before
    logged = [record.message for record in caplog.records if record.name == postgres_copies.__name__]
    assert [said in message for message in logged] == [True] * bool(said)


def test_without_an_obstacle_the_indexes_are_away_until_the_end(postgres: str) -> None:
    """Also indexes to which somebody gave a name, a condition or a fill factor."""
    columns = 'id text CONSTRAINT "a % key" PRIMARY KEY, at timestamptz, n int CONSTRAINT one UNIQUE DEFERRABLE'
    index = """"an % index" ON "it's" (lower(id) DESC) WITH (fillfactor = 50) WHERE n > 5"""
    query(postgres, f"""CREATE TABLE "it's" ({columns}); CREATE INDEX {index}""")
    before = described(postgres, "public")
    assert len([line for line in before["it's"] if "INDEX" in str(line[1])]) == 3
    with closing(SharedConnection(postgres)) as connection:
        postgres_copies.create_indexes_last(connection, 'public."it\'s"')
        with connection.cursor() as cursor:
            cursor.execute("SELECT indexname::text FROM pg_indexes WHERE schemaname = 'public'")
            assert cursor.fetchall() == []
        connection.commit()
    assert described(postgres, "public") == before


def test_the_destination_of_a_load_can_be_copied(postgres: str) -> None:
    """dlt copies it to drop a pipeline under another name."""
    destination = segment_postgres(postgres)
    write("1.ndjson", message())
    pipeline(Path("state"), destination).run(opened())
    copied = copy.deepcopy(destination)
    pipeline(Path("other"), copied).run(opened())
    assert query(postgres, STORED) == [(1, 1)]
