import gzip
import logging
import pickle
import socket
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from autopilothq.clients import response
from autopilothq.clients.decode import plain
from autopilothq.clients.http import HttpClient
from autopilothq.clients.pace import Pace, pace_of
from autopilothq.clients.settings import ApiSettings
from autopilothq.clients.urls import escape, path_of
from autopilothq.errors import (
    ApiError,
    InvalidSetting,
    NotAuthorized,
    NotFound,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
    UnexpectedResponse,
)
from fake_autopilot import FakeAutopilot
from fake_autopilot.server import KEY
from waiting import timed

SETTING = "sources.autopilothq.api_key"
HTML = b"<!doctype html><title>Log in</title>"
LIKE = "https://host/path, without user, password, query or fragment"
PLACES = "in .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__API_KEY in the environment"
ME = {"instanceId": "fake-1", "fullName": "Made Up", "email": "made.up@example.com"}


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def server() -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=3) as server:
        yield server


@pytest.fixture
def time() -> Time:
    return Time()


def api(base_url: str, **more: Any) -> ApiSettings:
    settings: dict[str, Any] = {"api_key": KEY, "setting": SETTING, "requests_per_second": 1000, "tries": 3} | more
    return ApiSettings(base_url=base_url, **settings)


class KeyedClient(HttpClient):
    KEY_HEADER = "autopilotapikey"


def client(settings: ApiSettings, basic: bool = False, **seams: Any) -> HttpClient:
    return HttpClient(settings, **seams) if basic else KeyedClient(settings, **seams)


def connected(server: FakeAutopilot, time: Time, basic: bool = False, **more: Any) -> HttpClient:
    settings = api(more.pop("base_url", server.base_url), timeout=more.pop("timeout", 5.0), **more)
    return client(settings, basic, pace=Pace(time.clock, time.sleep), sleep=time.sleep)


def failed(server: FakeAutopilot, time: Time, method: str = "GET", path: str = "account", **more: Any) -> ApiError:
    """The error that a request ends with."""
    asked = {name: more.pop(name) for name in ("idempotent", "wants_json", "body") if name in more}
    with connected(server, time, **more) as http, pytest.raises(ApiError) as caught:
        http.request(method, path.split("/"), **asked)
    return caught.value


# ---- what goes out -------------------------------------------------------------------------------------------------


def test_a_request_whole(server: FakeAutopilot, time: Time) -> None:
    with connected(server, time) as http:
        answer = http.request("POST", ["contact"], body={"contact": {"Email": "jörg+1@example.com"}})
        assert plain(answer) == {
            "contact_id": server.account.find("jörg+1@example.com")["contact_id"]  # type: ignore[index]
        }
    (request,) = server.requests
    assert (request.method, request.path, request.body) == (
        "POST",
        "/contact",
        {"contact": {"Email": "jörg+1@example.com"}},
    )
    assert request.headers == {
        "host": server.origin.removeprefix("http://"),
        "accept": "application/json",
        "accept-encoding": request.headers["accept-encoding"],
        "connection": "keep-alive",
        "user-agent": "dlt-autopilothq",
        "autopilotapikey": KEY,
        "content-length": "43",
        "content-type": "application/json",
    }


def test_basic_is_the_token_as_user_and_an_empty_password(server: FakeAutopilot, time: Time) -> None:
    error = failed(server, time, api_key="token", setting="sources.autopilothq.profiles.token", basic=True)
    assert server.requests[0].headers["authorization"] == "Basic dG9rZW46"
    assert str(error) == "GET /account: 400 Bad Request: No autopilotapikey header provided."


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        (["contact", "a+b@example.com"], "/contact/a%2Bb%40example.com"),
        (["list", "old list/7", "contacts"], "/list/old%20list%2F7/contacts"),
        (["contact", "ünï%41?#@x"], "/contact/%C3%BCn%C3%AF%2541%3F%23%40x"),
        (["profiles", escape("email:A.b_c+é@x.y")], "/profiles/email%3AA%2Eb%5Fc%2B%C3%A9%40x%2Ey"),
    ],
)
def test_parts_of_a_path_arrive_encoded_once(server: FakeAutopilot, time: Time, parts: list[str], path: str) -> None:
    with connected(server, time) as http, pytest.raises(ApiError):
        http.request("GET", [*parts, "nowhere"])
    assert server.requests[0].path == path + "/nowhere"


