"""The tables of a dataset in DuckDB or PostgreSQL, as another program may have left them, are read and written."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest
from dlt import Schema
from dlt.common.schema.utils import new_table

from autopilothq.catalog import AUDIT, Column, Table
from autopilothq.errors import NotSupported
from autopilothq.warehouses.dataset import (
    SqlDataset,
    audit_row,
    audit_sums,
    connected,
    dataset_of,
    deleted_persons,
    first_event_of_others,
    last_load,
    loaded_files,
    newest,
    open_dataset,
    sql,
    sql_schema,
    table_names,
    table_path,
)
from autopilothq.warehouses.dataset.interface import UnknownType
from autopilothq.warehouses.dataset.loads import Loaded
from autopilothq.warehouses.dataset.sql_statements import _lowered
from autopilothq.warehouses.dataset.text_columns import check_text_columns, unknown_types
from autopilothq.warehouses.dlt_internals import DatabaseException
from autopilothq.warehouses.dlt_internals.clients import client_for
from autopilothq.warehouses.duckdb import DirectClient, direct
from autopilothq.warehouses.hints import SOURCE
from autopilothq.warehouses.postgres import postgres as postgres_destination
from autopilothq.warehouses.repair import repair_tables
from autopilothq.warehouses.selection import ALL_MESSAGES
from servers import ask
from shared_loads import isolation

NOW = datetime(2019, 3, 20, 10, tzinfo=UTC)


@contextmanager
def opened(folder: Path, destination: Any) -> Iterator[SqlDataset]:
    """Yields the dataset `data` of a destination, with an open connection."""
    pipeline = dlt.pipeline("p", str(folder), destination=destination, dataset_name="data")
    with client_for(pipeline, Schema(SOURCE)) as client:
        dataset = dataset_of(client)
        assert isinstance(dataset, SqlDataset)
        yield dataset


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[duckdb.DuckDBPyConnection, SqlDataset]]:
    """A database in memory, which all tests use, and the dataset there."""
    folder = tmp_path_factory.mktemp("memory")
    with ExitStack() as stack:
        con = stack.enter_context(duckdb.connect())
        with isolation(folder):
            dataset = stack.enter_context(opened(folder, direct(con)))
        yield con, dataset


@pytest.fixture
def con(memory: tuple[duckdb.DuckDBPyConnection, SqlDataset]) -> Iterator[duckdb.DuckDBPyConnection]:
    con, _ = memory
    con.execute("CREATE SCHEMA data")
    yield con
    for (name,) in con.execute("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").fetchall():
        con.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
def dataset(memory: tuple[duckdb.DuckDBPyConnection, SqlDataset], con: duckdb.DuckDBPyConnection) -> SqlDataset:  # noqa: ARG001 - makes the schema
    return SqlDataset(memory[1].client)


# What loads ask for -------------------------------------------------------------------------------------------------


def test_what_complete_loads_have_of_each_file(dataset: SqlDataset, con: duckdb.DuckDBPyConnection) -> None:
    complete = {"1", "3"}
    assert loaded_files(dataset, complete) == {}
    con.execute(  # as an earlier version made it
        "CREATE TABLE data._audit AS FROM (VALUES ('a', 'v', '1', 7), ('a', 'w', '2', 8), ('b', 'v', '3', NULL))"
        " AS t(file, version, load_id, stored)"
    )
    assert loaded_files(dataset, complete) == {("a", "v"): Loaded("1", 7, None), ("b", "v"): Loaded("3", 0, None)}
    con.execute(
        "ALTER TABLE data._audit ADD COLUMN tables VARCHAR; ALTER TABLE data._audit ADD COLUMN mended BIGINT;"
        """UPDATE data._audit SET tables = '{"contacts": "all"}', mended = 5 WHERE load_id = '3'"""
    )
    assert loaded_files(dataset, complete) == {
        ("a", "v"): Loaded("1", 7, None, 0), ("b", "v"): Loaded("3", 0, {"contacts": ALL_MESSAGES}, 5),
    }  # fmt: skip
    con.execute("ALTER TABLE data._audit ALTER load_id TYPE BIGINT")
    with pytest.raises(NotSupported, match=r"^Expected _audit in the dataset data .* load_id, .* the type bigint"):
        loaded_files(dataset, complete)


def test_the_row_of_a_file_in_the_books(dataset: SqlDataset, con: duckdb.DuckDBPyConnection) -> None:
    assert audit_row(dataset, "a", "v") is None
    con.execute("CREATE TABLE data._audit AS FROM (VALUES ('a', 'v'), ('a', 'w')) AS t(file, version)")
    nothing = dict.fromkeys((column.name for column in AUDIT.columns), None)
    assert audit_row(dataset, "a", "v") == {**nothing, "file": "a", "version": "v"}
    con.execute("ALTER TABLE data._audit ADD COLUMN lines BIGINT; UPDATE data._audit SET lines = rowid + 1")
    for version, lines in (("v", 1), ("w", 2)):
        assert audit_row(dataset, "a", version) == {**nothing, "file": "a", "version": version, "lines": lines}
    assert audit_row(dataset, "v", "a") is audit_row(dataset, "b", "v") is None
    con.execute("ALTER TABLE data._audit DROP COLUMN version")
    assert audit_row(dataset, "a", "v") is None


def test_counts_that_came_later_are_summed_where_they_are(dataset: SqlDataset, con: duckdb.DuckDBPyConnection) -> None:
    assert audit_sums(dataset_of(dataset.client), ["lines", "mended"]) == "sum({lines}), 0"
    con.execute("CREATE TABLE data._audit (file VARCHAR, mended BIGINT)")
    assert audit_sums(dataset, ["lines", "skipped", "mended"]) == "sum({lines}), 0, sum({mended})"


def test_the_first_event_of_another_library(dataset: SqlDataset, con: duckdb.DuckDBPyConnection) -> None:
    assert first_event_of_others(dataset, "api") is None
    con.execute("CREATE TABLE data.tracks (timestamp TIMESTAMP)")
    assert first_event_of_others(dataset, "api") is None
    con.execute("ALTER TABLE data.tracks ADD COLUMN context_library_name VARCHAR")
    for hour, library, first in ((9, "'api'", None), (8, "'web'", 8), (7, "NULL", 7), (6, "'api'", 7)):
        con.execute(f"INSERT INTO data.tracks VALUES ('2019-03-20 {hour:02}:00:00', {library})")
        assert first_event_of_others(dataset, "api") == (first and NOW.replace(hour=first))


def test_the_last_load_is_not_in_the_future(dataset: SqlDataset, con: duckdb.DuckDBPyConnection) -> None:
    assert last_load(dataset_of(dataset.client), NOW) is None
    assert dataset.complete_loads() == set()
    con.execute("CREATE TABLE data._dlt_loads (load_id VARCHAR, status BIGINT, inserted_at TIMESTAMP)")
    assert last_load(dataset, NOW) is None
    ahead, skewed = NOW + timedelta(days=1, seconds=1), NOW + timedelta(days=1)
    for load, status, at, last in (
        ("1", 0, ahead, ("1", ahead)),
        ("2", 0, NOW - timedelta(hours=2), ("2", NOW - timedelta(hours=2))),
        ("3", 1, NOW, ("2", NOW - timedelta(hours=2))),  # not complete
        ("4", 0, NOW - timedelta(hours=3), ("2", NOW - timedelta(hours=2))),
        ("5", 0, skewed, ("5", skewed)),
    ):
        con.execute("INSERT INTO data._dlt_loads VALUES (?, ?, ?)", [load, status, at.replace(tzinfo=None)])
        assert last_load(dataset, NOW) == last
    assert dataset.complete_loads() == {"1", "2", "4", "5"}
    assert newest([], NOW) is None


def test_nobody_is_deleted_without_a_list(dataset: SqlDataset, con: duckdb.DuckDBPyConnection) -> None:
    assert list(deleted_persons(dataset).pairs()) == []
    con.execute("CREATE TABLE data._suppressions AS FROM (VALUES ('s', 'h', 1)) AS t(salt, id, other)")
    assert list(deleted_persons(dataset).pairs()) == [("s", "h")]
    con.execute("ALTER TABLE data._suppressions DROP COLUMN salt")
    with pytest.raises(NotSupported, match=r"^Expected _suppressions in the dataset data .* column salt, .* no such"):
        deleted_persons(dataset)


# Tables of others ---------------------------------------------------------------------------------------------------


Place = tuple[SqlDataset, Callable[[str], list[tuple[Any, ...]]]]


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A new dataset, and a function that runs SQL beside it."""
    if request.param == "duckdb":
        con: duckdb.DuckDBPyConnection = request.getfixturevalue("con")
        yield request.getfixturevalue("dataset"), lambda sql: con.execute(sql).fetchall()
        return
    url: str = request.getfixturevalue("postgres")
    ask(url, "CREATE SCHEMA data")
    with opened(tmp_path, postgres_destination(url)) as dataset:
        yield dataset, partial(ask, url)


