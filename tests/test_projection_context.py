"""What the steps of a projection share: DuckDB, the names in its SQL, and the table of each message."""

import dataclasses
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopilothq.catalog import MESSAGE_TABLES, Type
from autopilothq.projection import TableRows, engine
from autopilothq.projection.cells import LONGEST_EVENT, ParsedCells
from autopilothq.projection.context import (
    EventName,
    ProjectionContext,
    TableNumbers,
    declared_types,
    name_events,
    ordered_columns,
)
from contract.loading import projection_context

OWN = [table.name for table in MESSAGE_TABLES]
SETTINGS = ("memory_limit", "threads", "preserve_insertion_order", "enable_progress_bar", "TimeZone", "temp_directory")


def settings(con: duckdb.DuckDBPyConnection) -> list[object]:
    [found] = con.sql(f"SELECT {', '.join(f'current_setting({engine.literal(name)})' for name in SETTINGS)}").fetchall()
    return list(found)


def test_an_engine_takes_what_it_may_and_spills_where_it_may(tmp_path: Path) -> None:
    with engine.connect(f"{tmp_path}/it's", 100, 3) as con:
        assert settings(con) == ["95.3 MiB", 3, False, False, "UTC", f"{tmp_path}/it's/spill"]
        assert con.cursor().sql("SELECT current_setting('TimeZone'), as_bool('1')").fetchall() == [("UTC", True)]
    with engine.connect("", 200, 1) as con:
        assert settings(con)[:2] == ["190.7 MiB", 1]


