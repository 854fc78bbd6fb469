"""Autopilot's REST hooks and journeys' webhooks, posted as an account posts them, become messages and rows."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from autopilothq.receive.autopilot_hooks import hook_lines
from autopilothq.receive.messages import ArchiveLines, Arrival, Body, parse_body
from autopilothq.segment.message import read_message
from receiving import Receiver, published, receiver
from shared_loads import isolation

AT = datetime(2026, 11, 1, 5, 6, 7, 412_000, UTC)
TIME = "2026-11-01T05:06:07.412Z"
TIMES = ("receivedAt", "originalTimestamp", "timestamp")
ID = "person_00000000-0000-4000-8000-000000000001"
CONTACT = {
    "Email": "ada@example.com",
    "FirstName": "Ada",
    "unsubscribed": False,
    "lists": ["contactlist_X"],
    "mail_opened": {"batchdelivery_X": 1482221100000},
}
UPDATED = {**CONTACT, "contact_id": ID, "updated_at": "2020-04-27T00:18:55.000Z"}
SETTINGS = {
    "RECEIVE__AUTOPILOT__SHOP__WRITE_KEYS": '["s3cret key", "older"]',
    "RECEIVE__AUTOPILOT__STEPS__HEADER": "X-Secret: s3cret",
    "RECEIVE__AUTOPILOT__BASIC__BASIC": "ada:pässword",
}


def lines(body: Any, at: datetime = AT) -> list[Any]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = hook_lines(parse_body(text), Arrival(at))
    data = found.data.splitlines()
    assert found.lines == len(data)
    return [json.loads(line) for line in data]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def digest(*parts: str) -> str:
    return f"hook-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"


def message(event: str, id_: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": f"autopilot_{event}",
        "messageId": id_,
        "timestamp": TIME,
        "originalTimestamp": TIME,
        "receivedAt": TIME,
        "anonymousId": "ada@example.com",
        "context": {"library": {"name": "autopilot-hook"}, "traits": {"email": "ada@example.com", "contact_id": ID}},
        "properties": properties,
        **more,
    }


def test_a_whole_contact() -> None:
    hook: dict[str, Any] = {"event": "contact_added", "contact_id": ID, "contact": CONTACT}
    assert lines(hook) == [
        message("contact_added", digest(compact(hook), "2026-11-01T05:06"), {}, contact=compact(CONTACT))
    ]


def test_the_short_forms() -> None:
    hook: dict[str, Any] = {
        "event": "contact_added_to_list",
        "contact_id": ID,
        "email": "ada@example.com",
        "list_id": "contactlist_X",
    }
    id_ = digest(compact(hook), "2026-11-01T05:06")
    assert lines(hook) == [message("contact_added_to_list", id_, {"list_id": "contactlist_X"})]
    hook = {
        "event": "contact_left_segment",
        "contact_id": ID,
        "email": "ada@example.com",
        "segment_id": "s",
        "contact": {},
    }
    id_ = digest(compact(hook), "2026-11-01T05:06")
    assert lines(hook) == [message("contact_left_segment", id_, {"segment_id": "s"})]


def test_what_can_be_neither_an_id_nor_a_contact_is_a_property() -> None:
    hook: dict[str, Any] = {"event": "contact_added", "contact_id": 7, "email": ["a@b.c"], "contact": "Ada"}
    [found] = lines(hook)
    assert (found["anonymousId"], found["context"]["traits"]) == ("7", {"contact_id": "7"})
    assert found["properties"] == {"email": ["a@b.c"], "contact": "Ada"}
    assert "contact" not in found
    [found] = lines({"event": "contact_added", "contact_id": " ", "email": None, "contact": {"Email": "a@b.c"}})
    assert (found["anonymousId"], found["properties"]) == ("a@b.c", {})


def test_of_repeated_keys_the_first_counts_and_the_load_reports_the_others() -> None:
    ids = '"contact_id":"p1","contact_id":"p2","email":null,"email":"a@b.c"'
    hook = f'{{"event":"contact_added",{ids},"contact":{{"a":1}},"contact":{{"a":2}},"contact":{{"a":1}},"event":"x"}}'
    records = '"records":[{"contact_id":"p3"},{"contact_id":"p5"}],"records":[{"contact_id":"p4"}]'
    journey = f'{{{records},"journey":{{"id":"c1","id":"c2"}}}}'
    found = [
        [tuple(each) for each in read_message(line, frozenset()).discards]
        for body in (hook, journey)
        for line in hook_lines(parse_body(body.encode()), Arrival(AT)).data.splitlines()
    ]
    assert found == [
        [("context", '{"contact_id":"p2","email":"a@b.c","contact":{"a":2},"event":"x"}', "same_column")],
        [("context", '{"records":[{"contact_id":"p4"}],"id":"c2"}', "same_column")],
        [],
    ]


def test_either_spelling_of_an_unsubscribe_is_one_event() -> None:
    for event in ("contact_unsubscribed", "contact_unsubscribes"):
        [found] = lines({"event": event, "contact_id": ID, "email": "ada@example.com"})
        assert found["event"] == "autopilot_contact_unsubscribed"


def test_a_journeys_webhook_gives_a_message_for_each_contact() -> None:
    journey = {"name": "New Journey", "id": "campaign_1", "version": 3}
    body = {"records": [UPDATED, 5, {"contact_id": "person_2"}], "journey": journey, "offer": {"code": 1.10}}
    others = '{"offer":{"code":1.10}}'
    text = json.dumps(body).replace("1.1}", "1.10}").encode()
    first, third, second = lines(text)
    about_it = {"campaign_id": "campaign_1", "campaign_name": "New Journey", "journey": {"version": 3}}
    properties = {**about_it, "offer": {"code": 1.1}}
    about = f"[{compact(journey)},{others},"
    when = compact(UPDATED["updated_at"])
    assert first == message(
        "journey_webhook",
        digest(f"{about}{compact(UPDATED)}]", when),
        {**properties, "contact_updated_at": UPDATED["updated_at"]},
        contact=compact(UPDATED),
    )
    assert second["anonymousId"] == "person_2"
    assert second["context"]["traits"] == {"contact_id": "person_2"}
    assert second["messageId"] == digest(f'{about}{{"contact_id":"person_2"}}]', "2026-11-01T05:06")
    assert third == 5


def test_a_retry_is_known_by_the_contacts_time_else_within_the_minute() -> None:
    later = AT.replace(minute=9)
    whole = {"event": "contact_updated", "contact": UPDATED}
    short = {"event": "contact_updated", "contact_id": ID}
    assert lines(whole)[0]["messageId"] == lines(whole, later)[0]["messageId"]
    changed = {"event": "contact_updated", "contact": {**UPDATED, "updated_at": 1_482_221_100_000}}
    assert lines(whole)[0]["messageId"] != lines(changed)[0]["messageId"]
    assert lines(short)[0]["messageId"] == lines(short, AT.replace(second=59))[0]["messageId"]
    assert lines(short)[0]["messageId"] != lines(short, later)[0]["messageId"]


def test_what_is_no_hook_is_kept_as_it_is_elsewhere() -> None:
    [found] = lines({"hello": 1, "writeKey": "s3cret"})
    assert found == {
        "hello": 1,
        "messageId": found["messageId"],
        "receivedAt": TIME,
        "originalTimestamp": TIME,
        "timestamp": TIME,
    }
    segment = {"type": "track", "event": "Email Opened", "userId": "1", "messageId": "m1"}
    assert lines(segment)[0]["messageId"] == "m1"
    assert lines([{"event": "contact_added", "contact_id": ID, "writeKey": "x"}, 7, {"event": ""}])[1:2] == [7]
    assert "writeKey" not in json.dumps(lines({"event": "contact_added", "contact_id": ID, "writeKey": "x"}))


@pytest.mark.parametrize("half", [{"records": {}}, {"records": {"a": 1}}, {"records": [1]}, {"journey": {"id": 1}}])
def test_half_a_journey_is_a_hook_or_kept(half: dict[str, Any]) -> None:
    others: dict[str, Any] = {"journey": {}} if isinstance(half.get("records"), dict) else {}
    [hook] = lines({"event": "contact_added", "contact": {"contact_id": "person_2", "Email": " "}, **half, **others})
    assert (hook["event"], hook["anonymousId"]) == ("autopilot_contact_added", "person_2")
    assert hook["properties"] == {**half, **others}
    [kept] = lines({**half, **others, "messageId": "m1"})
    assert kept == {**half, **others, "messageId": "m1", **dict.fromkeys(TIMES, TIME)}


def test_what_cannot_be_read_is_kept_as_a_line() -> None:
    found = hook_lines(Body([msgspec.Raw(b'{"event":\nX')], {}, b""), Arrival(AT))
    assert found == ArchiveLines(b'{"event": X\n', 1, 0)
    found = hook_lines(parse_body(b'{"event":"contact_added","contact_id":"\xff"}'), Arrival(AT))
    assert (found.lines, found.data.count(b"\n"), b"autopilot_contact_added" in found.data) == (1, 1, True)


def test_unusual_values_become_lines_that_a_load_can_read() -> None:
    contact = b'{"a":NaN,"Email":"a@b.c"}'
    body = b'{"event":"contact_added","contact_id":7,"email":"\\ud800@x","list_id":1e999,"contact":%b}' % contact
    data = hook_lines(parse_body(body), Arrival(AT)).data
    cells = read_message(data.rstrip(b"\n"), frozenset()).cells
    assert (cells["kind"], cells["anonymous_id"]) == ("track", "a@b.c")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with isolation(tmp_path_factory.mktemp("hooks")), receiver(env=SETTINGS) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("shop?key=s3cret%20key", {}, 200),
        ("shop?for=contact_added&key=older", {}, 200),
        ("shop", {"headers": {"X-Write-Key": "older"}}, 200),
        ("shop", {"auth": ("s3cret key", "")}, 200),
        ("shop?key=wrong", {}, 401),
        ("shop?key=wrong", {"headers": {"X-Write-Key": "older"}}, 200),
        ("shop", {}, 401),
        ("steps?key=older", {}, 401),
        ("steps", {"headers": {"X-Secret": "s3cret"}}, 200),
        ("basic", {"headers": {"Authorization": "Basic YWRhOnDDpHNzd29yZA=="}}, 200),
        ("free", {}, 200),
    ],
)
def test_who_may_send(running: Receiver, path: str, more: dict[str, Any], status: int) -> None:
    hook = {"event": "contact_added", "contact_id": ID, "contact": CONTACT}
    assert running.post(f"/hook/autopilot/{path}", hook, **more).status_code == status
    # Only for Autopilot's hooks is `key` in the query a secret.
    assert running.post("/v1/track?key=older", {"event": "Email Opened", "userId": "1"}).status_code == 200


@pytest.mark.parametrize("body", [b"", b"no json", b"\xff\xfe", b"{", b"[]", b"5", b'{"event":5}'])
def test_no_body_is_refused(running: Receiver, body: bytes) -> None:
    assert running.post("/hook/autopilot/free", body).status_code == 200


def test_what_is_received_is_published(running: Receiver) -> None:
    running.stop()
    found = [each for each in published(running.folder) if isinstance(each, dict) and "contact" in each]
    assert {each["event"] for each in found} == {"autopilot_contact_added"}
    assert "s3cret" not in json.dumps(published(running.folder))
