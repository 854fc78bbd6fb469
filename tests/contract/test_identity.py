"""Messages get the right ids, and `users` and `accounts` the latest traits (docs/contract/warehouse.md#identity)."""

import random
from functools import cache
from typing import Any

import pytest

from autopilothq.projection import users as latest
from contract.loading import Row, Store, filled, identify, message, raw, rows_of

pytestmark = pytest.mark.usefixtures("several_threads")

# The message's fields as JSON text, then its anonymous_id and user_id, or None if the line is rejected.
IDS: list[tuple[dict[str, str], tuple[str | None, str | None] | None]] = [
    ({"userId": '"u"', "anonymousId": '"a"'}, ("a", "u")),
    ({"userId": '"u"'}, (None, "u")),
    ({"anonymousId": '"a"'}, ("a", None)),
    ({"userId": "null", "anonymousId": '"a@example.com"'}, ("a@example.com", None)),
    ({"userId": "5"}, (None, "5")),
    ({"userId": "1.10"}, (None, "1.10")),
    ({"userId": "1e5"}, (None, "1e5")),
    ({"userId": "12345678901234567890123"}, (None, "12345678901234567890123")),
    ({"userId": "0"}, (None, "0")),
    ({"userId": "true"}, (None, "true")),
    ({"userId": '""', "anonymousId": '"a"'}, ("a", None)),
    ({"userId": '" "', "anonymousId": '"a"'}, ("a", None)),
    ({"userId": '"   "', "anonymousId": '"a"'}, ("a", None)),
    ({"userId": '" \\t\\n"', "anonymousId": '"a"'}, ("a", None)),
    ({"userId": '" u "'}, (None, " u ")),
    ({"userId": '"\\tu"'}, (None, "\tu")),
    ({"userId": '"null"'}, (None, "null")),
    ({"userId": "[1]", "anonymousId": '"a"'}, ("a", None)),
    ({"userId": '"[u]"'}, (None, "[u]")),
    (
        {"context": '{"traits":{"email":"c@x"}}', "properties": '{"email":"p@x"}', "traits": '{"email":"t@x"}'},
        ("c@x", None),
    ),
    ({"properties": '{"email":"p@x"}', "traits": '{"email":"t@x"}'}, ("p@x", None)),
    ({"traits": '{"email":"t@x"}'}, ("t@x", None)),
    ({"context": '{"traits":{"email":" "}}', "properties": '{"email":"p@x"}'}, ("p@x", None)),
    ({"context": '{"traits":{"email":null}}', "properties": '{"email":"p@x"}'}, ("p@x", None)),
    ({"context": '{"traits":{"email":["c@x"]}}', "properties": '{"email":"p@x"}'}, ("p@x", None)),
    ({"context": '{"traits":{"email":5}}', "properties": '{"email":"p@x"}'}, ("p@x", None)),
    ({"context": '{"traits":{"email":"nobody"}}'}, ("nobody", None)),
    ({"context": '{"traits":{"email":"[c]@x"}}'}, ("[c]@x", None)),
    ({"userId": '" "', "context": '{"traits":{"email":"c@x"}}'}, ("c@x", None)),
    ({"userId": '"u"', "context": '{"traits":{"email":"c@x"}}'}, (None, "u")),
    ({"anonymousId": '"a"', "context": '{"traits":{"email":"c@x"}}'}, ("a", None)),
    ({"context": '{"traits":{"Email":"c@x"}}'}, None),
    ({"context": '{"traits":{"email":true}}'}, None),
    ({"context": '{"email":"c@x"}'}, None),
    ({"userId": '""', "anonymousId": "null"}, None),
    ({}, None),
]


TABLES = {"track": "tracks", "identify": "identifies", "page": "pages"}


@cache
def identified() -> dict[str, list[Row]]:
    """The tables after one load of a message of each type for each of IDS."""
    return rows_of(
        *(
            raw(
                message(**{
                    "type": kind, "messageId": f"{kind} {number:02}", "userId": ...,
                    **{key: f"${key}" for key in fields},
                }),
                **fields,
            )
            for kind in TABLES
            for number, (fields, _) in enumerate(IDS)
        )
    )  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_ids_are_taken_as_sent_and_the_email_replaces_missing_ones(kind: str) -> None:
    found = identified()
    assert {row["id"]: (row["anonymous_id"], row["user_id"]) for row in found[TABLES[kind]]} == {
        f"{kind} {number:02}": ids for number, (_, ids) in enumerate(IDS) if ids is not None
    }
    rejects = [row["reason"] for row in found["_rejects"] if f'"messageId": "{kind} ' in row["raw"]]
    assert rejects == ["no_user_anon_id"] * sum(ids is None for _, ids in IDS)


