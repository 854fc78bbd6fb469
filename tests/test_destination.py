"""Each rule of docs/contract/destination.md against an account over real HTTP, and the dlt destination."""

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest
from dlt.common.destination.exceptions import DestinationTerminalException, DestinationTransientException
from dlt.common.runtime.run_context import active
from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient
from dlt.pipeline.exceptions import PipelineStepFailed

from autopilothq import AutopilothqError, DeliveryFailed, DeliveryImpossible, autopilot, destination
from autopilothq.destination import Counts, DeliveryLog, deliver, opening
from autopilothq.destination.delivery_log import CHANGED, SENT_AGAIN, Delivery, Member
from autopilothq.destination.dispatch import AT_ONCE
from autopilothq.destination.messages import from_line, from_row
from autopilothq.destination.plan import NOT_OF_TRACKS, UNMAPPED
from autopilothq.errors import InvalidSetting, NotAuthorized, RunError, Unavailable
from fake_autopilot import FakeAutopilot
from sending import IMPATIENT, answer, configure, counted, identify, log_in, posts, rows, send, settings_for, track
from servers import ask
from waiting import wait_for

MISSING = "Missing unique identifier traits. Either **email** or **user_id** traits must be provided"


@pytest.fixture
def server() -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=20) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)


# ---- identify ------------------------------------------------------------------------------------------------------


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


def by_user_id(number: int, user_id: str, **traits: Any) -> dict[str, Any]:
    return {"type": "identify", "messageId": f"u{number}", "userId": user_id, "traits": traits}


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
    """As in one run, also behind a kill. What the log knows of an identify comes first."""
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
    # A thousand items are looked up at a time: the log comes first there, too.
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
    # Nor do the old messages bring the old address back when they come again.
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
    server.account.change(server.account.contact_id(3), Email=None)  # nobody can be written to there
    server.account.upsert({"Email": person["Email"], "custom": {"string--user--id": "u7"}})
    server.account.upsert({"Email": "p9@example.com", "custom": {"string--user--id": "u9"}})
    # Also where an identify with its email follows.
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
        "The account has no field for 'plan': make it there, map it, or let it be sent",
    )


def test_hundred_contacts_a_request(server: FakeAutopilot) -> None:
    assert counted(send(server, map(identify, range(3000)))) == {"messages": 3000, "delivered": 3000}
    assert len(server.seen("GET")) == 1
    sizes = [len(body["contacts"]) for _, body in posts(server)]
    assert sizes == [100] * 30
    assert len(set(rows("message_id"))) == 3000


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
    everyone = threading.Barrier(4, timeout=30)  # nobody is answered before the fourth request is there

    def together(page: Any) -> Any:
        everyone.wait()
        return page

    server.order("POST", "/contacts", times=4, edit=together)
    assert counted(send(server, map(identify, range(400)))) == {"messages": 400, "delivered": 400}
    assert not everyone.broken
    assert len(server.seen("POST")) == 4


def test_an_address_is_changed_alone_and_not_repeated(server: FakeAutopilot) -> None:
    renaming = identify(2, traits={"_NewEmail": "new@example.com"})
    server.order("POST", "/contact", drop="after")
    counts = send(server, [identify(1), renaming, identify(3)])
    assert counted(counts) == {"messages": 3, "delivered": 2, "unknown": 1}
    assert sorted(path for path, _ in posts(server)) == ["/contact", "/contacts", "/contacts"]
    # The next run asks the account what became of it.
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


# ---- track ---------------------------------------------------------------------------------------------------------


def test_a_track_writes_the_contact_then_enters_the_journey(server: FakeAutopilot) -> None:
    properties = {"review_rating": 2, "total": 5, "title": "Trousers"}
    traits = {"email": "p+1@example.com", "review_rating": 5, "title": "CEO"}
    outside = {"email": "p+1@example.com", "smog": {"level": 1}, "fax": "2"}  # traits, but not the context's
    message = track(1, properties=properties, context={"traits": traits}, userId="u1", traits=outside)
    assert counted(send(server, [message])) == {"messages": 1, "delivered": 1}
    contact = {"Email": "p+1@example.com", "Title": "CEO", "custom": {"integer--Review--Rating": 2}}
    assert posts(server) == [
        ("/contacts", {"contacts": [contact]}),
        ("/trigger/0007/contact/p%2B1%40example.com", None),
    ]
    remarks = json.dumps({"smog.level": NOT_OF_TRACKS, "fax": NOT_OF_TRACKS, "title": UNMAPPED})
    assert rows("* EXCLUDE (sent_at, run)") == [
        Delivery(
            "t1",
            "track",
            "Order Completed",
            None,
            "u1",
            "p+1@example.com",
            "0007",
            "POST /trigger/0007/contact/p%2B1%40example.com",
            None,
            "delivered",
            200,
            None,
            remarks,
            1,
        )
    ]


def test_an_event_without_a_trigger_is_logged(server: FakeAutopilot) -> None:
    untitled: list[dict[str, Any]] = [{"trigger_id": "0001", "journey": None}, {"trigger_id": "0002"}]
    server.order("GET", "/triggers", edit=lambda answer: {"triggers": untitled + answer["triggers"]})
    messages = [track(number, event) for number, event in enumerate(["Unheard Of", "None", ""])]
    assert counted(send(server, messages)) == {"messages": 3, "refused": 3}
    assert posts(server) == []
    why = "No trigger for the event {!r}, in the settings or by a journey's title"
    assert rows("message_id", "event", "endpoint", "status", "message") == [
        ("t0", "Unheard Of", None, "refused", why.format("Unheard Of")),
        ("t1", "None", None, "refused", why.format("None")),
        ("t2", "", None, "refused", why.format("")),
    ]