def test_tables_are_there_while_the_block_runs(tmp_path: Path) -> None:
    with engine.connect(str(tmp_path), 100, 1) as con:
        with suppress(ZeroDivisionError), engine.registered(con, a=pa.table({"n": [1]}), b=pa.table({"n": [2]})):
            assert con.sql("FROM a UNION ALL FROM b").fetchall() == [(1,), (2,)]
            raise ZeroDivisionError
        for name in "ab":
            with pytest.raises(duckdb.CatalogException):
                con.sql(f"FROM {name}")
        con.execute("CREATE TABLE kept (n BIGINT, word VARCHAR)")
        batches = pa.table({"n": [1, 2, 3]}).to_batches(max_chunksize=2)
        engine.read_stored(con, iter(batches), "INSERT INTO kept SELECT n, $word FROM stored", {"word": "a"})
        engine.read_stored(con, iter(batches), "INSERT INTO kept SELECT n, 'b' FROM stored")
        engine.read_stored(con, [], "nothing that is run")
        assert con.sql("FROM kept ORDER BY ALL").fetchall() == [
            (1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a"), (3, "b"),
        ]  # fmt: skip
        assert (engine.count(con, "kept"), engine.count(con, "(FROM kept WHERE n > 1)")) == (6, 4)


def test_statements_of_a_file_have_names() -> None:
    text = "-- A file.\n\n-- name: one\n-- Why.\nSELECT 1\n\n-- name: two\nSELECT 2 -- name: no\n"
    assert engine.statements(text) == {"one": "-- Why.\nSELECT 1", "two": "SELECT 2 -- name: no"}


def test_names_and_texts_in_sql() -> None:
    assert engine.name('a"b') == '"a""b"'
    assert engine.literal("it's") == "'it''s'"
    assert engine.literals(["a", "b'"]) == "['a', 'b''']"
    assert engine.is_one_of("x", ["a", "b'"]) == "x IN ('a', 'b''')"
    assert engine.is_one_of("x", []) == "false"
    assert engine.glob_literal("a/Xb'\\.parquet") == "'a/Xb''\\.parquet'"
    assert [engine.glob_literal(f"a{sign}\\") for sign in "[*?"] == ["'a[[][[-]]'", "'a[*][[-]]'", "'a[?][[-]]'"]
    assert engine.parquet_files(["a", "b*"], union_by_name="true", x="1") == (
        "read_parquet(['a', 'b[*]'], union_by_name = true, x = 1)"
    )
    assert engine.parquet_files(["a"]) == "read_parquet(['a'])"
    assert engine.copy_statement("SELECT 1", "it's") == (
        "COPY (SELECT 1) TO 'it''s' (FORMAT parquet, DICTIONARY_SIZE_LIMIT 1000, COMPRESSION uncompressed)"
    )


def test_lines_and_errors_as_text() -> None:
    assert engine.printable(b"a\0\xff X \r\n\r\n") == "a\\x00\\xff X "
    error = ValueError(f"two\nlines\t of \ud800 and \0 {'x' * 400}")
    start = "ValueError: two lines of \\ud800 and \\x00 "
    assert engine.error_line(error) == start + "x" * (300 - len(start))
    assert list(engine.batched("abcde", 2)) == [("a", "b"), ("c", "d"), ("e",)]
    table = engine.text_table([{"seq": 1, "a": "x"}, {"seq": 2, "b": None}], ["a", "seq", "b"])
    assert table.to_pylist() == [{"a": "x", "seq": 1, "b": None}, {"a": None, "seq": 2, "b": None}]
    assert [str(of) for of in table.schema.types] == ["string", "int64", "string"]


def test_names_of_events_and_their_tables() -> None:
    slugs = {"opened_it": "opened", "購入": "", "a": "a"}
    events = name_events(['"Opened It"', '"購入"', '"a\\u0000"', '"OpenedIt"'], lambda key: slugs[key])
    assert events == [
        EventName('"Opened It"', "Opened It", "opened", ('"Opened It"', '"opened_it"', '"_opened_it"')),
        EventName('"購入"', "購入", None, ('"購入"', '""', '"_"')),
        EventName('"a\\u0000"', None, "a", ('"a\\u0000"', '"a"', '"_a"')),
        EventName('"OpenedIt"', "OpenedIt", "opened", ('"OpenedIt"', '"opened_it"', '"_opened_it"')),
    ]
    tables = TableNumbers.of([*events, EventName('"p"', "p", "pages", ())])
    first = len(OWN)
    assert tables.names == [*OWN, "opened", "a"]
    assert tables.events == {
        '"Opened It"': first, '"購入"': 0, '"a\\u0000"': first + 1, '"OpenedIt"': first, '"p"': OWN.index("pages"),
    }  # fmt: skip
    fewer = tables.without([first])
    assert (fewer.names, fewer.events['"OpenedIt"'], fewer.events['"a\\u0000"']) == (tables.names, 0, first + 1)


def test_which_messages_are_of_a_table() -> None:
    tables = TableNumbers([*OWN, "a", "b"], {'"A"': 6, '"a"': 6, '"B\'"': 7, '"none"': 0})
    assert [tables.where(number) for number in (0, 1, 5, 6, 7, 8)] == [
        "kind = 'track' AND table_number = 0", "kind = 'identify'", "kind = 'group'", """event IN ('"A"', '"a"')""",
        """event IN ('"B''"')""", "false",
    ]  # fmt: skip
    assert [tables.where_of_rows(number) for number in (0, 1, 7)] == [
        "kind = 'track'", "kind = 'identify'", tables.where(7),
    ]  # fmt: skip
    assert tables.where_any([1, 6, 7]) == """kind = 'identify' OR event IN ('"A"', '"a"', '"B''"')"""
    assert tables.where_any([5, 1]) == "kind = 'group' OR kind = 'identify' OR false"


def test_sql_has_a_digest_of_an_events_long_name() -> None:
    longest, longer = (f'"{"n" * (number - 2)}"' for number in (LONGEST_EVENT, LONGEST_EVENT + 1))
    digest = sha256(longer.encode()).hexdigest()
    tables = TableNumbers([*OWN, "a", "b"], {'"a"': 6, longer: 6, longest: 7})
    assert [tables.where(number) for number in (6, 7)] == [
        f"""event IN ('"a"', '{digest}')""", f"event IN ('{longest}')",
    ]  # fmt: skip
    assert tables.where_any([6, 7]) == f"""event IN ('"a"', '{digest}', '{longest}')"""
    [named] = name_events([longer], str)
    assert named.repeats == (digest, digest, sha256(f'"_{longer[1:]}'.encode()).hexdigest())


@pytest.fixture(scope="module")
def context() -> ProjectionContext:
    columns: dict[tuple[str, str | None], dict[str, None]] = {
        ("track", '"A"'): {"x:context_a": None, "x:b": None},
        ("track", '"a"'): {"x:b": None, "x:c": None},
        ("track", '"none"'): {"x:d": None, "x:context_e": None},
        ("page", None): {"x:f": None, "x:context_g": None},
    }
    con, tables = engine.connect(None, 100, 1), TableNumbers(OWN, {'"A"': 6, '"a"': 6, '"none"': 0})
    return projection_context(con, "", ParsedCells(columns=columns), memory=96, tables=tables)


def test_extras_that_are_columns_by_table(context: ProjectionContext) -> None:
    assert context.extras_in_columns() == {
        6: ["context_a", "b", "c"], 0: ["context_a", "context_e"], OWN.index("pages"): ["f", "context_g"],
    }  # fmt: skip
    assert context.loaded_at_sql == "TIMESTAMPTZ '2024-01-02T03:04:05+00:00'"


def test_wide_rows_get_one_thread_and_more_memory(context: ProjectionContext) -> None:
    two = dataclasses.replace(context, threads=2)
    for columns, expected in ((0, ["91.5 MiB", 2]), (10, ["91.5 MiB", 2]), (11, ["103.9 MiB", 1])):
        two.reserve(columns)
        assert settings(two.con)[:2] == expected
    two.reserve(300)
    two.reserve()
    assert settings(two.con)[:2] == ["91.5 MiB", 2]


def test_rows_of_a_file(tmp_path: Path) -> None:
    with engine.connect(None, 200, 1) as con:
        for name, width, words, groups in (
            ("a", 399, [], [9000]),
            ("b", 400, [False], [9000]),
            ("c", 1_954, [True], [2048, 52]),
        ):
            select = ", ".join(f"n % 1001 AS c{at}" for at in range(width))
            types: dict[str, Type] = {f"c{at}": "bigint" for at in range(width)}
            path = f"{tmp_path}/it's {name}"
            TableRows("t", types, con.sql(f"SELECT {select} FROM range({sum(groups)}) r(n)"), 9000).write(path, *words)
            with pq.ParquetFile(path) as file:
                found = [file.metadata.row_group(at) for at in range(file.num_row_groups)]
                assert [group.num_rows for group in found] == groups
                column = found[0].column(0)
                assert (column.compression == "UNCOMPRESSED") is (words == [False])
                assert column.encodings == (("PLAIN_DICTIONARY",) if width == 400 else ("PLAIN",))


def test_the_order_of_columns() -> None:
    types: dict[str, Type] = dict.fromkeys(("b", "uuid_ts", "a", "received_at", "id", "key"), "text")
    assert list(ordered_columns(types)) == ["id", "received_at", "uuid_ts", "a", "b", "key"]
    assert list(ordered_columns(types, ["key", "id"])) == ["key", "id", "received_at", "uuid_ts", "a", "b"]
    assert declared_types(MESSAGE_TABLES[2])["previous_id"] == "text"
