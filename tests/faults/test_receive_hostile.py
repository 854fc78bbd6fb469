"""Under hostile senders the receiver stays up, its memory is limited, and it writes only into its folder."""

import asyncio
import gc
import json
import resource
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any
from urllib.parse import urlsplit

import pytest
from isal import igzip

from autopilothq.receive import settings
from autopilothq.receive.app import App, inflate_body
from autopilothq.receive.settings import Guard, ReceiveSettings
from receiving import Receiver, published, receiver
from shared_loads import isolation

SMUGGLED = (
    b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    b"POST /v1/track HTTP/1.1\r\nhost: x\r\n\r\n"
)
QUICK = """
from autopilothq.receive import app, server
server.BODY_TIME = server.HEADER_TIME = 1.0
app.IDLE_REST = 0.2
"""
TRACK = {"type": "track", "event": "Email Opened", "userId": "1"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver that waits one second for headers and bodies."""
    with isolation(tmp_path_factory.mktemp("hostile")), receiver(before=QUICK, anew=True) as one:
        yield one


def connect(running: Receiver) -> socket.socket:
    """Opens a connection without sending anything."""
    url = urlsplit(running.url)
    return socket.create_connection((url.hostname or "", url.port or 0), timeout=10)


def answers(running: Receiver, sent: bytes) -> bytes:
    """Sends some bytes; returns all that the receiver answers until it closes the connection."""
    with connect(running) as connection:
        connection.sendall(sent)
        found = b""
        try:
            while piece := connection.recv(65536):
                found += piece
        except ConnectionResetError:
            pass
        return found


def still_works(running: Receiver) -> None:
    """Checks that the receiver takes messages and that its memory is below 300 MB."""
    assert running.post("/v1/track", TRACK).status_code == 200
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    assert int(status.partition("VmRSS:")[2].split()[0]) < 300_000  # KB


HALF = [
    b"POST /v1/track HT",
    b"POST /v1/track HTTP/1.1\r\nhost: x\r\nx: y",
    b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{",
    b"POST /v1/track HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    b"",
]


def test_incomplete_requests_time_out(running: Receiver) -> None:
    with ThreadPoolExecutor(len(HALF)) as pool:  # at once, because each takes as long as a request may
        found = dict(zip(HALF, pool.map(partial(answers, running), HALF), strict=True))
    told = {sent: (answer[:28], answer.count(b"HTTP/1.1")) for sent, answer in found.items()}
    assert told == dict.fromkeys(HALF, (b"HTTP/1.1 408 Request Timeout", 1))
    still_works(running)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"431 Request Header Fields Too Large"),
        (b"GET /" + b"a" * 100_000, b"431 Request Header Fields Too Large"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400 Bad Request"),
        (b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n", b"400 Bad Request"),
        (b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", b"400 Bad Request"),
        (SMUGGLED, b"400 Bad Request"),
        (b"POST /v1/track HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400 Bad Request"),
        (b"POST /v1/track HTTP/1.1\r\nhost: x\r\nna me: x\r\n\r\n", b"400 Bad Request"),
        (
            b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n{",
            b"413 Request Entity Too Large",
        ),
    ],
)  # fmt: skip
def test_malformed_requests_get_one_error_each(running: Receiver, sent: bytes, status: bytes) -> None:
    found = answers(running, sent)
    assert found.startswith(b"HTTP/1.1 " + status), found
    assert found.count(b"HTTP/1.1") == 1
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    assert list(json.loads(body)) == ["code", "message"]
    still_works(running)


def test_a_connection_that_ends_in_a_body_leaves_nothing(running: Receiver) -> None:
    before = len(list(Path(running.folder).rglob("*")))
    for _ in range(20):
        with connect(running) as connection:
            connection.sendall(b"POST /hook/segment/cut HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{}")
    still_works(running)
    assert len(list(Path(running.folder).rglob("*cut*"))) == 0
    assert len(list(Path(running.folder).rglob("*"))) <= before + 5


def test_gzip_bombs_are_refused(running: Receiver) -> None:
    bomb = igzip.compress(b" " * (1 << 29), 2)  # half a GiB in half a MB
    for _ in range(10):
        answer = running.post("/v1/batch", bomb, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 413
    still_works(running)


def test_envelopes_that_each_of_many_messages_would_repeat(running: Receiver) -> None:
    batch = {"context": {"a": "x" * 400_000}, "batch": [{}] * 2000}  # would make lines of 800 MB
    steps = {"journey": {"name": "x" * 400_000}, "records": [{}] * 2000}
    for path, body in (("/v1/batch", batch), ("/hook/autopilot/cut", steps)):
        answer = running.post(path, body)
        assert (answer.status_code, answer.json()) == (
            413,
            {
                "code": "too_large",
                "message": "Expected a body whose lines in the archive have at most 67,108,864 bytes more than the"
                " body itself.",
            },
        )
    still_works(running)


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/track", {b"x-write-key": b"key"}, b'{"cut": ', 400),
        ("/v1/track", {}, b"{} more", 401),
        ("/v1/track", {b"x-write-key": b"key"}, b"\x1f\x8bcut", 400),
        ("/hook/autopilot/shop", {}, b"\x1f\x8bcut", 401),
        ("/hook/ortto/shop", {b"content-encoding": b"br"}, b"cut", 401),
    ],
)
def test_a_refused_body_is_no_longer_in_memory(
    path: str, headers: dict[bytes, bytes], body: bytes, status: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(settings, "guard", lambda *_: Guard(write_keys=(b"key",)))
    app, answers = App(ReceiveSettings(str(tmp_path))), list[int]()
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [*headers.items()]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        answers.extend([message["status"]] if "status" in message else [])

    before = sys.getrefcount(body)
    gc.disable()  # it runs too seldom to rely on
    try:
        asyncio.run(app(scope, receive, send))
        assert (sys.getrefcount(body), answers) == (before, [status])
    finally:
        gc.enable()


def test_a_body_of_a_hundred_thousand_gzip_members_takes_less_than_a_second() -> None:
    began = process_time()
    body = igzip.compress(b"[") + igzip.compress(b"") * 100_000 + b"\0" * 9 + igzip.compress(b"]")
    assert inflate_body(body, {}, 2) == b"[]"
    assert process_time() - began < 1


@pytest.mark.parametrize("depth", [1_000, 100_000, 1_000_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_json(running: Receiver, depth: int, opening: bytes, closing: bytes) -> None:
    deep = opening * min(depth, 600_000) + b"1" + closing * min(depth, 600_000)
    for body in (deep, b'{"type":"track","properties":' + deep + b"}"):
        assert running.post("/v1/track", body).status_code in (200, 400, 413)
    still_works(running)


def test_very_many_tiny_messages_in_one_body(running: Receiver) -> None:
    assert running.post("/v1/batch", b'{"batch":[' + b"{}," * 200_000 + b"{}]}").status_code == 200
    still_works(running)


def test_a_thousand_connections_that_say_nothing(running: Receiver) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        silent = [connect(running) for _ in range(1000)]
        still_works(running)
        time.sleep(1.5)
        still_works(running)
        assert silent[0].recv(100).startswith(b"HTTP/1.1 408")
        for one in silent:
            one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    "path",
    [
        "/hook/segment/../../etc", "/hook/segment/..%2f..%2fetc", "/hook/segment/%2e%2e", "//v1/track",
        "/v1/../v1/track", "/hook/segment/a%00b", "/hook/segment/a\\b", "/hook/segment/%c3%28",
        "/hook/segment/.hidden", "/v1/track/../../x",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(running: Receiver, path: str) -> None:
    sent = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}".encode()
    assert answers(running, sent).startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))
    still_works(running)
    top = {str(path.relative_to(running.folder)).split("/")[0] for path in Path(running.folder).rglob("*")}
    assert top == {"segment-logs"}
    assert {path.name for path in Path(running.folder, "segment-logs").iterdir()} <= {"v1", "segment-cut"}


def test_text_from_outside_is_never_interpreted(running: Receiver) -> None:
    evil = {**TRACK, "messageId": "evil", "event": "\u001b[2J\n\r\u0000", "userId": "';--"}
    assert running.post("/v1/batch", {"batch": [evil]}).status_code == 200
    said = running.stop()
    assert "\u001b" not in said
    [kept] = [one for one in published(running.folder) if isinstance(one, dict) and one.get("messageId") == "evil"]
    assert {key: kept[key] for key in evil} == json.loads(json.dumps(evil))