def test_names_in_any_spelling_are_found(place: Place) -> None:
    dataset, run = place
    run('CREATE TABLE data."Own %s Table" ("Id" VARCHAR, "a %" BIGINT, came TIMESTAMPTZ, day DATE, n DOUBLE PRECISION)')
    spelt = {"id": "text", "a %": "bigint", "came": "timestamp"}
    name = "own %s table"
    types = {column: of.type for column, of in dataset.columns()[name].items()}
    assert types == {**spelt, "day": "date", "n": "double"}
    assert dataset.tables([name, "nothing", name]) == {name: {**spelt, "n": "double"}}
    assert dataset.tables(["other"]) == {}
    assert (dataset.widths, dataset.zoned) == ({name: 5, "nothing": 0, "other": 0}, {name})
    assert dataset.column_names == {name: {*spelt, "day", "n"}, "nothing": set(), "other": set()}
    assert table_path(dataset, name)[-2:] == ["data", "Own %s Table"]
    assert [dataset.sql.spelling(name, column) for column in ("id", "other")] == ["Id", "other"]
    run("""INSERT INTO data."Own %s Table" VALUES ('x', 1, NULL, NULL, 0.5), ('%s', 2, NULL, NULL, NULL)""")
    assert [batch.to_pydict() for batch in dataset.read(name, ["id", "a %"])] == [{"id": ["x", "%s"], "a %": [1, 2]}]
    for ids, rows in (([], ["x", "%s"]), (["%s"], ["%s"]), (["y"], [])):
        got = [id_ for batch in dataset.read(name, ["id"], ids) for id_ in batch.to_pydict()["id"]]
        assert got == (rows if dataset.kind == "postgres" else ["x", "%s"])
    for where, values in (("{id} = %s", ("%s",)), ("{id} LIKE '%%s' AND {a %} > %s", (1,)), ("{id} LIKE '%%s'", ())):
        assert dataset.rows("{a %}", name, f"WHERE {where}", *values) == [(2,)]
    dataset.update(name, {"a %": None}, dataset.template(name, "{id} = %s"), ["%s"])
    dataset.delete(name, dataset.template(name, "{id} = %s"), ["x"])
    assert run('SELECT * FROM data."Own %s Table"') == [("%s", None, None, None, None)]
    run('DROP TABLE data."Own %s Table"')
    assert dataset.tables([name]) == {}


