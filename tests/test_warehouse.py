"""Parts of the projection: shapes, types of values, and loads by several threads and workers."""

import json
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from autopilothq.projection import Projection, engine, ordered_columns, types
from autopilothq.projection.cells import ParsedCells
from autopilothq.projection.columns import row_values
from autopilothq.projection.deduplicate import find_duplicates
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.parse import Parser
from autopilothq.projection.projection import open_load
from autopilothq.projection.shapes import Shapes
from autopilothq.projection.tables import TableBuilder, count_messages, plan_table, table_rows, table_values
from autopilothq.segment.message import MAX_OBJECTS
from contract.loading import Row, batches, identify, message, new_projection, projection_context

LINES = [
    [message(messageId=f"{file}-{n}", properties={f"p{n % 7}": n, "o": {f"q{n % 5}": "x"}}) for n in range(120)]
    + [identify(messageId=f"i{file}-{n}", userId=f"u{n}", traits={"n": n}) for n in range(20)]
    for file in range(4)
]


def everything(projection: Projection) -> dict[str, list[Row]]:
    made = projection.deduplicate()
    tables = [*made.tables(), *made.latest()]
    return {
        rows.table: sorted(rows.relation.to_arrow_table().to_pylist(), key=lambda row: str(row["id"]))
        for rows in tables
    }


def test_threads_may_add_at_the_same_time(tmp_path: Path) -> None:
    found = []
    for threads in (1, 4):
        scratch = tmp_path / f"{threads}"
        scratch.mkdir()
        projection = new_projection(scratch)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(projection.add, batches(LINES, lambda _: 80)))
        found.append(everything(projection))
        projection.close()
    assert found[0] == found[1]
    assert {name: len(rows) for name, rows in found[0].items()} == {
        "email_opened": 480, "identifies": 80, "tracks": 480, "users": 20,
    }  # fmt: skip


T = TypeVar("T")


def sent(data: T) -> T:
    """Returns data as another process would get it."""
    got: T = pickle.loads(pickle.dumps(data))  # noqa: S301 - it is our own
    return got


def test_workers_can_share_a_load(tmp_path: Path) -> None:
    """All steps exchange data that can be sent: lines are parsed by file, and messages deduplicated by their ids."""
    mixed = [message(messageId=f"0-{n}", properties={"p1": 0.5 + n, "new": "\0"}) for n in range(100, 130)]
    files = [*LINES, mixed]
    whole = new_projection(tmp_path)
    for batch in batches(files):
        whole.add(batch)
    cells = ParsedCells()
    for number, batch in enumerate(batches(files, lambda _: 150)):
        folder = tmp_path / f"parsed {number}"
        folder.mkdir()
        with engine.connect(None, 200, 1) as con:
            cells.extend(sent(Parser(str(folder)).parse(LineReader(con), batch)))
    shares = []
    for number in range(2):
        folder = tmp_path / f"share {number}"
        folder.mkdir()
        con = engine.connect(str(folder), 200, 1)
        context = projection_context(con, str(folder), cells)
        context = open_load(context, f"hash(id) % 2 = {number}")
        find_duplicates(context)
        shares.append((context, TableBuilder(context, row_values(context, "kept"))))
    found: dict[str, list[Row]] = {}
    for number in {0, *(number for context, _ in shares for number in count_messages(context))}:
        asked = [(context, builder.messages(number)) for context, builder in shares]
        first, second = (sent(table_values(*of)) for of in asked)
        plan = sent(plan_table(shares[0][0], number, first.merge(second)))
        made = [table_rows(*of, plan, 0).relation.to_arrow_table().to_pylist() for of in asked]
        found[plan.name] = sorted(made[0] + made[1], key=lambda row: str(row["id"]))
    for context, _ in shares:
        context.con.close()
    expected = everything(whole)
    whole.close()
    assert {name: rows for name, rows in expected.items() if name != "users"} == found
    assert len(found["tracks"]) == 490


