"""The rules of docs/contract/destination.md for an identify, against an account over real HTTP."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from autopilothq.destination import DeliveryLog, Preview, deliver, opening
from autopilothq.destination.delivery_log import Delivery
from autopilothq.destination.messages import from_line
from autopilothq.segment.message import digest
from fake_autopilot import FakeAutopilot
from sending import (
    IMPATIENT,
    MISSING,
    by_user_id,
    counted,
    identify,
    log_in,
    posts,
    rows,
    send,
    settings_for,
    track,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAutopilot]:
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)
    with FakeAutopilot(contacts=20) as server:
        yield server


def test_an_identify_is_one_whole_request_and_one_whole_row(server: FakeAutopilot) -> None:
    before = datetime.now(UTC)
    counts = send(server, [identify(1, userId="u1", traits={"first_name": "Ann", "review_rating": "4"})])
    assert counted(counts) == {"messages": 1, "delivered": 1}
    [fields, upsert] = server.requests
    assert (fields.method, fields.path, fields.body) == ("GET", "/contacts/custom_fields", None)
    contact = {"Email": "p1@example.com", "FirstName": "Ann", "custom": {"integer--Review--Rating": 4}}
    assert (upsert.method, upsert.path, upsert.body) == ("POST", "/contacts", {"contacts": [contact]})
    assert upsert.headers == {
        "host": server.origin.removeprefix("http://"),
        "accept": "application/json",
        "accept-encoding": upsert.headers["accept-encoding"],
        "connection": "keep-alive",
        "user-agent": "dlt-autopilothq",
        "autopilotapikey": server.key,
        "content-length": str(len(json.dumps({"contacts": [contact]}, separators=(",", ":")))),
        "content-type": "application/json",
    }
    [row] = rows("* EXCLUDE (sent_at, run)")
    assert row == Delivery(
        "i1",
        "identify",
        user_id="u1",
        email="p1@example.com",
        endpoint="POST /contacts",
        status="delivered",
        http_status=200,
        attempts=1,
    )
    [(at, run)] = rows("sent_at", "run")
    assert before <= at <= datetime.now(UTC)
    assert run.startswith(f"{before:%Y%m%dT%H}")


def test_a_message_without_an_identifier_is_refused(server: FakeAutopilot) -> None:
    messages = [
        {"type": "identify", "messageId": "a", "anonymousId": "x", "traits": {"title": "CEO"}},
        {"type": "track", "messageId": "b", "event": "Order Completed", "anonymousId": "x"},
        identify(1),
    ]
    assert counted(send(server, messages)) == {"messages": 3, "delivered": 1, "refused": 2}
    assert [path for path, _ in posts(server)] == ["/contacts"]
    assert rows("message_id", "status", "http_status", "message")[:2] == [
        ("a", "refused", 400, MISSING),
        ("b", "refused", 400, MISSING),
    ]


def test_the_email_of_the_traits_then_of_the_context(server: FakeAutopilot) -> None:
    context = {"traits": {"email": "context@example.com"}}
    send(server, [identify(1, context=context), identify(2, traits={"email": None, "fax": "1"}, context=context)])
    assert posts(server) == [
        (
            "/contacts",
            {
                "contacts": [
                    {"Email": "p1@example.com", "Title": "T1"},
                    {"Email": "context@example.com", "Fax": "1"},
                ]
            },
        )
    ]


def test_a_user_id_is_known_from_earlier_identifies(server: FakeAutopilot) -> None:
    send(server, [identify(1, userId="u1")])
    posts(server)
    unknown = by_user_id(3, "nobody", fax="3")
    assert counted(send(server, [by_user_id(1, "u1", fax="1"), identify(2, userId="u2"), by_user_id(2, "u2"), unknown]))
    assert posts(server) == [
        (
            "/contacts",
            {"contacts": [{"Email": "p1@example.com", "Fax": "1"}, {"Email": "p2@example.com", "Title": "T2"}]},
        )
    ]
    [row] = [row for row in rows("message_id", "status", "message") if row[0] == "u3"]
    assert row[1:] == (
        "refused",
        (
            "No contact is known by the user id 'nobody': no identify with its email was delivered, and"
            " destination.autopilothq.user_id_field names no field that holds it"
        ),
    )


def test_a_user_id_is_known_from_a_delivered_track_of_the_items(server: FakeAutopilot) -> None:
    """As in a single run, also after a kill. An identify in the log counts more."""
    triggers = {"triggers": {"Order Completed": ["0007"]}}
    tracks = [track(number, userId=f"u{number}", email=f"old{number}@example.com") for number in (1, 2, 3)]
    tracks += [track(number + 10, userId=f"u{number}", email=f"p{number}@example.com") for number in (1, 2, 3)]
    send(server, tracks, **triggers)
    send(server, [identify(4, userId="u2")])
    posts(server)
    change = identify(5, traits={"email": "p3@example.com", "_NewEmail": "n@example.com"})
    more = [by_user_id(number, f"u{number}", fax=str(number)) for number in (1, 2, 3)]
    assert counted(send(server, [*tracks, change, *more], **triggers)) == {
        "messages": 10, "delivered": 4, "known": 6,
    }  # fmt: skip
    assert sorted((body for _, body in posts(server)), key=str) == [
        {"contact": {"Email": "p3@example.com", "_NewEmail": "n@example.com"}},
        {"contacts": [{"Email": "n@example.com", "Fax": "3"}]},
        {"contacts": [{"Email": "p1@example.com", "Fax": "1"}, {"Email": "p4@example.com", "Fax": "2"}]},
    ]
    # Items are looked up a thousand at a time, and in later thousands the log also counts more.
    far = [identify(4, userId="u4"), *[tracks[1]] * 1000, by_user_id(9, "u2", fax="9")]
    assert counted(send(server, far, **triggers)) == {"messages": 1002, "delivered": 1, "known": 2, "repeated": 999}
    assert [body for _, body in posts(server)] == [{"contacts": [{"Email": "p4@example.com", "Fax": "9"}]}]


def test_a_user_id_among_the_traits(server: FakeAutopilot) -> None:
    send(server, [identify(1, traits={"user_id": 7, "fax": "1"})])
    send(server, [{"type": "identify", "messageId": "a", "traits": {"userId": "7", "fax": "2"}}])
    assert [body["contacts"] for _, body in posts(server)] == [
        [{"Email": "p1@example.com", "Fax": "1"}],
        [{"Email": "p1@example.com", "Fax": "2"}],
    ]


def test_a_user_id_follows_its_address(server: FakeAutopilot) -> None:
    send(server, [identify(1, userId="u1")])
    send(server, [identify(2, userId="u1", traits={"email": "p1@example.com", "_NewEmail": "n@example.com"})])
    posts(server)
    send(server, [by_user_id(1, "u1", fax="1")])
    assert posts(server) == [("/contacts", {"contacts": [{"Email": "n@example.com", "Fax": "1"}]})]
    assert rows("message_id", "email") == [("i1", "p1@example.com"), ("i2", "n@example.com"), ("u1", "n@example.com")]
    # If the old messages come again, they do not restore the old address.
    again = [
        identify(0, traits={"email": "p1@example.com", "fax": "0"}),
        identify(1, userId="u1"),
        identify(2, userId="u1", traits={"email": "p1@example.com", "_NewEmail": "n@example.com"}),
        by_user_id(2, "u1", fax="2"),
    ]
    assert counted(send(server, again)) == {"messages": 4, "delivered": 2, "known": 2}
    contact = {"Email": "n@example.com", "Fax": "2", "Title": "T1"}
    assert posts(server) == [("/contacts", {"contacts": [contact]})]


def test_a_refused_identify_makes_no_user_id_known(server: FakeAutopilot) -> None:
    send(server, [identify(1, userId="u1", traits={"email": "not an address"})])
    counts = send(server, [by_user_id(1, "u1", fax="1")])
    assert counted(counts) == {"messages": 1, "refused": 1}


def test_a_user_id_is_known_from_the_field_that_holds_it(server: FakeAutopilot) -> None:
    person = server.account.contact(7)
    server.account.change(server.account.contact_id(3), Email=None)  # this contact cannot be addressed
    server.account.upsert({"Email": person["Email"], "custom": {"string--user--id": "u7"}})
    server.account.upsert({"Email": "p9@example.com", "custom": {"string--user--id": "u9"}})
    # Also if an identify with the email follows.
    counts = send(server, [by_user_id(9, "u9", fax="1"), identify(9, userId="u9")], user_id_field="user id")
    assert (counted(counts), len(server.seen("GET", "/contacts"))) == ({"messages": 2, "delivered": 2}, 1)
    posts(server)
    messages = [by_user_id(1, "u7", fax="1"), by_user_id(2, "u8", fax="2")]
    counts = send(server, messages, user_id_field="user id")
    assert counted(counts) == {"messages": 2, "delivered": 1, "refused": 1}
    assert len(server.seen("GET", "/contacts")) == 1
    contact = {"Email": person["Email"], "Fax": "1", "custom": {"string--user--id": "u7"}}
    assert posts(server) == [("/contacts", {"contacts": [contact]})]
    [refusal] = [why for _, why in counts.reasons]
    assert refusal == "No contact is known by the user id 'u8': no identify with its email was delivered"


def test_what_is_left_out_or_unknown_is_in_the_log(server: FakeAutopilot) -> None:
    counts = send(server, [identify(1, traits={"review_rating": "five", "plan": "pro"})])
    assert counted(counts) == {"messages": 1, "delivered": 1}
    assert posts(server) == [
        ("/contacts", {"contacts": [{"Email": "p1@example.com", "custom": {"string--plan": "pro"}}]})
    ]
    remarks = {
        "review_rating": "left out: expected an integer, got 'five'",
        "plan": "sent as string--plan, for which the account has no field",
    }
    assert rows("status", "remarks") == [("delivered", json.dumps(remarks))]
    said = {"review_rating": "left out: expected an integer", "plan": remarks["plan"]}
    assert counts.remarks == Counter(f"{trait} was {remark}" for trait, remark in said.items())


def test_unknown_traits_may_be_refused(server: FakeAutopilot) -> None:
    messages = [identify(1, traits={"plan": "pro", "title": "CEO"}), identify(2)]
    assert counted(send(server, messages, unknown_traits="refuse")) == {"messages": 2, "delivered": 1, "refused": 1}
    assert posts(server) == [("/contacts", {"contacts": [{"Email": "p2@example.com", "Title": "T2"}]})]
    assert rows("message_id", "status", "message")[0] == (
        "i1",
        "refused",
        "The account has no field for 'plan': create it there, map the trait, or set unknown_traits to send",
    )


def test_hundred_contacts_a_request(server: FakeAutopilot) -> None:
    messages = [*map(identify, range(1200)), identify("x", traits={"email": "p1199@example.com"})]  # no contact more
    assert counted(send(server, messages)) == {"messages": 1201, "delivered": 1201}
    assert len(server.seen("GET")) == 1
    sizes = [len(body["contacts"]) for _, body in posts(server)]
    assert sizes == [100] * 12
    assert len(set(rows("message_id"))) == 1201


def test_messages_for_one_email_are_merged_in_order(server: FakeAutopilot) -> None:
    messages = [
        identify(1, traits={"email": "A@example.com", "title": "one", "fax": "1", "review_rating": 1}),
        identify(2, traits={"email": "a@example.com", "title": "two", "customer": True}),
    ]
    assert counted(send(server, messages)) == {"messages": 2, "delivered": 2}
    custom = {"integer--Review--Rating": 1, "boolean--Customer": True}
    contact = {"Email": "a@example.com", "Title": "two", "Fax": "1", "custom": custom}
    assert posts(server) == [("/contacts", {"contacts": [contact]})]
    assert rows("message_id", "email", "status") == [
        ("i1", "A@example.com", "delivered"),
        ("i2", "a@example.com", "delivered"),
    ]


def test_batches_that_share_a_person_follow_each_other(server: FakeAutopilot) -> None:
    server.order("POST", "/contacts", late=0.3)
    send(server, [*map(identify, range(101)), identify("x", traits={"email": "p0@example.com", "title": "last"})])
    first, second = server.seen("POST", "/contacts")
    assert second.at - first.at >= 0.3
    assert (server.account.find("p0@example.com") or {})["Title"] == "last"


def test_batches_go_side_by_side(server: FakeAutopilot) -> None:
    everyone = threading.Barrier(4, timeout=30)  # no answer before the fourth request has come

    def together(page: Any) -> Any:
        everyone.wait()
        return page

    server.order("POST", "/contacts", times=4, edit=together)
    assert counted(send(server, map(identify, range(400)))) == {"messages": 400, "delivered": 400}
    assert not everyone.broken
    assert len(server.seen("POST")) == 4


def test_a_dry_run_shows_one_request_after_the_other(server: FakeAutopilot) -> None:
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text.removeprefix(f"POST {server.base_url}/").partition("\n")[0])
        time.sleep(0.01)
        shown.append("end")

    items = [from_line(json.dumps(track(number)).encode()) for number in (1, 2)]
    with DeliveryLog(log_in(), reads=True) as log:
        deliver(items, log, settings_for(server), preview=Preview(), show=show)
    enters = [f"trigger/0007/contact/p{number}%40example.com" for number in (1, 2)]
    assert shown == ["contacts", "end", enters[0], "end", enters[1], "end"]


def test_an_address_is_changed_alone_and_not_repeated(server: FakeAutopilot) -> None:
    renaming = identify(2, traits={"_NewEmail": "new@example.com"})
    server.order("POST", "/contact", drop="after")
    counts = send(server, [identify(1), renaming, identify(3)])
    assert counted(counts) == {"messages": 3, "delivered": 2, "unknown": 1}
    assert sorted(path for path, _ in posts(server)) == ["/contact", "/contacts", "/contacts"]
    # The next run asks the account whether the change was made.
    assert counted(send(server, [identify(1), renaming, identify(3)])) == {"messages": 3, "delivered": 1, "known": 2}
    assert posts(server) == []
    assert [row[1] for row in rows("message_id", "status") if row[0] == "i2"] == ["unknown", "delivered"]


@pytest.mark.parametrize("kind", ["identify", "track"])
def test_a_user_id_follows_an_address_that_is_found_changed(server: FakeAutopilot, kind: str) -> None:
    traits = {"email": "p1@example.com", "title": "T", "_NewEmail": "n@example.com"}
    renaming = identify(2, userId="u1", traits=traits)
    if kind == "track":
        renaming = track(2, email="p1@example.com", properties={"_NewEmail": "n@example.com"}, userId="u1")
    server.order("POST", "/contact", drop="after")
    assert send(server, [identify(1, userId="u1"), renaming]).unknown == 1
    posts(server)
    assert send(server, [renaming, by_user_id(1, "u1", fax="1")]).delivered == 2
    assert send(server, [by_user_id(2, "u1", fax="2")]).delivered == 1
    written = [body["contacts"] for path, body in posts(server) if path == "/contacts"]
    assert written == [[{"Email": "n@example.com", "Fax": fax}] for fax in "12"]
    found = ("i2" if kind == "identify" else "t2", "n@example.com", "delivered", "found to be carried out")
    assert found in rows("message_id", "email", "status", "message")


def test_a_change_of_address_that_is_found_is_noted_before_anything_is_sent(
    server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    renaming = identify(2, traits={"_NewEmail": "new@example.com"})
    server.order("POST", "/contact", drop="after")
    assert send(server, [renaming]).unknown == 1
    posts(server)
    noted: list[tuple[str, int]] = []
    add = DeliveryLog.add

    def note(log: DeliveryLog, deliveries: Sequence[Delivery]) -> None:
        noted.extend((row.message_id, len(server.seen("POST"))) for row in deliveries)
        add(log, deliveries)

    monkeypatch.setattr(DeliveryLog, "add", note)
    assert send(server, [renaming, identify(3)]).delivered == 2
    assert noted == [("i2", 0), ("i3", 1)]


def test_an_address_that_was_not_changed_is_changed_by_the_next_run(server: FakeAutopilot) -> None:
    renaming = identify(2, traits={"_NewEmail": "new@example.com"})
    server.order("POST", "/contact", drop="before")
    assert counted(send(server, [renaming])) == {"messages": 1, "unknown": 1}
    assert counted(send(server, [renaming])) == {"messages": 1, "delivered": 1}
    contact = {"Email": "p2@example.com", "_NewEmail": "new@example.com"}
    assert posts(server) == [("/contact", {"contact": contact})] * 2


def test_lines_that_are_no_message_are_refused(server: FakeAutopilot) -> None:
    lines = {
        b"oops": "not_json: not JSON",
        b'{"type":"identify","traits":{"email":"a@b.c","x":NaN}}': "not_json: not JSON",
        b"[1]": "not_an_object: JSON, but not an object",
        b'{"type":"buy"}': "unknown_type: `type` is none of track, identify, alias, page, screen, group",
        b'{"type":"identify","traits":5}': "traits_not_object: `traits` is not an object",
        b'{"type":"track","userId":"u"}': "event_not_defined: a track without `event`",
        b'{"type":"track","event":5}': "event_not_string: `event` is not text",
    }
    counts = send(server, [*lines, identify(1)])
    assert counted(counts) == {"messages": 8, "delivered": 1, "refused": 7}
    assert counts.reasons == Counter(("refused", reason) for reason in lines.values())
    assert dict(rows("message_id", "message")) == {digest(line): reason for line, reason in lines.items()} | {
        "i1": None
    }
    assert set(rows("message_id", "status")) == {(digest(line), "refused") for line in lines} | {("i1", "delivered")}
