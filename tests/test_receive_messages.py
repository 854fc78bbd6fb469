"""What the receiver makes of bodies: lines of the archive, with what Segment adds to messages."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from autopilothq.receive.messages import Arrival, InvalidJson, parse_body
from autopilothq.receive.routes import Endpoint, find_route

AT = datetime(2026, 11, 1, 5, 6, 8, 412000, tzinfo=UTC)
RECEIVED = "2026-11-01T05:06:08.412Z"
DEEP = b"[" * 100_000 + b"]" * 100_000
TIMES = {"receivedAt": RECEIVED, "originalTimestamp": RECEIVED, "timestamp": RECEIVED}


def lines(body: "str | bytes | dict[str, Any]", path: str = "/hook/segment/shop") -> list[bytes]:
    """The lines that a request to a path leaves."""
    found = find_route(path)
    assert found
    assert found[0].adapter
    text = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    made = found[0].adapter(parse_body(text), Arrival(AT, found[0].type_of))
    split = made.data.split(b"\n")
    assert split.pop() == b""
    assert made.number == len(split)
    return split


def message(body: "str | bytes | dict[str, Any]", path: str = "/hook/segment/shop") -> Any:
    """The one message of a body."""
    [line] = lines(body, path)
    return json.loads(line)


def test_a_message_of_segment_stays_as_it_is() -> None:
    text = (
        '{"anonymousId":"ada@example.com","context":{"traits":{"email":"ada@example.com"}},"event":"Email Opened",'
        '"messageId":"api-1","originalTimestamp":"2026-11-01T05:06:07.000Z","properties":{"n":1.10,"e":1E+2,"é":"\\u00e9"},'
        '"receivedAt":"2026-11-01T05:06:07.412Z","sentAt":null,"timestamp":"2026-11-01T05:06:07.000Z","type":"track",'
        '"userId":"12345","version":2}'
    )
    assert lines(text) == [text.encode()]


def test_a_message_gets_what_it_lacks() -> None:
    found = message({"userId": "1", "event": "Email Opened", "writeKey": "secret"}, "/v1/track")
    assert found.pop("messageId").startswith("sha256-")
    assert found == {"userId": "1", "event": "Email Opened", "type": "track", **TIMES}


@pytest.mark.parametrize(
    ("path", "kind"),
    [(f"/v1/{name}", name) for name in ("track", "identify", "page", "screen", "group", "alias")]
    + [("/v1/t", "track"), ("/v1/i", "identify"), ("/v1/p", "page"), ("/v1/s", "screen"), ("/v1/g", "group")]
    + [("/v1/a", "alias"), ("/v1/track/", "track")],
)
def test_the_path_names_the_type(path: str, kind: str) -> None:
    assert message({"type": "other", "messageId": "m"}, path) == {"type": kind, "messageId": "m", **TIMES}


def test_the_time_is_corrected_by_the_senders_clock() -> None:
    sent = {"messageId": "m", "timestamp": "2026-11-01T06:06:07.123+01:00", "sentAt": "2026-11-01T05:06:09Z"}
    assert message(sent, "/v1/page") == {
        "type": "page", "messageId": "m", "sentAt": "2026-11-01T05:06:09Z", "receivedAt": RECEIVED,
        "originalTimestamp": "2026-11-01T06:06:07.123+01:00", "timestamp": "2026-11-01T05:06:06.535Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "original", "timestamp"),
    [
        ({}, RECEIVED, RECEIVED),
        ({"sentAt": "2026-11-01T05:06:09Z"}, RECEIVED, "2026-11-01T05:06:07.824Z"),
        ({"timestamp": "yesterday", "sentAt": "2026-11-01T05:06:09Z"}, "yesterday", "yesterday"),
        ({"timestamp": 5, "sentAt": None}, 5, 5),
        ({"timestamp": "2026-11-01T05:00:00Z"}, "2026-11-01T05:00:00Z", "2026-11-01T05:00:00Z"),
        ({"originalTimestamp": "2026-11-01T05:00:00Z"}, "2026-11-01T05:00:00Z", "2026-11-01T05:00:00Z"),
        (
            {"originalTimestamp": "2026-11-01T05:00:00Z", "sentAt": "2026-11-01T05:00:01Z"},
            "2026-11-01T05:00:00Z",
            "2026-11-01T05:06:07.412Z",
        ),
        ({"timestamp": "0001-01-01T00:00:00Z", "sentAt": "9999-12-31T00:00:00Z"}, "0001-01-01T00:00:00Z", None),
        (
            {"timestamp": "2026-11-01T05:00:00.123456Z", "sentAt": "2026-11-01T05:00:00Z"},
            None,
            "2026-11-01T05:06:08.535456Z",
        ),
    ],
)  # fmt: skip
def test_times_of_all_kinds(sent: dict[str, Any], original: Any, timestamp: Any) -> None:
    found = message({"messageId": "m", **sent}, "/v1/page")
    assert found["receivedAt"] == RECEIVED
    assert found["originalTimestamp"] == (sent["timestamp"] if original is None else original)
    assert found["timestamp"] == (sent["timestamp"] if timestamp is None else timestamp)


def test_a_retry_is_the_same_message() -> None:
    def id_of(**more: Any) -> str:
        return str(message({"userId": "1", "event": "E", **more}, "/v1/track")["messageId"])

    assert id_of() == id_of(sentAt="2026-11-01T05:06:09Z") == id_of(writeKey="k")
    assert len({id_of(), id_of(userId="2"), id_of(event="EE"), id_of(timestamp="2026-11-01T05:06:09Z")}) == 4
    assert id_of(messageId="") == id_of(messageId=None)


def test_a_batch() -> None:
    body = {
        "sentAt": "2026-11-01T05:06:09Z", "writeKey": "secret",
        "context": {"ip": "192.0.2.1", "library": {"name": "outer", "version": "1"}}, "integrations": {"All": False},
        "batch": [
            {"type": "track", "messageId": "1", "writeKey": "secret", "context": {"library": {"name": "inner"}}},
            {"type": "identify", "messageId": "2", "context": None, "sentAt": "2026-11-01T05:06:10Z"},
            7,
        ],
    }  # fmt: skip
    first, second, third = map(json.loads, lines(body, "/v1/batch"))
    assert first == {
        "type": "track", "messageId": "1", "context": {"ip": "192.0.2.1", "library": {"name": "inner"}},
        "integrations": {"All": False}, "sentAt": "2026-11-01T05:06:09Z", "receivedAt": RECEIVED,
        "originalTimestamp": RECEIVED, "timestamp": "2026-11-01T05:06:07.824Z",
    }  # fmt: skip
    assert second == {
        "type": "identify", "messageId": "2", "context": body["context"], "integrations": {"All": False},
        "sentAt": "2026-11-01T05:06:10Z", "receivedAt": RECEIVED, "originalTimestamp": RECEIVED,
        "timestamp": "2026-11-01T05:06:06.824Z",
    }  # fmt: skip
    assert third == 7
    assert b"secret" not in b"".join(lines(body, "/v1/batch"))


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import", "/v1/b"])
def test_an_envelope_without_messages_is_kept(path: str) -> None:
    [line] = lines('{"batch": 5, "writeKey": "secret"}', path)
    assert b"secret" not in line
    assert json.loads(line)["batch"] == 5
    assert lines('{"batch": []}', path) == []


def test_an_array_of_messages() -> None:
    found = list(map(json.loads, lines('[{"messageId":"1"},\n {"messageId":"2"}, null, "x"]')))
    assert found == [{"messageId": "1", **TIMES}, {"messageId": "2", **TIMES}, None, "x"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"5", b"5"),
        (b' "text" ', b'"text"'),
        (b"\xef\xbb\xbf[1.10]", b"1.10"),
        (b'{"messageId":"m",\r\n"a":{\n"b":1.10}}', b'{"messageId":"m","a":{ "b":1.10},'),
        (b'{"messageId":"m","a":1,"a":2}', b'{"messageId":"m","a":1,'),
        (b'{"messageId":"m","a":"\\ud800"}', b'{"messageId":"m","a":"\\uD800",'),
        (b'{"messageId":"m","\\ud800":1.10}', b'{"messageId":"m","\\uD800":1.10,'),
        (b'{"messageId":"m","a":NaN}', b'{"messageId":"m","a":NaN,'),
        (b'{"messageId":"m","a":"\xff"}', b'{"messageId":"m","a":"\xff",'),
        (b'{"messageId":"m","a":1234567890123.12345678}', b'{"messageId":"m","a":1234567890123.12345678,'),
    ],
)  # fmt: skip
def test_what_is_json_is_kept_to_the_digit(text: bytes, kept: bytes) -> None:
    [line] = lines(text)
    assert line.startswith(kept)
    assert line.endswith(b',"a":2}') == (b'"a":2' in text)  # a key that repeats is kept, behind the first


@pytest.mark.parametrize(
    "text", [b"", b"hello", b"{", b'{"a":1', b"[1,", b'{"a":1}{"b":2}', b"\xff\xfe", b"[1]]", b"tru"]
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_body(text)


def test_deletions_are_counted() -> None:
    found = find_route("/hook/segment/shop")
    assert found
    assert found[0].adapter
    body = b'[{"type":"delete","userId":"1"},{"type":"track"},{"type":"delete"}]'
    assert found[0].adapter(parse_body(body), Arrival(AT)).deletions == 2


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/track", Endpoint("v1")), ("/v1/m", Endpoint("v1")), ("/hook/segment/a-B_9", Endpoint("segment", "a-B_9")),
        ("/hook/rudder/x/", Endpoint("rudder", "x")), ("/hook/segment/", None), ("/hook/segment/..", None),
        ("/hook/segment/a/b", None), ("/hook/segment/.a", None), ("/hook/other/a", None), ("/v1/tracks", None),
        ("/", None),
        ("/v1/track\n", None), ("/hook/segment/" + "a" * 65, None), ("/hook/segment/é", None), ("/V1/track", None),
    ],
)  # fmt: skip
def test_paths(path: str, endpoint: Endpoint | None) -> None:
    found = find_route(path)
    assert (found and found[1]) == endpoint


def test_folders_of_endpoints() -> None:
    assert (Endpoint("v1").folder, Endpoint("segment", "shop").folder) == ("v1", "segment-shop")
