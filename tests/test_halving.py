"""A bad contact does not harm good ones, and an outage ends the run (docs/contract/destination.md#delivery-log)."""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import dlt
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from autopilothq import autopilot
from autopilothq.clients.autopilot import Autopilot
from autopilothq.destination import Counts, DeliveryLog, deliver, opening, sender
from autopilothq.destination.messages import from_line
from autopilothq.destination.requests import CircuitBreaker, Outcome
from autopilothq.errors import NotFound, RequestRejected, Unavailable, UnexpectedResponse
from fake_autopilot import Account, FakeAutopilot
from sending import IMPATIENT, configure, identify, log_in, posts, rows, send, settings_for, track
from shared_loads import isolation
from waiting import wait_for

ALL = range(100)


def ended(counts: Counts) -> tuple[int, int, int, int]:
    return counts.delivered, counts.refused, counts.failed, counts.known


def emails(*numbers: int) -> set[str]:
    return {f"p{number}@example.com" for number in numbers}


# One bad contact in each of ten successive batches.
BAD = [
    *((0,), (99,), (41,), (7,), (10, 90), (50, 51), (3, 30, 60, 97), (20, 21, 22, 23, 24)),
    *((0, 17, 34, 51, 68, 85), (7, 8)),
]


class Halved(NamedTuple):
    """The results of sending a hundred contacts, for a set of bad ones: counts, log and account."""

    counts: Counts
    log: list[tuple[Any, ...]]
    account: Account


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Halved:
    with (
        isolation(tmp_path_factory.mktemp("halved")),
        pytest.MonkeyPatch.context() as monkeypatch,
        FakeAutopilot(contacts=0) as server,
    ):
        monkeypatch.setattr(opening, "Autopilot", IMPATIENT)
        server.poison = emails(*(100 * batch + number for batch, bad in enumerate(BAD) for number in bad))
        counts = send(server, map(identify, range(100 * len(BAD))))
        log = rows("message_id, status, http_status, message, endpoint")
        return Halved(counts, log, server.account)


@pytest.mark.parametrize("batch", range(len(BAD)), ids=map(str, BAD))
def test_contacts_that_make_errors_of_the_server_are_found(batch: int, halved: Halved) -> None:
    everyone, bad = range(100 * batch, 100 * batch + 100), [100 * batch + number for number in BAD[batch]]
    log = [row for row in halved.log if int(row[0].removeprefix("i")) in everyone]
    assert {row for row in log if row[1] != "delivered"} == {
        (f"i{number}", "failed", 500, "Something went wrong.", "POST /contacts") for number in bad
    }
    assert sum(row[1] == "delivered" for row in log) == 100 - len(bad)
    assert {number for number in everyone if not halved.account.find(f"p{number}@example.com")} == set(bad)
    failed = sum(map(len, BAD))
    assert ended(halved.counts) == (100 * len(BAD) - failed, 0, failed, 0)


def test_one_bad_contact_is_found_with_few_requests(server: FakeAutopilot) -> None:
    server.poison = emails(41)
    send(server, map(identify, ALL))
    sizes = [len(body["contacts"]) for _, body in posts(server)]
    assert len(sizes) == 8 * 2 + 7  # eight failing requests with two tries each, and the other halves
    # Later runs send the bad contact alone, or with new ones.
    assert ended(send(server, map(identify, ALL))) == (0, 0, 1, 99)
    assert [len(body["contacts"]) for _, body in posts(server)] == [1, 1]
    assert ended(send(server, map(identify, range(120)))) == (20, 0, 1, 99)
    server.poison.clear()
    assert ended(send(server, map(identify, range(120)))) == (1, 0, 0, 119)


def test_texts_that_are_no_addresses_are_put_together_before_a_refused_batch_is_halved(server: FakeAutopilot) -> None:
    messages = [identify(number) for number in ALL]
    for number in range(0, 100, 5):
        messages[number] = identify(number, traits={"email": f"none, {number}"})
    server.refused_faxes = {"no number"}
    messages[41] = identify(41, traits={"email": "p41@example.com", "fax": "no number"})
    assert ended(send(server, messages)) == (79, 21, 0, 0)
    assert len(posts(server)) == 61
    assert server.account.total() == 79


def test_many_bad_contacts_of_earlier_runs_hold_up_nobody(server: FakeAutopilot) -> None:
    server.poison = emails(*(number for number in range(200) if number % 100 < 40))
    assert ended(send(server, map(identify, range(200)))) == (120, 0, 80, 0)
    posts(server)
    counts = send(server, map(identify, range(230)))
    assert (ended(counts), counts.bad) == ((30, 0, 80, 120), 80)
    assert len(posts(server)) < 60  # the earlier failures are not halved again
    assert server.account.total() == 150
    server.poison.clear()
    assert ended(send(server, map(identify, range(230)))) == (80, 0, 0, 150)