# ---- users ---------------------------------------------------------------------------------------------------------


def at(day: int, **changes: Any) -> dict[str, Any]:
    return identify(**{"messageId": f"m{day}", "receivedAt": f"2019-03-{day:02}T00:00:00.000Z", **changes})


STEPS = [
    at(1, traits={"plan": "free", "seats": 1, "name": "Ann"}),
    at(2, traits={"plan": "pro", "seats": None, "name": ""}),
    at(3, traits={"plan": None, "city": "Bonn"}, anonymousId="a"),
    at(4, traits=None, context={"ip": "::1", "traits": {"email": "a@x"}}),
    at(5, userId="u2", traits={"plan": "other", "seats": 5}),
    at(6, userId=..., anonymousId="a", traits={"plan": "nobody's"}),
]
USERS = [
    {
        "id": "u1",
        "plan": "pro",
        "seats": 1,
        "name": "",
        "city": "Bonn",
        "context_ip": "::1",
        "context_traits_email": "a@x",
    },
    {"id": "u2", "plan": "other", "seats": 5},
]


def users(store: Store, prefix: str = "") -> list[dict[str, Any]]:
    """Returns the users whose ids have the prefix, without it."""
    rows = [filled(row) for row in store.tables()["users"] if row["id"].startswith(prefix)]
    assert [row.pop("received_at").day for row in rows] == [4, 5]
    return [row | {"id": row["id"].removeprefix(prefix)} for row in rows]


def test_a_user_has_the_last_value_of_each_trait() -> None:
    store = Store()
    store.run(STEPS)
    assert users(store) == USERS
    assert "anonymous_id" not in store.types["users"]


SEEDS = range(4)


@cache
def shuffled() -> Store:
    """Loads STEPS once per seed, each time with other ids, in the order and the loads that the seed gives."""
    plans = []
    for seed in SEEDS:
        rng = random.Random(seed)
        loads = [[step] for step in STEPS] + [STEPS[:3], STEPS[2:]]
        rng.shuffle(loads)
        plans.append([rng.sample(load, len(load)) for load in loads])
    store = Store()
    for together in zip(*plans, strict=True):
        store.run([owned(step, seed) for seed, load in zip(SEEDS, together, strict=True) for step in load])
    return store


def owned(step: dict[str, Any], seed: int) -> dict[str, Any]:
    user = {"userId": f"{seed} {step['userId']}"} if "userId" in step else {}
    return {**step, "messageId": f"{seed} {step['messageId']}", **user}


@pytest.mark.parametrize("seed", SEEDS)
def test_neither_the_order_nor_the_cut_into_loads_matters(seed: int) -> None:
    assert users(shuffled(), f"{seed} ") == USERS


def test_a_user_keeps_what_a_later_load_does_not_mention() -> None:
    store = Store()
    store.run([at(1, traits={"plan": "free"})])
    store.run([at(2, traits={"seats": 2})])
    store.run([message(messageId="t")])
    assert [filled(row) for row in store.tables()["users"]] == [
        {"id": "u1", "plan": "free", "seats": 2, "received_at": store.tables()["identifies"][1]["received_at"]}
    ]


