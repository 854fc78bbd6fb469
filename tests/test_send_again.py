"""What is sent again after failures, repetitions and late messages, and what is not."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from autopilothq import destination
from autopilothq.destination import Counts, DeliveryLog, deliver
from autopilothq.destination.delivery_log import SENT_AGAIN
from autopilothq.destination.dispatch import AT_ONCE
from autopilothq.destination.messages import from_line, from_row
from autopilothq.errors import NotAuthorized, Unavailable
from fake_autopilot import FakeAutopilot
from sending import counted, identify, log_in, posts, rows, send, settings_for, track
from waiting import wait_for


def test_repeating_a_run_sends_nothing(server: FakeAutopilot) -> None:
    messages = [*map(identify, range(150)), *map(track, range(3))]
    send(server, messages)
    posts(server)
    assert counted(send(server, messages)) == {"messages": 153, "known": 153}
    assert posts(server) == []
    server.key = "fedcba9876543210fedcba9876543210"  # the log belongs to the account, whatever its key
    assert counted(send(server, messages)) == {"messages": 153, "known": 153}


def test_a_message_that_comes_twice_is_sent_once(server: FakeAutopilot) -> None:
    counts = send(server, [identify(1), track(1), identify(1), track(1)])
    assert counted(counts) == {"messages": 4, "delivered": 2, "repeated": 2}
    assert len(posts(server)) == 2


def test_of_two_rows_of_a_person_the_values_of_the_last_stay(server: FakeAutopilot) -> None:
    """Rows have no ids, so the second is not a repetition of the first."""
    found = [from_row({"email": "p1@example.com", "title": title}) for title in ("old", "new")]
    for _ in range(2):
        with DeliveryLog(log_in()) as log:
            assert counted(deliver(found, log, settings_for(server))) == {"messages": 2, "delivered": 2}
        assert posts(server) == [("/contacts", {"contacts": [{"Email": "p1@example.com", "Title": "new"}]})]


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
    posts(server)
    messages = list(map(identify, range(100)))
    assert counted(send(server, messages)) == {"messages": 100, "delivered": 100}
    first, last = (body["contacts"] for _, body in posts(server))  # alone in its request, because it may fail again
    assert (len(first), last) == (99, [{"Email": "p1@example.com", "Title": "T1"}])


def test_a_server_that_stays_out_of_order_ends_the_run(server: FakeAutopilot) -> None:
    server.order("POST", "*", status=503, times=10_000)
    with pytest.raises(Unavailable):
        send(server, map(identify, range(5000)))
    assert len(server.seen("POST")) < 40
    # Messages that were not sent because the run ended have no row.
    assert set(rows("status", "http_status")) == {("failed", 503)}
    server.faults.clear()
    assert counted(send(server, map(identify, range(300)))) == {"messages": 300, "delivered": 300}


def test_a_long_wait_that_the_server_asks_for_ends_the_run_without_another_request(server: FakeAutopilot) -> None:
    server.order("POST", "/contacts", status=503, retry_after=3600)
    with pytest.raises(Unavailable, match=r"The server asks to wait 3600 s: run it again then$"):
        send(server, map(identify, range(100)))
    assert len(server.seen("POST")) == 1
    assert set(rows("status", "http_status")) == {("failed", 503)}
    assert counted(send(server, map(identify, range(100)))) == {"messages": 100, "delivered": 100}


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
    # Only those that were under way at the same time.
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
        ({"status": 401, "times": 1}, ("new", "failed", 401, "Ordered 401.", 1)),  # the run ends
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
    messages = [person("old"), *map(identify, range(100)), person("new")]  # enough for two requests
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


def test_what_is_sent_again_is_not_given_up_as_bad_at_once(server: FakeAutopilot) -> None:
    """The account may have older values until it is written, so the dlt destination tries it once more."""
    old, new = (identify(title, traits={"email": "p1@example.com", "title": title}) for title in ("old", "new"))
    assert send(server, [new]).delivered == 1
    server.poison = {"p1@example.com"}
    counts = send(server, [old, identify(2), new])
    assert (counts.delivered, counts.failed, counts.bad) == (1, 2, 1)


def of_package(server: FakeAutopilot, messages: Iterable[Any]) -> tuple[int, int]:
    """Sends the messages of a load package; returns how many are left, and how many of these are given up."""
    with DeliveryLog(log_in()) as log:
        items = (from_line(json.dumps(message).encode()) for message in messages)
        counts = deliver(items, log, settings_for(server), gives_up=True)
    return counts.failed + counts.unsettled, counts.bad


def test_what_fails_in_a_second_try_while_the_account_answers_is_left(server: FakeAutopilot) -> None:
    old, new = (identify(title, traits={"email": "p1@example.com", "title": title}) for title in ("old", "new"))
    assert of_package(server, [new, identify(4)]) == (0, 0)
    server.poison = {"p1@example.com"}
    assert of_package(server, [old, identify(2), new]) == (2, 1)
    assert of_package(server, [old, identify(2), new]) == (2, 2)
    server.account.delete("p2@example.com")  # so the contact that was written last cannot show that the service works
    server.poison = {"p3@example.com"}
    assert [of_package(server, [identify(3)]) for _ in range(2)] == [(1, 0), (1, 1)]
    server.poison.clear()
    server.order("POST", "/contact", status=503, times=8)
    messages = [
        identify(5, traits={"email": "p4@example.com", "_NewEmail": "p5@example.com"}),
        identify(6, traits={"email": "p4@example.com", "title": "T6"}),
    ]
    assert [of_package(server, messages) for _ in range(5)] == [(2, 0)] * 5  # a single request each time
    server.order("POST", "/contacts", status=503, times=2)  # an outage
    assert of_package(server, messages) == (2, 0)
    assert of_package(server, messages) == (1, 1)
    posts(server)
    assert of_package(server, messages) == (1, 1)
    assert of_package(server, messages) == (0, 0)
    assert server.account.find("p5@example.com")


def test_a_change_of_an_address_that_only_waited_was_not_tried(server: FakeAutopilot) -> None:
    messages = [identify(1), identify(2, traits={"email": "p1@example.com", "_NewEmail": "p2@example.com"})]
    assert of_package(server, [identify(3)]) == (0, 0)
    for _ in range(5):
        server.order("POST", "/contacts", status=429, times=2)
        assert of_package(server, messages) == (2, 0)
    server.order("POST", "/contact", status=503, times=6)
    # The contact written last is its own, which must not be written again, because that could create a second one.
    assert [of_package(server, messages) for _ in range(6)] == [*[(1, 0)] * 5, (0, 0)]
    assert not server.account.find("p2@example.com")
    assert of_package(server, messages) == (0, 0)
    assert server.account.find("p2@example.com")


@pytest.mark.parametrize("fault", [{}, {"status": 429, "times": 2}])
def test_a_track_of_unknown_fate_keeps_its_values_behind_what_came_late(
    server: FakeAutopilot, fault: dict[str, Any]
) -> None:
    old, new = identify(1, traits={"email": "p1@example.com", "title": "old"}), track(1)
    new["context"]["traits"]["title"] = "new"
    server.order("POST", "/trigger/*", drop="after")
    assert send(server, [new]).unknown == 1
    others = map(identify, range(2, 102))  # enough to put the older one into another request
    if fault:
        server.order("POST", "/contacts", skip=1, **fault)
    counts = send(server, [old, *others, new])
    why = "Ordered 429." if fault else "an earlier run could not tell whether it was carried out"
    status = "failed" if fault else "unknown"
    lost = 2 if fault else 1  # together with the last of the others
    assert counts.reasons == {(status, why): lost}
    assert (counts.messages, counts.delivered, getattr(counts, status)) == (102, 102 - lost, lost)
    server.faults.clear()
    assert send(server, [old, new]).unknown == 1
    assert [(server.account.find("p1@example.com") or {})["Title"], len(server.account.triggered)] == ["new", 1]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_message_is_delivered_in_the_end_despite_random_faults(server: FakeAutopilot, seed: int) -> None:
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
