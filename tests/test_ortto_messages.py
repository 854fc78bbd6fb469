"""Ortto's activities become messages, and its values columns (docs/contract/ortto.md)."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from autopilothq import catalog
from autopilothq.receive.messages import Arrival, parse_body
from autopilothq.receive.ortto import ortto_lines
from autopilothq.segment.json_text import DECODER, JsonNumber, JsonObject, to_json
from autopilothq.segment.message import read_message
from autopilothq.segment.ortto import (
    OrttoNames,
    OrttoPerson,
    OrttoReceipt,
    name_of,
    names_of_ids,
    names_of_schema,
    ortto_journey_message,
    ortto_message,
    typed_values,
)
from contract.loading import discards, rows_of

RECEIPT = OrttoReceipt("ortto-webhook", "2026-11-01T05:06:09.000Z")


def parsed(value: Any) -> JsonObject:
    """Returns an object as if it was read from JSON; text is JSON already."""
    found = DECODER.decode(value if isinstance(value, str) else json.dumps(value))
    assert isinstance(found, JsonObject)
    return found


def message(field_id: str, attr: Any, receipt: OrttoReceipt = RECEIPT) -> dict[str, Any]:
    """Returns the message of one of Ada's activities."""
    activity = parsed({"id": "c1", "field_id": field_id, "created": "2026-11-01T05:06:07Z", "attr": attr})
    return dict(json.loads(ortto_message(activity, OrttoPerson("a1", "ada@example.com", "12345"), receipt)))


@pytest.mark.parametrize(
    ("created", "time"),
    [
        ("1793509567", "2026-11-01T05:06:07.000Z"),
        ("1793509567000", "2026-11-01T05:06:07.000Z"),
        ("253402300799999", "9999-12-31T23:59:59.999Z"),
        ("253402300800000", "253402300800000 ms"),
        ("NaN", "NaN ms"),
    ],
)
def test_numbers_are_seconds_or_milliseconds_and_never_microseconds(created: str, time: str) -> None:
    activity, receipt = parsed(f'{{"id":"c1","created":{created}}}'), RECEIPT._replace(sent_at=JsonNumber(created))
    found = json.loads(ortto_message(activity, OrttoPerson("a1"), receipt))
    assert {found[name] for name in ("timestamp", "originalTimestamp", "sentAt")} == {time}


def test_the_first_of_repeated_attributes_counts_and_the_others_stay_for_the_load_to_report() -> None:
    attr = '{"str::cn":"A","x":1,"str::cn":"B","str::mine":"c","str::cn":2,"str::mine":"d"}'
    activity = parsed(f'{{"id":"c1","field_id":"act::o","created":"2026-11-01T05:06:07Z","attr":{attr}}}')
    found = rows_of(ortto_message(activity, OrttoPerson("a1"), RECEIPT))
    [opened] = found["email_opened"]
    assert (opened["campaign_name"], opened["x"], opened["str_mine"]) == ("A", 1, "c")
    assert [row[2:4] for row in discards(found)] == [
        ("campaign_name", '"B"'),
        ("campaign_name", "2"),
        ("str_mine", '"d"'),
    ]
    assert {row[4] for row in discards(found)} == {"same_column"}


def test_of_a_bodys_repeated_keys_the_first_counts_and_the_load_reports_the_others() -> None:
    activity = '"id":"c1","field_id":"act::o","created":"2026-11-01T05:06:07Z","attr":{"str::cn":"A"}'
    other = '"id":"c2","field_id":"act::re","attr":{"str::cn":"B","txt::er":"personal"},"render_cmds":[]'
    whose = '"contact_id":"a1","email":"ada@example.com","email":"bob@example.com"'
    body = (
        f'{{"activity":{{{activity},"id":"c3","attr":{{"str::cn":"C"}},"attr":null}},"contact":{{{whose}}},"time":1,'
        f'"time":1,"activity":{{{other}}},"time":1793509567,"contact":{{"contact_id":"a2"}},"contact":5}}'
    )
    lines = ortto_lines(parse_body(body.encode()), Arrival(datetime(2026, 11, 1, tzinfo=UTC)))
    cells, found, _ = read_message(lines.data.rstrip(), frozenset())
    assert (cells["id"], cells["campaign_name"], cells["anonymous_id"]) == ("ortto-c1", "A", "ada@example.com")
    assert [tuple(each) for each in found] == [
        ("properties", '{"id":"c2","field_id":"act::re","campaign_name":"B"}', "same_column"),
        ("sent_at", '"2026-11-01T05:06:07.000Z"', "same_column"),
        ("context", '{"contact":{"contact_id":"a2"}}', "same_column"),
        ("context", '{"contact":5}', "same_column"),
        ("context", '{"email":"bob@example.com"}', "same_column"),
        ("properties", '{"id":"c3"}', "same_column"),
        ("properties", '{"campaign_name":"C"}', "same_column"),
    ]


