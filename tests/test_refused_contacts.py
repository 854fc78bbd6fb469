"""Contacts that Autopilot refuses for their values are found, and not sent again until they change."""

import pytest

from autopilothq.destination import DeliveryLog, deliver
from autopilothq.destination.messages import from_row, trait_item
from autopilothq.errors import NotAuthorized
from fake_autopilot import FakeAutopilot
from sending import counted, identify, log_in, posts, rows, send, settings_for, track


def test_a_contact_that_is_refused_is_not_sent_again_until_it_changes(server: FakeAutopilot) -> None:
    bad = identify("bad", traits={"email": "not an address", "plan": "pro"})
    messages = [bad, track(1, email="neither"), identify(2)]
    why = {("refused", "Invalid contact provided."): 2}
    for kept in ({"delivered": 1}, {"known": 1}):
        counts = send(server, messages)
        assert (counted(counts), counts.reasons) == ({"messages": 3, "refused": 2} | kept, why)
    posts(server)
    logged = rows("message_id", "trigger_id", "status", "http_status")
    assert sorted(logged) == [
        ("i2", None, "delivered", 200), ("ibad", None, "refused", 400), ("t1", "0007", "refused", 400)
    ]  # fmt: skip
    send(server, messages, fields={"plan": "Title"})
    assert [body["contacts"] for _, body in posts(server)] == [[{"Email": "not an address", "Title": "pro"}]]


def test_a_message_that_is_refused_costs_no_other_of_its_person(server: FakeAutopilot) -> None:
    bad = identify("bad", traits={"email": "p1@example.com", "fax": "1"})
    server.refused_faxes = {"1"}
    messages = [identify(1), bad]
    assert counted(send(server, messages)) == {"messages": 2, "refused": 2}
    newer = identify("newer", traits={"email": "p1@example.com", "title": "new"})
    assert counted(send(server, [*messages, newer])) == {"messages": 3, "delivered": 2, "refused": 1}
    assert (server.account.find("p1@example.com") or {})["Title"] == "new"
    posts(server)
    assert counted(send(server, [*messages, newer])) == {"messages": 3, "known": 2, "refused": 1}
    assert posts(server) == []


def test_who_was_refused_with_others_when_the_run_broke_off_is_not_refused_for_ever(server: FakeAutopilot) -> None:
    server.order("POST", "/contacts", status=400, times=3)
    server.order("POST", "/contacts", status=401)
    with pytest.raises(NotAuthorized):
        send(server, map(identify, range(4)))
    assert {status for _, status in rows("message_id", "status")} == {"failed"}
    assert counted(send(server, map(identify, range(4)))) == {"messages": 4, "delivered": 4}


def test_a_row_that_is_refused_is_not_sent_again_until_it_changes(server: FakeAutopilot) -> None:
    server.refused_faxes = {"1"}
    found = [trait_item("p1@example.com", None, {"email": "p1@example.com", "fax": fax}) for fax in "12"]
    for item, ends in ((found[0], "refused"), (found[0], "refused"), (found[1], "delivered")):
        with DeliveryLog(log_in()) as log:
            assert counted(deliver([item], log, settings_for(server))) == {"messages": 1, ends: 1}
    assert rows("status") == [("refused",), ("delivered",)]
    # Two rows of one person in a package: it cannot be told which one is refused.
    both = [from_row({"email": "p1@example.com", "fax": "1"}), from_row({"email": "p1@example.com", "title": "T"})]
    for number in (2, 1, 1):
        with DeliveryLog(log_in()) as log:
            assert deliver(both, log, settings_for(server)).refused == number
