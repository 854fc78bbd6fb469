"""Requests of Ortto's webhooks, in Ortto's form, get into the warehouse (docs/contract/ortto.md)."""

import base64
import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from autopilothq.receive.messages import Arrival, parse_body
from autopilothq.receive.ortto import ortto_lines
from calling import Call, Said
from contract.duck import held, tables
from receiving import Receiver, published, receiver
from shared_loads import command, isolation

SETTINGS = """
[receive.ortto.shop]
basic = "ortto:pässword"
decimals = ["int:cm:price"]
names = { "act:cm:bought" = "Bought something", "int:cm:price" = "Price" }

[receive.ortto.all]
header = "X-Secret: s3cret"
personal = true

[receive.ortto.broken]
header = "X-Secret: s3cret"
"""
BASIC = {"Authorization": "Basic " + base64.b64encode("ortto:pässword".encode()).decode()}
SECRET = {"X-Secret": "s3cret"}
ADA = {
    "contact_id": "a1", "email": "ada@example.com", "external_id": "12345", "first_name": "Ada",
    "phone_number": {"c": "44", "n": "5550100"}, "country": {"name": "Australia", "id": 1, "lat": 0, "lng": 0},
}  # fmt: skip
BOB = {"contact_id": "b1", "email": "bob@example.com"}
EMAIL = {
    "idt::c": "d1", "str::cn": "Onboarding", "str::ct": "journey", "idt::ei": "e1", "str::asn": "First email",
    "str::s": "Welcome", "bol::t": False,
}  # fmt: skip
OPENED = {**EMAIL, "bol::m": True, "geo::city": {"name": "Sydney", "lat": -33868800, "lng": 151209300}}
CLICKED = {**EMAIL, "str::c": "https://example.com/a", "int::li": 2, "str::us": "news", "bol::m": False,
           "int::sr": 1500}  # fmt: skip
BOUNCED = {
    **EMAIL,
    "str::bt": "hard",
    "str::bc": "invalid",
    "str::br": "550 no such user",
    "str::be": "ada@example.com",
}
REPLIED = {**EMAIL, "txt::er": "Yes, please", "str::erf": "ada@example.com", "str::ert": "we@example.com"}
JOURNEY = {
    "contact_id": "a1", "email": "ada@example.com", "campaign_id": "d1", "campaign_name": "Onboarding",
    "action_id": "n1", "action_name": "Tell us", "run_id": "r1", "plan": "pro",
}  # fmt: skip


def activity(id_: str, field_id: str, attr: Any, contact: Any = None) -> dict[str, Any]:
    """Returns a body as Ortto sends it."""
    return {
        "activity": {"id": id_, "field_id": field_id, "created": "2026-11-01T05:06:07Z", "attr": attr},
        "contact": contact or ADA,
        "id": f"delivery-of-{id_}",
        "time": "2026-11-01T05:06:08.257267790Z",
        "webhook_id": "f1",
    }


SHOP: list[Any] = [
    activity("c0", "act::r", EMAIL),
    activity("c1", "act::o", OPENED),
    activity("c1", "act::o", OPENED),  # Ortto delivers at least once
    activity("c2", "act::c", CLICKED),
    activity("c3", "act::b", BOUNCED),
    activity("c4", "act::s-ab", {**EMAIL, "str::rn": "Junk"}),
    activity("c5", "act::u-all", {**EMAIL, "idt::a": "g1", "str::rn": "Too many"}),
    activity("c6", "act::u-a", {"str::an": "Newsletter"}, BOB),
    activity("c7", "act::re", REPLIED),
    [activity("c8", "act::s", EMAIL, BOB), activity("c9", "act::o", EMAIL, BOB)],
    activity("c10", "act:cm:bought", {"int:cm:price": 19990, "str:cm:size": "XL"}),
    activity("test", "act::test_webhook", {}),
    JOURNEY,
    {**JOURNEY, "time": "2026-11-01T09:00:00Z"},  # a retry
    {**JOURNEY, "run_id": "r2"},
    {"type": "track", "event": "Email Opened", "userId": "1", "messageId": "template"},
]
BROKEN: list[bytes] = [
    b'{"hello":\n"world"}',
    b'{"activity":{"field_id":',
    b"campaign_id=d1&email=ada@example.com",
    b"",
    b"[]",
    b"5",
    gzip.compress(b'{"a":1}')[:-9],
    b'{"a":"\xff"}',
    json.dumps({"activity": {"field_id": "act::o", "id": "nobody"}}).encode(),
    b'{"activity":{"field_id":"act::o","attr":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}}",
    b"\0\0",
]