def test_what_is_refused_for_the_same_reason_as_before_is_not_logged_again(server: FakeAutopilot) -> None:
    """An archive that is sent every hour would add all its events without a trigger each time."""
    lines: list[Any] = [
        track(1, "Unheard Of \0"),
        identify("u", userId="u2", traits={"email": None}),
        b"oops",
        identify(1),
    ]
    assert counted(send(server, lines)) == {"messages": 4, "delivered": 1, "refused": 3}
    logged = rows("message_id", "status", "message", "run")
    assert Counter(status for _, status, *_ in logged) == {"refused": 3, "delivered": 1}
    again = send(server, lines)
    assert counted(again) == {"messages": 4, "known": 1, "refused": 3}
    assert set(again.reasons) == {("refused", message) for _, status, message, _ in logged if status == "refused"}
    assert rows("message_id", "status", "message", "run") == logged
    for _ in range(2):  # another reason, and the first one again
        for event in ("Never Heard Of", "Unheard Of \0"):
            assert counted(send(server, [track(1, event)])) == {"messages": 1, "refused": 1}
    assert len(rows("message_id")) == len(logged) + 4


def test_the_settings_choose_the_triggers_before_the_titles(server: FakeAutopilot) -> None:
    triggers = {"Order Completed": ["0003", "0011"], "Unheard Of": "0003"}
    send(server, [track(1), track(2, "Unheard Of"), track(3, "Trial Extended")], triggers=triggers)
    assert len(server.seen("GET", "/triggers")) == 1
    assert sorted(path for path, _ in posts(server) if path != "/contacts") == [
        "/trigger/0003/contact/p1%40example.com",
        "/trigger/0003/contact/p2%40example.com",
        "/trigger/0011/contact/p1%40example.com",
        "/trigger/0011/contact/p3%40example.com",
    ]


def test_a_trigger_that_the_account_does_not_have(server: FakeAutopilot) -> None:
    with pytest.raises(InvalidSetting) as raised:
        send(server, [identify(1), track(1)], triggers={"Order Completed": "9999"})
    assert str(raised.value) == (
        "destination.autopilothq.triggers (or --trigger) sends 'Order Completed' to '9999', but the account's triggers"
        " are 0003, 0007, 0011"
    )
    assert posts(server) == []


def test_a_mapping_is_checked_before_anything_is_sent(server: FakeAutopilot) -> None:
    with pytest.raises(InvalidSetting, match="maps 'plan' to 'Plan'"):
        send(server, [identify(1)], fields={"plan": "Plan"})
    assert posts(server) == []
    send(server, [identify(1, traits={"address": {"town": "B"}})], fields={"address.town": "MailingCity"})
    assert posts(server) == [("/contacts", {"contacts": [{"Email": "p1@example.com", "MailingCity": "B"}]})]


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_trigger_of_unknown_fate_is_not_repeated(server: FakeAutopilot, drop: str) -> None:
    server.order("POST", "/trigger/*", drop=drop)
    assert counted(send(server, [track(1)])) == {"messages": 1, "unknown": 1}
    assert counted(send(server, [track(1)])) == {"messages": 1, "unknown": 1}
    assert len(server.seen("POST", "/trigger/*")) == 1
    [(status, message, attempts)] = rows("status", "message", "attempts")
    assert (status, attempts) == ("unknown", 1)
    assert message.endswith("it may have been carried out, so it is not sent again")


def test_a_trigger_that_times_out_or_fails_is_unknown_one_that_must_wait_is_repeated(server: FakeAutopilot) -> None:
    server.order("POST", "/trigger/*p1*", status=503)
    server.order("POST", "/trigger/*p2*", status=429)
    assert counted(send(server, [track(1), track(2)])) == {"messages": 2, "delivered": 1, "unknown": 1}
    assert rows("message_id", "status", "http_status", "attempts") == [
        ("t1", "unknown", 503, 1),
        ("t2", "delivered", 200, 2),
    ]


def test_what_was_not_carried_out_comes_again(server: FakeAutopilot) -> None:
    server.order("POST", "/trigger/*", status=429, times=2)
    server.order("POST", "/trigger/*", status=404, message="Trigger could not be found.")
    triggers = {"Order Completed": ["0003", "0007", "0011"]}
    counts = send(server, [track(1)], triggers=triggers)
    assert counted(counts) == {"messages": 1, "failed": 1}
    assert counts.reasons == {("failed", "Ordered 429."): 1}
    assert rows("trigger_id", "status", "http_status", "message") == [
        ("0003", "failed", 429, "Ordered 429."),
        ("0007", "refused", 404, "Trigger could not be found."),
        ("0011", "delivered", 200, None),
    ]
    posts(server)
    assert counted(send(server, [track(1)], triggers=triggers)) == {"messages": 1, "delivered": 1}
    assert [path for path, _ in posts(server)] == [
        "/contacts",
        "/trigger/0003/contact/p1%40example.com",
        "/trigger/0007/contact/p1%40example.com",
    ]


