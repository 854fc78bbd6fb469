"""The receiver as senders, monitors and the loader see it."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import re
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import httpx
import pytest
from dlt.common.runtime.run_context import active
from fsspec.registry import known_implementations
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from autopilothq.extras import install
from autopilothq.receive import app, files, metrics, settings
from autopilothq.receive.room import Room
from calling import Call, errors
from contract.duck import query
from receiving import Receiver, hidden, published, receiver
from shared_loads import isolation
from waiting import wait_for

SETTINGS = {
    "RECEIVE__V1__WRITE_KEYS": '["key one", "key-2"]',
    "RECEIVE__SEGMENT__SIGNED__SIGNATURE": '["abc123", "older"]',
    "RECEIVE__SEGMENT__BOTH__SIGNATURE": "abc123",
    "RECEIVE__SEGMENT__BOTH__HEADER": "X-Secret: s3cret",
    "RECEIVE__RUDDER__BASIC__BASIC": "ada:pässword",
    "RECEIVE__MAX_BODY_MB": "0.5",
}
TRACK = {"type": "track", "event": "Email Opened", "userId": "1", "messageId": "m1"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver with settings, which several tests share."""
    with isolation(tmp_path_factory.mktemp("secured")), receiver(env=SETTINGS) as running:
        yield running


def test_what_is_acknowledged_is_loaded(call: Call) -> None:
    with receiver() as running:
        answer = running.post("/v1/track", {"event": "Email Opened", "userId": "1", "messageId": "m1", "writeKey": "k"})
        assert (answer.status_code, answer.content) == (200, b'{"success": true}')
        assert answer.headers["content-type"] == "application/json"
        batch = [{**TRACK, "messageId": f"m{number}"} for number in range(2, 5)]
        assert running.post("/v1/batch", {"batch": batch, "writeKey": "k"}).status_code == 200
        assert running.post("/hook/segment/shop", TRACK).status_code == 200
        assert running.post("/hook/rudder/shop", b"5").status_code == 200
        assert running.stop() == ""
    assert running.process.returncode == 0
    assert {path.parent.parent.name for path in files.published_files(running.folder)} == {
        "v1",
        "segment-shop",
        "rudder-shop",
    }
    assert hidden(running.folder) == []
    said = call("load", "archive", "archive")
    assert said.status == 0
    assert query("SELECT id, user_id FROM autopilothq.email_opened ORDER BY id") == [
        (f"m{n}", "1") for n in range(1, 5)
    ]
    assert query("SELECT reason, raw FROM autopilothq._rejects") == [("not_an_object", "5")]


def _basic(text: str, kind: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{kind} {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/track", {}, TRACK, 401),
        ("/v1/track", _basic("key one:"), TRACK, 200),
        ("/v1/track", _basic("key one", "basic"), TRACK, 200),
        ("/v1/track", _basic("key:"), TRACK, 401),
        ("/v1/track", {"Authorization": "Basic ???"}, TRACK, 401),
        ("/v1/track", {}, {**TRACK, "writeKey": "key-2"}, 200),
        ("/v1/track", {}, {**TRACK, "writeKey": ["key-2"]}, 401),
        ("/v1/track", {}, {**TRACK, "writeKey": ""}, 401),
        ("/v1/batch", {}, {"batch": [TRACK], "writeKey": "key-2"}, 200),
        ("/v1/batch", {}, {"batch": [{**TRACK, "writeKey": "key-2"}]}, 401),
        ("/v1/page", {"X-Write-Key": "key-2:other"}, TRACK, 200),
        ("/v1/m", {}, {}, 401),
        ("/hook/rudder/basic", _basic("ada:pässword"), TRACK, 200),
        ("/hook/rudder/basic", _basic("ada:"), TRACK, 401),
        ("/hook/segment/open", {}, TRACK, 200),  # without settings, but only this machine can send
    ],
)  # fmt: skip
def test_who_may_send(secured: Receiver, path: str, headers: dict[str, str], body: Any, status: int) -> None:
    answer = secured.post(path, body, headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {
            "code": "unauthorized",
            "message": "The request lacks a secret of this endpoint, or has a wrong one.",
        }


def _sign(data: bytes, secret: bytes = b"abc123") -> dict[str, str]:
    return {"X-Signature": hmac.new(secret, data, hashlib.sha1).hexdigest()}


ARRAY = '[ {"type":"track","userId":"é","n":1.10} , {"type":"track"}]'.encode()


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"X-Signature": "5093f67681863d94e7c21df243477c5cfd5d361d"}, '{"type":"track","userId":"é"}'.encode(), 200),
        ({"X-Signature": "5093F67681863D94E7C21DF243477C5CFD5D361D"}, '{"type":"track","userId":"é"}'.encode(), 200),
        ({"X-Signature": "5093f67681863d94e7c21df243477c5cfd5d361d"}, '{"type":"track","userId": "é"}'.encode(), 401),
        (_sign(b"{}", b"older"), b"{}", 200),
        (_sign(b"{}", b"oldest"), b"{}", 401),
        (_sign(ARRAY), ARRAY, 200),
        (_sign('{"type":"track","userId":"é","n":1.10}'.encode()), ARRAY, 200),
        (_sign(b'{"type":"track"}'), ARRAY, 401),
        (_sign(b""), b"[]", 401),
        (_sign(b"[]"), b"[]", 200),
        ({}, b"{}", 401),
        (_sign(b"no json"), b"no json", 400),
        ({}, b"no json", 401),
    ],
)
def test_segments_signature(secured: Receiver, headers: dict[str, str], body: bytes, status: int) -> None:
    assert secured.post("/hook/segment/signed", body, headers=headers).status_code == status