class Received(NamedTuple):
    """A receiver's answers and files for all bodies, the output of the loads, and the rows of all tables."""

    answers: list[int]
    refused: list[int]
    said: str
    lines: list[Any]
    loaded: Said
    again: Said
    tables: dict[str, list[dict[str, Any]]]

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """Returns the rows of a table by `id`, without nulls and without the times of receipt and load."""
        return {
            row["id"]: {
                key: one for key, one in row.items() if one is not None and key not in ("uuid_ts", "received_at")
            }
            for row in self.tables[table]
        }


def _refused(running: Receiver) -> list[int]:
    """Returns the answers to requests that are refused."""
    body = activity("lost", "act::o", OPENED)
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ortto:other").decode()}
    answers = [
        running.post("/hook/ortto/shop", body),
        running.post("/hook/ortto/shop", body, headers=wrong),
        running.post("/hook/ortto/shop", b"no json"),
        running.post("/hook/ortto/all", body, headers={**BASIC, "X-Secret": "other"}),
        running.http.get(running.url + "/hook/ortto/shop", headers=BASIC),
        running.post("/hook/ortto/none", body, headers={"X-Forwarded-For": "203.0.113.7"}),
        running.post("/hook/ortto/shop", b"1" * (5 << 20), headers=BASIC),
    ]
    return [answer.status_code for answer in answers]


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Received]:
    with isolation(tmp_path_factory.mktemp("ortto")):
        Path(".dlt").mkdir()
        Path(".dlt/secrets.toml").write_text(SETTINGS)
        with receiver() as running:
            answers = [running.post("/hook/ortto/shop", body, headers=BASIC).status_code for body in SHOP]
            packed = gzip.compress(json.dumps(activity("c11", "act::re", REPLIED)).encode())
            answers.append(running.post("/hook/ortto/all", packed, headers=SECRET).status_code)
            answers += [running.post("/hook/ortto/broken", body, headers=SECRET).status_code for body in BROKEN]
            refused = _refused(running)
            said = running.stop()
        lines = published(running.folder)
        with held():
            loaded = command("load", "archive", "archive", "--json")
            again = command("load", "archive", "archive", "--json")
        yield Received(answers, refused, said, lines, loaded, again, tables())


def test_everything_is_acknowledged(received: Received) -> None:
    assert received.answers == [200] * (len(SHOP) + 1 + len(BROKEN))


def test_who_lacks_the_secret_is_refused_loudly(received: Received) -> None:
    assert received.refused == [401, 401, 401, 401, 405, 404, 413]
    assert "401 for ortto-shop: what was sent is lost" in received.said
    assert "405 for ortto-shop: what was sent is lost, because it accepts only POST" in received.said
    assert "404 for ortto-none: what was sent is lost, because it has no settings" in received.said
    assert "lost" not in json.dumps(received.lines)


COMMON = {
    "anonymous_id": "ada@example.com",
    "user_id": "12345",
    "timestamp": datetime(2026, 11, 1, 5, 6, 7, tzinfo=UTC),
    "original_timestamp": datetime(2026, 11, 1, 5, 6, 7, tzinfo=UTC),
    "sent_at": datetime(2026, 11, 1, 5, 6, 8, 257267, tzinfo=UTC),
    "context_library_name": "ortto-webhook",
    "context_integration_name": "ortto",
    "context_traits_email": "ada@example.com",
    "context_traits_contact_id": "a1",
    "context_traits_first_name": "Ada",
    "context_traits_phone_number": "+445550100",
    "context_traits_country": "Australia",
    "context_traits_country_id": 1,
    "context_traits_country_lat": 0.0,
    "context_traits_country_lng": 0.0,
}
OF_EMAIL = {
    "campaign_id": "d1",
    "campaign_name": "Onboarding",
    "campaign_type": "journey",
    "email_id": "e1",
    "email_name": "First email",
    "email_subject": "Welcome",
    "transactional": False,
}


def test_an_opened_email_is_a_row(received: Received) -> None:
    rows = received.rows("email_opened")
    assert rows.keys() == {"ortto-c1", "ortto-c9", "template"}
    assert rows["ortto-c1"] == {
        "id": "ortto-c1",
        "event": "email_opened",
        "event_text": "Email Opened",
        **COMMON,
        **OF_EMAIL,
        "machine": True,
        "city": "Sydney",
        "city_lat": -33.8688,
        "city_lng": 151.2093,
    }


