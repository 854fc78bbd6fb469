"""Each of the projection's SQL files is read by a module, and each statement is used and accepted by DuckDB."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from autopilothq.projection import engine, suppression
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.parse import Parser
from autopilothq.projection.projection import open_load
from autopilothq.projection.shapes import Shapes
from autopilothq.projection.types import ARRAY, BOOLEAN, FLOAT, INTEGER, TEXT, TIME_TEXT
from contract.loading import NOW, batches, identify, message, projection_context

PACKAGE = files("autopilothq.projection")
SCRIPTS = sorted(path.name for path in Path(str(PACKAGE)).glob("*.sql"))
MODULES = {path.name: path.read_text() for path in Path(str(PACKAGE)).glob("*.py")}
NAMED = [(file, name) for file in SCRIPTS for name in engine.queries(file)]

NO_SHAPES = Shapes().query({})

# Values for the words in braces and for parameters.
WORDS = {
    "any_cut": "true", "cells": "{'name': 'a', 'text': 'b'}", "column": "note", "cut": "512", "literal": "'note'",
    "gathered": "latest_messages", "last_ids": "'a'", "part": "0", "lowest": "0", "highest": "1",
    "mended": "mended_rows", "touched": "SELECT 'a' AS id",
    "examined": "messages WHERE true", "extras": "extras", "fitting": "NULL",
    "made": "SELECT 'a' AS id, 'b' AS category, now() AS received_at", "value": "'1'",
    "bytes": "0", "but": "", "cell": '"category"', "condition": "true", "declared": "''", "deep": "false",
    "files": "(SELECT * EXCLUDE (table_number, slug, event_text), false AS irregular FROM parsed)",
    "ids": "SELECT 'email' AS kind, 'a' AS raw, 'a' AS value", "is_complete": "true", "key": "user_id", "keys": '"k:0"',
    "kinds": "('user', 'user_id')", "existing": "''", "last": "", "lenient": "false", "loaded_at": "now()",
    "listed": "event, category", "count": "2",
    "messages": "(SELECT *, false AS irregular FROM parsed)", "partitions": "2", "folder": "'cut'",
    "query": "SELECT 'u' AS user_id",
    "misfit": "true", "name": "a_table", "names": "'t:a'", "only": "true", "pattern": "'(a)(b)'", "pointers": "['']",
    "objects": "false", "readable": "true", "structure": engine.literal(NO_SHAPES.structure),
    "named_values": NO_SHAPES.named_values,
    "received_at": "now()", "replaced": "", "room": "1", "row_id": "WHEN 'identify' THEN user_id",
    "rows": "(SELECT seq, value AS id FROM extras)", "same": "true", "select": "1 AS a",
    "source": "SELECT 'a' AS \"k:0\", 1::BIGINT AS seq", "structs": "{'name': 'a', 'type': 'text', 'value': 'b'}",
    "table": "a_table", "table_name": "WHEN 'identify' THEN 'users'", "table_number": "1", "text": "id",
    "tables": "WHEN 'identify' THEN 'identifies'",
    "track": "NULL, NULL, NULL", "irregular": "false", "timed": "FROM typed",
    "texts": "(SELECT 'email:a' AS id)", "updated_at": "''", "values": "1", "where": "true",
}  # fmt: skip
PARAMETERS = {
    "begun": NOW, "retry": False,
    "inside": None, "loaded_at": NOW.isoformat(), "lookback": 1, "first_event_table": 6, "seqs": [1],
    "start": 1, "table_number": 1, "table_numbers": [1],
}  # fmt: skip
STORED = (
    "SELECT 'a' AS id, 'b' AS event, '1' AS load_id, now() AS loaded_at, now() AS uuid_ts, now() AS received_at,"
    " now() AS deleted_at, now() AS updated_at,"
    " 'p' AS person, 's' AS space, 'c' AS scope, now() AS watermark, now() AS asked_at,"
    " 'k' AS \"k:0\""
)
# Tables that Python registers or creates before a statement is run.
RELATIONS = {
    "lines": "SELECT 1::BIGINT AS seq, '{}' AS text",
    "repeated_ids": "SELECT hash('a') AS hash",
    "probe": "SELECT 1::BIGINT AS seq, '' AS shape",
    "regular_shapes": "SELECT '' AS shape",
    "known_shapes": "SELECT '' AS shape, false AS has_nulls",
    "numbered": "SELECT 1::BIGINT AS seq, 1 AS table_number, 'track' AS kind",
    "left_out": "SELECT 'a' AS \"column\"",
    "types": "SELECT 'a' AS \"column\", 'text' AS type",
    "widths": "SELECT 'a' AS \"column\", 'text' AS type, true AS new",
    "a_table": "SELECT 1::BIGINT AS seq, 'a' AS \"column\", 'b' AS value",
    "stored": STORED,
    "first_messages": "SELECT 1::BIGINT AS seq, 'a' AS id",
    "loads_of_messages": "SELECT 1::BIGINT AS ms",
    "mended_rows": "SELECT 'a' AS id, 'b' AS note",
    "mended_part": "SELECT 'a' AS id, 'b' AS note",
    "mends_of_part": "SELECT 'a' AS id, 'note' AS name, 'b' AS text",
    "text_columns": "SELECT 'a' AS \"column\", 'b' AS name",
    "stored_with_discards": "SELECT 1::BIGINT AS seq, 'a' AS id, now() AS received_at, 1 AS table_number",
    "refused_messages": "SELECT 'a' AS id, 'b' AS error",
    "refused_ids": "SELECT 'a' AS id",
    "refused_persons": "SELECT 'a' AS id",
    "refused_rows": "SELECT 'users' AS table_name, 'a' AS id, 'b' AS error",
    "refused_but_stored": "SELECT 1::BIGINT AS seq",
    "raw_lines": "SELECT 1::BIGINT AS seq, 'a' AS id, 'b' AS raw",
    "suppressed": "SELECT 1::BIGINT AS seq, 'a' AS id",
    "suppressed_ids": "SELECT 'a' AS id",
    "files": "SELECT 0::BIGINT AS number, 'a' AS file",
    "table_names": "SELECT 0::BIGINT AS table_number, 'tracks' AS name",
    "counted": "SELECT 1::BIGINT AS file, ['tracks'] AS names, false AS all_but",
    "all_rejected": "SELECT 1::BIGINT AS number, 'a' AS id, 1::BIGINT AS seq, 'b' AS reason",
    "rejected_once": "SELECT 1::BIGINT AS number",
    "all_discarded": (
        "SELECT 1::BIGINT AS number, 'a' AS id, 'b' AS reason, 1::BIGINT AS seq, 'c' AS column_name, 'd' AS digest,"
        " 'users' AS table_name, 'users' AS of_table"
    ),
    "discarded_once": "SELECT 1::BIGINT AS number",
    "discarded": "SELECT 'a' AS reason, 'b' AS table_name",
    "latest_ids": "SELECT 'a' AS id",
    "latest_gathered": "SELECT 'a' AS id, 'a' AS user_id, now() AS received_at",
    "last_messages": "SELECT 'a' AS id",
    "latest_parts": "SELECT 'a' AS id, 0 AS part",
    "latest_some": "SELECT 'a' AS id, 'a' AS user_id, now() AS received_at",
    "latest_messages": "SELECT 'a' AS id, 'a' AS user_id, now() AS received_at",
    "latest_values": (
        "SELECT 'a' AS id, now() AS received_at, 'm' AS message, 't:a' AS name, 'text' AS type, 'v' AS value"
    ),
    "latest_too_wide": (
        "SELECT 'a' AS id, now() AS received_at, 't:a' AS name, 'text' AS type, 'v' AS value, 9 AS bytes"
    ),
    "last": "SELECT 1::BIGINT AS seq",
    "records": "SELECT 'a' AS \"k:0\", 1::BIGINT AS seq, '1' AS category",
    "current": "SELECT 'a' AS \"k:0\", 1::BIGINT AS seq, '1' AS category",
    "older": "SELECT 1::BIGINT AS seq",
    "missing": "SELECT 'k' AS \"k:0\"",
    "complete": "SELECT '1' AS load_id",
    "people": "SELECT 'p' AS person, now() AS active_at, 'd' AS details",
    "asked": "SELECT 'p' AS person, now() AS watermark, now() AS asked_at",
    "texts": "SELECT 1::BIGINT AS key, 'a@b.c' AS text",
    "mentions": "SELECT 1::BIGINT AS key, 'email' AS kind, 'a@b.c' AS raw",
    "pairs": "SELECT 'a' AS salt, 'b' AS hash",
    "searched_ids": "SELECT 'email' AS kind, 'a' AS value, 'a' AS folded",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with the messages of a small load and everything else that a statement may read."""
    folder = str(tmp_path_factory.mktemp("scratch"))
    with engine.connect(folder, 200, 1) as con:
        lines = [message(properties={"plan": "a"}), identify(messageId="i", traits={"a": "\0", "b": 1})]
        [batch] = batches([lines])
        cells = Parser(folder).parse(LineReader(con), batch)
        open_load(projection_context(con, folder, cells))
        suppression.register_suppressed(con, [("salt", "hash")])
        make_relations(con)
        yield con