def test_what_follows_about_a_contact_that_failed_comes_behind_it(server: FakeAutopilot) -> None:
    server.poison = emails(1)
    send(server, [identify(1), identify(2)])
    server.poison.clear()
    posts(server)
    later = identify("later", traits={"email": "P1@example.com", "title": "new"})
    assert ended(send(server, [identify(1), identify(3), later])) == (3, 0, 0, 0)
    assert [contact for _, body in posts(server) for contact in body["contacts"]] == [
        {"Email": "p3@example.com", "Title": "T3"},
        {"Email": "P1@example.com", "Title": "new"},
    ]


def test_an_outage_while_earlier_failures_are_sent_again_is_still_an_outage(server: FakeAutopilot) -> None:
    server.poison = emails(*range(10))
    assert ended(send(server, map(identify, range(20)))) == (10, 0, 10, 0)
    server.order("POST", "/contacts", skip=1, status=503, times=10_000)
    with pytest.raises(Unavailable, match="503"):
        send(server, map(identify, range(21)))


def test_pieces_of_a_batch_are_tried_twice_and_one_alone_as_often_as_is_set(server: FakeAutopilot) -> None:
    server.poison = emails(41)
    assert ended(send(server, map(identify, ALL), tries=5)) == (99, 0, 1, 0)
    sizes = Counter(len(body["contacts"]) for _, body in posts(server) if emails(41) <= _emails_of(body))
    assert sizes.pop(100) == 5
    assert sizes.pop(1) == 5
    assert set(sizes.values()) == {2}
    assert rows("attempts, status").count((5, "failed")) == 1


def _emails_of(body: Any) -> set[str]:
    return {contact["Email"] for contact in body["contacts"]}


def test_a_piece_that_meets_the_limit_is_tried_as_often_as_is_set(server: FakeAutopilot) -> None:
    server.poison = emails(41)
    server.order("POST", "/contacts", skip=4, status=429, times=3)
    assert ended(send(server, map(identify, ALL), tries=4)) == (99, 0, 1, 0)


def test_refused_and_failing_ones_in_one_batch(server: FakeAutopilot) -> None:
    server.poison = emails(70)
    messages = [identify(number) for number in ALL]
    messages[20] = identify(20, traits={"email": "no address"})
    # A 403 does not mean a wrong key, nor a 507 a full account: the batch is tried again, then halved.
    server.order("POST", "/contacts", status=507)
    server.order("POST", "/contacts", status=403)
    assert ended(send(server, messages)) == (98, 1, 1, 0)
    assert [fault.times for fault in server.faults] == [0, 0]


@pytest.mark.parametrize("status", [400, 402, 403, 404, 405, 409, 410, 413, 422, 451])
def test_each_4xx_but_401_408_and_429_refuses_one_request(server: FakeAutopilot, status: int) -> None:
    server.order("POST", "/contact", status=status, message="No.")
    with Autopilot(settings_for(server).api) as account:
        breaker = CircuitBreaker(account)
        request = partial(account.upsert, {"Email": "a@b.c"})
        outcome, error = breaker.attempt("POST /contact", request)
        assert (outcome, type(error), breaker.is_open) == (
            Outcome("refused", "POST /contact", status, "No.", 1),
            NotFound if status == 404 else RequestRejected,
            False,
        )
        assert breaker.attempt("POST /contact", request)[0].status == "delivered"


def test_the_log_counts_the_tries_that_brought_an_answer_without_what_is_documented(server: FakeAutopilot) -> None:
    server.order("POST", "/contacts", status=429)
    server.order("POST", "/contacts", edit=lambda _: {"contact_ids": ["person_1"]})
    assert ended(send(server, [identify(1)])) == (0, 0, 1, 0)
    why = "POST /contacts: expected an object with contact_ids and email_contact_map, got an object with contact_ids"
    assert rows("status", "http_status", "message", "attempts") == [("failed", 200, why, 2)]


def test_an_outage_ends_the_run_soon(server: FakeAutopilot) -> None:
    outage = server.order("POST", "/contacts", status=503, message="Down.", times=10_000)
    with pytest.raises(Unavailable, match="503 Service Unavailable: Down"):
        send(server, map(identify, range(5000)))
    sizes = [len(body["contacts"]) for _, body in posts(server)]
    assert len(sizes) < 40
    assert set(rows("status", "message")) == {("failed", "Down.")}
    outage.times = 0
    assert ended(send(server, map(identify, range(300)))) == (300, 0, 0, 0)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            {"status": 308, "headers": {"Location": "https://other.example/x"}},
            "308 Permanent Redirect to https://other.example; redirects are not followed",
        ),
        ({"edit": lambda _: "<html>"}, 'expected an object with contact_ids and email_contact_map, got "<html>"'),
    ],
)
def test_answers_of_something_else_than_the_service_end_the_run_soon(
    answer: dict[str, Any], error: str, server: FakeAutopilot
) -> None:
    other = server.order("POST", "/contacts", times=10_000, **answer)
    with pytest.raises(UnexpectedResponse, match=re.escape(error)):
        send(server, map(identify, range(5000)))
    assert len(posts(server)) < 12
    assert {row[0] for row in rows("status")} == {"failed"}
    other.times = 0
    assert ended(send(server, map(identify, range(300)))) == (300, 0, 0, 0)