def test_no_journey_for_a_contact_that_was_not_written(server: FakeAutopilot) -> None:
    assert counted(send(server, [track(1, email="not an address"), track(2)])) == {
        "messages": 2,
        "delivered": 1,
        "refused": 1,
    }
    assert [path for path, _ in posts(server)] == [
        "/contacts",
        "/contacts",
        "/contacts",
        "/trigger/0007/contact/p2%40example.com",
    ]
    assert rows("message_id", "trigger_id", "endpoint", "status", "message")[0] == (
        "t1",
        "0007",
        "POST /contacts",
        "refused",
        "Invalid contact provided.",
    )


def test_each_journey_sees_its_own_events_properties(server: FakeAutopilot) -> None:
    messages = [
        track(1, email="a@example.com", properties={"review_rating": 1}),
        track(2, email="a@example.com", properties={"review_rating": 1, "customer": True}),
        track(3, email="a@example.com", properties={"review_rating": 3}),
    ]
    send(server, messages)
    trigger = ("/trigger/0007/contact/a%40example.com", None)

    def contact(**custom: Any) -> tuple[str, Any]:
        return "/contacts", {"contacts": [{"Email": "a@example.com", "custom": custom}]}

    assert posts(server) == [
        contact(**{"integer--Review--Rating": 1, "boolean--Customer": True}),
        trigger,
        trigger,
        contact(**{"integer--Review--Rating": 3}),
        trigger,
    ]


# ---- what is kept --------------------------------------------------------------------------------------------------


def test_repeating_a_run_sends_nothing(server: FakeAutopilot) -> None:
    messages = [*map(identify, range(150)), *map(track, range(3))]
    send(server, messages)
    posts(server)
    assert counted(send(server, messages)) == {"messages": 153, "known": 153}
    assert posts(server) == []
    server.key = "fedcba9876543210fedcba9876543210"  # a log is about one account, whatever its key
    assert counted(send(server, messages)) == {"messages": 153, "known": 153}


def test_a_message_that_comes_twice_is_sent_once(server: FakeAutopilot) -> None:
    counts = send(server, [identify(1), track(1), identify(1), track(1)])
    assert counted(counts) == {"messages": 4, "delivered": 2, "repeated": 2}
    assert len(posts(server)) == 2


def test_one_bad_contact_costs_no_good_one(server: FakeAutopilot) -> None:
    messages = list(map(identify, range(99)))
    messages.insert(50, identify("bad", traits={"email": "not an address"}))
    assert counted(send(server, messages)) == {"messages": 100, "delivered": 99, "refused": 1}
    sizes = [len(body["contacts"]) for _, body in posts(server)]
    assert sizes == [100, 50, 50, 25, 25, 12, 13, 6, 6, 3, 3, 1, 2]
    [bad] = [row for row in rows("message_id", "endpoint", "status", "http_status", "message") if row[2] != "delivered"]
    assert bad == ("ibad", "POST /contacts", "refused", 400, "Invalid contact provided.")


@pytest.mark.parametrize(
    "fault", [{"status": 429}, {"status": 408}, {"status": 500}, {"drop": "before"}, {"drop": "after"}]
)
def test_a_passing_failure_is_tried_again(server: FakeAutopilot, fault: dict[str, Any]) -> None:
    server.order("POST", "/contacts", **fault)
    assert counted(send(server, [identify(1)])) == {"messages": 1, "delivered": 1}
    assert rows("status", "http_status", "attempts") == [("delivered", 200, 2)]


def test_a_lasting_failure_is_logged_and_sent_again(server: FakeAutopilot) -> None:
    server.order("POST", "/contacts", status=503, message="Down.", times=2)
    assert counted(send(server, [identify(1)])) == {"messages": 1, "failed": 1}
    assert rows("status", "http_status", "message", "attempts") == [("failed", 503, "Down.", 2)]
    messages = list(map(identify, range(100)))
    assert counted(send(server, messages)) == {"messages": 100, "delivered": 100}


def test_a_server_that_stays_out_of_order_ends_the_run(server: FakeAutopilot) -> None:
    server.order("POST", "*", status=503, times=10_000)
    with pytest.raises(Unavailable):
        send(server, map(identify, range(5000)))
    assert len(server.seen("POST")) < 40
    # What the end of the run kept from being sent has no row.
    assert set(rows("status", "http_status")) == {("failed", 503)}
    server.faults.clear()
    assert counted(send(server, map(identify, range(300)))) == {"messages": 300, "delivered": 300}


def test_a_wrong_key_stops_the_run_at_once(server: FakeAutopilot) -> None:
    with pytest.raises(NotAuthorized) as raised:
        send(server, [identify(1)], api_key="f" * 32)
    assert str(raised.value) == (
        "GET /contacts/custom_fields: 401 Unauthorized: Provided autopilotapikey not valid. Check"
        " destination.autopilothq.api_key (in .dlt/secrets.toml, or DESTINATION__AUTOPILOTHQ__API_KEY in the"
        " environment)"
    )
    assert len(server.requests) == 1