@pytest.mark.parametrize("part", ["", ".", ".."])
def test_a_part_that_would_name_something_else_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="cannot be a part of a path"):
        path_of(["contact", part])


def test_parameters(server: FakeAutopilot, time: Time) -> None:
    with connected(server, time) as http, pytest.raises(NotFound):
        http.request("GET", ["events"], params={"include": "Email Opened,Email Clicked", "next": "a+b="})
    assert server.requests[0].path == "/events?include=Email+Opened%2CEmail+Clicked&next=a%2Bb%3D"


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"requests_per_second": 0}, "sources.autopilothq.requests_per_second must be a number above 0, got 0"),
        ({"timeout": float("nan")}, "sources.autopilothq.timeout must be a number above 0, got nan"),
        ({"timeout": 1e30}, "sources.autopilothq.timeout must be at most 1,000,000 seconds, got 1e+30"),
        ({"tries": -1}, "sources.autopilothq.tries must be a number above 0, got -1"),
        *(
            (
                {"base_url": url},
                f"sources.autopilothq.base_url must be like {LIKE}, got '{shown}'",
            )
            for url, shown in {
                "": "",
                "api2.autopilothq.com/v1": "api2.autopilothq.com/v1",
                "0123456789abcdef": "***",  # perhaps the key
                "ftp://x/v1": "ftp://x/v1",
                "https://": "https://",
                "https://me:pw@x/v1": "https://***@x/v1",
                "https://x?k=1": "https://x?k=***",
                "https://x:port/v1": "https://x:port/v1",
            }.items()
        ),
    ],
)
def test_settings_that_cannot_work(server: FakeAutopilot, time: Time, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        connected(server, time, **settings)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("secret", "what"),
    [(" \n", "is empty"), ("ab\ncd", "holds characters that no key has"), ("ké", "holds characters that no key has")],
)
def test_a_key_that_cannot_be_one_is_not_repeated(secret: str, what: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        client(api("https://host/v1", api_key=secret))
    assert str(caught.value) == (f"{SETTING} {what}: set it to the key as the account shows it ({PLACES})")


def test_a_line_break_behind_the_key_is_not_part_of_it(server: FakeAutopilot, time: Time) -> None:
    with connected(server, time, api_key=f"{KEY}\n") as http:
        assert plain(http.request("GET", ["account"])) == ME


ELSEWHERE = {
    "http://api.example.com/v1": "api.example.com",
    "HTTP://10.0.0.1": "10.0.0.1",
    "http://127.0.0.1.evil.com/v1": "127.0.0.1.evil.com",
    "http://localhost.evil/v1": "localhost.evil",
    "http://evil-localhost": "evil-localhost",
    "http://2130706433": "2130706433",  # some systems read it as 127.0.0.1, others ask a name server
    "http://127.1": "127.1",
    "http://0.0.0.0": "0.0.0.0",
    "http://[::]": "::",
    "http://[2001:db8::127]:80/v1": "2001:db8::127",
    "http://[::ffff:8.8.8.8]": "::ffff:8.8.8.8",
    "http://127.0.0.1%2eevil.com": "127.0.0.1%2eevil.com",
}


@pytest.mark.parametrize(("url", "host"), ELSEWHERE.items(), ids=list(ELSEWHERE.values()))
def test_a_key_goes_over_http_to_this_machine_alone(url: str, host: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        client(api(url))
    assert str(caught.value) == (
        f"sources.autopilothq.base_url is not https: the key would go to {host} for everyone on the way to read."
        " Use https://. In a network that you trust it can be allowed: --allow-http, or"
        " sources.autopilothq.allow_http = true"
    )
    client(api(url, allow_http=True)).close()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1@evil.com", "http://localhost:80@evil.com/v1", r"http://127.0.0.1\@e"]
)
def test_no_address_is_one_of_this_machine_because_of_its_user(url: str) -> None:
    with pytest.raises(InvalidSetting, match="without user, password"):
        client(api(url, allow_http=True))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.8.7:8080", "[::1]", "[0:0:0:0:0:0:0:1]:1", "[::ffff:127.0.0.1]", "LocalHost:9"]
)
def test_this_machine_needs_no_https(host: str) -> None:
    client(api(f"http://{host}/v1")).close()


