import gzip
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from autopilothq.clients import response
from autopilothq.clients.decode import plain
from autopilothq.clients.urls import escape, path_of
from autopilothq.errors import (
    ApiError,
    InvalidSetting,
    NotAuthorized,
    NotFound,
    RequestRejected,
    UnexpectedResponse,
)
from fake_autopilot import FakeAutopilot
from fake_autopilot.server import KEY
from requesting import ME, SETTING, Time, api, client, connected, failed

HTML = b"<!doctype html><title>Log in</title>"
LIKE = "https://host/path, without user, password, query or fragment"
PLACES = "in .dlt/secrets.toml, or SOURCES__AUTOPILOTHQ__API_KEY in the environment"


@pytest.fixture
def server() -> Iterator[FakeAutopilot]:
    with FakeAutopilot(contacts=3) as server:
        yield server


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
                "0123456789abcdef": "***",  # it might be the key
                "ftp://x/v1": "ftp://x/v1",
                "https://": "https://",
                "https://me:pw@x/v1": "https://***@x/v1",
                "https://x?k=1": "https://x?k=***",
                "https://x/v1#a": "https://x/v1#***",
                "https://x:port/v1": "https://x:port/v1",
            }.items()
        ),
    ],
)
def test_settings_that_cannot_work(server: FakeAutopilot, time: Time, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        connected(server, time, **settings)
    assert str(caught.value) == text


def test_only_a_timeout_has_an_upper_bound(server: FakeAutopilot, time: Time) -> None:
    with connected(server, time, requests_per_second=2_000_000, timeout=1_000_000) as http:
        assert plain(http.request("GET", ["account"])) == ME


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        (" \n", "is empty"),
        ("ab\ncd", "contains characters that are not allowed in a key"),
        ("ké", "contains characters that are not allowed in a key"),
    ],
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
    "http://2130706433": "2130706433",  # some systems take it for 127.0.0.1, others ask a name server
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
        ({"status": 400, "content": {"request_id": "r1"}}, RequestRejected, "400 Bad Request"),
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
    while held:  # httpx's errors hold the request with its headers
        assert not isinstance(held, httpx.HTTPError)
        held = held.__cause__ or held.__context__


def test_tries_are_logged(server: FakeAutopilot, time: Time, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "autopilothq")
    server.order("GET", "/account", status=503)
    with connected(server, time) as http:
        http.request("GET", ["account"])
    (line,) = [record.getMessage() for record in caplog.records if record.name == "autopilothq.clients.http"]
    assert line == f"GET /account: 503 Service Unavailable: Ordered 503.; try 2 of 3 in {time.naps[0]:.1f} s"