@pytest.mark.parametrize(
    ("fold", "spelt", "names"),
    [
        (str, ["Tracks", "tracks", "TRACKS"], {"Tracks": "Tracks", "tracks": "tracks", "TRACKS": "TRACKS"}),
        (str.lower, ["Tracks", "TRACKS"], {"Tracks": "Tracks", "TRACKS": "tracks"}),
        (str.upper, ["Tracks", "TRACKS"], {"Tracks": "Tracks", "TRACKS": "tracks"}),
        (str.upper, ["tracks", "TRACKS"], {"TRACKS": "tracks"}),  # Snowflake's table, and not somebody's beside it
        (str.upper, ["tracks"], {"tracks": "tracks"}),
    ],
)
def test_of_names_that_differ_in_case_the_destinations_own_is_the_one_in_lower_case(
    fold: Callable[[str], str], spelt: list[str], names: dict[str, str]
) -> None:
    assert list(_lowered(spelt, fold).items()) == list(names.items())


def test_what_is_known_of_tables_beyond_their_columns(place: Place) -> None:
    dataset, run = place
    assert (dataset.keys(), dataset.comments(), dataset.lengths(), dataset.views()) == ({}, {}, {}, set())
    run('CREATE TABLE data."Keyed" ("B" VARCHAR(1), a VARCHAR(65534), c VARCHAR(65535), PRIMARY KEY ("B", a))')
    run("""COMMENT ON TABLE data."Keyed" IS 'of all'""")
    run("""COMMENT ON COLUMN data."Keyed"."B" IS 'of one'""")
    run("CREATE TABLE data.kept (id TEXT, received_at TIMESTAMP)")
    run('CREATE VIEW data."Seen" AS SELECT 1 AS n')
    dataset.columns()
    assert dataset.keys() == {"keyed": ("b", "a")}
    assert dataset.comments() == {("keyed", None): "of all", ("keyed", "b"): "of one"}
    is_limited = dataset.kind == "postgres"
    assert dataset.lengths() == ({("keyed", "b"): 1, ("keyed", "a"): 65_534} if is_limited else {})
    assert dataset.views() == {"seen"}
    found = table_names(dataset)
    assert found.messages == {"kept"}
    assert found.views == {"Seen" if is_limited else "seen"}
    assert found.others >= ({"Keyed", "Keyed_pkey"} if is_limited else {"keyed"})
    # Other warehouses are asked by views that these have, too.
    assert sql_schema.primary_keys(dataset.sql, "other") == {"keyed": ("b", "a")}
    assert sql_schema.comments(dataset.sql, "other") == {}
    others = sql_schema.taken_names(dataset.sql, "other", None)
    assert others == {"messages": {"keyed", "kept"}, "view": {"seen"}, "other": set()}