def test_an_activity_is_a_message() -> None:
    attr = {
        "idt::c": "d1",
        "str::cn": "Onboarding",
        "idt::ei": "e1",
        "str::asn": "First",
        "bol::m": True,
        "str::b": None,
    }
    assert message("act::o", attr) == {
        "type": "track",
        "event": "Email Opened",
        "messageId": "ortto-c1",
        "timestamp": "2026-11-01T05:06:07Z",
        "originalTimestamp": "2026-11-01T05:06:07Z",
        "receivedAt": "2026-11-01T05:06:09.000Z",
        "userId": "12345",
        "anonymousId": "ada@example.com",
        "context": {
            "library": {"name": "ortto-webhook"},
            "integration": {"name": "ortto"},
            "traits": {"email": "ada@example.com", "contact_id": "a1"},
        },
        "properties": {
            "campaign_id": "d1",
            "campaign_name": "Onboarding",
            "email_id": "e1",
            "email_name": "First",
            "machine": True,
        },
    }


def test_the_feed_gives_the_same_message_but_for_how_it_came() -> None:
    attr = '"attr":{"int::li":2,"str::c":"https://example.com/a"},"render_cmds":[{"content":"Clicked email"}]'
    pushed = f'{{"id":"c1","field_id":"act::c","created":"2026-11-01T05:06:07Z",{attr}}}'
    pulled = f'{{"id":"c1","field_id":"act::c","created_at":"2026-11-01T05:06:07Z",{attr}}}'
    person = OrttoPerson("a1", None, None)
    one = json.loads(ortto_message(parsed(pushed), person, RECEIPT))
    other = json.loads(ortto_message(parsed(pulled), person, OrttoReceipt("ortto-api", "2026-11-01T06:00:00Z")))
    assert one["properties"] == {"link_id": 2, "link_url": "https://example.com/a"}
    assert one["anonymousId"] == "a1"
    assert "userId" not in one
    assert {key for key in one if one[key] != other[key]} == {"receivedAt", "context"}


@pytest.mark.parametrize(
    ("field_id", "attr", "event"),
    [
        ("act::r", {}, "Email Delivered"),
        ("act::b", {}, "Email Bounced"),
        ("act::s-ab", {}, "Email Marked as Spam"),
        ("act::re", {}, "Email Replied"),
        ("act::u-all", {"idt::ei": "e1"}, "Email Unsubscribed"),
        ("act::u-a", {"idt::ei": "e1"}, "Email Unsubscribed"),
        ("act::u-all", {"idt::ei": ""}, "Unsubscribed from email"),
        ("act::u-a", {}, "Unsubscribed from email audience"),
        ("act::s", {}, "Sent email"),
        ("act::new", {}, "act::new"),
        ("act:cm:bought", {}, "Bought"),
        ("act:cm:posing", {}, "act:cm:posing"),
        ("act:cm:nameless", {}, "act:cm:nameless"),
        ("act:cm:unknown", {}, "act:cm:unknown"),
    ],
)
def test_which_event_an_activity_is(field_id: str, attr: Any, event: str) -> None:
    names = OrttoNames({"act:cm:bought": "Bought", "act:cm:posing": "Email opened", "act:cm:nameless": "購入"})
    assert message(field_id, attr, RECEIPT._replace(names=names))["event"] == event


def test_an_activity_without_a_name_is_known_by_its_id() -> None:
    attributes = [{"id": "int:cm:p", "name": "Price", "display_type": "decimal"}]
    fields = {"act:cm:x": {"name": "", "attributes": attributes}, "act:cm:y": {}, "act:cm:z": None}
    names = names_of_schema(parsed({"namespaces": {"cm": {"fields": fields}}}))
    assert names.activities == dict.fromkeys(fields, "")
    bought = message("act:cm:x", {"int:cm:p": 1500}, RECEIPT._replace(names=names))
    assert (bought["event"], bought["properties"]) == ("act:cm:x", {"price": 1.5})


def test_two_kinds_of_unsubscription_are_told_apart() -> None:
    assert message("act::u-all", {"idt::ei": "e1", "str::rn": "Too many"})["properties"] == {
        "email_id": "e1",
        "unsubscribe_reason": "Too many",
        "scope": "all",
    }
    assert message("act::u-a", {"idt::ei": "e1"})["properties"] == {"email_id": "e1", "scope": "audience"}
    assert message("act::s-ab", {"str::rn": "Junk"})["properties"] == {"spam_reason": "Junk"}