def test_a_signature_and_a_header(secured: Receiver) -> None:
    signed, secret = _sign(b"{}"), {"X-SECRET": "s3cret"}
    statuses = [
        secured.post("/hook/segment/both", b"{}", headers=headers).status_code
        for headers in (signed, secret, {**signed, "X-Secret": "s3cre"}, {**signed, **secret})
    ]
    assert statuses == [401, 401, 401, 200]


@pytest.mark.parametrize(
    ("method", "path", "status", "answer"),
    [
        ("GET", "/healthz", 200, {"success": True}),
        ("GET", "/readyz", 200, {"success": True}),
        ("GET", "/", 404, {"code": "not_found", "message": "There is no such path."}),
        ("POST", "/v1/other", 404, {"code": "not_found", "message": "There is no such path."}),
        ("POST", "/hook/segment/..%2Fx", 404, {"code": "not_found", "message": "There is no such path."}),
        ("POST", "/hook/segment/%2e%2e", 404, {"code": "not_found", "message": "There is no such path."}),
        ("GET", "/v1/track", 405, {"code": "method_not_allowed", "message": "Expected POST."}),
        ("DELETE", "/hook/rudder/x", 405, {"code": "method_not_allowed", "message": "Expected POST."}),
    ],
)
def test_paths_and_methods(secured: Receiver, method: str, path: str, status: int, answer: Any) -> None:
    found = secured.http.request(method, secured.url + path)
    assert (found.status_code, found.json()) == (status, answer)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_any_method_with_a_body_and_any_content_type(secured: Receiver, method: str, kind: str) -> None:
    sent = secured.http.request(
        method, secured.url + "/hook/segment/open", content=b"{}", headers={"content-type": kind}
    )
    assert sent.status_code == 200