def test_an_outage_that_begins_while_a_batch_is_halved(server: FakeAutopilot) -> None:
    server.poison = emails(41)
    server.order("POST", "/contacts", skip=6, status=503, times=10_000)
    with pytest.raises(Unavailable):
        send(server, map(identify, ALL))
    assert len(posts(server)) < 40


def test_a_change_of_an_address_waits_while_its_contact_is_asked_for(
    server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "CHUNK", 1)
    monkeypatch.setattr(sender, "MOST_CONTACTS", 1)
    server.poison = emails(3)

    def once_changed(contact: Any) -> Any:
        end = time.monotonic() + 0.3
        while server.account.find("p1@example.com") and time.monotonic() < end:
            time.sleep(0.02)
        return contact

    server.order("GET", "/contact/*", edit=once_changed)

    def messages() -> Iterator[dict[str, Any]]:
        yield from (identify(1), identify(3))
        wait_for(lambda: log.statuses(["i1"]))
        yield identify(4)
        wait_for(lambda: server.seen("GET", "/contact/*"))
        yield identify("new", traits={"email": "p1@example.com", "_NewEmail": "q1@example.com"})

    with DeliveryLog(log_in()) as log:
        lines = (json.dumps(message).encode() for message in messages())
        assert ended(deliver(map(from_line, lines), log, settings_for(server))) == (3, 0, 1, 0)
    assert {contact["Email"] for contact in server.account.page(None)["contacts"]} == {
        "p4@example.com",
        "q1@example.com",
    }


def test_no_journey_for_a_contact_that_fails(server: FakeAutopilot) -> None:
    server.poison = emails(1)
    messages = [track(number, properties={"review_rating": turn}) | {"messageId": f"t{number}-{turn}"}
                for number in (1, 2) for turn in range(3)]  # fmt: skip
    assert ended(send(server, messages)) == (3, 0, 3, 0)
    assert len(server.seen("POST", "/trigger/*")) == 3


def test_a_bad_row_holds_up_no_pipeline(
    server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure(monkeypatch, server)
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")
    server.poison = emails(1)
    pipeline = dlt.pipeline("to_autopilot", destination=autopilot())
    with caplog.at_level(logging.WARNING, "autopilothq"):
        pipeline.run([{"email": f"p{number}@example.com", "fax": "1"} for number in range(3)], table_name="rows")
    assert not pipeline.has_pending_data
    assert "1 row failed: Something went wrong." in caplog.messages
    # A contact that the answer does not name is tried again, and then no longer blocks the pipeline.
    server.order("POST", "/contacts", edit=lambda answer: answer | {"email_contact_map": {}}, times=2)
    with pytest.raises(PipelineStepFailed, match="could not be delivered: Autopilot's answer does not name"):
        pipeline.run([{"email": "p4@example.com", "fax": "1"}], table_name="rows")
    pipeline.run()
    pipeline.run([{"email": "p5@example.com", "fax": "1"}], table_name="rows")
    assert not pipeline.has_pending_data
    assert [body["contacts"][0]["Email"] for _, body in posts(server)][-3:] == [
        "p4@example.com",
        "p4@example.com",
        "p5@example.com",
    ]


def test_a_contact_that_the_answer_does_not_name_has_failed(server: FakeAutopilot) -> None:
    def edit(answer: Any) -> Any:
        named = answer["email_contact_map"]
        return answer | {"email_contact_map": {email.upper(): named[email] for email in named if "p2" not in email}}

    fault = server.order("POST", "/contacts", edit=edit, times=2)
    counts = send(server, [identify(1), identify(2), track(2), identify(3)])
    assert ended(counts) == (2, 0, 2, 0)
    why = "Autopilot's answer does not name this contact: it was not written"
    assert counts.reasons == {("failed", why): 2}
    assert [row for row in rows("message_id", "status", "http_status", "message") if row[1] == "failed"] == [
        ("i2", "failed", 200, why),
        ("t2", "failed", 200, why),
    ]
    assert server.seen("POST", "/trigger/*") == []
    assert ended(send(server, [identify(1), identify(2), track(2)])) == (0, 0, 2, 1)
    fault.times = 0
    assert ended(send(server, [identify(1), identify(2), track(2)])) == (2, 0, 0, 1)
