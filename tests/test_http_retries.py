"""Which requests are tried again, after which waits, and which are never repeated."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from autopilothq.clients import response
from autopilothq.clients.decode import plain
from autopilothq.clients.pace import Pace
from autopilothq.errors import (
    OutcomeUnknown,
    Unavailable,
)
from fake_autopilot import FakeAutopilot
from requesting import ME, Time, api, client, connected, failed


@pytest.fixture
def server() -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=3) as server:
        yield server


# ---- tries ---------------------------------------------------------------------------------------------------------

PASSING: list[dict[str, Any]] = [
    {"status": 429},
    {"status": 429, "retry_after": 1},
    {"status": 408},
    {"status": 500},
    {"status": 502, "content": b"<html>Bad gateway</html>"},
    {"status": 503, "retry_after": 2},
    {"status": 504},
    {"drop": "before"},
    {"drop": "after"},
    {"cut": 20},
    {"content": b'{"fullName": "Made U'},  # complete in HTTP, cut off in JSON
    {"content": b""},
    {"content": b"not gzip", "headers": {"Content-Encoding": "gzip"}},
]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_passing_failure_is_tried_again(server: FakeAutopilot, time: Time, fault: dict[str, Any]) -> None:
    server.order("GET", "/account", times=2, **fault)
    with connected(server, time) as http:
        assert plain(http.request("GET", ["account"])) == ME
        assert (len(server.requests), http.attempts) == (3, 3)


GAVE_UP: list[tuple[dict[str, Any], str, int | None]] = [
    (
        {"status": 429, "message": "Slow down."},
        (
            "429 Too Many Requests: Slow down; gave up after 3 tries. Lower"
            " sources.autopilothq.requests_per_second (now 1000) if others use the same key"
        ),
        429,
    ),
    ({"status": 408}, "408 Request Timeout: Ordered 408; gave up after 3 tries", 408),
    ({"status": 500, "message": "Oops"}, "500 Internal Server Error: Oops; gave up after 3 tries", 500),
    (
        {"status": 502, "content": b"<html>\n<b>Bad gateway</b>", "headers": {"Content-Type": "text/html"}},
        "502 Bad Gateway: <html> <b>Bad gateway</b>; gave up after 3 tries",
        502,
    ),
    ({"status": 599, "content": b""}, "599; gave up after 3 tries", 599),
    ({"drop": "before"}, "the connection broke: [Errno 104] Connection reset by peer; gave up after 3 tries", None),
    (
        {"cut": 20},
        (
            "the answer broke off: peer closed connection without sending complete message body (received 20 bytes,"
            " expected 74); gave up after 3 tries"
        ),
        200,
    ),
    ({"content": b'{"a":[1,'}, "the answer broke off; gave up after 3 tries", 200),
]


@pytest.mark.parametrize(("fault", "text", "status"), GAVE_UP, ids=[text[:30] for _, text, _ in GAVE_UP])
def test_a_request_that_keeps_failing_ends_in_one_error(
    server: FakeAutopilot, time: Time, fault: dict[str, Any], text: str, status: int | None
) -> None:
    server.order("GET", "/account", times=99, **fault)
    error = failed(server, time)
    assert type(error) is Unavailable
    assert (str(error), error.method, error.path, error.status) == (f"GET /account: {text}", "GET", "/account", status)
    assert error.attempts == 3
    assert len(server.requests) == 3


def test_no_answer_in_time(server: FakeAutopilot, time: Time) -> None:
    server.order("GET", "/account", times=2, late=9)
    error = failed(server, time, timeout=0.1, tries=2)
    assert str(error) == "GET /account: no answer within 0.1 s; gave up after 2 tries"


def test_a_slow_body_is_read_and_one_that_stops_is_not(server: FakeAutopilot, time: Time) -> None:
    server.order("GET", "/account", drip=0.02)
    with connected(server, time, timeout=0.15) as http:
        assert plain(http.request("GET", ["account"])) == ME
    server.order("GET", "/account", drip=0.5)
    error = failed(server, time, timeout=0.15, tries=1)
    assert str(error) == "GET /account: the answer stalled for 0.15 s or took too long; gave up after 1 try"


def test_a_body_that_never_ends_times_out(server: FakeAutopilot, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "_MAX_TIMEOUTS", 2)
    server.order("GET", "/account", drip=0.1)
    error = failed(server, time, timeout=0.2, tries=1)
    assert str(error) == "GET /account: the answer stalled for 0.2 s or took too long; gave up after 1 try"


def test_a_refused_connection_is_an_error_that_names_the_host(server: FakeAutopilot, time: Time) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = failed(server, time, base_url=f"http://127.0.0.1:{free.getsockname()[1]}/v1", idempotent=False)
    assert type(error) is Unavailable
    assert str(error) == "GET /account: cannot reach 127.0.0.1: [Errno 111] Connection refused; gave up after 3 tries"


def test_waits_grow_with_some_jitter(server: FakeAutopilot, time: Time) -> None:
    server.order("GET", "/account", times=99, status=500)
    failed(server, time, tries=9)
    least = [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert all(low <= nap <= low + 0.5 for low, nap in zip(least, time.naps, strict=True))
    assert len({nap % 0.5 for nap in time.naps}) > 1


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        ({"retry_after": 7}, 7),
        ({"retry_after": "Fri, 01 Mar 2019 10:00:07 GMT", "headers": {"Date": "Fri, 01 Mar 2019 10:00:00 GMT"}}, 7),
        # A date without a zone is in UTC.
        ({"retry_after": "Fri Mar  1 10:00:07 2019", "headers": {"Date": "Fri, 01 Mar 2019 10:00:00 GMT"}}, 7),
        ({"retry_after": "Fri, 01 Mar 2019 10:00:07 -0000", "headers": {"Date": "Fri, 01 Mar 2019 10:00:00 GMT"}}, 7),
        # Headers that say nothing: the usual growing waits.
        ({"retry_after": "Fri, 01 Mar 2019 10:00:00 GMT"}, 0.5),
        ({"retry_after": 0}, 0.5),
        ({"retry_after": "soon"}, 0.5),
        ({"retry_after": "-1"}, 0.5),
    ],
    ids=str,
)
def test_retry_after(server: FakeAutopilot, time: Time, fault: dict[str, Any], seconds: float) -> None:
    server.order("GET", "/account", status=429, **fault)
    with connected(server, time) as http:
        http.request("GET", ["account"])
    assert seconds <= sum(time.naps) <= seconds + 0.5


def test_a_wait_of_hours_is_told_instead(server: FakeAutopilot, time: Time) -> None:
    server.order("GET", "/account", status=429, retry_after=7200, message="Daily limit.")
    error = failed(server, time)
    assert str(error) == (
        "GET /account: 429 Too Many Requests: Daily limit. The server asks to wait 7200 s: run it again then"
    )
    assert (type(error), error.server_message, time.naps) == (Unavailable, "Daily limit.", [])


def test_a_wait_that_the_server_asks_for_holds_the_whole_account(server: FakeAutopilot, time: Time) -> None:
    pace = Pace(time.clock, time.sleep)
    server.order("GET", "/account", status=429, retry_after=7)
    with client(api(server.base_url, tries=1), pace=pace) as one, pytest.raises(Unavailable):
        one.request("GET", ["account"])
    with client(api(server.base_url), pace=pace) as other:
        other.request("GET", ["lists"])
    assert 7 <= sum(time.naps) <= 7.1


# ---- what is never repeated ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "done", "text"),
    [
        ({"drop": "after"}, 1, "the connection broke: [Errno 104] Connection reset by peer"),
        ({"drop": "before"}, 0, "the connection broke: [Errno 104] Connection reset by peer"),
        ({"late": 9}, 1, "no answer within 1 s"),
        ({"status": 504}, 0, "504 Gateway Timeout: Ordered 504"),
        ({"status": 408}, 0, "408 Request Timeout: Ordered 408"),
    ],
    ids=str,
)
def test_a_request_that_may_have_been_carried_out(
    server: FakeAutopilot, time: Time, fault: dict[str, Any], done: int, text: str
) -> None:
    who = server.account.contact_id(0)
    server.order("POST", "/trigger/*", times=99, **fault)
    path = f"trigger/0003/contact/{who}"
    error = failed(server, time, "POST", path, idempotent=False, wants_json=False, timeout=1)
    assert type(error) is OutcomeUnknown
    assert str(error) == f"POST /{path}: {text}; it may have been carried out, so it is not sent again"
    assert (len(server.requests), server.account.triggered) == (1, [("0003", who)] * done)


def test_429_says_that_it_was_not_carried_out(server: FakeAutopilot, time: Time) -> None:
    who = server.account.contact_id(0)
    server.order("POST", "/trigger/*", times=2, status=429)
    with connected(server, time) as http:
        http.request("POST", ["trigger", "0003", "contact", who], idempotent=False, wants_json=False)
    assert (len(server.requests), server.account.triggered) == (3, [("0003", who)])


@pytest.mark.parametrize("fault", [{"cut": 1}, {"edit": lambda _: b"<html>"}], ids=["cut", "html"])
def test_the_status_is_enough_where_no_json_is_wanted(server: FakeAutopilot, time: Time, fault: dict[str, Any]) -> None:
    server.order("POST", "/trigger/*", **fault)
    with connected(server, time) as http:
        path = ["trigger", "0003", "contact", server.account.contact_id(0)]
        assert http.request("POST", path, idempotent=False, wants_json=False) is None