@pytest.mark.parametrize("many", [1, 200], ids=["by way of values", "at once"])
def test_of_two_identifies_of_one_moment_that_of_the_greater_id_wins(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order of the lines. One without a time counts as earlier than all others."""
    monkeypatch.setattr(latest, "MANY_TRAITS", many)
    lines = [
        at(1, messageId="m1", traits={"plan": "free", "seats": 1}),
        at(1, messageId="m2", traits={"plan": "pro"}),
        identify(messageId="m3", userId="u2", receivedAt=None, traits={"plan": "free", "seats": 2}),
        identify(messageId="m4", userId="u2", receivedAt=None, traits={"plan": "pro"}),
        at(1, messageId="m5", userId="u3", traits={"plan": "pro"}),
        identify(messageId="m6", userId="u3", receivedAt=None, traits={"plan": "free", "seats": 3}),
    ]
    for order in (lines, lines[::-1]):
        found = Store().run(order)["users"]
        assert [(row["id"], row["plan"], row["seats"]) for row in found] == [
            ("u1", "pro", 1), ("u2", "pro", 2), ("u3", "pro", 3),
        ]  # fmt: skip


def test_a_second_message_with_a_stored_id_does_not_change_the_user() -> None:
    store = Store()
    store.run([at(1, traits={"plan": "free"})])
    store.run([at(2, traits={"plan": "pro"}) | {"messageId": "m1"}])
    assert [row["plan"] for row in store.tables()["users"]] == ["free"]


def test_traits_in_addition_to_the_common_columns_are_also_columns_of_users() -> None:
    store = Store()
    store.run([at(1, traits={"id": 7, "timestamp": "soon"})])
    (user,) = store.tables()["users"]
    assert (user["id"], user["_id"], user["_timestamp"]) == ("u1", 7, "soon")


# ---- accounts ------------------------------------------------------------------------------------------------------


def group(hour: int, id_: str = "g1", **traits: object) -> dict[str, Any]:
    return message(
        None, type="group", event=..., messageId=f"{id_} {hour}", groupId=id_, traits=traits,
        receivedAt=f"2024-03-04T{hour:02}:00:00Z", context={"traits": {"email": "ada@example.com"}},
    )  # fmt: skip


GROUPS = [
    group(1, name="Acme", plan="free", mrr=1),
    group(3, plan="pro", groupId="g1"),
    group(2, plan="team", mrr=2.5, employees=None),
    group(1, "g2", name="Bolt"),
]
ACCOUNTS = [
    {"id": "g1", "name": "Acme", "plan": "pro", "mrr": 2.5},
    {"id": "g2", "name": "Bolt"},
]


def accounts(store: Store, prefix: str = "") -> list[dict[str, Any]]:
    """Returns the accounts whose ids have the prefix, without it."""
    rows = [filled(row) for row in store.tables()["accounts"] if row["id"].startswith(prefix)]
    assert [row.pop("received_at").hour for row in rows] == [3, 1]
    return [row | {"id": row["id"].removeprefix(prefix)} for row in rows]


ORDERS = [[0, 1, 2, 3], [1, 3, 0, 2]]


@cache
def grouped() -> Store:
    """Loads GROUPS one by one in each of ORDERS, each time with other ids, and then all of them again."""

    def owned(number: int, order: int) -> dict[str, Any]:
        line = GROUPS[number]
        id_ = f"{order} {line['groupId']}"
        traits = {key: id_ if key == "groupId" else value for key, value in line["traits"].items()}
        return {**line, "messageId": f"{order} {line['messageId']}", "groupId": id_, "traits": traits}

    store = Store()
    store.run([group(9, "g3", mrr=0.5)])  # makes mrr a column of floats
    for numbers in zip(*ORDERS, strict=True):
        store.run([owned(number, order) for order, number in enumerate(numbers)])
    store.run([owned(number, order) for order in range(len(ORDERS)) for number in range(len(GROUPS))])
    return store


@pytest.mark.parametrize("order", range(len(ORDERS)))
def test_an_account_has_the_last_value_of_each_trait_in_any_order(order: int) -> None:
    assert accounts(grouped(), f"{order} ") == ACCOUNTS


def test_an_account_has_the_last_value_of_each_trait_and_nothing_of_persons() -> None:
    once = Store()
    once.run(GROUPS)
    assert accounts(once) == ACCOUNTS
    assert list(once.types["accounts"]) == ["id", "received_at", "uuid_ts", "mrr", "name", "plan"]


def test_accounts_that_an_earlier_version_did_not_make_come_with_the_next_group() -> None:
    store = Store()
    store.run(GROUPS)
    del store.rows["accounts"], store.types["accounts"]
    store.run([message()])
    assert "accounts" not in store.types
    store.run([group(1, "g2", name="Bolt")])  # a duplicate is enough to create the table again
    assert accounts(store) == ACCOUNTS