def test_books_are_looked_for_where_they_belong(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "CREATE TABLE data.tracks (id VARCHAR); CREATE TABLE data._rejects (id VARCHAR); CREATE SCHEMA books;"
        " CREATE TABLE books.tracks (n BIGINT); CREATE TABLE books._audit (file VARCHAR PRIMARY KEY)"
    )
    with opened(tmp_path, direct(con, books_dataset="books")) as dataset:
        tables = {"tracks": {"id": "text"}, "_audit": {"file": "text"}}
        assert {table: list(columns) for table, columns in dataset.columns().items()} == {
            table: list(columns) for table, columns in tables.items()
        }
        assert dataset.tables(["tracks", "_rejects", "_audit"]) == tables
        assert dataset.keys() == {"_audit": ("file",)}
        assert table_path(dataset, "_audit")[-2:] == ["books", "_audit"]


def test_a_block_has_one_connection_and_asks_for_the_dataset_until_it_is_there(
    tmp_path: Path, con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, is_there = list[Any](), DirectClient.is_storage_initialized

    def noted(client: DirectClient) -> bool:
        clients.append(client)
        return is_there(client)

    monkeypatch.setattr(DirectClient, "is_storage_initialized", noted)
    dataset = open_dataset(dlt.pipeline("p", str(tmp_path), destination=direct(con), dataset_name="data"))
    con.execute("CREATE TABLE data.a (id VARCHAR)")
    found = {"a": {"id": "text"}}
    assert [dataset.tables(["a"]) for _ in range(2)] == [found] * 2
    con.execute("DROP SCHEMA data CASCADE")
    with connected(dataset):
        assert dataset.tables(["a"]) == {}
        con.execute("CREATE SCHEMA data; CREATE TABLE data.a (id VARCHAR)")
        assert [dataset.tables(["a"]) for _ in range(2)] == [found] * 2
    con.execute("DROP SCHEMA data CASCADE")
    assert dataset.tables(["a"]) == {}
    assert [clients.index(client) for client in clients] == [0, 1, 2, 2, 4]


def test_the_staging_dataset_has_tables_of_its_own(place: Place) -> None:
    dataset, run = place
    run("CREATE TABLE data.a (id TEXT)")
    assert dataset.parts() == [dataset]
    run(
        "CREATE SCHEMA data_staging; CREATE TABLE data_staging.a (id TEXT, n BIGINT);"
        " CREATE VIEW data_staging.v AS SELECT 1 AS n"
    )
    [_, staged] = parts = dataset.parts()
    assert [part.name for part in parts] == ["data", "data_staging"]
    assert [{table: list(columns) for table, columns in part.columns().items()} for part in parts] == [
        {"a": ["id"]}, {"a": ["id", "n"], "v": ["n"]},
    ]  # fmt: skip
    assert [part.views() for part in parts] == [set(), {"v"}]
    assert [part.tables(["a"]) for part in parts] == [{"a": {"id": "text"}}, {"a": {"id": "text", "n": "bigint"}}]
    assert staged.lacks("a") is staged.lacks("v") is False
    assert (dataset.lacks("v"), staged.lacks("b")) == (True, True)
    run("INSERT INTO data_staging.a VALUES ('x', 1)")
    assert [part.rows("{id}", "a") for part in parts] == [[], [("x",)]]
    assert staged.rows("{n}", "a", "WHERE {id} || '%%' = %s", "x%") == [(1,)]
    assert [table_path(part, "b")[-2:] for part in parts] == [["data", "b"], ["data_staging", "b"]]
    assert [batch.to_pydict() for batch in staged.read("a", ["id"])] == [{"id": ["x"]}]
    staged.delete("a", "1 = 1", [])
    assert run("SELECT * FROM data_staging.a") == []


def test_postgresql_does_not_end_a_transaction_whose_rows_are_worked_on(postgres: str, tmp_path: Path) -> None:
    setting = "idle_in_transaction_session_timeout"
    ask(postgres, f"CREATE SCHEMA data; CREATE VIEW data.a AS SELECT current_setting('{setting}') AS id")
    with opened(tmp_path, postgres_destination(f"{postgres}?options=-c{setting}%3D1h")) as dataset:
        dataset.tables(["a"])
        assert list(dataset.stream("SELECT id FROM", "a")) == [("1h",)]
        assert [batch.to_pydict() for batch in dataset.read("a", ["id"])] == [{"id": ["0"]}]


# What is written ----------------------------------------------------------------------------------------------------

ROWS = Table("rows", "", (Column("id", "text", ""), Column("n", "bigint", ""), Column("at", "timestamp", "")))


def test_rows_are_inserted_in_pieces_and_all_or_none_of_a_transaction(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, run = place
    monkeypatch.setattr(sql, "ROWS_PER_INSERT", 2)
    run("DROP SCHEMA data CASCADE")
    dataset.create(ROWS)
    dataset.create(ROWS)
    rows = [("a", 1, NOW), ("%s", None, None), (None, -1, NOW), ("d", 4, NOW), ("e", 5, None)]
    dataset.insert(ROWS, rows)
    assert dataset.rows("{id}, {n}, {at}", "rows", "ORDER BY coalesce({n}, 2)") == [
        rows[2],
        rows[0],
        rows[1],
        *rows[3:],
    ]
    with suppress(KeyError), dataset.transaction():
        dataset.insert(ROWS, rows[:1])
        dataset.update("rows", {"n": 7, "id": None}, dataset.template("rows", "{id} = %s"), ["d"])
        raise KeyError
    assert len(dataset.rows("{id}", "rows")) == 5
    dataset.update("rows", {"n": 7, "id": None}, dataset.template("rows", "{id} = %s AND {n} = %s"), ["d", 4])
    assert sorted(dataset.rows("{n}", "rows", "WHERE {id} IS NULL")) == [(-1,), (7,)]


def test_of_rows_with_one_key_the_copies_go(place: Place) -> None:
    dataset, run = place
    rows = [("x", 1, 1), ("x", 2, 2), ("y", 1, 3), ("y", 1, 4)]
    run("CREATE TABLE data.t (a TEXT, b BIGINT, n BIGINT); CREATE TABLE data._copies (id TEXT)")
    run(f"INSERT INTO data.t VALUES {', '.join(map(str, [*rows[:2], *rows]))}, (NULL, 1, 5)")
    with dataset.sql.open_in_dataset() as client:
        sql._keep_one_of_each(client.sql_client, "t", ['"a"', '"b"'])
        assert sorted(map(str, run("SELECT * FROM data.t"))) == sorted(map(str, [*rows, (None, 1, 5)]))
        assert dataset.tables(["_copies"]) == {}
        run("CREATE TABLE data._copies (id TEXT)")
        sql._keep_one_of_each(client.sql_client, "t", ['"n"', '"a"', '"b"'])
    assert dataset.tables(["_copies"]) == {"_copies": {"id": "text"}}  # nothing is written where nothing came twice


def test_copies_go_from_the_tables_that_the_stored_schema_has_a_key_of(
    tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    schema = Schema(SOURCE)
    for name, key in (("keyed", True), ("keyless", False), ("missing", True)):
        columns: Any = [{"name": "id", "data_type": "text", "primary_key": key}]
        schema.update_table(new_table(name, columns=columns))
    schema._bump_version()
    con.execute("CREATE TABLE data.keyed AS FROM (VALUES ('a'), ('a'), ('b')) AS t(id)")
    con.execute("CREATE TABLE data.keyless AS FROM data.keyed; CREATE TABLE data.other AS FROM data.keyed")
    with opened(tmp_path, direct(con)) as dataset:
        dataset.drop_copies()  # there is no schema yet
        with client_for(dlt.pipeline("p", str(tmp_path), destination=direct(con), dataset_name="data"), schema) as own:
            own.update_stored_schema()
        con.execute("DROP TABLE data.missing")
        dataset.drop_copies()
    counts = [con.table(f"data.{name}").shape[0] for name in ("keyed", "keyless", "other")]
    assert counts == [2, 3, 3]


def test_a_lock_is_that_of_one_table_and_ends_with_its_block(place: Place) -> None:
    dataset, run = place
    is_held = dataset.kind == "postgres"
    with dataset.locked("t") as first, dataset.locked("t") as second, dataset.locked("u") as other:
        assert (first, second, other) == (True, not is_held, True)
        if is_held:  # versions of this program that run beside each other need the same number
            number = "(classid::bigint << 32) | objid::bigint"
            locks = f"SELECT {number} FROM pg_locks WHERE locktype = 'advisory' ORDER BY 1"
            assert run(locks) == [(-232233861519409740,), (8078627281177034956,)]
    with suppress(KeyError), dataset.locked("t"):
        raise KeyError
    with dataset.locked("t") as last:
        assert last


def test_columns_by_which_loads_find_rows_are_plain_text(place: Place) -> None:
    dataset, run = place
    run("CREATE TABLE data.t (id TEXT, n BIGINT, u UUID)")
    existing, is_told = dataset.tables(["t"]), dataset.kind == "postgres"
    assert unknown_types(dataset) == ({("t", "u"): UnknownType("uuid", False)} if is_told else {})
    check_text_columns(dataset, existing, {"t": ["id"] if is_told else ["id", "u"]})
    check_text_columns(dataset, {}, {})
    for column, found in {
        "n": "it has the type bigint",
        "none": "there is no such column",
        **({"u": "it has the type uuid"} if is_told else {}),
    }.items():
        with pytest.raises(NotSupported) as raised:
            check_text_columns(dataset, existing, {"t": ["id", column]})
        assert str(raised.value) == (
            f"Expected t in the dataset data to have a text column {column}, by which loads find its rows, but {found}."
            "\nIf it is somebody else's table, rename it (ALTER TABLE ... RENAME TO ...), or load into another dataset"
            " (--dataset, dataset_name). If the column was changed, change it back, or drop the table: the load makes"
            " it again."
        )


def test_a_table_that_cannot_be_read_is_not_one_that_lacks_columns(
    tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    """The error about those says to drop it. Snowflake spells the columns like this."""
    names = Schema(SOURCE).tables["_dlt_version"]["columns"]
    cells = ", ".join(f"error('a reason') AS {name.upper()}" for name in names)
    con.execute(f"CREATE VIEW data._dlt_version AS SELECT {cells}")
    with pytest.raises(DatabaseException, match="a reason"):
        repair_tables(dlt.pipeline("p", str(tmp_path), destination=direct(con), dataset_name="data"))
