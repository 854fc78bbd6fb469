"""If values share a column, one of them gets it, the others are discards (docs/contract/warehouse.md#collisions)."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from autopilothq.catalog import COMMON_NAMES
from contract.loading import Case, Line, Row, Store, cases, discards, filled, identify, message, raw, row, rows_of

COMMON = sorted(COMMON_NAMES - {"event"})


@pytest.mark.parametrize(
    ("make", "table", "body"), [(message, "email_opened", "properties"), (identify, "identifies", "traits")]
)
def test_a_common_column_wins_over_a_property_and_a_trait(make: Callable[..., Line], table: str, body: str) -> None:
    found = rows_of(make(messageId="a"), *(make(messageId=f"m {name}", **{body: {name: "mine"}}) for name in COMMON))
    plain, *rows = map(filled, found[table])
    assert rows == [plain | {"id": f"m {name}", f"_{name}": "mine"} for name in COMMON]


PREFIXED = [
    ("receivedAt", "_received_at"), ("ReceivedAt", "_received_at"), ("received at", "_received_at"), ("ID", "_id"),
]  # fmt: skip
CONTEXTS: list[dict[str, Any]] = [{"context": {"zoo": 1}}, {"context_zoo": 1}, {"contextZoo": 1}]
KINDS = [("page", "name"), ("page", "category"), ("screen", "name"), ("group", "groupId")]
REPEATED = ["Email Opened", "email_opened"]
REPEATED_DIGIT = ["2FA Enabled", "2fa_enabled", "_2fa_enabled"]
# The event and its property `event`. The one with a number is alone in its table, so that the column is numeric.
OTHER: list[tuple[str, object]] = [
    ("Email Replied", "replied"), ("Email Replied", "Email replied"), ("Email Bounced", 5),
    ("Email Replied", ["Email Replied"]),
]  # fmt: skip
NO_SLUG = ["名前", "", "_", "🎉"]


@cache
def apart() -> dict[str, list[Row]]:
    """The tables after one load of the messages above; each is alone in its table, or told apart by its id."""
    lines = [
        message(f"Prefixed {n}", messageId=f"p{n}", properties={key: "mine"}) for n, (key, _) in enumerate(PREFIXED)
    ]
    lines += [
        message(f"Context {n}", messageId=f"c{n}", properties=properties, context={"zoo": 2})
        for n, properties in enumerate(CONTEXTS)
    ]
    for n, (kind, column) in enumerate(KINDS):
        body = "traits" if kind == "group" else "properties"
        lines.append(message(messageId=f"k{n}", **{"type": kind, column: "own", body: {column: "mine"}}))
    lines += [message(messageId=f"r{n}", properties={"event": value, "a": 1}) for n, value in enumerate(REPEATED)]
    lines += [
        message("2FA Enabled", messageId=f"d{n}", properties={"event": value}) for n, value in enumerate(REPEATED_DIGIT)
    ]
    lines += [message(name, messageId=f"o{n}", properties={"event": value}) for n, (name, value) in enumerate(OTHER)]
    lines += [
        message(f"None {n}", messageId=f"n{n}", properties={key: {"b": 1}, "a": 2}) for n, key in enumerate(NO_SLUG)
    ]
    return rows_of(*lines)


def alone(table: str) -> Row:
    (found,) = apart()[table]
    return found


def lost(id_: str) -> list[tuple[str, str, str, str, str]]:
    return [entry for entry in discards(apart()) if entry[1] == id_]


@pytest.mark.parametrize("number", range(len(PREFIXED)), ids=[key for key, _ in PREFIXED])
def test_a_property_that_has_a_common_columns_slug_gets_a_prefix(number: int) -> None:
    assert alone(f"prefixed_{number}")[PREFIXED[number][1]] == "mine"


@pytest.mark.parametrize("number", range(len(CONTEXTS)), ids=lambda number: next(iter(CONTEXTS[number])))
def test_a_property_does_not_pass_for_the_context(number: int) -> None:
    found = alone(f"context_{number}")
    assert (found["context_zoo"], found["_context_zoo"]) == (2, 1)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=lambda number: " ".join(KINDS[number]))
def test_the_columns_of_a_kind_win_as_well(number: int) -> None:
    kind, column = KINDS[number]
    (found,) = [row for row in apart()[f"{kind}s"] if row["id"] == f"k{number}"]
    slug = {"groupId": "group_id"}.get(column, column)
    assert (found[slug], found[f"_{slug}"]) == ("own", "mine")


@pytest.mark.parametrize("number", range(len(REPEATED)), ids=lambda number: REPEATED[number])
def test_a_property_event_that_repeats_the_events_name_is_dropped(number: int) -> None:
    (found,) = [row for row in apart()["email_opened"] if row["id"] == f"r{number}"]
    assert found["a"] == 1
    assert "_event" not in found
    assert lost(f"r{number}") == []


def test_a_slug_with_a_prefix_is_a_repetition_too() -> None:
    found = apart()["_2fa_enabled"]
    assert [row["id"] for row in found] == [f"d{n}" for n in range(len(REPEATED_DIGIT))]
    assert not [row for row in found if "_event" in row]


@pytest.mark.parametrize("number", range(len(OTHER)), ids=lambda number: str(OTHER[number][1]))
def test_a_property_event_that_says_something_else_is_kept(number: int) -> None:
    name, value = OTHER[number]
    (found,) = [row for row in apart()[name.lower().replace(" ", "_")] if row["id"] == f"o{number}"]
    kept = value if isinstance(value, str | int) else json.dumps(value)
    assert found["_event"] == kept


@pytest.mark.parametrize("kind", ["page", "screen"])
@pytest.mark.parametrize("key", ["name", "category"])
def test_what_repeats_a_pages_name_is_dropped_and_what_does_not_is_kept(kind: str, key: str) -> None:
    found = rows_of(
        message(messageId="1", **{"type": kind, key: "Home", "properties": {key: "Home", "a": 1}}),
        message(messageId="2", **{"type": kind, key: "Home", "properties": {key: "home"}}),
        message(messageId="3", **{"type": kind, key: "", "properties": {key: "Home"}}),
        message(messageId="4", type=kind, properties={key: ["Home"]}),
        message(messageId="5", type=kind, properties={key.title(): "first", key: "spelt", f"{key} ": "last"}),
        message(messageId="6", **{"type": kind, key: ["Home", 5], "properties": {key: ["Home", 5]}}),
        message(messageId="7", **{"type": kind, key: [], "properties": {key: "Home"}}),
        message(messageId="8", **{"type": kind, key: {"a": 1}}),
    )
    assert [(row[key], row[f"_{key}"]) for row in found[f"{kind}s"]] == [
        ("Home", None), ("Home", "home"), ("", "Home"), ('["Home"]', None), ("spelt", None),
        ('["Home",5]', None), ("[]", "Home"), (None, None),
    ]  # fmt: skip
    assert [entry[1:] for entry in discards(found)] == [
        ("5", key, '"first"', "same_column"), ("5", key, '"last"', "same_column"),
        ("8", key, '{"a":1}', "does_not_fit"),
    ]  # fmt: skip


def test_a_trait_id_that_repeats_whose_it_is_is_dropped() -> None:
    ids: list[tuple[Any, Any, Any]] = [
        ("u1", "u1", None), ("u1", "u2", "u2"), ("42", 42, None), (42, "42", None), ("true", True, None),
        ("u1", ["u1"], '["u1"]'), ("ü\\", "ü\\", None),
    ]  # fmt: skip
    own = {"identify": "userId", "group": "groupId"}
    lines = [
        message(messageId=f"{kind} {n}", **{"type": kind, key: id_, "traits": {"id": trait, "a": n}})
        for kind, key in own.items()
        for n, (id_, trait, _) in enumerate(ids)
    ]
    found = rows_of(*lines)
    kept = [column for _, _, column in ids]
    assert [row["_id"] for row in found["identifies"]] == kept
    assert [row["_id"] for row in found["groups"]] == kept
    assert [(row["id"], row["_id"]) for row in found["accounts"]] == [
        ("42", None), ("true", None), ("u1", '["u1"]'), ("ü\\", None),
    ]  # fmt: skip
    assert "_discards" not in found
    only = rows_of(identify(traits={"id": "u1", "plan": "pro"}), message("Id", messageId="m2", properties={"id": "u1"}))
    assert ["_id" in only[table][0] for table in ("identifies", "users", "id")] == [False, False, True]


def test_a_trait_event_is_kept() -> None:
    assert (
        row(identify(event="Email Opened", traits={"event": "Email Opened"}), table="identifies")["_event"]
        == "Email Opened"
    )


# The object's JSON text, the column, its value, the discards.
COLLISIONS = [
    ('{"Plan":1,"plan":2}', "plan", 2, ["1"]),
    ('{"plan":2,"Plan":1}', "plan", 2, ["1"]),
    ('{"PLAN":1,"Plan":2}', "plan", 1, ["2"]),
    ('{"plan name":1,"planName":2,"plan-name":3}', "plan_name", 1, ["2", "3"]),
    ('{"planName":1,"plan_name":2,"plan name":3}', "plan_name", 2, ["1", "3"]),
    ('{"plan":{"name":1},"plan_name":2}', "plan_name", 2, ["1"]),
    ('{"plan_name":2,"plan":{"name":1}}', "plan_name", 2, ["1"]),
    ('{"Plan":{"name":1},"plan":{"name":2}}', "plan_name", 2, ["1"]),
    ('{"plan":{"Name":1},"planName":2}', "plan_name", 1, ["2"]),
    ('{"planName":2,"plan":{"Name":1}}', "plan_name", 2, ["1"]),
    ('{"plan":1,"plan":2}', "plan", 1, ["2"]),
    ('{"plan":{"a":1},"plan":{"a":2}}', "plan_a", 1, ["2"]),
    ('{"plan":null,"Plan":2}', "plan", 2, []),
    ('{"plan":{},"Plan":2}', "plan", 2, []),
    ('{"Plan":1,"plan":NaN}', "plan", 1, ["NaN"]),
    ('{"plan":1,"Plan":{"b":3}}', "plan", 1, []),
    ('{"Campaign Id":"b","campaign_id":"a"}', "campaign_id", "a", ['"b"']),
]


@cache
def collided() -> list[Case]:
    return cases([[body] for body, _, _, _ in COLLISIONS])


@pytest.mark.parametrize("number", range(len(COLLISIONS)))
def test_of_two_keys_the_one_that_is_spelt_like_the_column_wins_else_the_first(number: int) -> None:
    _, column, value, lost = COLLISIONS[number]
    case = collided()[number]
    assert [row[column] for row in case.rows] == [value]
    assert [(name, text) for name, text, _ in case.discards] == [(column, text) for text in lost]


def test_the_same_holds_for_traits() -> None:
    lines = [raw(identify(messageId=f"{n:02}", traits="$t"), t=body) for n, (body, *_) in enumerate(COLLISIONS)]
    found = rows_of(*lines)
    assert [row[column] for row, (_, column, *_) in zip(found["identifies"], COLLISIONS, strict=True)] == [
        value for _, _, value, _ in COLLISIONS
    ]
    assert [(entry[1], entry[3]) for entry in discards(found)] == [
        (f"{n:02}", text) for n, (*_, lost) in enumerate(COLLISIONS) for text in lost
    ]


def test_the_same_holds_in_the_context() -> None:
    found = rows_of(
        raw(message(context="$c"), c='{"userAgent":"a","user_agent":"b","library":{"name":"c"},"library_name":"d"}')
    )
    (stored,) = found["tracks"]
    assert (stored["context_user_agent"], stored["context_library_name"]) == ("b", "d")
    assert [entry[:4] for entry in discards(found)] == [
        ("email_opened", "m1", "context_library_name", '"c"'),
        ("email_opened", "m1", "context_user_agent", '"a"'),
    ]


def test_a_prefixed_column_belongs_to_the_key_that_is_spelt_like_it() -> None:
    found = rows_of(raw(message(properties="$p"), p='{"id":1,"_id":2}'))
    assert found["email_opened"][0]["_id"] == 2
    assert [entry[2:4] for entry in discards(found)] == [("_id", "1")]


def test_both_values_are_discarded_if_the_winner_does_not_fit() -> None:
    store = Store()
    store.run([message(properties={"a_b": 1})])
    found = store.run([message(messageId="m2", properties={"a b": 2, "a_b": "x"})])
    assert [entry[1:] for entry in discards(found)] == [
        ("m2", "a_b", '"x"', "does_not_fit"),
        ("m2", "a_b", "2", "same_column"),
    ]


@pytest.mark.parametrize("number", range(len(NO_SLUG)), ids=lambda number: NO_SLUG[number])
def test_a_key_without_a_slug_has_no_column(number: int) -> None:
    assert alone(f"none_{number}")["a"] == 2
    assert lost(f"n{number}") == [(f"none_{number}", f"n{number}", f"properties.{NO_SLUG[number]}.b", "1", "no_column")]


def test_a_key_that_comes_again_in_the_message_itself_changes_nothing() -> None:
    line = raw(message(properties={"a": 1})).replace(
        '"userId": "u1"', '"userId": "u1", "userId": "u2", "properties": {"b": 2}'
    )
    found = rows_of(line)
    assert [(row["user_id"], row["b"], row.get("a")) for row in found["email_opened"]] == [("u1", 2, None)]
    assert [entry[2:4] for entry in discards(found)] == [("properties", '{"a":1}'), ("user_id", '"u2"')]
