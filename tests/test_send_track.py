"""The rules of docs/contract/destination.md for a track, against an account over real HTTP."""

import json
import threading
from collections import Counter
from typing import Any

import pytest

from autopilothq.destination.delivery_log import Delivery
from autopilothq.destination.plan import NOT_OF_TRACKS, UNMAPPED
from autopilothq.errors import InvalidSetting
from fake_autopilot import FakeAutopilot
from sending import counted, identify, posts, rows, send, track


def test_a_track_writes_the_contact_then_enters_the_journey(server: FakeAutopilot) -> None:
    properties = {"review_rating": 2, "total": 5, "title": "Trousers"}
    traits = {"email": "p+1@example.com", "review_rating": 5, "title": "CEO"}
    outside = {"email": "p+1@example.com", "smog": {"level": 1}, "fax": "2"}  # not among the traits of the context
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
    untitled: list[Any] = [{"trigger_id": "0001", "journey": None}, {"trigger_id": "0002"}]
    untitled += [{"journey": "Unheard Of"}, "Unheard Of", None]  # triggers without an id cannot be used
    server.order("GET", "/triggers", edit=lambda answer: {"triggers": [*untitled, *answer["triggers"]]})
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
    """Otherwise an archive that is sent every hour would add a row for each event without a trigger every time."""
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
    for _ in range(2):  # for another reason, and for the first one again
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


def test_journeys_of_different_people_are_entered_at_the_same_time(server: FakeAutopilot) -> None:
    both = threading.Barrier(2)

    def together(answer: Any) -> Any:
        both.wait(2)
        return answer

    server.order("POST", "/trigger/*", times=2, edit=together)
    assert counted(send(server, [track(1), track(2)])) == {"messages": 2, "delivered": 2}


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