def test_reply_texts_and_addresses_are_left_out_unless_they_are_asked_for() -> None:
    attr = {"str::s": "Hello", "txt::er": "Yes!", "str::erf": "ada@example.com", "str::ert": "we@example.com"}
    assert message("act::re", attr)["properties"] == {"email_subject": "Hello"}
    assert message("act::re", attr, RECEIPT._replace(personal=True))["properties"] == {
        "email_subject": "Hello",
        "reply_text": "Yes!",
        "replied_from": "ada@example.com",
        "replied_to": "we@example.com",
    }


def test_attributes_that_nobody_knows_keep_their_values() -> None:
    attr = parsed(
        '{"str::cn":"Sale","str:cm:size":"XL","str:cm:campaign":"x","int:cm:price":1500,"dtz:cm:d":{"year":1}}'
    )
    names = OrttoNames(
        {},
        names_of_schema(
            parsed({
                "namespaces": {
                    "cm": {
                        "fields": {
                            "act:cm:bought": {
                                "name": "Bought",
                                "attributes": [
                                    {"id": "str:cm:campaign", "name": "Campaign name", "display_type": "text"},
                                    {"id": "int:cm:price", "name": "Price", "display_type": "decimal"},
                                ],
                            },
                            "str:cm:plan": {"name": "Plan"},
                            "act:cm:broken": None,
                            "act:cm:bare": {"name": "Bare"},
                            "act:cm:odd": {"name": "Odd", "attributes": {"id": "int:cm:price", "name": "Price"}},
                        }
                    },
                    "": None,
                }
            })
        ).attributes,
    )  # fmt: skip
    activity = JsonObject([("id", "c1"), ("field_id", "act:cm:bought"), ("attr", attr)])
    line = ortto_message(activity, OrttoPerson("a1"), RECEIPT._replace(names=names)).decode()
    assert line.endswith(
        '"properties":{"campaign_name":"Sale","str_cm_size":"XL","str_cm_campaign":"x","price":1.5,'
        '"dtz_cm_d":{"year":1}}}'
    )
    assert names.attributes["", "str:cm:plan"].name == "Plan"


@pytest.mark.parametrize(
    ("field_id", "value", "display_type", "found"),
    [
        ("int:cm:price", "1500", "decimal", [("x", "1.5", "double")]),
        ("int:cm:price", "-1", "decimal", [("x", "-0.001", "double")]),
        ("int:cm:price", "0", "decimal", [("x", "0.0", "double")]),
        ("int:cm:price", "123456789012345678", "decimal", [("x", "123456789012345.678", "double")]),
        ("int:cm:price", "2.50", "decimal", [("x", "2.50", "double")]),
        ("int:cm:n", "2", "integer", [("x", "2", "bigint")]),
        ("str:cm:s", '"1.10"', None, [("x", '"1.10"', "text")]),
        ("str:cm:s", '"1.10"', "decimal", [("x", '"1.10"', "text")]),
        ("str:cm:s", "null", None, []),
        ("u4s:cm:tags", "[1,2]", None, [("x", "[1,2]", "text")]),
        ("phn::phone", '{"c":"44","n":"5550100"}', None, [("x", '"+445550100"', "text")]),
        ("phn::phone", '{"c":"+44","n":"5550100"}', None, [("x", '"+445550100"', "text")]),
        ("phn::phone", '{"c":"44","n":"+15550100"}', None, [("x", '"+15550100"', "text")]),
        ("phn::phone", '{"c":"","n":"5550100"}', None, [("x", '"5550100"', "text")]),
        ("phn::phone", '{"phone":"5"}', None, [("x", '{"phone":"5"}', None)]),
        (
            "geo::city",
            '{"name":"Sydney","id":7,"lat":-33868800,"lng":151209300}',
            None,
            [("x", '"Sydney"', "text"), ("x_id", "7", None), ("x_lat", "-33.8688", "double"),
             ("x_lng", "151.2093", "double")],
        ),
        ("geo::position", '{"lat":0,"lng":null}', None, [("x_lat", "0.0", "double")]),
        (
            "dtz::birthday",
            '{"year":1990,"month":5,"day":1,"timezone":"Australia/Sydney"}',
            None,
            [("x", '"1990-05-01"', "text"), ("x_timezone", '"Australia/Sydney"', "text")],
        ),
        (
            "dtz::birthday",
            f'{{"year":{"9" * 5000},"month":1,"day":1}}',
            None,
            [("x", f'{{"year":{"9" * 5000},"month":1,"day":1}}', None)],
        ),
        *(("dtz::birthday", value, None, [("x", value, None)])
          for value in (f'{{"year":1990,"month":{month},"day":{day}}}' for month, day in ((13, 1), (1.5, 1), (1, 32)))),
        ("tme::o!l", '"2026-11-01T05:06:07Z"', None, [("x", '"2026-11-01T05:06:07Z"', "timestamp")]),
        ("phone", '{"c":"44","n":"1"}', None, [("x", '"+441"', "text")]),  # a webhook's contact has names, not ids
        ("country", '{"name":"Peru","lat":1,"lng":2}', None,
         [("x", '"Peru"', "text"), ("x_lat", "0.000001", "double"), ("x_lng", "0.000002", "double")]),
        ("phn::phone", '{"c":"44","n":"1","x":"2"}', None, [("x", '{"c":"44","n":"1","x":"2"}', None)]),
        ("geo::position", '{"lat":"0"}', None, [("x_lat", '"0"', None)]),
        *(("phn::phone", value, None, [("x", value, None)]) for value in ("{}", '{"c":"44"}')),
        *(("obj::i", value, None, [("x", value, None)])
          for value in ('{"lat":1,"lng":2}', '{"c":"44","n":"1"}', '{"year":1990,"month":5,"day":1}')),
    ],
)  # fmt: skip
def test_values(field_id: str, value: str, display_type: str | None, found: list[Any]) -> None:
    values = typed_values("x", field_id, DECODER.decode(value), display_type)
    assert [(name, to_json(one), kind) for name, one, kind in values] == found