def test_browsers_of_other_origins(secured: Receiver) -> None:
    asked = secured.http.options(secured.url + "/v1/t", headers={"Origin": "https://shop.example"})
    assert (asked.status_code, asked.content) == (200, b"")
    sent = secured.post("/v1/t", {**TRACK, "writeKey": "key-2"}, headers={"Origin": "https://shop.example"})
    for answer in (asked, sent):
        assert {name: value for name, value in answer.headers.items() if name.startswith(("access", "vary"))} == {
            "access-control-allow-origin": "https://shop.example",
            "access-control-allow-methods": "POST, OPTIONS",
            "access-control-allow-headers": "content-type, authorization",
            "access-control-max-age": "86400",
            "vary": "Origin",
        }


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (_gzip(b"{}"), {"Content-Encoding": "gzip"}, 200, None),
        (_gzip(b"{}"), {}, 200, None),
        (_gzip(b"{") + _gzip(b"}"), {"Content-Encoding": "GZIP"}, 200, None),
        (b"{}", {"Content-Encoding": "gzip"}, 200, None),
        (_gzip(b"{}")[:-4], {"Content-Encoding": "gzip"}, 400, "invalid_gzip"),
        (b"\x1f\x8b{}", {"Content-Encoding": "gzip"}, 400, "invalid_gzip"),
        (zlib.compress(b"{}"), {"Content-Encoding": "deflate"}, 415, "unsupported_encoding"),
        (b"{", {}, 400, "invalid_json"),
        (b"", {}, 400, "invalid_json"),
        (b'"' + b"a" * 600_000 + b'"', {}, 413, "too_large"),
        (_gzip(b'"' + b"a" * 600_000 + b'"'), {"Content-Encoding": "gzip"}, 413, "too_large"),
        (_gzip(b"a" * 300_000) + _gzip(b"a" * 300_000), {"Content-Encoding": "gzip"}, 413, "too_large"),
    ],
)
def test_bodies(secured: Receiver, body: bytes, headers: dict[str, str], status: int, code: str | None) -> None:
    answer = secured.post("/hook/segment/open", body, headers=headers)
    assert answer.status_code == status
    assert answer.json().get("code") == code


def test_a_body_in_chunks(secured: Receiver) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"type":'
        yield b'"track"}'

    assert secured.http.post(secured.url + "/hook/segment/open", content=pieces()).status_code == 200

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    try:
        answer = secured.http.post(secured.url + "/hook/segment/open", content=endless())
    except (httpx.WriteError, httpx.ReadError):
        return  # the receiver closed the connection before everything was sent
    assert answer.status_code == 413


