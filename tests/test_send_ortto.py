"""Sending to Ortto over real HTTP: whole requests, rows of the log, and nothing that must not be sent twice."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

import sending
from autopilothq.catalog import ORTTO_DELIVERIES
from autopilothq.clients.ortto import Ortto, OrttoSettings
from autopilothq.destination import Counts, DeliveryLog, OrttoDestinationSettings, audiences, deliver, opening
from autopilothq.destination.delivery_log import Delivery
from autopilothq.destination.kind import ORTTO
from autopilothq.destination.lines import StopSignal
from autopilothq.destination.messages import Item, from_line
from autopilothq.destination.stream import StreamCallbacks, deliver_stream
from autopilothq.errors import ContactLimit, InvalidSetting, NotAuthorized
from calling import Call
from fake_autopilot import FakeAutopilot
from fake_ortto import FakeOrtto
from sending import identify, log_in, track, write

WRITES = ("/person/merge", "/activities/create")
P1 = "000000000000000000000100"  # person+1@example.com, external id 10001
ORDER = "act:cm:order-completed"
RECENTLY = (datetime.now(UTC) - timedelta(days=3)).replace(microsecond=0)


@pytest.fixture
def server() -> Iterator[FakeOrtto]:
    with FakeOrtto(people=20) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    def client(settings: OrttoSettings) -> Ortto:
        return Ortto(replace(settings, tries=2), sleep=lambda _: None)

    monkeypatch.setattr(opening, "Ortto", client)


def settings_for(server: FakeOrtto, **more: Any) -> OrttoDestinationSettings:
    api: dict[str, Any] = {"api_key": server.key, "base_url": server.base_url, "requests_per_second": 1000.0}
    return OrttoDestinationSettings(OrttoSettings(setting="destination.autopilothq.ortto.api_key", **api), **more)


def send(server: FakeOrtto, messages: Sequence[Any], **more: Any) -> Counts:
    """Sends messages or items like the command; returns the counts."""
    items = [
        one if isinstance(one, Item) else from_line(json.dumps(one).encode(), ORTTO.integrations) for one in messages
    ]
    with DeliveryLog(log_in(), table=ORTTO.log) as log:
        return deliver(items, log, settings_for(server, **more))


def written(server: FakeOrtto) -> list[tuple[str, Any]]:
    """Returns the paths and bodies of the requests that write, since the last call."""
    found = [(request.path, request.body) for request in server.requests if request.path in WRITES]
    server.requests.clear()
    return found


rows = partial(sending.rows, table=ORTTO_DELIVERIES.name)


def counted(counts: Counts) -> dict[str, int]:
    names = ("messages", "delivered", "refused", "failed", "unknown", "known", "not_meant")
    return {name: number for name in names if (number := getattr(counts, name))}


def people(server: FakeOrtto) -> list[Any]:
    """Returns the people of the only request that wrote any."""
    ((path, body),) = [one for one in written(server) if one[0] == "/person/merge"]
    assert path == "/person/merge"
    return list(body["people"])


def order(number: int, **more: Any) -> dict[str, Any]:
    found = track(number, timestamp=RECENTLY.isoformat(), properties={"order_id": f"o{number}", "total": 12.5})
    return found | more


# ---- identify ------------------------------------------------------------------------------------------------------


def test_an_identify_is_one_whole_request_and_one_whole_row(server: FakeOrtto) -> None:
    traits = {"first_name": "Ann", "plan": "team", "Score": "1.5", "trial ends": "2026-12-24", "city": "Ærø"}
    counts = send(server, [identify(1, userId="u1", traits=traits)])
    assert counted(counts) == {"messages": 1, "delivered": 1}
    assert [request.path for request in server.requests] == [
        "/person/custom-field/get",
        "/instance-schema/get",
        "/person/merge",
    ]
    assert server.requests[-1].headers["x-api-key"] == server.key
    assert written(server) == [
        (
            "/person/merge",
            {
                "people": [
                    {
                        "fields": {
                            "str::email": "p1@example.com",
                            "str::first": "Ann",
                            "geo::city": {"name": "Ærø"},
                            "str::ei": "u1",
                            "str:cm:plan": "team",
                            "int:cm:score": 1500,
                            "dtz:cm:trial-ends": {"year": 2026, "month": 12, "day": 24, "timezone": "UTC"},
                        }
                    }
                ],
                "merge_by": ["str::email", "str::ei"],
                "merge_strategy": 2,
                "find_strategy": 0,
                "async": False,
            },
        )
    ]
    assert rows("* EXCLUDE (sent_at, run)") == [
        Delivery(
            "i1",
            "identify",
            user_id="u1",
            email="p1@example.com",
            endpoint="POST /person/merge",
            status="delivered",
            http_status=200,
            attempts=1,
        )
    ]
    assert counted(send(server, [identify(1, userId="u1", traits=traits)])) == {"messages": 1, "known": 1}
    assert written(server) == []


def test_a_person_without_an_email_is_known_by_the_user_id(server: FakeOrtto) -> None:
    message = {"type": "identify", "messageId": "i1", "userId": "10001", "traits": {"plan": "business"}}
    assert counted(send(server, [message])) == {"messages": 1, "delivered": 1}
    assert people(server) == [{"fields": {"str::ei": "10001", "str:cm:plan": "business"}}]
    assert (server.account.fields(P1) or {})["str:cm:plan"] == "business"
    assert rows("user_id", "email", "status") == [("10001", None, "delivered")]


def test_a_user_id_and_then_its_email_are_not_two_people(server: FakeOrtto) -> None:
    by_id = {"type": "identify", "messageId": "a", "userId": "u7", "traits": {"plan": "free"}}
    by_email = identify("b", userId="u7", traits={"email": "u7@example.com", "plan": "team"})
    assert counted(send(server, [by_id, by_email])) == {"messages": 2, "delivered": 2}
    assert server.account.total() == 21
    assert [body["people"] for _, body in written(server)] == [
        [{"fields": {"str::ei": "u7", "str:cm:plan": "free"}}],
        [{"fields": {"str::email": "u7@example.com", "str::ei": "u7", "str:cm:plan": "team"}}],
    ]


def test_a_person_whom_ortto_does_not_take_costs_no_other(server: FakeOrtto) -> None:
    messages = [identify(1, traits={}), identify(2, traits={"email": "nonsense"}), identify(3, traits={})]
    assert counted(send(server, messages)) == {"messages": 3, "delivered": 2, "refused": 1}
    assert sorted(rows("message_id", "status", "http_status", "message")) == [
        ("i1", "delivered", 200, None),
        ("i2", "refused", 200, "str::email: Invalid value"),
        ("i3", "delivered", 200, None),
    ]
    written(server)
    assert counted(send(server, messages)) == {"messages": 3, "refused": 1, "known": 2}
    assert written(server) == []
    messages = [identify(2, traits={"email": "nonsense", "plan": "pro"}), *messages]  # changed, so it is sent
    assert counted(send(server, messages[:2])) == {"messages": 2, "refused": 1, "known": 1}
    assert people(server) == [{"fields": {"str::email": "nonsense", "str:cm:plan": "pro"}}]


def test_messages_of_a_person_that_are_refused_together_are_sent_alone_by_the_next_run(server: FakeOrtto) -> None:
    invalid = {"status": "invalid", "error": "str:cm:plan: Invalid value"}
    server.order("POST", "/person/merge", edit=lambda answer: {"people": [invalid, *answer["people"][1:]]})
    mine = {"email": "p1@example.com"}
    messages = [identify(3, traits=mine | {"plan": "1"}), identify(4, traits=mine | {"notes": "1"})]
    messages.append(identify(2, traits={}))
    assert counted(send(server, messages)) == {"messages": 3, "delivered": 1, "refused": 2}
    written(server)
    assert counted(send(server, messages)) == {"messages": 3, "delivered": 2, "known": 1}
    assert [body["people"] for _, body in written(server)] == [
        [{"fields": {"str::email": "p1@example.com", f"str:cm:{name}": "1"}}] for name in ("plan", "notes")
    ]


def test_a_trait_without_a_field_is_left_out_and_said(server: FakeOrtto) -> None:
    counts = send(server, [identify(1, traits={"shoe": 43, "_autopilot_list": "x", "Company": "Acme"})])
    assert people(server) == [{"fields": {"str::email": "p1@example.com"}}]
    assert json.loads(rows("remarks")[0][0]) == dict.fromkeys(
        ("shoe", "_autopilot_list", "Company"), "left out: the account has no field for it"
    )
    assert counted(counts) == {"messages": 1, "delivered": 1}


def test_a_trait_without_a_field_is_refused_where_that_is_wanted(server: FakeOrtto) -> None:
    assert counted(send(server, [identify(1, traits={"shoe": 43})], unknown_traits="refuse")) == {
        "messages": 1,
        "refused": 1,
    }
    assert (written(server), rows("message")) == (
        [],
        [("The account has no field for 'shoe': create it there, map the trait, or set unknown_traits to send",)],
    )


def test_standard_fields_are_custom_fields_where_the_account_made_them(server: FakeOrtto) -> None:
    server.account.custom_fields["str:cm:company"] = ("Company", "text")
    traits = {"company": {"name": "Acme"}, "phone": "+44 (555) 0100", "unsubscribed": "false", "address": {"zip": "N1"}}
    send(server, [identify(1, traits=traits)], fields={"address.zip": "str:cm:notes"})
    assert people(server) == [
        {
            "fields": {
                "str::email": "p1@example.com",
                "phn::phone": {"phone": "445550100", "parse_with_country_code": True},
                "bol::p": True,
                "str:cm:notes": "N1",
                "str:cm:company": "Acme",
            }
        }
    ]


def test_null_clears(server: FakeOrtto) -> None:
    send(server, [identify(1, traits={"plan": None, "phone": None, "unsubscribed": None, "score": None})])
    assert people(server) == [
        {
            "fields": {
                "str::email": "p1@example.com",
                "phn::phone": None,
                "bol::p": None,
                "str:cm:plan": None,
                "int:cm:score": None,
            }
        }
    ]


def test_a_mapping_to_no_field_is_an_error_before_anything_is_sent(server: FakeOrtto) -> None:
    with pytest.raises(InvalidSetting) as caught:
        send(server, [identify(1)], fields={"a.b": "Nothing"})
    assert str(caught.value) == (
        "destination.autopilothq.ortto.fields maps 'a.b' to 'Nothing', but the account has no such field: create it in"
        " Ortto, or correct the mapping"
    )


def test_a_new_address_is_written_to_the_person_who_has_the_old_one(server: FakeOrtto) -> None:
    renames = identify(1, traits={"email": "person+1@example.com", "_NewEmail": "new@example.com", "plan": "team"})
    assert counted(send(server, [renames])) == {"messages": 1, "delivered": 1}
    ((_, body),) = written(server)
    assert (body["merge_by"], body["people"]) == (
        ["str::person_id"],
        [{"fields": {"str::email": "new@example.com", "str:cm:plan": "team", "str::person_id": P1}}],
    )
    assert (server.account.fields(P1) or {})["str::email"] == "new@example.com"


def test_a_change_of_address_whose_answer_is_lost_is_found_out_about_before_older_messages(server: FakeOrtto) -> None:
    renames = identify(1, traits={"email": "person+1@example.com", "_NewEmail": "new@example.com", "plan": "team"})
    old = identify(2, traits={"email": "person+1@example.com", "plan": "free", "notes": "N"})
    server.order("POST", "/person/merge", drop="before", times=2)
    assert send(server, [old]).failed == 1
    server.order("POST", "/person/merge", drop="after")
    assert counted(send(server, [renames])) == {"messages": 1, "unknown": 1}
    assert counted(send(server, [old, renames])) == {"messages": 2, "delivered": 1, "known": 1}
    person = server.account.fields(P1) or {}
    found = [person[name] for name in ("str::email", "str:cm:plan", "str:cm:notes")]
    assert (found, server.account.total()) == (["new@example.com", "team", "N"], 20)


def test_consent_is_asked_of_ortto_by_its_own_name(server: FakeOrtto) -> None:
    messages = [
        identify(1, integrations={"All": False}),
        identify(2, integrations={"All": False, "Ortto": True}),
        identify(3, integrations={"AutopilotHQ": False}),
        identify(4, integrations={"Ortto (Actions)": False}),
    ]
    assert counted(send(server, messages)) == {"messages": 4, "delivered": 2, "not_meant": 2}
    assert [one["fields"]["str::email"] for one in people(server)] == ["p2@example.com", "p3@example.com"]


# ---- the account ---------------------------------------------------------------------------------------------------


def test_what_autopilot_has_is_sent_to_ortto_all_the_same(server: FakeOrtto) -> None:
    with FakeAutopilot(contacts=0) as autopilot:
        assert sending.send(autopilot, [identify(1, traits={})]).delivered == 1
    assert counted(send(server, [identify(1, traits={})])) == {"messages": 1, "delivered": 1}
    assert len(people(server)) == 1


def test_a_full_account_ends_the_run(server: FakeOrtto) -> None:
    server.account.most_contacts = 20
    with pytest.raises(ContactLimit, match="holds as many contacts as its plan allows"):
        send(server, [identify(number, traits={}) for number in range(250)])
    assert len(written(server)) <= 8
    assert {status for (status,) in rows("status")} <= {"failed"}
    server.account.most_contacts = None
    assert counted(send(server, [identify(number, traits={}) for number in range(250)])) == {
        "messages": 250,
        "delivered": 250,
    }


def test_a_wrong_key_ends_the_run_after_one_request(server: FakeOrtto) -> None:
    good, server.key = settings_for(server), "another"
    with pytest.raises(NotAuthorized), DeliveryLog(log_in(), table=ORTTO.log) as log:
        deliver([Item("i", "identify", traits={"email": "a@b.c"})], log, good)
    assert len(server.requests) == 1


# ---- audiences -----------------------------------------------------------------------------------------------------


def members(server: FakeOrtto, name: str, *emails: str) -> Counts:
    found = [audiences.PersonRow(email, email, None, {}) for email in emails]
    audience = audiences.Audience(audiences.slug(name), "email", found)
    with DeliveryLog(log_in(), table=ORTTO.log) as log:
        changes = list(audiences.membership_items(audiences.audience_changes(audience, log.members(audience.trait))))
        return deliver(changes, log, settings_for(server))


def test_an_audience_is_a_boolean_field_and_a_tag(server: FakeOrtto) -> None:
    members(server, "Big spenders", "person+1@example.com", "person+2@example.com")
    assert people(server) == [
        {"fields": {"str::email": email, "bol:cm:big-spenders": True}, "tags": ["big_spenders"]}
        for email in ("person+1@example.com", "person+2@example.com")
    ]
    members(server, "Big spenders", "person+2@example.com")
    assert people(server) == [
        {"fields": {"str::email": "person+1@example.com", "bol:cm:big-spenders": False}, "unset_tags": ["big_spenders"]}
    ]
    assert server.account.tags == {"big_spenders": {"000000000000000000000200"}}


def test_an_audience_without_a_field_is_a_tag_alone(server: FakeOrtto) -> None:
    counts = members(server, "Lapsed", "person+1@example.com")
    assert people(server) == [{"fields": {"str::email": "person+1@example.com"}, "tags": ["lapsed"]}]
    assert counted(counts) == {"messages": 1, "delivered": 1}
    text = "sent only as a tag: the account has no field for it"
    assert rows("audience", "content", "remarks") == [("lapsed", "true", json.dumps({"lapsed": text}))]


# ---- tracks --------------------------------------------------------------------------------------------------------


def test_a_track_is_a_person_and_then_an_activity(server: FakeOrtto) -> None:
    message = order(1, userId="u1", properties={"coupon": "x", "order_id": "o1", "total": 12.5, "Items": 2})
    assert counted(send(server, [message])) == {"messages": 1, "delivered": 1}
    created = f"{RECENTLY:%Y-%m-%dT%H:%M:%SZ}"
    assert [(path, body.get("people") or body) for path, body in written(server)] == [
        ("/person/merge", [{"fields": {"str::email": "p1@example.com", "str::ei": "u1"}}]),
        (
            "/activities/create",
            {
                "activities": [
                    {
                        "activity_id": ORDER,
                        "attributes": {"str:cm:order-id": "o1", "int:cm:total": 12500, "int:cm:items": 2},
                        "key": "t1",
                        "fields": {"str::email": "p1@example.com"},
                        "merge_by": ["str::email"],
                        "created": created,
                    }
                ],
                "async": False,
            },
        ),
    ]
    remarks = {"coupon": "left out: act:cm:order-completed has no such attribute"}
    assert rows("message_id", "trigger_id", "endpoint", "status", "http_status", "remarks") == [
        ("t1", ORDER, "POST /activities/create", "delivered", 200, json.dumps(remarks))
    ]
    assert counted(send(server, [message])) == {"messages": 1, "known": 1}
    assert written(server) == []


def test_many_tracks_go_into_one_request(server: FakeOrtto) -> None:
    messages = [order(number) for number in range(150)]
    assert counted(send(server, messages)) == {"messages": 150, "delivered": 150}
    assert [len(body.get("people") or body["activities"]) for _, body in sorted(written(server), key=str)] == [
        100,
        50,
        100,
        50,
    ]
    assert sorted(one["key"] for one in server.account.created) == sorted(f"t{number}" for number in range(150))


def test_a_track_of_a_user_id_alone(server: FakeOrtto) -> None:
    message = order(1, userId="10001", context={})
    assert counted(send(server, [message])) == {"messages": 1, "delivered": 1}
    (activity,) = server.account.created
    assert (activity["fields"], activity["merge_by"]) == ({"str::ei": "10001"}, ["str::ei"])


def test_an_event_without_an_activity_is_refused(server: FakeOrtto) -> None:
    assert counted(send(server, [order(1, event="Unheard of")])) == {"messages": 1, "refused": 1}
    text = "No custom activity for the event 'Unheard of', in the settings or by its name"
    assert (written(server), rows("message")) == ([], [(text,)])


def test_events_are_mapped_to_activities(server: FakeOrtto) -> None:
    send(server, [order(1, event="Unheard of")], activities={"Unheard of": [ORDER, "act:cm:trial-extended"]})
    assert [one["activity_id"] for one in server.account.created] == [ORDER, "act:cm:trial-extended"]
    with pytest.raises(InvalidSetting) as caught:
        send(server, [order(2)], activities={"Order Completed": "act:cm:nothing"})
    assert str(caught.value) == (
        "destination.autopilothq.ortto.activities (or --trigger) sends 'Order Completed' to 'act:cm:nothing', but the"
        " account's custom activities are act:cm:order-completed, act:cm:trial-extended"
    )


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"edit": lambda _: b"<html>"}, {"edit": lambda _: {}}])
def test_an_activity_whose_answer_is_lost_is_never_sent_again(server: FakeOrtto, fault: dict[str, Any]) -> None:
    server.order("POST", "/activities/create", **fault)
    assert counted(send(server, [order(1), order(2)])) == {"messages": 2, "unknown": 2}
    assert [status for (status,) in rows("status")] == ["unknown", "unknown"]
    assert len(server.account.created) == 2
    written(server)
    assert counted(send(server, [order(1), order(2)])) == {"messages": 2, "unknown": 2}
    assert written(server) == []


def test_one_bad_activity_is_found_and_costs_no_other(server: FakeOrtto) -> None:
    server.order("POST", "/activities/create", status=400, message="No valid activities provided")
    messages = [order(1), order(2), order(3, properties={"order_id": "x" * 20_000}), order(4)]
    assert counted(send(server, messages)) == {"messages": 4, "delivered": 3, "refused": 1}
    assert sorted(rows("message_id", "status", "message")) == [
        ("t1", "delivered", None),
        ("t2", "delivered", None),
        ("t3", "refused", "The activity is larger than 16,000 bytes, which Ortto does not accept"),
        ("t4", "delivered", None),
    ]
    assert [len(body["activities"]) for path, body in written(server) if path == "/activities/create"] == [3, 1, 2]


def test_the_fifty_first_activity_of_a_day_is_refused(server: FakeOrtto) -> None:
    messages = [order(number, context={"traits": {"email": "person+1@example.com"}}) for number in range(52)]
    now = datetime.now(UTC).isoformat()
    counts = send(server, [message | {"timestamp": now} for message in messages])
    assert counted(counts) == {"messages": 52, "delivered": 50, "refused": 2}
    assert {why: number for (_, why), number in counts.reasons.items()} == {"activity limit reached": 2}


def test_an_event_without_a_time_happens_now(server: FakeOrtto) -> None:
    messages = [{name: value for name, value in order(1).items() if name != "timestamp"}, order(2, timestamp="soon")]
    assert counted(send(server, messages)) == {"messages": 2, "delivered": 2}
    assert [one.get("created") for one in server.account.created] == [None, None]


def test_an_event_that_is_too_old_is_refused(server: FakeOrtto) -> None:
    assert counted(send(server, [order(1, timestamp="2020-01-01T00:00:00Z")])) == {"messages": 1, "refused": 1}
    assert rows("status", "message", "trigger_id") == [
        ("refused", "The event is older than 90 days, which Ortto does not accept", ORDER)
    ]
    assert [path for path, _ in written(server)] == ["/person/merge"]


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command(server: FakeOrtto, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = write([identify(1, traits={"shoe": 1}), order(1), {"type": "page", "messageId": "p"}])
    section, variable = "destination.autopilothq.ortto", "DESTINATION__AUTOPILOTHQ__ORTTO__API_KEY"
    said = call("send", "messages", messages, "--to", "ortto")
    assert (said.status, said.err.splitlines()) == (
        1,
        [
            "Error: Expected the key of the Ortto account that receives, but there is none.",
            f"Set {section}.api_key in .dlt/secrets.toml, or {variable} in the environment.",
        ],
    )
    for name, value in (("API_KEY", server.key), ("BASE_URL", server.base_url), ("REQUESTS_PER_SECOND", "1000")):
        monkeypatch.setenv(f"DESTINATION__AUTOPILOTHQ__ORTTO__{name}", value)
    said = call("send", "messages", messages, "--to", "ortto", "--dry-run", "--requests")
    lines = said.out.splitlines()
    assert (said.status, written(server)) == (0, [])
    assert [line for line in lines if line.startswith("POST")] == [
        f"POST {server.base_url}/person/merge",
        f"POST {server.base_url}/activities/create",
    ]
    assert json.loads(lines[1]) == {
        "people": [{"fields": {"str::email": "p1@example.com"}}],
    }
    assert lines[4:] == [
        "would send 3 messages: 2 delivered, 0 refused, 0 failed, 0 unknown, 1 of type page, which Ortto does not take",
        "  1 time shoe was left out: the account has no field for it",
    ]
    said = call("send", "messages", messages, "--to", "ortto", "--trigger", f"Order Completed={ORDER}")
    assert (said.status, said.out.splitlines()[0]) == (
        0,
        "3 messages: 2 delivered, 0 refused, 0 failed, 0 unknown, 1 of type page, which Ortto does not take",
    )
    assert len(written(server)) == 2
    said = call("deliveries", "--to", "ortto", "--status", "delivered")
    assert [line.split("  ", 1)[1].split() for line in said.out.splitlines()[1:-2]] == [
        ["delivered", "identify", "p1@example.com", "i1", "-", "-", "200"],
        ["delivered", "track", "p1@example.com", "t1", "Order", "Completed", ORDER, "200"],
    ]
    assert call("deliveries").out == "0 delivered, 0 refused, 0 failed, 0 unknown\n"
    nameless = {"type": "identify", "messageId": "i3", "userId": "u3"}
    call("send", "messages", write([nameless]), "--to", "ortto")
    line = call("deliveries", "--to", "ortto").out.splitlines()[-3]
    assert line.split("  ", 1)[1].split() == ["delivered", "identify", "u3", "i3", "-", "-", "200"]


def test_a_dry_run_is_for_people(server: FakeOrtto, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("API_KEY", server.key), ("BASE_URL", server.base_url), ("REQUESTS_PER_SECOND", "1000")):
        monkeypatch.setenv(f"DESTINATION__AUTOPILOTHQ__ORTTO__{name}", value)
    traits = {"score": 1.5, "city": "Oslo", "phone": "+47 555", "unsubscribed": True, "trial_ends": "2026-12-24"}
    by_id = {"type": "identify", "messageId": "i2", "userId": "u2", "traits": {"plan": None}}
    said = call("send", "messages", write([identify(1, traits=traits), order(1), by_id]), "--to", "ortto", "--dry-run")
    assert (said.status, written(server)) == (0, [])
    assert said.out.splitlines() == [
        "Nothing is sent. What would change:",
        "",
        "p1@example.com",
        "  City                  Oslo",
        "  Phone number          +47555",
        "  Email permission      false",
        "  Score                 1.5",
        "  Trial ends            2026-12-24",
        "  gets the activity Order Completed (act:cm:order-completed)",
        "",
        "u2",
        "  External ID           u2",
        "  Plan                  (empty)",
        "",
        "field                                        values    cleared",
        "City                                              1          0",
        "Phone number                                      1          0",
        "Email permission                                  1          0",
        "Score                                             1          0",
        "Trial ends                                        1          0",
        "External ID                                       1          0",
        "Plan                                              0          1",
        "",
        "activity                                    getting",
        "Order Completed (act:cm:order-completed)          1",
        "",
        "would send 3 messages: 3 delivered, 0 refused, 0 failed, 0 unknown",
    ]


def test_a_stream_is_sent_chunk_by_chunk(server: FakeOrtto) -> None:
    log = DeliveryLog(log_in(), table=ORTTO.log)
    counts, stop, told = Counts(), StopSignal(), list[str]()
    ends = StreamCallbacks(lambda: log, stop, lambda _: None, told.append, lambda _, why: told.append(why))
    messages = [identify(1, userId="u1", traits={"plan": "team"}), {"type": "page"}]
    chunks = [[json.dumps(one).encode() for one in some] for some in (messages, [order(2, userId="u1", context={})])]
    server.order("POST", "/person/merge", drop="before", times=2, skip=1)
    deliver_stream([*chunks, *chunks], settings_for(server), ends, counts)
    stop.close()
    assert (counted(counts), told) == ({"messages": 6, "delivered": 2, "known": 2}, [])
    assert [one["fields"] for one in server.account.created] == [{"str::email": "p1@example.com"}]


@pytest.mark.parametrize(("times", "ends"), [(2, 3), (6, 2)])
def test_a_newer_message_of_a_stream_waits_for_an_activity_that_failed(
    server: FakeOrtto, monkeypatch: pytest.MonkeyPatch, times: int, ends: int
) -> None:
    monkeypatch.setattr(StopSignal, "wait", lambda *_: False)
    log, counts, stop = DeliveryLog(log_in(), table=ORTTO.log), Counts(), StopSignal()
    older, newer = (order(number, context={"traits": {"email": "p1@b.c", "plan": f"T{number}"}}) for number in (1, 2))
    chunk = [json.dumps(one).encode() for one in (older, newer, identify(3))]
    server.order("POST", "/activities/create", status=429, times=times)
    stream_ends = StreamCallbacks(lambda: log, stop, lambda _: None, lambda _: None, lambda *_: None)
    deliver_stream([chunk], settings_for(server), stream_ends, counts)
    stop.close()
    assert (counts.messages, counts.delivered, counts.failed) == (3, ends, 3 - ends)
    plans = [
        one["fields"]["str:cm:plan"]
        for path, body in written(server) if path == "/person/merge"
        for one in body["people"] if one["fields"]["str::email"] == "p1@b.c"
    ]  # fmt: skip
    assert plans[-1] == "T2"
    assert plans.index("T2") == plans.count("T1")