def test_names() -> None:
    assert (name_of("str::u-ctx"), name_of("tme::o!l"), name_of("str:cm:購入")) == ("str_u_ctx", "tme_o_l", "str_cm")
    names = names_of_ids({"act:cm:x": "Bought", "int:cm:price": "Unit price"}, ["int:cm:price", "int:cm:tax"])
    assert names.activities == {"act:cm:x": "Bought"}
    assert name_of("::") == "::"
    assert message("act:cm:x", {"int:cm:price": 1999, "int:cm:tax": 5}, RECEIPT._replace(names=names))[
        "properties"
    ] == {
        "unit_price": 1.999,
        "int_cm_tax": 0.005,
    }


def test_a_contacts_other_fields_are_traits() -> None:
    fields = parsed('{"first_name":"Ada","phone_number":{"c":"44","n":"5550100"},"str:cm:plan":"pro","x":null}')
    line = ortto_message(parsed({"id": 7, "field_id": "act::o"}), OrttoPerson("a1", None, None, fields), RECEIPT)
    found = json.loads(line)
    assert found["context"]["traits"] == {
        "contact_id": "a1",
        "first_name": "Ada",
        "phone_number": "+445550100",
        "str_cm_plan": "pro",
    }
    names = names_of_ids({"first_name": "Given name"}, ["int:cm:tax"])
    fields.append(("int:cm:tax", JsonNumber("5")))
    receipt = RECEIPT._replace(names=names)
    line = ortto_message(parsed({"id": 7, "field_id": "act::o"}), OrttoPerson("a1", None, None, fields), receipt)
    traits = json.loads(line)["context"]["traits"]
    assert (traits["given_name"], traits["int_cm_tax"]) == ("Ada", 0.005)
    assert (found["messageId"], found["timestamp"], found["properties"]) == ("ortto-7", "2026-11-01T05:06:09.000Z", {})


def test_what_can_be_no_id_stays_for_the_load_to_report() -> None:
    line = ortto_message(parsed({"id": "c1", "field_id": "act::o"}), OrttoPerson({"a": 1}, ["x"], True), RECEIPT)
    found = json.loads(line)
    assert found["context"]["traits"] == {"contact_id": {"a": 1}, "email": ["x"]}
    assert (found["userId"], "anonymousId" in found) == (True, False)
    line = ortto_message(parsed({"id": "c1", "field_id": "act::o"}), OrttoPerson(JsonNumber("5"), " ", ""), RECEIPT)
    found = json.loads(line)
    assert (found["context"]["traits"], found["anonymousId"], "userId" in found) == ({"contact_id": "5"}, "5", False)
    found = json.loads(ortto_message(parsed({"id": " "}), OrttoPerson("a1"), RECEIPT))
    assert (found["event"], found["messageId"].startswith("ortto-sha256-")) == ("", True)