@pytest.mark.parametrize("framing", [b"content-length: 20000000", b"transfer-encoding: chunked"])
def test_a_sender_that_reads_nothing_before_its_body_is_sent_sees_that_it_is_too_large(
    secured: Receiver, framing: bytes
) -> None:
    url = urlsplit(secured.url)
    head = b"POST /hook/segment/open HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n"
    body = b" " * 20_000_000
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(head + (body if b"length" in framing else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 Request Entity Too Large\r\n")


@pytest.mark.parametrize(("requests", "begun", "answers"), [(1, b"", 1), (3, b"", 3), (1, b"POST", 1), (1, b"{", 0)])
def test_a_sender_that_closes_its_half_gets_the_answers_to_whole_requests(
    secured: Receiver, requests: int, begun: bytes, answers: int
) -> None:
    url = urlsplit(secured.url)
    size = 2 + (begun == b"{")
    request = b"POST /hook/segment/open HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n{}" % size
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(request * requests + begun.replace(b"{", b""))
        connection.shutdown(socket.SHUT_WR)
        found = b"".join(iter(lambda: connection.recv(1000), b""))
    assert found.count(b"HTTP/1.1 200 OK\r\n") == answers


def test_a_body_that_is_too_large_leaves_its_room_to_others_while_its_rest_comes() -> None:
    room, taken = Room(100), list[int]()
    pieces = iter([(b"x" * 60, True), (b"x" * 60, True), (b"x", False)])

    async def receive() -> app.AsgiMessage:
        taken.append(room.taken)
        body, more = next(pieces)
        return {"type": "http.request", "body": body, "more_body": more}

    with pytest.raises(app.Refused, match="at most 100 bytes"):
        asyncio.run(app._body({}, receive, 100, room))
    assert (taken, room.taken) == ([0, 60, 0], 0)


def test_a_sender_that_is_gone_before_its_body_comes_leaves_no_empty_one() -> None:
    async def receive() -> app.AsgiMessage:
        return {"type": "http.disconnect"}

    with pytest.raises(app.Refused, match="The body ended early") as refused:
        asyncio.run(app._body({}, receive, 100, Room(100)))
    assert refused.value.answer.status == 408


def test_a_request_that_is_larger_than_all_room_waits_only_for_others() -> None:
    async def taken() -> int:
        room = Room(100)
        await room.take(150, "full")
        return room.taken

    assert asyncio.run(taken()) == 150


def test_other_machines_need_settings(call: Call) -> None:
    said = call("receive", "archive", "--listen", "0.0.0.0:0")
    assert said.status == 1
    assert said.err == (
        "Error: Expected settings that say who may send, as other machines can reach 0.0.0.0, but there are none.\n"
        'Set for instance receive.v1.write_keys, or [receive.segment.NAME] signature = "…".\n'
    )
    assert not Path("archive").exists()


def test_a_bucket_without_a_scheme_is_no_folder_that_files_are_moved_to(call: Call) -> None:
    for url in ("my-bucket/events", "s3:/my-bucket/events"):
        said = call("receive", "archive", "--upload", url)
        expected = f"Error: Expected a bucket's URL, such as s3://bucket/prefix, but got {url}."
        assert (said.status, errors(said)) == (1, [expected])


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("gcs", "gcs"), ("az", "az"), ("abfss", "az")])
def test_a_bucket_whose_package_is_missing_names_the_extra(
    call: Call, scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(known_implementations, scheme, {"class": "nosuch.Store", "err": "Get nosuch"})
    said = call("receive", "archive", "--upload", f"{scheme}://bucket")
    missing = f"Error: {scheme}://bucket needs a package that is missing: nosuch"
    assert (said.status, errors(said)) == (1, [missing, f"Install it: {install(extra)}"])


def test_other_machines_reach_endpoints_with_settings_alone() -> None:
    with receiver(env={"RECEIVE__V1__WRITE_KEYS": "k"}, listen="0.0.0.0:0") as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        post = httpx.post(url + "/v1/track", json={**TRACK, "writeKey": "k"})
        other = httpx.post(url + "/hook/segment/shop", json=TRACK)
        running.stop()
    assert post.status_code == 200
    assert (other.status_code, other.json()) == (404, {"code": "not_found", "message": "There is no such endpoint."})


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_what_a_proxy_passes_on_needs_settings_too(secured: Receiver, name: str) -> None:
    found = [
        secured.post(path, {**TRACK, "writeKey": "key-2"}, headers={name: "192.0.2.1"})
        for path in ("/hook/segment/open", "/hook/segment/open", "/v1/track")
    ]
    assert [one.status_code for one in found] == [404, 404, 200]
    assert found[0].json() == {"code": "not_found", "message": "There is no such endpoint."}
    assert secured.post("/hook/segment/open", TRACK).status_code == 200  # from this machine


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "RECEIVE__SEGMENT__SHOP__HEADER",
            "s3cret",
            "receive.segment.shop.header to be like 'NAME: VALUE', but it has",
        ),
        (
            "RECEIVE__SEGMENT__SHOP__HEADER",
            "X-Secret: ",
            "receive.segment.shop.header to be like 'NAME: VALUE', but its name or its value is blank.",
        ),
        (
            "RECEIVE__SEGMENT__SHOP__HEADER",
            ": s3cret",
            "receive.segment.shop.header to be like 'NAME: VALUE', but its name or its value is blank.",
        ),
        ("RECEIVE__RUDDER__SHOP__BASIC", "s3cret", "receive.rudder.shop.basic to be like 'user:password', but it has"),
        ("RECEIVE__V1__WRITE_KEYS", "[5]", "a text, or a list of texts, as receive.v1.write_keys, but got int."),
        ("RECEIVE__V1__WRITE_KEYS", '[""]', "a text, or a list of texts, as receive.v1.write_keys, but got an empty"),
    ],
)
def test_wrong_settings_of_an_endpoint_are_found_at_the_start(
    call: Call, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    said = call("receive", "archive")
    assert said.status == 1
    assert f"Expected {message}" in said.err
    assert "s3cret" not in said.err
    assert not Path("archive").exists()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("RECEIVE__V1__WRITE_KEY", "v1.write_key: did you mean write_keys?"),
        ("RECEIVE__SEGMENT__SHOP__SIGNATURES", "segment.shop.signatures: did you mean signature?"),
        ("RECEIVE__SEGMENT__SIGNATURE", "segment.signature: did you mean NAME.signature?"),
        ("RECEIVE__ORTTO__SHOP__PERSONNAL", "ortto.shop.personnal: did you mean personal?"),
        ("RECEIVE__SEGMNT__SHOP__BASIC", "segmnt: did you mean segment?"),
        ("RECEIVE__MAX_BODY", "max_body: did you mean max_body_mb?"),
    ],
)
def test_a_misspelt_setting_is_found_at_the_start(
    call: Call, monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.setenv(variable, "s3cret")
    said = call("receive", "archive")
    assert (said.status, said.err) == (1, f"Error: dlt's configuration has no setting receive.{message}\n")
    assert not Path("archive").exists()


def test_a_misspelt_setting_of_a_file_is_found_too(call: Call) -> None:
    Path(".dlt").mkdir()
    Path(".dlt/secrets.toml").write_text(
        '[receive.v1]\nwrite_keys = "1"\n[receive.ortto.shop]\nnames = {"act:cm:x" = "X"}\n'
        '[receive.rudder.Shop]\nbasik = "u:p"\n'
    )
    active().reload()
    said = call("receive", "archive")
    message = "dlt's configuration has no setting receive.rudder.Shop.basik: did you mean basic?"
    assert (said.status, said.err) == (1, f"Error: {message}\n")


FAILING = """
from autopilothq.receive import auth
def is_allowed(*given): raise RuntimeError('odd')
auth.is_allowed = is_allowed
"""


def test_a_fault_of_the_receiver_itself_is_tried_again_by_senders() -> None:
    with receiver(env={"RECEIVE__V1__WRITE_KEYS": "k"}, before=FAILING) as running:
        answer = running.post("/v1/track", TRACK)
        said = running.stop()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json() == {"code": "unavailable", "message": "The receiver failed."}
    assert said == "Warning: A request failed; its sender is asked to try again: RuntimeError: odd\n"


def test_refused_senders_are_told_loudly_and_without_a_secret() -> None:
    with receiver(env={"RECEIVE__SEGMENT__SHOP__SIGNATURE": "the-secret"}) as running:
        for _ in range(5):
            running.post("/hook/segment/shop", TRACK, headers={"X-Signature": "another-secret"})
        nobodys = running.post("/hook/segment/shop2", TRACK, headers={"X-Forwarded-For": "10.0.0.1"})
        assert nobodys.status_code == 404  # without a warning, because it is the sender's mistake
        running.post("/v1/track", {"type": "delete"})
        running.post("/v1/batch", {"batch": [{"type": "delete", "userId": "1"}]})
        said = running.stop()
    assert said == (
        "Warning: 401 for segment-shop: what was sent is lost, because senders do not retry after this status. Compare"
        " the secrets of the sender and of [receive.segment.shop]\n"
        "Warning: v1 asks to delete a person; the message is kept, and nothing is deleted. To do so: autopilothq"
        " forget\n"
    )


def test_files_are_published_by_size_and_by_time() -> None:
    with receiver("archive", "--rotate", "1s", "--rotate", "1MB") as running:
        running.post("/v1/track", {**TRACK, "messageId": "small"})
        wait_for(lambda: len(list(files.published_files(running.folder))) == 1, 20)
    with receiver("other", "--rotate", "1h", "--rotate", "1KB") as running:
        running.post("/v1/track", {**TRACK, "messageId": "large", "properties": {"text": "x" * 2000}})
        wait_for(lambda: len(list(files.published_files(running.folder))) == 1, 20)
        running.post("/v1/track", {**TRACK, "messageId": "small"})
        time.sleep(1)
        assert [one["messageId"] for one in published(running.folder)] == ["large"]
        assert len(hidden(running.folder)) == 1


def test_metrics() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("--metrics", f"127.0.0.1:{port}", "--workers", "2")
    with receiver("archive", *words, env={"RECEIVE__RUDDER__SHOP__HEADER": "X-Secret: s"}, anew=True) as running:
        assert httpx.get(f"{running.url}/healthz", timeout=60).status_code == 200
        idle = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        for _ in range(20):
            sent = httpx.post(running.url + "/v1/batch", json={"batch": [TRACK, TRACK]}, timeout=60)
            assert sent.status_code == 200
            assert (
                httpx.post(running.url + "/hook/rudder/made-up", json={}, headers={"Via": "1.1 x"}).status_code == 404
            )
        url = urlsplit(running.url)
        with socket.create_connection((url.hostname, url.port)) as broken_off:
            broken_off.sendall(b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        time.sleep(1.5)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert httpx.get(f"{running.url}/metrics").status_code == 404
        running.stop()
    assert 'autopilothq_receive_requests_total{endpoint="v1",status="200"} 20.0' in text
    assert 'autopilothq_receive_messages_total{endpoint="v1"} 40.0' in text
    assert 'autopilothq_receive_requests_total{endpoint="v1",status="408"} 1.0' in text
    assert 'endpoint="v1",status="400"' not in text  # an interrupted request is not a bad one
    assert 'autopilothq_receive_requests_total{endpoint="other",status="404"} 20.0' in text
    assert "made-up" not in text
    assert "\nautopilothq_receive_oldest_unpublished_seconds 0.0\n" in idle
    begun = re.findall(r"^autopilothq_receive_(\w+){endpoint=\"rudder-shop\"} 0.0$", idle, re.MULTILINE)
    assert sorted(begun) == ["deletions_total", "messages_total", "unauthorized_total"]
    [age] = re.findall(r"^autopilothq_receive_oldest_unpublished_seconds (.+)$", text, re.MULTILINE)
    assert 0 < float(age) < 60
    assert len(published(running.folder)) == 40


def test_metrics_are_on_their_page() -> None:
    page = (Path(__file__).parents[1] / "pipelines" / "docs" / "reference" / "metrics.md").read_text()
    collectors = {id(one): one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)}
    names = [name for one in collectors.values() for name in (f"{next(iter(one.describe())).name}{_suffix(one)}",)]
    assert len(names) == 10
    assert [name for name in names if f"| `{name}` |" not in page] == []
    assert set(re.findall(r"autopilothq_receive_\w+", page)) == set(names)


def _suffix(one: MetricWrapperBase) -> str:
    return "_total" if isinstance(one, Counter) else ""


def test_uploads_are_confirmed_before_files_are_deleted(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    with receiver("archive", "--rotate", "1s", "--upload", bucket.as_uri()) as running:
        running.post("/v1/track", TRACK)
        wait_for(lambda: len(published(bucket)) == 1, 20)
        wait_for(lambda: not list(files.published_files(running.folder)), 20)
        running.post("/v1/track", {**TRACK, "messageId": "m2"})
        running.stop()
    # Files that were published while it stopped are sent by the next receiver.
    left = published(running.folder)
    with receiver("archive", "--upload", bucket.as_uri()) as running:
        wait_for(lambda: len(published(bucket)) == 2, 20)
        wait_for(lambda: not list(files.published_files(running.folder)), 20)
    assert len(left) <= 1
    assert [one["messageId"] for one in published(bucket)] == ["m1", "m2"]


def test_loads_what_it_receives() -> None:
    # The first load begins only after its file is published.
    with receiver("archive", "--rotate", "1s", "--load-every", "3s", "--credentials", "received.duckdb") as running:
        running.post("/v1/track", TRACK)
        _await_load(running)
        running.stop()
    assert running.process.returncode == 0
    assert _stored() == [("m1",)]


def test_the_load_of_load_every_reads_the_bucket_and_hides_credentials(tmp_path: Path) -> None:
    bucket, credentials = tmp_path / "bucket", Path("received.duckdb")
    words = ("--rotate", "1s", "--load-every", "3s", "--wait", "1m", "--books-dataset", "books")
    places = ("--upload", bucket.as_uri(), "--credentials", "env:WHERE")
    with receiver("archive", *words, *places, env={"WHERE": str(credentials)}) as running:
        running.post("/v1/track", TRACK)
        seen = _await_load(running)
        running.stop()
    assert _stored() == [("m1",)]
    assert [line for line in seen if str(credentials) in line] == []
    with duckdb.connect(str(credentials), read_only=True) as con:
        assert con.sql("SELECT sum(stored) FROM books._audit").fetchall() == [(1,)]


def _await_load(running: Receiver) -> set[str]:
    """Waits until a load of the receiver has stored what was sent; returns the command lines of its loads.

    It never opens the database while a load runs, which would find it locked and leave its work to the next one.
    """
    seen: set[str] = set()

    def loaded() -> bool:
        now = {line for line in _command_lines(running.process.pid) if " load " in line}
        seen.update(now)
        return bool(seen) and not now and bool(_stored())

    wait_for(loaded, seconds=60)
    return seen


def _command_lines(parent: int) -> set[str]:
    """Returns the command lines of a process's children, as everybody on the machine sees them."""
    children = Path(f"/proc/{parent}/task").glob("*/children")
    found = set()
    for pid in " ".join(path.read_text() for path in children).split():
        with suppress(OSError):
            found.add(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
    return found


def _stored() -> list[Any]:
    try:
        with duckdb.connect("received.duckdb", read_only=True) as con:
            return con.sql("SELECT id FROM autopilothq.email_opened").fetchall()
    except duckdb.Error:  # the table does not exist yet
        return []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--listen", "8080"], "Expected an address and a port, such as 127.0.0.1:8080, but got '8080'."),
        (["--listen", "a:²"], "Expected an address and a port, such as 127.0.0.1:8080, but got 'a:²'."),
        (["--rotate", "16"], "Expected a time or a size, such as 60s or 16MB, but got '16'."),
        (["--rotate", "0s"], "Expected more than 0, got 0."),
        (["--dataset", "x"], "Expected --load-every with a target: without it nothing is loaded."),
        (["--wait", "1m"], "Expected --load-every with --wait: without it nothing is loaded."),
    ],
)
def test_wrong_options(call: Call, words: list[str], text: str) -> None:
    said = call("receive", "archive", *words)
    assert said.status == 2
    assert text in " ".join(said.err.split())


def test_settings_are_on_their_page() -> None:
    page = (Path(__file__).parents[1] / "pipelines" / "docs" / "reference" / "settings.md").read_text()
    sizes, guards = page.split("## `[receive]`")[1].split("\n## ")[:2]
    assert re.findall(r"^\| `(\w+)` \|", guards, re.MULTILINE) == [*settings.SECRETS]
    assert re.findall(r"^\| `(\w+)` \|", sizes, re.MULTILINE) == ["max_body_mb", "max_pending_mb", "min_free_mb"]
    assert [kind for kind in settings.ENDPOINT_KINDS if f"`[receive.{kind}" not in guards] == []


@pytest.mark.parametrize("option", ["--listen", "--metrics"])
def test_an_address_that_another_program_has(call: Call, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # which the program sets: not for the tests that follow
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = call("receive", "archive", "--listen", "127.0.0.1:0", option, address)
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f"Error: Expected to listen on {address}, but the system reports: Address already in use.\n"
        f"Stop the program that uses it, or choose another address with {option}.\n"
    )
    assert not Path("archive").exists()


def test_an_address_that_is_not_this_machines(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # which the program sets: not for the tests that follow
    said = call("receive", "archive", "--listen", "127.0.0.1:0", "--metrics", "192.0.2.1:8080")
    assert said.status == 1
    assert errors(said) == [
        "Error: Expected to listen on 192.0.2.1:8080, but the system reports: Cannot assign requested address.",
        "Choose another address with --metrics.",
    ]


@pytest.mark.parametrize(
    ("folder", "why"), [("file/archive", "Not a directory"), ("/proc/self/task", "No such file or directory")]
)
def test_a_folder_that_nothing_can_be_written_to(call: Call, folder: str, why: str) -> None:
    Path("file").touch()
    said = call("receive", folder, "--listen", "127.0.0.1:0")
    assert (said.status, said.out, said.err) == (1, "", f"Error: Cannot write to {folder}: {why}.\n")


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_sizes_without_an_end(call: Call, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RECEIVE__MIN_FREE_MB", value)
    said = call("receive", "archive")
    expected = f"Error: Expected a number of at least 0 as receive.min_free_mb, in MB, but got '{value}'.\n"
    assert (said.status, said.err) == (1, expected)


@pytest.mark.parametrize("value", ["-1", "0", "65", "much"])
def test_wrong_sizes(call: Call, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RECEIVE__MAX_BODY_MB", value)
    said = call("receive", "archive")
    assert said.status == 1
    assert "Expected a number more than 0 and at most 64 as receive.max_body_mb, in MB" in said.err