def test_a_key_that_is_withdrawn_stops_the_run_and_loses_nothing(server: FakeAutopilot) -> None:
    server.order("POST", "/trigger/*", skip=1, status=401, times=100)
    messages = [track(number) for number in range(50)]
    with pytest.raises(NotAuthorized):
        send(server, messages)
    # Those that were under way with it, and no more.
    assert len(server.seen("POST", "/trigger/*")) <= 1 + AT_ONCE
    assert Counter(rows("status"))["delivered",] == 1
    assert set(rows("status")) == {("delivered",), ("failed",)}
    server.faults.clear()
    assert counted(send(server, messages)) == {"messages": 50, "delivered": 49, "known": 1}
    assert Counter(Counter(who for _, who in server.account.triggered).values()) == {1: 50}


def test_no_more_journeys_are_entered_once_a_run_is_interrupted(server: FakeAutopilot) -> None:
    events = [track(number, email="p@example.com") for number in range(3)]
    server.order("POST", "/trigger/*", late=0.3)

    def interrupt(_: Counts) -> None:
        if server.seen("POST", "/contacts"):
            wait_for(lambda: server.seen("POST", "/trigger/*"))
            raise KeyboardInterrupt

    items = (from_line(json.dumps(event).encode()) for event in events)
    with DeliveryLog(log_in()) as log, pytest.raises(KeyboardInterrupt):
        deliver(items, log, settings_for(server), interrupt)
    assert len(server.seen("POST", "/trigger/*")) == 1
    assert rows("message_id", "status") == [("t0", "delivered")]
    assert counted(send(server, events)) == {"messages": 3, "delivered": 2, "known": 1}
    assert len(server.seen("POST", "/trigger/*")) == 3


def test_what_is_older_does_not_win_because_it_comes_late(server: FakeAutopilot) -> None:
    old = identify(1, traits={"email": "a@example.com", "title": "old", "fax": "1"})
    others = [identify(f"x{number}") for number in range(99)]
    new = identify(2, traits={"email": "a@example.com", "title": "new"})
    server.order("POST", "/contacts", status=429, times=2)
    send(server, [old, *others], triggers={"Go": "0003"})
    send(server, [new])
    posts(server)
    assert counted(send(server, [old, new])) == {"messages": 2, "delivered": 1, "known": 1}
    contact = {"Email": "a@example.com", "Title": "new", "Fax": "1"}
    assert posts(server) == [("/contacts", {"contacts": [contact]})]


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        ({"status": 429, "message": "Wait.", "times": 2}, ("new", "failed", 429, "Wait.", 2)),
        ({"status": 401, "times": 1}, ("new", "failed", 401, "Ordered 401.", 1)),  # the run breaks off
    ],
)
@pytest.mark.parametrize("kind", [identify, track])
def test_what_is_newer_is_sent_again_until_it_follows_what_came_late(
    server: FakeAutopilot, kind: Callable[..., dict[str, Any]], fault: dict[str, Any], kept: tuple[Any, ...]
) -> None:
    def person(title: str) -> dict[str, Any]:
        message = kind(title, email="a@example.com") if kind is track else kind(title)
        traits = {"email": "a@example.com", "title": title}
        return (
            message | {"messageId": title} | ({"context": {"traits": traits}} if kind is track else {"traits": traits})
        )

    def title() -> Any:
        return (server.account.find("a@example.com") or {})["Title"]

    send(server, [person("new")])
    messages = [person("old"), *map(identify, range(100)), person("new")]  # two requests
    server.order("POST", "/contacts", skip=1, **fault)
    with pytest.raises(NotAuthorized) if fault["status"] == 401 else nullcontext():
        assert counted(send(server, messages)) == {"messages": 102, "delivered": 100, "failed": 2}
    assert title() == "old"
    posts(server)
    assert counted(send(server, messages)) == {"messages": 102, "delivered": 1, "known": 101}
    assert title() == "new"
    last = {"Email": "a@example.com", "Title": "new"}
    assert [contact for path, body in posts(server) if path == "/contacts" for contact in body["contacts"]] == [
        {"Email": "p99@example.com", "Title": "T99"},
        last,
    ]
    assert counted(send(server, messages)) == {"messages": 102, "known": 102}
    assert posts(server) == []
    columns = ("message_id", "status", "http_status", "message", "attempts")
    first, *again = [row for row in rows(*columns) if row[0] == "new"]
    assert first == ("new", "delivered", 200, None, 1)
    assert again == [kept, ("new", "delivered", 200, SENT_AGAIN, 1)]