def test_a_step_of_a_journey() -> None:
    body = parsed({
        "contact_id": "a1", "email": "ada@example.com", "campaign_id": "d1", "campaign_name": "Onboarding",
        "action_id": "n1", "action_name": "Tell us", "run_id": "r1", "plan": "pro", "time": "2026-11-01T05:06:08Z",
        "activity": {"id": "c1", "field_id": "act::o", "created": "2026-11-01T05:06:07Z", "attr": {"idt::ei": "e1"}},
    })  # fmt: skip
    found = json.loads(ortto_journey_message(body, RECEIPT))
    again = json.loads(ortto_journey_message(parsed({**json.loads(to_json(body)), "time": "later"}), RECEIPT))
    assert found["event"] == "ortto_journey_action"
    assert found["messageId"].startswith("ortto-journey-sha256-")
    assert found["messageId"] == again["messageId"]
    assert found["timestamp"] == "2026-11-01T05:06:08Z"
    assert found["anonymousId"] == "ada@example.com"
    assert found["properties"] == {
        "contact_id": "a1", "email": "ada@example.com", "campaign_id": "d1", "campaign_name": "Onboarding",
        "action_id": "n1", "action_name": "Tell us", "run_id": "r1", "plan": "pro", "activity_id": "c1",
        "activity_field_id": "act::o", "activity_created": "2026-11-01T05:06:07Z", "activity_email_id": "e1",
    }  # fmt: skip
    assert json.loads(ortto_journey_message(parsed({**json.loads(to_json(body)), "run_id": "r2"}), RECEIPT))[
        "messageId"
    ] != found["messageId"]  # fmt: skip


def test_steps_of_one_run_are_told_apart_by_their_shapes() -> None:
    body = {
        "campaign_id": "d1", "campaign_name": "Onboarding", "contact_id": "a1", "email": "ada@example.com", "id": "b1",
        "run_id": "r1", "shape_id": "1", "shape_title": "Tell us", "time": "2026-11-01T05:06:08Z", "webhook_id": "f1",
        "webhook_name": "Us",
    }  # fmt: skip

    def message_id(**more: str) -> str:
        return str(json.loads(ortto_journey_message(parsed(body | more), RECEIPT))["messageId"])

    assert message_id(shape_id="2", id="b2") != message_id()
    assert message_id(time="later", id="b3") == message_id()


def test_steps_of_people_without_an_id_are_told_apart() -> None:
    step = {"campaign_id": "d1", "run_id": "r1", "action_id": "n1"}

    def message_id(**more: str) -> str:
        return str(json.loads(ortto_journey_message(parsed(step | more), RECEIPT))["messageId"])

    ada, bob = (message_id(email=email, time="now") for email in ("ada@example.com", "bob@example.com"))
    assert ada != bob
    assert message_id(email="ada@example.com", time="later") == ada
    del step["run_id"]
    assert message_id(contact_id="a1", plan="pro") != message_id(contact_id="a1", plan="free")


def test_whom_a_journey_acts_on_may_be_in_its_contact() -> None:
    body = parsed({"email": "", "contact": {"contact_id": "a1", "email": "ada@example.com", "external_id": "12345"}})
    found = json.loads(ortto_journey_message(body, RECEIPT))
    assert (found["userId"], found["anonymousId"]) == ("12345", "ada@example.com")
    assert found["context"]["traits"] == {"email": "ada@example.com", "contact_id": "a1"}


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        ({"contact": "a1", "activity": "c1"}, {"contact": "a1", "activity": "c1"}),
        ({"contact": {"x": {"a": 1}}, "x": {"a": 1}}, {"contact_x": {"a": 1}, "x": {"a": 1}}),
        ({"activity": {"attr": "none", "x": {"a": 1}}}, {"activity_attr": "none", "activity_x": {"a": 1}}),
        ({"activity": {"attr": {"idt::ei": "e1"}}}, {"activity_email_id": "e1"}),
        ({"activity": {"field_id": "act::rt", "attr": {"str::rn": "x"}}},
         {"activity_field_id": "act::rt", "activity_reaction_name": "x"}),
    ],
)  # fmt: skip
def test_what_a_journey_sends_keeps_its_shape(body: dict[str, Any], properties: dict[str, Any]) -> None:
    found = json.loads(ortto_journey_message(parsed({"email": "ada@example.com", **body}), RECEIPT))
    assert found["properties"] == {"email": "ada@example.com", **properties}


def test_columns_are_named_once() -> None:
    columns = [attribute.column for attribute in catalog.ORTTO_ATTRIBUTES.values()]
    assert len(set(columns)) == len(columns)
    assert not {*columns, "scope"} & catalog.COMMON_NAMES
