"""Each type of message has rows in the right tables (docs/contract/warehouse.md#routing)."""

from functools import cache
from typing import Any

import pytest

from autopilothq.catalog import EVENTS
from contract.loading import RECEIVED, Line, Row, filled, identify, message, rows_of

COMMON = {"id": "m1", "received_at": RECEIVED, "timestamp": RECEIVED, "user_id": "u1"}
BODY = {"Plan": "pro", "seats": 3}
ROUTES: list[tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    (
        "track",
        {"properties": BODY, "traits": {"not": "here"}},
        {
            "tracks": COMMON | {"event": "email_opened", "event_text": "Email Opened"},
            "email_opened": COMMON | {"event": "email_opened", "event_text": "Email Opened", "plan": "pro", "seats": 3},
        },
    ),
    (
        "identify",
        {"traits": BODY, "properties": {"not": "here"}},
        {
            "identifies": COMMON | {"plan": "pro", "seats": 3},
            "users": {"id": "u1", "received_at": RECEIVED, "plan": "pro", "seats": 3},
        },
    ),
    ("alias", {"previousId": "old", "traits": BODY, "properties": BODY}, {"aliases": COMMON | {"previous_id": "old"}}),
    (
        "page",
        {"name": "Home", "category": "Docs", "properties": BODY},
        {"pages": COMMON | {"name": "Home", "category": "Docs", "plan": "pro", "seats": 3}},
    ),
    (
        "screen",
        {"name": "Home", "category": "Docs", "properties": BODY},
        {"screens": COMMON | {"name": "Home", "category": "Docs", "plan": "pro", "seats": 3}},
    ),
    (
        "page",
        {"properties": BODY | {"name": "Home", "category": "Docs", "campaignId": 5, "linkURL": "/"}},
        {
            "pages": COMMON
            | {"name": "Home", "category": "Docs", "plan": "pro", "seats": 3, "campaign_id": 5, "link_url": "/"}
        },
    ),
    (
        "screen",
        {"category": "Docs", "name": None, "properties": {"Name": 5, "category": "Docs", "Email ID": "e"}},
        {"screens": COMMON | {"name": "5", "category": "Docs", "email_id": "e"}},
    ),
    (
        "group",
        {"groupId": "g1", "traits": BODY, "context": {"ip": "1.2.3.4", "zoo": 1}},
        {
            "groups": COMMON | {"group_id": "g1", "plan": "pro", "seats": 3, "context_ip": "1.2.3.4", "context_zoo": 1},
            "accounts": {"id": "g1", "received_at": RECEIVED, "plan": "pro", "seats": 3},
        },
    ),
    ("group", {"groupId": " ", "traits": BODY}, {"groups": COMMON | {"group_id": " ", "plan": "pro", "seats": 3}}),
]


@cache
def routed() -> dict[str, list[Row]]:
    """The tables after one load of the messages, each with ids of its own."""
    return rows_of(*(sent(number) for number in range(len(ROUTES))))


def sent(number: int) -> Line:
    kind, more, _ = ROUTES[number]
    own = {"groupId": f"g{number}"} if more.get("groupId") == "g1" else {}
    return message(**{
        "type": kind, "event": "Email Opened", **more, "messageId": f"m{number}", "userId": f"u{number}", **own,
    })  # fmt: skip


@pytest.mark.parametrize("number", range(len(ROUTES)), ids=lambda number: ROUTES[number][0])
def test_a_message_has_its_rows(number: int) -> None:
    ids = {"m1": f"m{number}", "u1": f"u{number}", "g1": f"g{number}"}
    found = {name: [filled(row) for row in rows if row["id"] in ids.values()] for name, rows in routed().items()}
    assert {name: rows for name, rows in found.items() if rows} == {
        name: [{key: ids.get(cell, cell) for key, cell in row.items()}] for name, row in ROUTES[number][2].items()
    }


OTHER_KINDS: list[Any] = ["delete", "Track", "", None, ..., 5, ["track"], {}]


def test_anything_else_is_a_reject() -> None:
    found = rows_of(*(message(type=kind, messageId=f"m{n}") for n, kind in enumerate(OTHER_KINDS)))
    assert [(name, sorted((row["line"], row["reason"]) for row in rows)) for name, rows in found.items()] == [
        ("_rejects", [(line, "unknown_type") for line in range(1, len(OTHER_KINDS) + 1)])
    ]


def test_the_seven_events_have_their_tables() -> None:
    found = rows_of(*(message(event.name, messageId=event.table) for event in EVENTS))
    assert {
        name: [(row["id"], row["event_text"]) for row in rows] for name, rows in found.items() if name != "tracks"
    } == {event.table: [(event.table, event.name)] for event in EVENTS}
    assert len(found["tracks"]) == 7


def test_an_event_of_any_name_gets_its_table() -> None:
    found = rows_of(message("Trial Extended", properties={"days": 7}), identify(messageId="m2"))
    assert sorted(found) == ["identifies", "tracks", "trial_extended", "users"]
    assert found["trial_extended"][0]["days"] == 7


def test_an_identify_without_a_user_id_makes_no_user() -> None:
    assert list(rows_of(identify(userId=..., anonymousId="a"))) == ["identifies"]


def test_tracks_has_the_common_columns_only() -> None:
    (row,) = rows_of(message(context={"zoo": 1}, properties={"plan": "pro", "campaign_id": "c"}))["tracks"]
    assert row["context_zoo"] == 1
    assert not row.keys() & {"plan", "campaign_id"}