@pytest.fixture(scope="module")
def bare() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with the tables for snapshots and for people to request."""
    with engine.connect(None, 200, 1) as con:
        for file in BARE:
            con.execute(engine.queries(file)["tables"])
        make_relations(con)
        yield con


def make_relations(con: duckdb.DuckDBPyConnection) -> None:
    for name, sql in RELATIONS.items():
        con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")


@pytest.mark.parametrize("file", SCRIPTS)
def test_every_file_is_read_by_a_module(file: str) -> None:
    readers = [
        name for name, text in MODULES.items() if re.search(rf'engine\.\w+\("{file}"\)|= script\("{file}"\)', text)
    ]
    assert readers


def test_every_statement_is_used() -> None:
    for file, name in NAMED:
        [module] = [text for text in MODULES.values() if f'engine.queries("{file}")' in text]
        assert re.search(rf"_SQL\[[\"']{name}[\"']\]", module), f"{file} has {name}, but nobody runs it"


# Only these statements of `suppression.sql` are formatted; in others, braces belong to patterns.
FORMATTED = {"on_list", "suppress_column", "suppress_rows", "tagged_ids", "keyed", "keys_on_list", "holding"}
BARE = ("snapshot.sql", "people.sql")


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_engine_accepts_every_statement(
    loaded: duckdb.DuckDBPyConnection, bare: duckdb.DuckDBPyConnection, file: str, name: str
) -> None:
    con = bare if file in BARE else loaded
    text = engine.queries(file)[name]
    if file != "suppression.sql" or name in FORMATTED:
        text = text.format_map(WORDS)
    for statement in con.extract_statements(text):
        # Of a view, only the query after its name is run.
        sql = re.sub(r"(?s)^(\s*--[^\n]*\n)*\s*CREATE (OR REPLACE )?VIEW \w+ AS ", "", statement.query)
        parameters = {name: PARAMETERS.get(name, "a") for name in statement.named_parameters}
        con.execute(f"EXPLAIN {sql}", parameters)


def test_the_engine_tells_types_of_values_as_the_table_of_types_does() -> None:
    values = {
        '"a"': TEXT, '"2019-03-04T05:06:07Z"': TIME_TEXT, "1": INTEGER, "1.5": FLOAT, "true": BOOLEAN, "[1]": ARRAY,
    }  # fmt: skip
    con = engine.connect(None, 200, 1)
    with engine.registered(con, given=pa.table({"v": list(values)})):
        assert dict(con.execute("SELECT v, type_bit(v) FROM given").fetchall()) == values
    con.close()