def test_a_key_for_this_machine_goes_to_no_proxy(
    server: FakeAutopilot, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    with FakeAutopilot(contacts=1) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.origin)
        with connected(server, time) as http:
            assert plain(http.request("GET", ["account"])) == ME
        assert proxy.requests == []


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
    {"content": b'{"fullName": "Made U'},  # whole for HTTP, cut off for JSON
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
    assert str(error) == "GET /account: the answer stopped for 0.15 s or took too long; gave up after 1 try"


def test_a_body_that_never_ends_times_out(server: FakeAutopilot, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "_MAX_TIMEOUTS", 2)
    server.order("GET", "/account", drip=0.1)
    error = failed(server, time, timeout=0.2, tries=1)
    assert str(error) == "GET /account: the answer stopped for 0.2 s or took too long; gave up after 1 try"


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
        # What says nothing: the growing waits.
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


# ---- final answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (
            {"status": 401, "message": "Provided autopilotapikey not valid."},
            NotAuthorized,
            f"401 Unauthorized: Provided autopilotapikey not valid. Check {SETTING} ({PLACES})",
        ),
        (
            {"status": 403, "content": b""},
            NotAuthorized,
            f"403 Forbidden. Check {SETTING} ({PLACES})",
        ),
        ({"status": 400, "message": "Bad."}, RequestRejected, "400 Bad Request: Bad."),
        ({"status": 404, "content": b""}, NotFound, "404 Not Found"),
        (
            {
                "status": 404,
                "content": {"error": {"code": "not_found", "message": "Profile was not found."}},
                "headers": {"Request-Id": "1111-2222"},
            },
            NotFound,
            "404 Not Found: not_found: Profile was not found. (Request-Id 1111-2222)",
        ),
        (
            {"status": 400, "content": {"error": {"code": "validation_error", "message": "Limit."}}},
            RequestRejected,
            "400 Bad Request: validation_error: Limit.",
        ),
        (
            {"status": 400, "content": {"error": {"code": ["bad"], "message": {"Email": [1.5, "no"]}}}},
            RequestRejected,
            '400 Bad Request: ["bad"]: {"Email":[1.5,"no"]}',
        ),
        (
            {"status": 400, "content": b'{"message":' + b"[" * 700 + b"]" * 700 + b"}"},
            RequestRejected,
            f'400 Bad Request: {{"message":{"[" * 289}…',
        ),
        ({"status": 409, "message": "x" * 999}, RequestRejected, f"409 Conflict: {'x' * 300}…"),
        ({"status": 418, "content": [1]}, RequestRejected, "418 I'm a Teapot"),
        (
            {"content": HTML, "headers": {"Content-Type": "text/html", "Request-Id": "1111-2222"}},
            UnexpectedResponse,
            "expected JSON, got text/html that begins '<!doctype html><title>Log in</title>' (Request-Id 1111-2222)",
        ),
        ({"content": b"NaN or not"}, UnexpectedResponse, "expected JSON, got no content type that begins 'NaN or not'"),
        ({"content": b"[\xff]"}, UnexpectedResponse, "expected JSON, got no content type that begins '[\ufffd]'"),
        (
            {"content": b"[" * 200_000},
            UnexpectedResponse,
            f"expected JSON, got no content type that begins '{'[' * 60}'",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_an_error_that_a_retry_cannot_fix_is_raised_at_once(
    server: FakeAutopilot, time: Time, fault: dict[str, Any], kind: type[ApiError], text: str
) -> None:
    server.order("GET", "/account", **fault)
    error = failed(server, time)
    assert (type(error), str(error)) == (kind, f"GET /account: {text}")
    assert (len(server.requests), time.naps) == (1, [])


def test_an_error_goes_between_processes(server: FakeAutopilot, time: Time) -> None:
    error = failed(server, time, path="contact/nobody@example.com")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), vars(copy)) == (NotFound, str(error), vars(error))
    assert vars(error) == {
        "method": "GET",
        "path": "/contact/nobody%40example.com",
        "status": 404,
        "server_message": "Contact could not be found.",
        "attempts": 1,
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_a_body_that_is_too_big_is_not_kept(
    server: FakeAutopilot, time: Time, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    monkeypatch.setattr(response, "MAX_BODY", 1024 * 1024)
    body = b" " * 8 * 1024 * 1024
    if compressed:
        server.order("GET", "/account", content=gzip.compress(body), headers={"Content-Encoding": "gzip"})
    else:
        server.order("GET", "/account", content=body, headers={"Content-Encoding": "identity"})
    error = failed(server, time)
    assert (type(error), str(error)) == (UnexpectedResponse, "GET /account: the answer is bigger than 1 MB")


def test_redirects_are_not_followed(server: FakeAutopilot, time: Time) -> None:
    with FakeAutopilot(contacts=1) as other:
        server.order("GET", "/account", status=302, headers={"Location": f"{other.base_url}/account?key=1"})
        error = failed(server, time)
        assert other.requests == []
    assert type(error) is UnexpectedResponse
    assert str(error) == (
        f"GET /account: 302 Found to {other.origin}; redirects are not followed, so that the key goes nowhere else."
        f" Check sources.autopilothq.base_url ({server.base_url})"
    )


# ---- secrets -------------------------------------------------------------------------------------------------------

ECHOES: list[dict[str, Any]] = [
    {"status": 401, "message": f"{KEY} is not valid"},
    {"status": 400, "message": f"got {KEY}"},
    {"status": 500, "message": f"got {KEY}"},
    {"status": 429, "message": f"got {KEY}", "retry_after": 9999},
    {"content": f"<html>{KEY}</html>".encode()},
    {"status": 400, "content": f"<html>{KEY}</html>".encode()},
    {"drop": "before"},
    {"cut": 3},
    {"status": 302, "headers": {"Location": "https://example.com/"}},
]


@pytest.mark.parametrize("fault", ECHOES, ids=range(len(ECHOES)))
@pytest.mark.parametrize("scheme", ["header", "basic"])
def test_the_secret_is_in_no_error_log_or_repr(
    server: FakeAutopilot, time: Time, caplog: pytest.LogCaptureFixture, fault: dict[str, Any], scheme: str
) -> None:
    caplog.set_level(logging.DEBUG)
    basic = scheme == "basic"
    server.order("*", "*", times=99, **fault)
    error = failed(server, time, basic=basic)
    with connected(server, time, basic=basic) as http:
        texts = [repr(http), repr(api(server.base_url)), repr(error), str(error), repr(vars(error)), caplog.text]
    texts += traceback.format_exception(error)
    sent = server.requests[0].headers
    assert KEY in sent.get("autopilotapikey", KEY)
    for secret in (KEY, sent.get("authorization", KEY).removeprefix("Basic ")):
        assert not [text for text in texts if secret in text]
        assert not any(secret in request.path for request in server.requests)
    held: BaseException | None = error
    while held:  # httpx's errors hold the request, and it holds the headers
        assert not isinstance(held, httpx.HTTPError)
        held = held.__cause__ or held.__context__


def test_tries_are_logged(server: FakeAutopilot, time: Time, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "autopilothq")
    server.order("GET", "/account", status=503)
    with connected(server, time) as http:
        http.request("GET", ["account"])
    (line,) = [record.getMessage() for record in caplog.records if record.name == "autopilothq.clients.http"]
    assert line == f"GET /account: 503 Service Unavailable: Ordered 503.; try 2 of 3 in {time.naps[0]:.1f} s"


# ---- pace ----------------------------------------------------------------------------------------------------------


def most_in_a_second(times: list[float]) -> int:
    return max(sum(1 for other in times if start <= other < start + 1) for start in times)


@timed
def test_one_budget_for_all_threads_and_clients_of_a_key() -> None:
    with FakeAutopilot(contacts=1) as server, ThreadPoolExecutor(16) as pool:
        clients = [client(api(server.base_url + end, requests_per_second=50)) for end in ("", "/")]
        list(pool.map(lambda number: clients[number % 2].request("GET", ["account"]), range(125)))
        for one in clients:
            one.close()
        times = sorted(request.at for request in server.requests)
    assert most_in_a_second(times) <= 50
    assert 2 <= times[-1] - times[0] < 5  # 125 at 50/s: 50 at once, and 50 a second later, and the rest


@timed
def test_a_slow_server_does_not_cost_pace() -> None:
    with FakeAutopilot(contacts=1, latency=0.1) as server, ThreadPoolExecutor(20) as pool:
        with client(api(server.base_url, requests_per_second=50)) as http:
            list(pool.map(lambda _: http.request("GET", ["account"]), range(125)))
        times = sorted(request.at for request in server.requests)
    assert most_in_a_second(times) <= 50
    assert times[-1] - times[0] < 8  # 2 s on an idle machine; one after the other 12.5 s


def test_other_keys_and_servers_have_budgets_of_their_own() -> None:
    paces = {pace_of(origin, key) for origin in "ab" for key in "cd"}
    assert len(paces) == 4


def test_places_are_free_a_second_after_they_were_used(time: Time) -> None:
    pace = Pace(time.clock, time.sleep)
    gone = []
    for _ in range(11):
        place = pace.wait(5)
        place.trace("http11.send_request_headers.started", {})
        place.answered()
        place.done()
        gone.append(round(time.now - 100, 3))
    assert gone == [0] * 5 + [1.005] * 5 + [2.01]


@pytest.mark.parametrize(("rate", "gone"), [(2.5, [0, 0, 1.005, 1.005]), (0.5, [0, 2.005, 4.01, 6.015])])
def test_rates_that_are_not_whole(time: Time, rate: float, gone: list[float]) -> None:
    pace = Pace(time.clock, time.sleep)
    times = []
    for _ in range(4):
        pace.wait(rate).done()
        times.append(round(time.now - 100, 3))
    assert times == gone


def test_the_slower_of_two_clients_counts_the_others_requests(time: Time) -> None:
    pace = Pace(time.clock, time.sleep)
    for _ in range(5):
        pace.wait(20).done()
    pace.wait(5).done()
    assert time.now == pytest.approx(101.005)


def test_a_request_that_waits_for_its_connection_counts_from_when_it_went_out() -> None:
    pace = Pace()
    place = pace.wait(1)
    connecting = threading.Timer(0.2, place.trace, ["http11.send_request_headers.started", {}])
    started = pace.now()
    connecting.start()
    pace.wait(1)
    assert pace.now() - started > 1.2
    connecting.join()


def test_a_slower_answer_may_mean_that_the_request_arrived_late(time: Time) -> None:
    pace = Pace(time.clock, time.sleep)
    gone = []
    for latency in (0.1, 0.13, 0.9, 0.1):
        place = pace.wait(1)
        place.trace("http11.send_request_headers.started", {})
        gone.append(round(time.now - 100, 3))
        time.now += latency
        place.answered()
        place.done()
    assert gone == [0, 1.005, 2.04, 3.095]