@pytest.mark.parametrize(
    ("table", "id_", "properties"),
    [
        ("email_delivered", "ortto-c0", OF_EMAIL),
        (
            "email_clicked",
            "ortto-c2",
            {**OF_EMAIL, "link_id": "2", "link_url": "https://example.com/a", "utm_source": "news", "machine": False,
             "screen_pixel_ratio": 1.5},
        ),
        (
            "email_bounced",
            "ortto-c3",
            {**OF_EMAIL, "bounce_type": "hard", "bounce_category": "invalid", "bounce_reason": "550 no such user"},
        ),
        ("email_marked_as_spam", "ortto-c4", {**OF_EMAIL, "spam_reason": "Junk"}),
        (
            "email_unsubscribed",
            "ortto-c5",
            {**OF_EMAIL, "audience_id": "g1", "unsubscribe_reason": "Too many", "scope": "all"},
        ),
        ("email_replied", "ortto-c7", OF_EMAIL),
        (
            "email_replied",
            "ortto-c11",
            {**OF_EMAIL, "reply_text": "Yes, please", "replied_from": "ada@example.com",
             "replied_to": "we@example.com"},
        ),
        ("bought_something", "ortto-c10", {"price": 19.99, "str_cm_size": "XL"}),
    ],
)  # fmt: skip
def test_each_activity_has_its_table(received: Received, table: str, id_: str, properties: dict[str, Any]) -> None:
    row = received.rows(table)[id_]
    assert {name: one for name, one in row.items() if name not in ("id", "event", "event_text", *COMMON)} == properties
    assert {name: row[name] for name in COMMON} == COMMON


def test_who_unsubscribed_without_an_email_has_another_table(received: Received) -> None:
    [row] = received.rows("unsubscribed_from_email_audience").values()
    assert (row["id"], row["audience_name"], row["anonymous_id"]) == ("ortto-c6", "Newsletter", "bob@example.com")
    assert list(received.rows("sent_email")) == ["ortto-c8"]


def test_steps_of_journeys_are_no_emails(received: Received) -> None:
    found = list(received.rows("ortto_journey_action").values())
    assert sorted(row["run_id"] for row in found) == ["r1", "r2"]
    assert {name: found[0][name] for name in ("campaign_name", "action_name", "plan", "context_traits_contact_id")} == {
        "campaign_name": "Onboarding",
        "action_name": "Tell us",
        "plan": "pro",
        "context_traits_contact_id": "a1",
    }


def test_what_is_not_understood_is_counted_and_shown(received: Received) -> None:
    said = json.loads(received.loaded.out)
    counts = {name: said[name] for name in ("lines", "stored", "duplicates", "rejected")}
    assert counts == {"lines": 27, "stored": 15, "duplicates": 2, "rejected": 10}
    rejects = sorted(received.tables["_rejects"], key=lambda row: row["line"])
    found = [(row["reason"], row["raw"]) for row in rejects]
    assert found[0][1].startswith('{"hello":"world","messageId":"sha256-')
    assert [reason for reason, _ in found] == [
        "unknown_type", "not_json", "not_json", "not_an_object", "not_an_object", "not_json", "not_json",
        "no_user_anon_id", "not_json", "not_json",
    ]  # fmt: skip
    assert found[2][1] == "campaign_id=d1&email=ada@example.com"
    assert found[3][1] == '""'
    packed = re.match("base64:(.*)", found[5][1])
    assert packed
    assert base64.b64decode(packed[1]) == BROKEN[6]


def test_nothing_is_loaded_twice(received: Received) -> None:
    assert json.loads(received.again.out)["stored"] == 0


def test_personal_values_are_not_even_in_the_archive(received: Received) -> None:
    replies = [
        line["properties"] for line in received.lines if isinstance(line, dict) and "Replied" in str(line.get("event"))
    ]
    assert [one.get("reply_text") for one in sorted(replies, key=len)] == [None, "Yes, please"]


def test_who_is_forgotten_is_also_in_bodies_that_were_not_understood(call: Call) -> None:
    folder = Path("received/segment-logs/ortto-shop/1793491200000")
    folder.mkdir(parents=True)
    bodies: list[Any] = [{"hello": 1, "external_id": "12345"}, {"hello": 1, "external_id": "999"}, SHOP[1], JOURNEY]
    arrival = Arrival(datetime.now(UTC), None, "forgotten")
    lines = b"".join(ortto_lines(parse_body(json.dumps(body).encode()), arrival).data for body in bodies)
    (folder / "1-a.gz").write_bytes(gzip.compress(lines))
    assert call("load", "archive", "received").status == 0
    assert call("forget", "--user-id", "12345", "--archive", "received").status == 0
    left = gzip.decompress((folder / "1-a.gz").read_bytes()).splitlines()
    assert [json.loads(line)["external_id"] for line in left] == ["999"]
    found = tables()
    assert (found["tracks"], [json.loads(row["raw"])["external_id"] for row in found["_rejects"]]) == ([], ["999"])
