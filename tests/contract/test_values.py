"""Values become typed cells; those that do not fit are kept in `_discards` (docs/contract/warehouse.md#values)."""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from autopilothq.catalog import COMMON_NAMES, Type
from contract.loading import Case, Row, Store, cases, discards, filled, message, raw, row, rows_of

TIME = datetime(2019, 3, 4, 5, 6, 7, tzinfo=UTC)
TIME_TEXT = "2019-03-04T05:06:07Z"


# ---- flattening ----------------------------------------------------------------------------------------------------

SHAPES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"product_id": {"sku": "s"}}, {"product_id_sku": "s"}),
    ({"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}, {"a_b_c_d_e_f_g": 1}),
    ({"a": {"B c": 1, "d": 2}, "e": 3}, {"a_b_c": 1, "a_d": 2, "e": 3}),
    ({"a": [1, {"b": [None, "é"]}, []]}, {"a": '[1,{"b":[null,"é"]},[]]'}),
    ({"a": []}, {"a": "[]"}),
    ({"a": [[]]}, {"a": "[[]]"}),
    ({"a": {}}, {}),
    ({"a": {"b": {}}}, {}),
    ({"a": None}, {}),
    ({"a": {"b": None}}, {}),
    ({"a": ""}, {"a": ""}),
    ({"a": " "}, {"a": " "}),
    ({"a": "null"}, {"a": "null"}),
    ({"a": "{}"}, {"a": "{}"}),
    ({"a": False, "b": 0}, {"a": False, "b": 0}),
]


@pytest.mark.parametrize("key", ["properties", "context"])
def test_an_object_is_flattened(key: str) -> None:
    prefix = "context_" if key == "context" else ""
    found = cases([[json.dumps(body)] for body, _ in SHAPES], key)
    names = COMMON_NAMES | {"id", "uuid_ts"}
    assert [{name: value for name, value in filled(case.rows[0]).items() if name not in names} for case in found] == [
        {f"{prefix}{name}": value for name, value in cells.items()} for _, cells in SHAPES
    ]


def test_an_object_is_flattened_to_any_depth() -> None:
    properties: Any = "bottom"
    for _ in range(200):
        properties = {"a": properties}
    assert row(message(properties=properties))["_".join("a" * 200)] == "bottom"


def test_lines_of_many_shapes_are_read_alike() -> None:
    """DuckDB reads a shape only once it is learnt; before and after that, rows are the same."""
    bodies = [{"a": {"b": {"c": n}}, "d": n} if n % 2 else {"a": {"b": n}, "D": n} for n in range(40)]
    lines = [message(messageId=f"{n:02}", properties=body) for n, body in enumerate(bodies)]
    rows = Store().run(lines, chunks=lambda _: 14)["email_opened"]
    assert [(row["a_b_c"], row["a_b"], row["d"]) for row in rows] == [
        (n, None, n) if n % 2 else (None, n, n) for n in range(40)
    ]


def test_objects_whose_keys_differ_in_case_alone_are_told_apart() -> None:
    lines = [
        message(messageId=f"{n}", properties={"Plan" if n % 2 else "plan": {"Id" if n % 3 else "id": n}})
        for n in range(8)
    ]
    rows = Store().run(lines, chunks=lambda _: 2)["email_opened"]
    assert [row["plan_id"] for row in rows] == list(range(8))


def test_a_value_may_be_an_object_in_one_line_and_text_in_the_next() -> None:
    plans: list[Any] = [{"name": "pro"}, "free", None, {}, ["a"], {"name": {"de": "frei"}}, 5, {"name": "pro"}] * 2
    lines = [
        message(messageId=f"{n:02}", properties={"plan": plan, "campaign_id": plan}) for n, plan in enumerate(plans)
    ]
    rows = Store().run(lines, chunks=lambda _: 3)["email_opened"]
    assert [row["plan"] for row in rows] == [None, "free", None, None, '["a"]', None, "5", None] * 2
    assert [row["campaign_id"] for row in rows] == [row["plan"] for row in rows]
    assert [row["plan_name"] for row in rows] == ["pro", None, None, None, None, None, None, "pro"] * 2
    assert [row["plan_name_de"] for row in rows] == [None, None, None, None, None, "frei", None, None] * 2


LENGTHS = [512, 513, 40_000, 900_000]


def test_text_is_never_cut() -> None:
    texts = ["é" * (length // 2) for length in LENGTHS]
    found = rows_of(
        *(
            message(
                messageId=f"m{n}", userId=text, context={"ip": text},
                properties={"email_subject": text, "long": text, "list": [text]},
            )
            for n, text in enumerate(texts)
        )
    )["email_opened"]  # fmt: skip
    assert len(found) == len(texts)
    for row_, text in zip(found, texts, strict=True):
        for name in ("user_id", "context_ip", "email_subject", "long"):
            assert len(row_[name]) == len(text)
            assert row_[name] == text
        assert row_["list"] == f'["{text}"]'


def test_a_message_may_have_many_properties() -> None:
    found = row(message(properties={f"p{n}": n for n in range(200)}))
    assert [found[f"p{n}"] for n in range(200)] == list(range(200))


# ---- types of new columns ------------------------------------------------------------------------------------------

INFERRED: list[tuple[tuple[str, ...], str | None, list[Any]]] = [
    (("1", "-2"), "bigint", [1, -2]),
    (("9223372036854775807", "-9223372036854775808"), "bigint", [2**63 - 1, -(2**63)]),
    (("1.5", "2.25"), "double", [1.5, 2.25]),
    (("1", "2.5"), "double", [1.0, 2.5]),
    (("3.0",), "double", [3.0]),
    (("1e5", "-1.5E-7"), "double", [1e5, -1.5e-7]),
    (("true", "false"), "bool", [True, False]),
    (('"a"', '""'), "text", ["a", ""]),
    ((f'"{TIME_TEXT}"', '"2019-03-04T07:06:07.000000999+02:00"'), "timestamp", [TIME, TIME]),
    (('"2019-03-04t05:06:07.5z"', '"2019-03-04 05:06:07.123456789-00:30"'), "timestamp", [
        TIME.replace(microsecond=500_000), TIME.replace(minute=36, microsecond=123_456)]),
    (('"2019-03-04T05:06:07"',), "text", ["2019-03-04T05:06:07"]),
    (('"2019-03-04"',), "text", ["2019-03-04"]),
    (('"2019-03-04T05:06Z"',), "text", ["2019-03-04T05:06Z"]),
    (('"2019-03-04T05:06:07+0200"',), "text", ["2019-03-04T05:06:07+0200"]),
    (('"2019-02-30T05:06:07Z"',), "text", ["2019-02-30T05:06:07Z"]),
    (('"2019-03-04T25:06:07Z"',), "text", ["2019-03-04T25:06:07Z"]),
    (('"Mon, 04 Mar 2019 05:06:07 GMT"',), "text", ["Mon, 04 Mar 2019 05:06:07 GMT"]),
    ((f'"{TIME_TEXT}"', '"soon"'), "text", [TIME_TEXT, "soon"]),
    ((f'"{TIME_TEXT}"', "1551675967"), "text", [TIME_TEXT, "1551675967"]),
    (("1", '"a"'), "text", ["1", "a"]),
    (("1", "true"), "text", ["1", "true"]),
    (("1.5", "false"), "text", ["1.5", "false"]),
    (("[1]", "2"), "text", ["[1]", "2"]),
    (("[ 1 ]",), "text", ["[1]"]),
    (("1.10", '"a"', "1e5", "12345678901234567890", "1E400", "-0.0"), "text",
     ["1.10", "a", "1e5", "12345678901234567890", "1E400", "-0.0"]),
    (("1", "9223372036854775808"), "text", ["1", "9223372036854775808"]),
    (("-9223372036854775809",), "text", ["-9223372036854775809"]),
    (("1.50", "12345678901234567890123"), "text", ["1.50", "12345678901234567890123"]),
    (("1", "9223372036854775808.0"), "double", [1.0, 2.0**63]),
    (("null", "{}", "1"), "bigint", [None, None, 1]),
    (("null",), None, [None]),
    (("{}", "{}"), None, [None, None]),
]  # fmt: skip


@cache
def inferred() -> list[Case]:
    return cases([[f'{{"x":{value}}}' for value in values] for values, _, _ in INFERRED])


@pytest.mark.parametrize("number", range(len(INFERRED)))
def test_a_column_takes_its_type_from_all_its_values(number: int) -> None:
    _, of, cells = INFERRED[number]
    case = inferred()[number]
    assert (case.types.get("x"), [row.get("x") for row in case.rows]) == (of, cells)


def test_the_type_does_not_depend_on_the_order_or_the_batches() -> None:
    values = ["1"] * 5 + ["2.5"] + ["3"] * 5
    lines = [raw(message(messageId=f"{n:02}", properties={"x": "$x"}), x=value) for n, value in enumerate(values)]
    for order in (lines, lines[::-1]):
        store = Store()
        rows = store.run(order, chunks=lambda _: 4)["email_opened"]
        assert store.types["email_opened"]["x"] == "double"
        assert [row["x"] for row in rows] == [float(value) for value in values]


def test_a_column_of_the_context_has_in_tracks_the_type_of_all_events() -> None:
    store = Store()
    found = store.run([message(context={"zoo": 1}), message("Email Clicked", messageId="m2", context={"zoo": "a"})])
    assert [store.types[table]["context_zoo"] for table in ("tracks", "email_opened", "email_clicked")] == [
        "text",
        "bigint",
        "text",
    ]
    assert [row["context_zoo"] for row in found["tracks"]] == ["1", "a"]


def test_a_value_that_does_not_stay_has_no_say_in_the_type() -> None:
    store = Store()
    store.run([message(properties={"x": 1}), message(receivedAt="2019-03-05T00:00:00Z", properties={"x": "a"})])
    assert store.types["email_opened"]["x"] == "bigint"


# ---- values that meet a column with another type -------------------------------------------------------------------

KEPT = object()
CASTS: list[tuple[str, str, Any]] = [
    ("true", '"true"', True), ("true", '"false"', False), ("true", "1", True), ("true", "0", False),
    ("true", "1.0", True),
    ("true", "2", KEPT), ("true", '"TRUE"', KEPT), ("true", '"1"', KEPT), ("true", '"yes"', KEPT), ("true", '""', KEPT),
    ("true", "[true]", KEPT), ("true", f'"{TIME_TEXT}"', KEPT),
    ("1", "3.0", 3), ("1", "1e3", 1000), ("1", '"12"', 12), ("1", '"-5"', -5), ("1", "3.5", KEPT), ("1", '"3.0"', KEPT),
    ("1", '"012"', KEPT), ("1", '" 12"', KEPT), ("1", "true", KEPT), ("1", '""', KEPT), ("1", "[1]", KEPT),
    ("1", "1e400", KEPT),
    ("1", "9223372036854775808", KEPT), ("1", "-9223372036854775809", KEPT), ("1", "1e19", KEPT),
    ("1", "9007199254740993.0", 9007199254740993), ("1", "1e18", 10**18),
    ("1", "-0.00090071992547409930e20", -90071992547409930), ("1", "90071992547409930e-1", 9007199254740993),
    ("1", "90071992547409931e-1", KEPT), ("1", "1000000000000000000.1", KEPT),
    ("1", "9223372036854775807.00000", 2**63 - 1), ("1", "9223372036854775808.0", KEPT),
    ("1", "1e99999999999999999999", KEPT), ("1", "1e-99999999999999999999", KEPT),
    ("1.5", "12", 12.0), ("1.5", '"2.5"', 2.5), ("1.5", '"12"', 12.0), ("1.5", "-0.0", 0.0),
    ("1.5", "9007199254740992", 2.0**53),
    ("1.5", "9007199254740993", KEPT), ("1.5", "12345678901234567890", KEPT), ("1.5", "1e400", KEPT),
    ("1.5", '"1.10"', KEPT),
    ("1.5", '"nan"', KEPT), ("1.5", '"inf"', KEPT), ("1.5", '"Infinity"', KEPT), ("1.5", "true", KEPT),
    ("1.5", '"a"', KEPT),
    ('"a"', "12", "12"), ('"a"', "1.10", "1.10"), ('"a"', "1e5", "1e5"), ('"a"', "true", "true"),
    ('"a"', "[1.10]", "[1.10]"),
    ('"a"', "12345678901234567890123", "12345678901234567890123"), ('"a"', f'"{TIME_TEXT}"', TIME_TEXT),
    (f'"{TIME_TEXT}"', '"2019-03-04T06:06:07+01:00"', TIME), (f'"{TIME_TEXT}"', '"2019-03-04"', KEPT),
    (f'"{TIME_TEXT}"', '"soon"', KEPT), (f'"{TIME_TEXT}"', "1551675967", KEPT), (f'"{TIME_TEXT}"', "true", KEPT),
    (f'"{TIME_TEXT}"', '""', KEPT), (f'"{TIME_TEXT}"', '"0000-01-01T00:00:00Z"', KEPT),
]  # fmt: skip


FIRSTS = list(dict.fromkeys(first for first, _, _ in CASTS))


@cache
def cast() -> tuple[list[Type], Store]:
    """Loads the first values, each in a table of its own, then all later values; returns the types and the tables."""
    store = Store()
    store.run(
        [
            raw(message(f"Case {n}", messageId=f"m{n}", properties={"x": "$x"}), x=first)
            for n, first in enumerate(FIRSTS)
        ]
    )
    types = [store.types[f"case_{n}"]["x"] for n in range(len(FIRSTS))]
    store.run(
        [
            raw(message(f"Case {number}", messageId=f"n{number} {n:02}", properties={"x": "$x", "y": 1}), x=value)
            for number, first in enumerate(FIRSTS)
            for n, (value, _) in enumerate(later(first))
        ]
    )
    return types, store


def later(first: str) -> list[tuple[str, Any]]:
    return [(value, cell) for column, value, cell in CASTS if column == first]


@pytest.mark.parametrize("number", range(len(FIRSTS)), ids=FIRSTS)
def test_a_later_value_is_cast_where_nothing_is_lost_and_discarded_else(number: int) -> None:
    """The value comes in a later load; in the first load it would influence the type."""
    types, store = cast()
    table, found, values = f"case_{number}", store.tables(), later(FIRSTS[number])
    assert store.types[table]["x"] == types[number]
    rows = [row for row in found[table] if row["id"] != f"m{number}"]
    assert [(row["x"], row["y"]) for row in rows] == [(None if cell is KEPT else cell, 1) for _, cell in values]
    assert [entry for entry in discards(found) if entry[0] == table] == [
        (table, f"n{number} {n:02}", "x", value, "does_not_fit")
        for n, (value, cell) in enumerate(values)
        if cell is KEPT
    ]


DECLARED: list[tuple[str, str, Any]] = [
    ("campaign_id", "5", "5"), ("campaign_id", "1.10", "1.10"), ("campaign_id", "1e5", "1e5"),
    ("campaign_id", "true", "true"),
    ("campaign_id", "12345678901234567890", "12345678901234567890"), ("campaign_id", "[1.10]", "[1.10]"),
    ("campaign_id", '""', ""),
    ("campaign_id", '"{x"', "{x"), ("campaign_id", '"[x"', "[x"), ("campaign_id", '"NaN"', "NaN"),
    ("campaign_id", "null", None),
    ("transactional", "true", True), ("transactional", '"false"', False), ("transactional", "1", True),
    ("transactional", "0", False),
    ("transactional", '"maybe"', KEPT), ("transactional", "2", KEPT), ("transactional", "[]", KEPT),
]  # fmt: skip


@cache
def declared() -> dict[str, list[Row]]:
    """The tables after a load of a message for each of these; declared columns do not depend on the other messages."""
    return rows_of(
        *(
            raw(message("Some Event", messageId=f"m{number:02}", properties={name: "$x"}), x=value)
            for number, (name, value, _) in enumerate(DECLARED)
        )
    )


@pytest.mark.parametrize("number", range(len(DECLARED)))
def test_a_declared_column_has_its_type_from_the_start(number: int) -> None:
    name, value, cell = DECLARED[number]
    found, id_ = declared(), f"m{number:02}"
    assert [row.get(name) for row in found["some_event"] if row["id"] == id_] == [None if cell is KEPT else cell]
    assert [entry[2:] for entry in discards(found) if entry[1] == id_] == (
        [(name, value, "does_not_fit")] if cell is KEPT else []
    )


def test_a_number_keeps_its_digits_if_a_text_looks_like_it() -> None:
    line = raw(message(context={"library": {"version": "$v"}, "integration": {"version": "1.1"}}), v="1.10")
    found = row(line)
    assert (found["context_library_version"], found["context_integration_version"]) == ("1.10", "1.1")


# ---- what no warehouse can store -----------------------------------------------------------------------------------

UNSTORABLE = [
    ("NaN", "not_a_number"),
    ("Infinity", "not_a_number"),
    ("-Infinity", "not_a_number"),
    ('[1,{"a":["NaN",NaN]}]', "not_a_number"),  # otherwise the array's text would not be JSON
    (r'"a\u0000"', "not_text"),
    (r'"\uD800"', "not_text"),
    (r'"\uDC00\uD800"', "not_text"),
]


@cache
def unstorable() -> dict[str, list[Case]]:
    bodies = [(name, f'{{"{name}":{value},"y":1}}') for name in ("x", "campaign_id") for value, _ in UNSTORABLE]
    found = cases([[body] for _, body in bodies])
    return {name: [case for (of, _), case in zip(bodies, found, strict=True) if of == name] for name, _ in bodies}


@pytest.mark.parametrize("name", ["x", "campaign_id"])
def test_what_cannot_be_stored_is_discarded_and_the_row_stays(name: str) -> None:
    found = unstorable()[name]
    assert [(row["y"], row.get(name)) for case in found for row in case.rows] == [(1, None)] * len(UNSTORABLE)
    assert [case.discards for case in found] == [[(name, value, reason)] for value, reason in UNSTORABLE]


def test_an_integer_beyond_64_bits_is_discarded_where_the_column_is_one_of_integers() -> None:
    store = Store()
    store.run([message(properties={"x": 1, "y": 1.5})])
    found = store.run([message(messageId="m2", properties=dict.fromkeys("xyz", 2**63))])
    cells = [tuple(row[name] for name in "xyz") for row in found["email_opened"]]
    assert cells == [(1, 1.5, None), (None, 2.0**63, str(2**63))]
    assert discards(found) == [("email_opened", "m2", "x", str(2**63), "does_not_fit")]


def test_floats_beyond_all_bounds_are_discarded() -> None:
    found = rows_of(raw(message(properties={"x": "$x"}), x="1e400"))
    assert discards(found) == [("email_opened", "m1", "x", "1e400", "does_not_fit")]


def test_arrays_of_all_values_are_text() -> None:
    value = r'["\uD800","\u0000",1.10,9223372036854775808]'
    assert row(raw(message(properties={"x": "$x"}), x=value))["x"] == value


NO_IDS = [
    (field, name, value, reason)
    for field, name in (("userId", "user_id"), ("anonymousId", "anonymous_id"), ("messageId", "id"))
    for value, reason in (("[1]", "does_not_fit"), ('{"a":1}', "does_not_fit"), (r'"\u0000"', "not_text"))
]


@cache
def without_ids() -> dict[str, list[Row]]:
    ids = {"userId": "u1", "anonymousId": "a1"}
    return rows_of(
        *(
            raw(message(f"Case {n}", **{"messageId": f"m{n}", **ids, field: "$x"}), x=value)
            for n, (field, _, value, _) in enumerate(NO_IDS)
        )
    )


@pytest.mark.parametrize("number", range(len(NO_IDS)), ids=lambda number: " ".join(NO_IDS[number][::2]))
def test_an_id_that_is_no_text_is_discarded(number: int) -> None:
    field, name, value, reason = NO_IDS[number]
    (stored,) = without_ids()[f"case_{number}"]
    (track,) = [row for row in without_ids()["tracks"] if row["event"] == f"case_{number}"]
    found = [entry[2:] for entry in discards(without_ids()) if entry[0] == f"case_{number}"]
    assert found == [(name, value, reason)]
    for kept in (stored, track):
        assert len(kept["id"]) == 64 if field == "messageId" else kept[name] is None


def test_an_events_name_that_cannot_be_stored_is_discarded() -> None:
    found = rows_of(raw(message("$e"), e=r'"Trial \uD800"'))
    assert [(row["event"], row["event_text"]) for row in found["trial"]] == [("trial", None)]
    assert discards(found) == [("trial", "m1", "event_text", r'"Trial \uD800"', "not_text")]


def test_keys_that_cannot_be_stored_do_no_harm() -> None:
    properties = {"\ud800": 1, "\0": {"a": 2}, "b\ud800c": 3, "d": 4}
    found = rows_of(json.dumps(message(properties=properties)), message(messageId="m2"))
    assert [(row["b_c"], row["d"]) for row in found["email_opened"]] == [(3, 4), (None, None)]
    assert [entry[2:4] for entry in discards(found)] == [(r"properties.\u0000.a", "2"), (r"properties.\uD800", "1")]