@pytest.mark.parametrize("fault", [{}, {"status": 429, "times": 2}])
def test_a_track_of_unknown_fate_keeps_its_values_behind_what_came_late(
    server: FakeAutopilot, fault: dict[str, Any]
) -> None:
    old, new = identify(1, traits={"email": "p1@example.com", "title": "old"}), track(1)
    new["context"]["traits"]["title"] = "new"
    server.order("POST", "/trigger/*", drop="after")
    assert send(server, [new]).unknown == 1
    others = map(identify, range(2, 102))  # so that the older one is in another request
    if fault:
        server.order("POST", "/contacts", skip=1, **fault)
    counts = send(server, [old, *others, new])
    why = "Ordered 429." if fault else "an earlier run could not tell whether it was carried out"
    status = "failed" if fault else "unknown"
    lost = 2 if fault else 1  # with the last of the others
    assert counts.reasons == {(status, why): lost}
    assert (counts.messages, counts.delivered, getattr(counts, status)) == (102, 102 - lost, lost)
    server.faults.clear()
    assert send(server, [old, new]).unknown == 1
    assert [(server.account.find("p1@example.com") or {})["Title"], len(server.account.triggered)] == ["new", 1]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_faults_come_each_message_is_delivered_in_the_end(server: FakeAutopilot, seed: int) -> None:
    dice = random.Random(seed)
    faults: list[dict[str, Any]] = [
        {"status": 503},
        {"status": 429},
        {"drop": "before"},
        {"drop": "after"},
        {"late": 0.01},
    ]
    for _ in range(75):
        server.order("POST", "*", **dice.choice(faults))
    messages = [
        identify(number, traits={"email": f"p{number % 150}@example.com", "fax": str(number)}) for number in range(300)
    ]
    messages += [track(f"e{number}", email=f"p{number}@example.com") for number in range(20)]
    dice.shuffle(messages)
    last = {
        message["traits"]["email"]: message["traits"]["fax"] for message in messages if message["type"] == "identify"
    }
    counts = destination.Counts(failed=1)
    while counts.failed:
        with suppress(Unavailable):
            counts = send(server, messages)
    assert counts.delivered + counts.known + counts.unknown == counts.messages == 320
    assert {email: (server.account.find(email) or {})["Fax"] for email in last} == last
    entered = Counter(str((server.account.find(who) or {})["Email"]) for _, who in server.account.triggered)
    assert set(entered.values()) == {1}
    unknown = {row["email"] for row in _latest() if row["status"] == "unknown"}
    assert set(entered) | unknown == {f"p{number}@example.com" for number in range(20)}
    assert len(unknown) == counts.unknown


def _latest() -> list[dict[str, Any]]:
    with DeliveryLog(log_in(), reads=True) as log:
        return log.latest()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"oops", "not_json: not JSON"),
        (b'{"type":"identify","traits":{"email":"a@b.c","x":NaN}}', "not_json: not JSON"),
        (b"[1]", "not_an_object: JSON, but not an object"),
        (b'{"type":"buy"}', "unknown_type: `type` is none of track, identify, alias, page, screen, group"),
        (b'{"type":"identify","traits":5}', "traits_not_object: `traits` is not an object"),
        (b'{"type":"track","userId":"u"}', "event_not_defined: a track without `event`"),
        (b'{"type":"track","event":5}', "event_not_string: `event` is not text"),
    ],
)
def test_lines_that_are_no_message_are_refused(server: FakeAutopilot, line: bytes, reason: str) -> None:
    counts = send(server, [line, identify(1)])
    assert counted(counts) == {"messages": 2, "delivered": 1, "refused": 1}
    assert counts.reasons == {("refused", reason): 1}
    assert ("refused", reason) in rows("status", "message")


def test_text_that_no_warehouse_can_store_stops_no_message(server: FakeAutopilot) -> None:
    lines = [
        b'{"type":"identify","messageId":"a\\ud800","traits":{"email":"b\\ud800@c.d"}}',
        b'{"type":"identify","messageId":"b\\ud800","userId":"u\\u0000","traits":{"email":"a@b.c","x\\ud800":1,"":2}}',
        b'{"type":"track","messageId":"t\\ud800","event":"Order Completed","context":{"traits":{"email":"a@b.c"}}}',
    ]
    assert counted(send(server, lines)) == {"messages": 3, "delivered": 2, "refused": 1}
    assert posts(server) == [
        ("/contacts", {"contacts": [{"Email": "a@b.c"}]}),
        ("/trigger/0007/contact/a%40b.c", None),
    ]
    assert counted(send(server, lines)) == {"messages": 3, "known": 2, "refused": 1}
    assert set(rows("message_id", "user_id")) == {("a?", None), ("b?", "u\ufffd"), ("t?", None)}


def test_the_log_may_be_in_a_lake(server: FakeAutopilot) -> None:
    lake = dlt.destinations.filesystem(Path("lake").absolute().as_uri())
    messages = [identify(1), track(1), identify("bad", traits={"email": "nobody"})]
    for counts in (
        {"messages": 3, "delivered": 2, "refused": 1},
        {"messages": 3, "known": 2, "refused": 1},
    ):
        assert counted(send(server, messages, lake)) == counts
        assert counted(send(server, messages)) == {**counts}
    found = []
    for place in (lake, None):
        with DeliveryLog(log_in(place), reads=True) as log:
            found.append([{**row, "sent_at": 0, "run": 0} for row in log.latest()])
    assert found[0] == found[1]
    assert [row["status"] for row in found[0]] == ["delivered", "refused", "delivered"]


def test_one_run_at_a_time(server: FakeAutopilot, postgres: str) -> None:
    place = dlt.destinations.postgres(postgres)
    patient = dlt.destinations.postgres(f"{postgres}?options=-cidle_session_timeout%3D300ms")
    with DeliveryLog(log_in(patient)) as log:
        log.suppressed_ids()  # dlt resets a connection after a statement that fails, such as one about a missing table
        time.sleep(0.6)
        with pytest.raises(RunError, match="Another run is sending, with the same log"):
            send(server, [], place)
    assert send(server, [], place).all_delivered


def test_other_types_are_counted(server: FakeAutopilot) -> None:
    counts = send(server, [{"type": "page"}, {"type": "page"}, {"type": "alias"}])
    assert counts.ignored == {"page": 2, "alias": 1}
    assert counts.all_delivered
    assert posts(server) == []


