"""Contacts become messages and rows, and pages are kept on the disk (docs/contract/autopilot-api.md)."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autopilothq.catalog import ACCOUNT, CUSTOM_FIELDS, LISTS_CONTACTS
from autopilothq.clients.autopilot import Autopilot, AutopilotSettings, Page
from autopilothq.errors import UnexpectedResponse
from autopilothq.segment.json_text import JsonNumber, JsonObject
from autopilothq.segment.message import Discard, Record, Rejected, parse_json, read_message
from autopilothq.segment.naming import RESERVED_TABLES
from autopilothq.sources.api import contacts as api
from autopilothq.sources.api import scan as scans
from autopilothq.sources.api.contacts import Window
from autopilothq.sources.api.scan import Deadline, ScanScope
from autopilothq.sources.contact_records import contact_record
from autopilothq.sources.records import record_of
from autopilothq.sources.scans import Scan, ScanBatch
from autopilothq.sources.spool import ScanStart, Spool, fetch_ahead
from autopilothq.sources.times import read_time
from contract.loading import discards, rows_of
from fake_autopilot import FakeAutopilot

SCAN = "2019-05-01T00:00:00.000Z"
ALL = Window()
KEY = "batchdelivery_C6590C90-C68A-11E6-94C6-07E94AE2263B_1482219072777-48a06f90-c686-11e6-94c6-07e94ae2263b"
EMAIL_ID = "batchcampaign_1482219072777-48A06F90-C686-11E6-94C6-07E94AE2263B"


def contact(**fields: Any) -> JsonObject:
    return parse_json(json.dumps({"contact_id": "person_1", "Email": "a@b.c", **fields}).encode())


def events(value: JsonObject, user_id_field: str | None = None, window: Window = ALL) -> list[dict[str, Any]]:
    return [json.loads(line) for line in api.messages(value, SCAN, user_id_field, window)]


def test_an_opened_email_is_a_message_of_the_contract() -> None:
    assert events(contact(mail_opened={KEY: 1482221100000})) == [
        {
            "type": "track",
            "event": "Email Opened",
            "messageId": hashlib.sha256(json.dumps(["person_1", "mail_opened", KEY], separators=(",", ":")).encode())
            .hexdigest(),
            "timestamp": "2016-12-20T08:05:00.000Z",
            "receivedAt": SCAN,
            "anonymousId": "a@b.c",
            "context": {
                "library": {"name": "autopilot-api"},
                "traits": {"email": "a@b.c", "contact_id": "person_1"},
            },
            "properties": {"email_id": EMAIL_ID, "email_key": KEY},
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "event", "bounce_type"),
    [
        ("mail_received", "Email Delivered", None),
        ("mail_opened", "Email Opened", None),
        ("mail_clicked", "Email Clicked", None),
        ("mail_bounced", "Email Bounced", "soft"),
        ("mail_hardbounced", "Email Bounced", "hard"),
        ("mail_complained", "Email Marked as Spam", None),
        ("mail_unsubscribed", "Email Unsubscribed", None),
    ],
)
def test_each_map_is_an_event(name: str, event: str, bounce_type: str | None) -> None:
    [message] = events(contact(**{name: {"k": 1}}))
    assert (message["event"], message["properties"].get("bounce_type")) == (event, bounce_type)


def test_an_event_has_one_id_in_every_scan_and_no_other_event_has_it() -> None:
    maps = {name: {"k1": 1, "k2": 2} for name in ("mail_opened", "mail_bounced", "mail_hardbounced")}
    first = [message["messageId"] for message in events(contact(**maps))]
    moved = contact(Email="new@b.c", **{name: {"k1": 5, "k2": 6} for name in maps})
    assert [message["messageId"] for message in events(moved)] == first
    other = contact(contact_id="person_2", **maps)
    assert len({*first, *(message["messageId"] for message in events(other))}) == 12


@pytest.mark.parametrize(
    ("key", "email_id"),
    [
        (KEY, EMAIL_ID),
        (KEY.upper(), KEY.upper()),
        ("batchdelivery_1482219072777", "batchdelivery_1482219072777"),
        (f"{KEY}-", f"{KEY}-"),
        ("", ""),
    ],
)
def test_the_email_id_is_the_tail_of_the_usual_key(key: str, email_id: str) -> None:
    assert api.email_id(key) == email_id


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (JsonNumber("1482221100000"), datetime(2016, 12, 20, 8, 5, tzinfo=UTC)),
        (JsonNumber("1482221100000.5"), datetime(2016, 12, 20, 8, 5, 0, 500, tzinfo=UTC)),
        (JsonNumber("0"), datetime(1970, 1, 1, tzinfo=UTC)),
        (JsonNumber("-86400000"), datetime(1969, 12, 31, tzinfo=UTC)),
        ("2016-12-20T07:31:12.000Z", datetime(2016, 12, 20, 7, 31, 12, tzinfo=UTC)),
        ("2016-12-20T07:31:12+01:00", datetime(2016, 12, 20, 6, 31, 12, tzinfo=UTC)),
        ("2016-12-20", datetime(2016, 12, 20, tzinfo=UTC)),
        ("Tue, 20 Dec 2016 07:31:12 GMT", datetime(2016, 12, 20, 7, 31, 12, tzinfo=UTC)),
        (JsonNumber("1e30"), None),
        (JsonNumber("1e999999999"), None),
        (JsonNumber("NaN"), None),
        (JsonNumber("-Infinity"), None),
        ("1482221100000", None),
        ("yesterday", None),
        ("", None),
        (True, None),
        ([], None),
        (JsonObject(), None),
    ],
)
def test_times_are_read_in_every_notation(value: Any, time: datetime | None) -> None:
    assert read_time(value) == time


def test_the_window_is_of_the_events_time() -> None:
    opened = contact(mail_opened={"1": 1000, "2": 2000, "3": 3000, "4": "soon", "5": None})
    clock = [datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in range(4)]
    keys = [
        [message["properties"]["email_key"] for message in events(opened, window=Window(since, until))]
        for since, until in [(None, None), (clock[2], None), (None, clock[2]), (clock[2], clock[3])]
    ]
    assert keys == [["1", "2", "3", "4"], ["2", "3", "4"], ["1", "4"], ["2", "4"]]


def test_an_unreadable_time_stays_for_the_warehouse_to_discard() -> None:
    for value in (["soon", 1], "2016-12-20T09:05:00+01:00"):
        [message] = events(contact(mail_opened={"k": value}))
        assert message["timestamp"] == value
    [line] = api.messages(contact(mail_opened={"k": ["soon", 1]}), SCAN, None, ALL)
    assert read_message(line, frozenset()).cells["timestamp"] == '["soon",1]'


@pytest.mark.parametrize("number", ["253402300800000", "1e15", "99999999999999999999", "1" + "0" * 30])
def test_milliseconds_beyond_the_calendar_are_no_microseconds(number: str) -> None:
    person = JsonObject([("contact_id", "p"), ("mail_opened", JsonObject([("k", JsonNumber(number))]))])
    found = rows_of(*api.messages(person, SCAN, None, ALL))
    assert discards(found) == [
        ("email_opened", found["email_opened"][0]["id"], "timestamp", f'"{number} ms"', "not_a_time")
    ]
    assert found["email_opened"][0]["timestamp"] is None


@pytest.mark.parametrize(
    ("email", "reason"),
    [('"a\\u0000b"', "not_text"), ('"\\uD800"', "not_text"), ("NaN", "not_a_number"), ('" "', None)],
)
def test_an_email_that_cannot_be_stored_is_counted_where_it_is_missing(email: str, reason: str | None) -> None:
    person = parse_json(f'{{"contact_id":"person_1","Email":{email},"mail_opened":{{"k":1}}}}'.encode())
    found = rows_of(*api.messages(person, SCAN, None, ALL))
    [opened] = found["email_opened"]
    assert (opened["anonymous_id"], opened["context_traits_email"]) == ("person_1", None)
    lost = [("email_opened", opened["id"], "context_traits_email", email, reason)]
    assert discards(found) == (lost if reason else [])


CUSTOM = [
    {"kind": "user id", "value": 9, "deleted": True},
    {"kind": "user id", "value": 4711, "deleted": False},
    {"kind": "blank", "value": " "},
    {"kind": "list", "value": [1]},
    "no field",
]


@pytest.mark.parametrize(
    ("fields", "user_id_field", "ids"),
    [
        ({}, None, ("a@b.c", None)),
        ({"Email": None}, None, ("person_1", None)),
        ({"Email": " "}, None, ("person_1", None)),
        ({"Email": "a\0b"}, None, ("person_1", None)),
        ({"contact_id": 7, "Email": None}, None, ("7", None)),
        ({"custom_fields": CUSTOM}, "user id", ("a@b.c", "4711")),
        ({"custom_fields": CUSTOM}, "User ID", ("a@b.c", None)),
        ({"custom_fields": CUSTOM}, "blank", ("a@b.c", None)),
        ({"custom_fields": CUSTOM}, "list", ("a@b.c", None)),
        ({"custom_fields": None}, "user id", ("a@b.c", None)),
        ({"custom_fields": True}, "user id", ("a@b.c", None)),
    ],
)
def test_ids_of_an_event(fields: dict[str, Any], user_id_field: str | None, ids: tuple[str, str | None]) -> None:
    [message] = events(contact(mail_opened={"k": 1}, **fields), user_id_field)
    assert (message["anonymousId"], message.get("userId")) == ids


@pytest.mark.parametrize("fields", [{"contact_id": None}, {"contact_id": ""}, {"contact_id": ["p"]}])
def test_a_contact_without_its_id_is_rejected(fields: dict[str, Any]) -> None:
    for made in (lambda value: list(api.messages(value, SCAN, None, ALL)), contact_record):
        with pytest.raises(Rejected) as rejected:
            made(contact(**fields))
        assert rejected.value.args[0] == "no_id"


def test_a_contact_is_cells() -> None:
    fields = {
        "_id": "person_1",
        "_rev": "1-a",
        "LinkedIn": "in/a",
        "unsubscribed": False,
        "employeesRange": {"min": 11, "max": {"about": 50}},
        "lists": ["l1", "l2"],
        "anywhere_page_visits": {"https://example.com/?a.b": True},
        "anywhere_utm": {},
        "mail_opened": {"k": 1},
        "mail_replied": {"k": 1},
        "NewThing": 1.5,
        "deleted_at": "own",
        "Fax": None,
        "Phone": "",
        "custom_fields": [
            {"kind": "Review Rating", "value": 5, "fieldType": "integer", "deleted": False},
            {"kind": "Trial ends", "value": 1482221100000, "fieldType": "date", "deleted": False},
            {"kind": "review-rating", "value": 6, "fieldType": "integer", "deleted": False},
            {"kind": "gone", "value": "old", "fieldType": "string", "deleted": True},
            {"kind": "gone", "value": 1, "fieldType": "integer", "deleted": False},
            {"kind": "empty", "value": None, "fieldType": "string", "deleted": False},
            {"kind": "日本", "value": 1, "fieldType": "integer", "deleted": False},
            {"value": 1},
        ],
    }
    assert contact_record(contact(**fields)) == Record(
        ("person_1",),
        {
            "contact_id": '"person_1"',
            "email": '"a@b.c"',
            "linked_in": '"in/a"',
            "unsubscribed": "false",
            "employees_range_min": "11",
            "employees_range_max_about": "50",
            "lists": '["l1","l2"]',
            "anywhere_page_visits": '{"https://example.com/?a.b":true}',
            "mail_replied": '{"k":1}',
            "new_thing": "1.5",
            "_deleted_at": '"own"',
            "phone": '""',
            "custom_review_rating": "5",
            "custom_trial_ends": '"2016-12-20T08:05:00.000Z"',
            "custom_gone": "1",
        },
        [
            Discard("custom_fields", '{"value":1}', "does_not_fit"),
            Discard("custom_review_rating", "6", "same_column"),
            Discard("contact.custom_日本", "1", "no_column"),
            Discard("custom_gone", '"old"', "same_column"),
        ],
        {"custom_review_rating": "bigint", "custom_trial_ends": "timestamp", "custom_gone": "bigint"},
    )


@pytest.mark.parametrize("value", [True, "x", 3, [1]])
def test_what_is_no_map_of_emails_is_discarded(value: Any) -> None:
    thing = contact_record(contact(mail_opened=value))
    assert thing.discards == [Discard("mail_opened", json.dumps(value), "does_not_fit")]
    assert "mail_opened" not in thing.cells
    assert events(contact(mail_opened=value)) == []


def test_other_things_are_cells() -> None:
    field = parse_json(b'{"name":"Smog Level","fieldType":"float","options":{"a":[1.10]}}')
    assert record_of(CUSTOM_FIELDS, field) == Record(
        ("Smog Level",), {"name": '"Smog Level"', "field_type": '"float"', "options_a": "[1.10]"}, [], {}
    )
    member = parse_json(b'{"contact_id":"p"}')
    assert record_of(LISTS_CONTACTS, member, {"list_id": "old list 7"}).key == ("old list 7", "p")
    with pytest.raises(Rejected, match="expected `name` in an object with fieldType"):
        record_of(CUSTOM_FIELDS, parse_json(b'{"fieldType":"float"}'))


def test_no_event_takes_a_table_of_the_account() -> None:
    assert {table.name for table in ACCOUNT} <= RESERVED_TABLES


# ---- pages on the disk ---------------------------------------------------------------------------------------------


def pages(*bookmarks: str | None) -> Iterator[Page]:
    for number, bookmark in enumerate(bookmarks):
        yield Page([JsonObject([("n", JsonNumber(f"{number}.10")), ("text", "ä\ud800\0")])], 10, bookmark)


def test_pages_are_as_they_came_and_the_next_run_knows_them(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path / "s", ScanStart("account", SCAN, 3, "b2", 200))
    for page in pages("b3", "b4"):
        spool.put(page)
    found = Spool.open(tmp_path / "s")
    assert found is not None
    assert (found.start, found.last, found.bookmark, found.complete) == (
        ScanStart("account", SCAN, 3, "b2", 200), 4, "b4", False,
    )  # fmt: skip
    assert found.read(4) == ([JsonObject([("n", JsonNumber("1.10")), ("text", "ä\ud800\0")])], 58)
    found.drop(4)
    (tmp_path / "s" / ".00000005.gz.0123456789abcdef").write_bytes(b"a page that a kill cut off")
    found.put(Page([], None, None))
    assert found.complete
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["00000004.gz", "00000005.gz", "scan.json"]


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"account": 1}'])
def test_a_folder_that_is_no_spool_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "scan.json").write_text(content)
    assert Spool.open(tmp_path) is None


def test_a_scan_that_begins_again_has_none_of_the_pages_that_are_left(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path / "spool", ScanStart("account", SCAN))
    for page in pages("b1", "b2", "b3"):
        spool.put(page)
    spool.drop(3)
    found = Spool.open(tmp_path / "spool")
    assert found is not None
    assert (found.first, found.last, found.bookmark) == (3, 3, "b3")
    found.restart()
    assert (found.first, found.last, found.bookmark) == (1, 0, None)


def test_a_page_that_was_not_written_whole_is_not_there(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path / "spool", ScanStart("account", SCAN))
    spool.put(next(pages("b1")))
    (tmp_path / "spool" / ".00000002.gz.0a1b").write_bytes(b"half")
    found = Spool.open(tmp_path / "spool")
    assert found is not None
    assert (found.last, found.bookmark) == (1, "b1")


def test_a_bookmark_that_came_in_an_earlier_run_stops_the_scan(tmp_path: Path) -> None:
    spool = Spool.begin(tmp_path / "spool", ScanStart("account", SCAN))
    for page in pages("b1", "b2"):
        spool.put(page)
    found = Spool.open(tmp_path / "spool")
    assert found is not None
    with pytest.raises(UnexpectedResponse, match="Page 3 of this scan: bookmark 'b1' came before"):
        list(fetch_ahead(found, pages("b1"), lambda: False))


def test_pages_are_the_same_from_memory_and_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopilothq.sources.spool.IN_MEMORY", 3)
    values = [b"1.10", b'"a"', b"12345678901234567890.10", b'{"k":1,"k":2.50,"":[1e400]}', b'"\\ud83d\\ude00 \\ud800"']
    values += [b'"\xed\xa0\xbd\xed\xb8\x80"', b"[" * 300 + b"]" * 300]
    with FakeAutopilot(contacts=0) as server:
        for number, value in enumerate(values, 1):
            page = b'{"contacts":[%s,{"n":%s}],"bookmark":%s}' % (
                value,
                value,
                b'"b%d"' % number if value != values[-1] else b"null",
            )
            server.order("GET", "/contacts" if number == 1 else f"/contacts/b{number - 1}", content=page)
        spool = Spool.begin(tmp_path / "spool", ScanStart("account", SCAN))
        with Autopilot(
            AutopilotSettings(api_key=server.key, base_url=server.base_url, requests_per_second=1000)
        ) as one:
            ahead = fetch_ahead(spool, one.contacts(), lambda: False)
            found = [next(ahead)]
            while not spool.complete and any(thread.name == "scan" for thread in threading.enumerate()):
                time.sleep(0.01)
            found += ahead  # raises the error that ended the scan
    assert {page.contacts is None for page in found} == {True, False}
    assert [spool.contacts_of(page) for page in found] == [spool.read(number) for number in range(1, len(values) + 1)]
    assert spool.read(6)[0][0] == "\U0001f600"


def test_what_is_fetched_ahead_stops_when_nobody_wants_it(tmp_path: Path) -> None:
    def endless() -> Iterator[Page]:
        number = 0
        while True:
            number += 1
            yield Page([], None, f"b{number}")

    spool = Spool.begin(tmp_path / "spool", ScanStart("account", SCAN))
    ahead = fetch_ahead(spool, endless(), lambda: False)
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    last = spool.last
    assert len(list(tmp_path.glob("spool/*.gz"))) == last


# ---- a scan of contacts --------------------------------------------------------------------------------------------


def scan(server: FakeAutopilot, folder: Path, seconds: float | None = None, **settings: Any) -> list[ScanBatch]:
    """Scans an account, with pages kept in the folder; returns what the contacts give."""
    spool = Spool.open(folder) or Spool.begin(folder, ScanStart("account", SCAN))
    wanted = ScanScope(True, True, None, ALL)
    api_settings: dict[str, Any] = {"requests_per_second": 10_000, "tries": 1} | settings
    with Autopilot(AutopilotSettings(api_key=server.key, base_url=server.base_url, **api_settings)) as account:
        one = Scan("contacts", "url", SCAN, spool=spool)
        return list(scans.scan_contacts(one, spool, account, Deadline(seconds), wanted, lambda: None))


def ids(found: list[ScanBatch]) -> list[str]:
    return [record.key[0] for part in found for record in part.records.get("contacts", ())]


@pytest.mark.parametrize("contacts", [0, 1, 99, 100, 101, 200, 201])
def test_every_page_is_read_and_none_twice(contacts: int, tmp_path: Path) -> None:
    with FakeAutopilot(contacts=contacts) as server:
        found = scan(server, tmp_path)
        assert ids(found) == [server.account.contact_id(number) for number in range(contacts)]
        assert len(server.requests) == max(1, -(-contacts // 100))
        assert ids(scan(server, tmp_path)) == ids(found)
        assert len(server.requests) == max(1, -(-contacts // 100))  # every page was requested


def test_neither_short_pages_nor_the_total_end_a_scan(tmp_path: Path) -> None:
    with FakeAutopilot(contacts=250) as server:
        server.order("GET", "/contacts", edit=lambda page: page | {"contacts": [], "total_contacts": 0})
        server.order("GET", "/contacts/*", edit=lambda page: page | {"contacts": page["contacts"][:1]})
        assert len(ids(scan(server, tmp_path))) == 51


def test_a_full_last_page_may_be_followed_by_an_empty_one(tmp_path: Path) -> None:
    with FakeAutopilot(contacts=100) as server:
        server.order("GET", "/contacts", edit=lambda page: page | {"bookmark": server.account.contact_id(99)})
        assert len(ids(scan(server, tmp_path))) == 100
        assert len(server.requests) == 2


def test_a_batch_has_fifty_pages(tmp_path: Path) -> None:
    with FakeAutopilot(contacts=5_001) as server:
        found = scan(server, tmp_path)
    batches = [part.batch() for part in found]
    assert [len(part.records["contacts"]) for part in found] == [5_000, 1]
    lines = [line for batch in batches for line in batch.lines["line"].to_pylist()]
    assert lines == list(range(1, len(lines) + 1))


def test_a_scan_takes_no_more_than_the_rate_allows(tmp_path: Path) -> None:
    with FakeAutopilot(contacts=3_000) as server:
        scan(server, tmp_path, requests_per_second=25)
        first, last = server.requests[0].at, server.requests[-1].at
    assert len(server.requests) == 30
    assert last - first > 0.9 * 29 / 25  # as the server sees it, where the first request may arrive late