def test_a_load_without_lines_has_no_rows(tmp_path: Path) -> None:
    projection = new_projection(tmp_path)
    made = projection.deduplicate()
    assert list(made.tables()) == []
    assert made.counts() == []
    assert (list(made.latest()), made.rejects([]), made.discards()) == ([], None, None)
    projection.close()


def test_columns_are_ordered() -> None:
    names = ["b", "uuid_ts", "a", "received_at", "id"]
    assert list(ordered_columns(dict.fromkeys(names, "text"))) == ["id", "received_at", "uuid_ts", "a", "b"]


# ---- shapes --------------------------------------------------------------------------------------------------------


def is_regular(known: Shapes, properties: Sequence[str] | None, **objects: Sequence[str]) -> bool:
    """Returns whether lines with these keys in `properties` are regular; `objects` has the keys of objects in these."""
    keys = {"": ["type", "properties"], "/properties": properties}
    keys |= {f"/properties/{key}": value for key, value in objects.items()}
    shape = json.dumps([keys.get(pointer) for pointer in known.pointers()])
    return shape in known.regular({shape: 1})


@pytest.mark.parametrize(
    ("keys", "regular"),
    [
        (["plan", "seats"], True),
        (["a/b", "a~c", "'", '"', "*"], False),  # several of these have no slug
        (["a/b", "a~c"], True),
        (["plan", "Plan"], False),
        (["plan_name", "planName"], False),
        (["plan", "plan"], False),
        (["名前"], False),
        (["timestamp", "_timestamp"], False),
        ([], True),
        (None, True),
    ],
)
def test_a_shape_is_regular_if_each_column_has_one_key(keys: Sequence[str] | None, regular: bool) -> None:
    assert is_regular(Shapes(), keys) is regular


def test_objects_are_learnt_once_and_not_without_bounds() -> None:
    known = Shapes()
    assert known.with_objects([("properties",)]) is known
    more = known.with_objects([("properties", "a/b~c")])
    assert more.pointers() == [*known.pointers(), "/properties/a~1b~0c"]
    many = [("properties", f"o{n}") for n in range(MAX_OBJECTS)]
    assert more.with_objects(many) is more


def test_a_declared_column_stays_one_if_a_line_has_an_object_there() -> None:
    known = Shapes()
    assert known.with_objects([("properties", "campaign_id"), ("context", "ip", "v4")]) is known


def test_an_objects_keys_are_columns_too() -> None:
    known = Shapes().with_objects([("properties", "plan")])
    assert is_regular(known, ["plan"], plan=["name"])
    assert not is_regular(known, ["plan", "plan_name"], plan=["name"])
    assert is_regular(known, ["plan"])  # it may be null; the value itself shows if it is text or an array


def test_only_one_of_two_spellings_of_an_object_is_regular() -> None:
    known = Shapes().with_objects([("properties", "plan"), ("properties", "Plan")])
    assert [is_regular(known, [key], **{key: ["name"]}) for key in ("plan", "Plan")].count(True) == 1


# ---- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "of"),
    [
        (types.INTEGER, "bigint"),
        (types.FLOAT, "double"),
        (types.INTEGER | types.FLOAT, "double"),
        (types.BOOLEAN, "bool"),
        (types.TIME_TEXT, "timestamp"),
        (types.TEXT, "text"),
        (types.ARRAY, "text"),
        (types.TEXT | types.TIME_TEXT, "text"),
        (types.BOOLEAN | types.INTEGER, "text"),
        (types.TIME_TEXT | types.INTEGER, "text"),
        (types.ARRAY | types.FLOAT, "text"),
    ],
)
def test_the_bits_of_its_values_make_a_columns_type(bits: int, of: str) -> None:
    assert types.type_of_bits(bits) == of


def test_sql_is_quoted() -> None:
    con = engine.connect(None, 200, 1)
    texts = ["a'b", 'a"b', "a\\b", "{}"]
    assert con.execute(f"SELECT {engine.literals(texts)}").fetchall() == [(texts,)]
    assert con.sql("SELECT 1 AS " + engine.name('a"b')).columns == ['a"b']
    con.close()