def test_the_log_in_postgresql(server: FakeAutopilot, postgres: str) -> None:
    warehouse = dlt.destinations.postgres(postgres)
    messages = [
        identify(1, userId="u1"),
        track(1),
        identify("bad", traits={"email": "nobody"}),
        by_user_id(2, "u1", fax="1"),
    ]
    server.order("POST", "/trigger/*", drop="after")
    assert counted(send(server, messages, warehouse)) == {"messages": 4, "delivered": 2, "refused": 1, "unknown": 1}
    ask(postgres, "DROP INDEX autopilothq._deliveries_message_id_idx")  # as older versions made the table
    assert counted(send(server, messages, warehouse)) == {"messages": 4, "refused": 1, "unknown": 1, "known": 2}
    with DeliveryLog(log_in(warehouse), reads=True) as log:
        latest = [(row["message_id"], row["trigger_id"], row["status"]) for row in log.latest()]
        assert sorted(latest) == [
            ("i1", None, "delivered"),
            ("ibad", None, "refused"),
            ("t1", "0007", "unknown"),
            ("u2", None, "delivered"),
        ]
    # Each request's rows are found again: without an index a run takes as long as the log is large.
    assert ask(postgres, "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'autopilothq'") == [
        (
            "_deliveries",
            "CREATE INDEX _deliveries_message_id_idx ON autopilothq._deliveries USING hash (message_id)",
        )
    ]
    sql = "SELECT status, count(*) AS n FROM _deliveries GROUP BY status ORDER BY status -- all"
    assert answer(sql, warehouse) == (["status", "n"], [("delivered", 2), ("refused", 1), ("unknown", 1)])


def test_a_log_in_postgresql_is_made_with_its_index_or_not_at_all(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed in between leaves nothing behind, so that the next one makes both."""
    execute = Psycopg2SqlClient.execute_sql

    def killed(client: Psycopg2SqlClient, sql: Any, *values: Any, **named: Any) -> Any:
        if "CREATE INDEX" in str(sql):
            raise KeyboardInterrupt
        return execute(client, sql, *values, **named)

    def made() -> list[Any]:
        catalogues = ("pg_tables", "pg_indexes")
        return [ask(postgres, f"SELECT tablename FROM {of} WHERE schemaname = 'autopilothq'") for of in catalogues]

    log = DeliveryLog(log_in(dlt.destinations.postgres(postgres)))
    with monkeypatch.context() as patched:
        patched.setattr(Psycopg2SqlClient, "execute_sql", killed)
        with pytest.raises(KeyboardInterrupt):
            log.__enter__()
    assert made() == [[], []]
    with log:
        assert made() == [[("_deliveries",)], [("_deliveries",)]]


def test_a_log_that_does_not_exist_yet_is_read_as_an_empty_one() -> None:
    with DeliveryLog(log_in(), reads=True) as log:
        log.add([Delivery("m1")])
        log.write_outcomes([Delivery("m1")])
        assert (log.known(["m1"]), log.emails(["u1"]), log.changes(), log.latest()) == ({}, {}, [], [])
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.sql("SHOW ALL TABLES").fetchall() == []


def test_the_last_row_of_a_change_of_an_address_tells_whether_it_was_made() -> None:
    first = [("m1", "unknown"), ("m2", "unknown"), ("m3", "delivered"), ("m4", "refused")]
    tries = [*first, ("m6", "unknown"), ("m1", "delivered")]
    changed = [Delivery(id_, content=f"{CHANGED}{id_}", email="b@b.c", status=status) for id_, status in tries]
    with DeliveryLog(log_in()) as log:
        log.add([*changed, Delivery("m5", content="true"), changed[1]._replace(status="failed")])
        found = [(change.message_id, change.before, change.is_known) for change in log.changes()]
    assert found == [("m3", "m3", True), ("m6", "m6", False), ("m1", "m1", True)]


def test_times_in_the_log_never_go_back(server: FakeAutopilot) -> None:
    send(server, [identify(1)])
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("UPDATE autopilothq._deliveries SET sent_at = sent_at + INTERVAL 1 DAY")
    send(server, [identify(2)])
    assert [row[0] for row in rows("message_id")] == ["i1", "i2"]


def test_the_log_takes_any_text(postgres: str) -> None:
    long = random.Random(1).randbytes(5000).hex()  # an index on it has room for less
    odd = "'; DROP TABLE x -- \\n \\ \n\t\r\x01 %s %(a)s {} é 株 \U0001f600 \"$$" + long
    for place in (None, dlt.destinations.postgres(postgres)):
        with DeliveryLog(log_in(place)) as log:
            log.add([Delivery(odd, email="a\0b\ud800", message=odd, trigger_id=odd)])
            log.write_outcomes([Delivery(odd, trigger_id=odd, status="refused", message=odd + odd)])
            assert set(log.known([odd])) == {(odd, odd)}
            [row] = log.latest("refused", datetime(2000, 1, 1, tzinfo=UTC))
            assert (row["message_id"], row["email"], row["message"]) == (odd, "a\ufffdb?", odd + odd)
            assert log.latest("delivered") == log.latest(since=datetime(2100, 1, 1, tzinfo=UTC)) == []


def test_members_as_the_log_knows_them() -> None:
    def said(who: str, content: str, status: str) -> Delivery:
        return Delivery(who, "identify", audience="a", email=f"{who}@b.c", content=content, status=status)

    with DeliveryLog(log_in()) as log:
        log.add([said("in", "true", "delivered"), said("out", "true", "delivered"), said("never", "true", "refused")])
        log.add([said("out", "false", "delivered"), said("in", "false", "refused"), said("who", "true", "failed")])
        assert log.members("a") == {
            "in": Member("in@b.c", None, "true"),
            "out": Member("out@b.c", None, "false"),
            "never": Member("never@b.c", None, None),
            "who": Member("who@b.c", None, "?"),
        }
        assert log.members("b") == {}


# ---- as a dlt destination ------------------------------------------------------------------------------------------


@pytest.fixture
def configured(server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> FakeAutopilot:
    configure(monkeypatch, server)
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")  # else dlt tries five times, a second apart
    return server


def run(data: Any, **more: Any) -> dlt.Pipeline:
    pipeline = dlt.pipeline("to_autopilot", destination=autopilot())
    while pipeline.has_pending_data:
        pipeline.run()
    pipeline.run(data, table_name="rows", **more)
    return pipeline


def test_a_pipeline_writes_rows(configured: FakeAutopilot) -> None:
    data = [
        {"email": "a@example.com", "user_id": 7, "first_name": "Ann", "company": {"name": "Acme"}, "review_rating": 4},
        {"email": "b@example.com", "Trial Ends": datetime(2019, 3, 1, tzinfo=UTC)},
    ]
    run(data)
    contacts = [
        {"Email": "a@example.com", "FirstName": "Ann", "Company": "Acme", "custom": {"integer--Review--Rating": 4}},
        {"Email": "b@example.com", "custom": {"date--Trial--Ends": "2019-03-01T00:00:00.000Z"}},
    ]
    assert posts(configured) == [("/contacts", {"contacts": contacts})]
    assert rows("email", "user_id", "status") == [
        ("a@example.com", "7", "delivered"),
        ("b@example.com", None, "delivered"),
    ]
    run(data)
    assert posts(configured) == []
    run([data[0] | {"review_rating": 5}])
    run(data)
    custom = [body["contacts"][0]["custom"] for _, body in posts(configured)]
    assert custom == [{"integer--Review--Rating": 5}, {"integer--Review--Rating": 4}]
    run([data[0] | {"review_rating": 5}, data[0]])  # the last one is the news, also when it was the news before
    assert [body["contacts"][0]["custom"] for _, body in posts(configured)] == [
        {"integer--Review--Rating": 4},
    ]


def test_a_pipeline_writes_messages(configured: FakeAutopilot) -> None:
    run([identify(1), track(1, properties={"review_rating": 2})])
    custom = {"integer--Review--Rating": 2}
    assert posts(configured) == [
        ("/contacts", {"contacts": [{"Email": "p1@example.com", "Title": "T1", "custom": custom}]}),
        ("/trigger/0007/contact/p1%40example.com", None),
    ]


def test_arrow_tables_keep_their_nulls(configured: FakeAutopilot) -> None:
    run(pa.table({"email": ["a@example.com"], "title": pa.array([None], pa.string()), "review_rating": [3]}))
    custom = {"integer--Review--Rating": 3}
    assert posts(configured) == [
        ("/contacts", {"contacts": [{"Email": "a@example.com", "Title": None, "custom": custom}]})
    ]


@pytest.mark.usefixtures("configured")
def test_a_refused_row_fails_no_package(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "autopilothq"):
        group = {"email": "b@example.com", "type": "group", "message_id": 5}
        pipeline = run([{"email": "nobody"}, {"email": "a@example.com", "title": "CEO"}, {"title": "no one"}, group])
    assert not pipeline.has_pending_data
    assert Counter(rows("status")) == {("delivered",): 1, ("refused",): 2}
    assert f"1 row refused: {MISSING}" in caplog.messages
    why = "with a message's id or parts it is a Segment message, of a type that Autopilot does not take"
    assert f"1 row of type group not sent: {why}" in caplog.messages


def test_rows_that_failed_stay_pending_and_come_before_new_ones(configured: FakeAutopilot) -> None:
    configured.order("POST", "/contacts", status=503, times=2)
    with pytest.raises(PipelineStepFailed, match="1 of 1 row could not be delivered: "):
        run([{"email": "a@example.com", "title": "old"}])
    posts(configured)
    run([{"email": "a@example.com", "title": "new"}])
    assert [body["contacts"][0]["Title"] for _, body in posts(configured)] == ["old", "new"]


@pytest.mark.parametrize(
    ("drops", "raises"), [("false", "true"), ("true", "true"), ("false", "false")], ids=["keeps", "drops", "completes"]
)
def test_a_wrong_key_keeps_the_rows(
    configured: FakeAutopilot, monkeypatch: pytest.MonkeyPatch, drops: str, raises: str
) -> None:
    """Also where dlt is set to drop a package whose job failed, or to complete its load without the job's rows."""
    monkeypatch.setenv("LOAD__AUTO_ABORT_ON_TERMINAL_ERROR", drops)
    monkeypatch.setenv("LOAD__RAISE_ON_FAILED_JOBS", raises)
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", "f" * 32)
    with pytest.raises(PipelineStepFailed, match="Provided autopilotapikey not valid") as raised:
        run([{"email": "a@example.com", "title": "CEO"}])
    assert "f" * 32 not in str(raised.value)
    assert len(configured.requests) == 1
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", configured.key)
    configured.requests.clear()
    run([{"email": "b@example.com", "title": "CEO"}])
    assert [body["contacts"][0]["Email"] for _, body in posts(configured)] == ["a@example.com", "b@example.com"]


def test_errors_of_a_package_are_the_packages_own_and_dlts() -> None:
    kinds = {DeliveryFailed: DestinationTransientException, DeliveryImpossible: DestinationTerminalException}
    for kind, of_dlt in kinds.items():
        assert {AutopilothqError, of_dlt} <= set(kind.__mro__)


@pytest.mark.usefixtures("configured")
def test_the_log_may_be_in_another_dataset() -> None:
    log = dlt.dataset(dlt.destinations.duckdb("other.duckdb"), "crm", dlt.Schema("crm"))
    dlt.pipeline("to_autopilot", destination=autopilot(log=log)).run([{"email": "a@example.com"}], table_name="rows")
    with DeliveryLog(log, reads=True) as deliveries:
        assert [row["email"] for row in deliveries.latest()] == ["a@example.com"]


def test_wrong_settings(server: FakeAutopilot) -> None:
    with pytest.raises(InvalidSetting, match="unknown_traits must be send or refuse, got 'perhaps'"):
        send(server, [], unknown_traits="perhaps")
    assert "secret" not in repr(settings_for(server, api_key="secret"))
    for name in ("timeout", "tries"):
        with pytest.raises(InvalidSetting, match=rf"destination\.autopilothq\.{name} must be a number above 0, got 0"):
            send(server, [], **{name: 0})


def test_unknown_settings_are_errors() -> None:
    more: dict[str, Any] = {"environment": "prod"}  # a setting of every destination
    assert autopilot(timeout=5, tries=2, **more).config_params["tries"] == 2
    for name, hint in {"timeuot": "did you mean timeout?", "unknown_trait": "did you mean unknown_traits?"}.items():
        with pytest.raises(InvalidSetting) as raised:
            autopilot(**{name: 1})  # type: ignore[arg-type]
        assert str(raised.value) == f"autopilot() takes no setting {name}: {hint}"
    with pytest.raises(InvalidSetting, match="takes no setting xyz: there are api_key, base_url, requests_per_second,"):
        autopilot(xyz=1)  # type: ignore[call-arg]


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("where", ["config.toml", "secrets.toml", "environment"])
def test_unknown_settings_of_the_configuration_are_errors(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "environment":
        monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__TIMEUOT", "5")
    else:
        Path(".dlt").mkdir()
        Path(".dlt", where).write_text("[destination.autopilothq]\ntries = 2\ntimeuot = 5\n")
        active().reload()
    message = r"dlt's configuration has no setting destination\.autopilothq\.timeuot: did you mean timeout\?"
    with pytest.raises(InvalidSetting, match=message):
        destination.resolve_settings()
    with pytest.raises(PipelineStepFailed, match=message):
        run([{"email": "a@example.com"}])


@pytest.mark.parametrize("where", ["secrets.toml", "environment"])
def test_settings_of_ortto_do_not_change_those_of_autopilot(
    where: str, configured: FakeAutopilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "environment":
        monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__ORTTO__API_KEY", "of-ortto")
    else:
        Path(".dlt").mkdir()
        Path(".dlt", where).write_text("[destination.autopilothq.ortto]\napi_key = 'of-ortto'\n")
        active().reload()
    assert destination.resolve_settings().api.base_url == configured.base_url
    run([{"email": "a@example.com"}])
    assert posts(configured) == [("/contacts", {"contacts": [{"Email": "a@example.com"}]})]


def test_time_out_and_tries_are_settings(configured: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__TRIES", "3")
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__TIMEOUT", "0.2")
    settings = destination.resolve_settings().api
    assert (settings.tries, settings.timeout) == (3, 0.2)
    configured.order("POST", "/contacts", late=1, times=2)
    run([{"email": "a@example.com", "title": "CEO"}])
    assert len(posts(configured)) == 3


def test_rows_look_like_messages_or_do_not() -> None:
    item = from_row({"email": "a@b.c", "userId": 5, "type": "lead"})
    assert (item.user_id, item.traits, item.once) == ("5", {"email": "a@b.c", "type": "lead"}, False)  # type: ignore[union-attr]
    message = {"type": "track", "messageId": "m", "userId": "u", "event": "A", "originalTimestamp": "t"}
    respelt = {"type": "track", "message_id": "m", "user_id": "u", "event": "A", "original_timestamp": "t"}
    assert from_row(respelt) == from_row({key.lower(): value for key, value in message.items()}) == from_row(message)
    assert from_row(respelt | {"id": 5, "event": None}).once is False  # type: ignore[union-attr]
    again: Callable[..., Any] = lambda **row: from_row(row).message_id  # type: ignore[union-attr] # noqa: E731
    assert again(email="A@b.c", x=1) == again(email="a@b.c", x=2) != again(email="a@b.c", y=1)


def test_a_thread_is_left_by_no_run(server: FakeAutopilot) -> None:
    before = threading.active_count()
    send(server, [identify(1)])
    assert threading.active_count() <= before + 1  # the server's own, for the connection
