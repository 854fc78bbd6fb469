"""The receiver turns bodies into lines of the archive, with the fields that Segment adds to messages."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Raw

from autopilothq.receive import messages
from autopilothq.receive.messages import (
    ArchiveLines,
    Arrival,
    Body,
    InvalidJson,
    TooLarge,
    kept_line,
    lines_of,
    parse_body,
)
from autopilothq.receive.routes import Endpoint, find_route
from autopilothq.segment.message import Discard, read_message

AT = datetime(2026, 11, 1, 5, 6, 8, 412000, tzinfo=UTC)
RECEIVED = "2026-11-01T05:06:08.412Z"
DEEP = b"[" * 100_000 + b"]" * 100_000
TIMES = {"receivedAt": RECEIVED, "originalTimestamp": RECEIVED, "timestamp": RECEIVED}


def lines(body: "str | bytes | dict[str, Any]", path: str = "/hook/segment/shop") -> list[bytes]:
    """Returns the lines that a request to a path leaves."""
    found = find_route(path)
    assert found
    assert found[0].adapter
    text = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    made = found[0].adapter(parse_body(text), Arrival(AT, found[0].type_of))
    split = made.data.split(b"\n")
    assert split.pop() == b""
    assert made.lines == len(split)
    return split


def message(body: "str | bytes | dict[str, Any]", path: str = "/hook/segment/shop") -> Any:
    """Returns the only message of a body."""
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
        ({"timestamp": "2026-11-01T05:00:00", "sentAt": RECEIVED}, None, "2026-11-01T05:00:00.000Z"),
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


OPENED = {"id": "a1", "field_id": "act::o", "created_at": RECEIVED}


@pytest.mark.parametrize(
    ("body", "event"),
    [
        ({"type": "lead", "activity": OPENED, "contact": {"email": "a@b.c"}}, "Email Opened"),
        ({"activity": OPENED, "contact": {"email": "a@b.c"}, "run_id": "r1"}, "Email Opened"),
        ({"activity": OPENED, "email": "a@b.c"}, "Email Opened"),
        ({"activity": OPENED, "email": "a@b.c", "run_id": "r1"}, "ortto_journey_action"),
        (
            {"activity": OPENED | {"field_id": ["act::o"]}, "contact": {"email": "a@b.c"}, "run_id": "r1"},
            "ortto_journey_action",
        ),
    ],
)
def test_an_activity_of_ortto_and_a_step_of_a_journey_are_told_apart(body: dict[str, Any], event: str) -> None:
    assert message(body, "/hook/ortto/shop")["event"] == event


def test_a_time_of_receipt_that_is_none_corrects_no_clock() -> None:
    times = {"receivedAt": "soon", "sentAt": "2026-11-01T05:06:09Z", "timestamp": "2026-11-01T05:00:00Z"}
    found = message({"messageId": "m", **times}, "/v1/page")
    assert {name: found[name] for name in times} == times


def test_a_retry_is_the_same_message() -> None:
    def id_of(**more: Any) -> str:
        return str(message({"userId": "1", "event": "E", **more}, "/v1/track")["messageId"])

    assert id_of() == id_of(sentAt="2026-11-01T05:06:09Z") == id_of(writeKey="k")
    assert len({id_of(), id_of(userId="2"), id_of(event="EE"), id_of(timestamp="2026-11-01T05:06:09Z")}) == 4
    assert id_of(messageId="") == id_of(messageId=None)


@pytest.mark.parametrize(
    ("sent", "discarded"),
    [
        ('" \\t"', '" \\t"'), ('"\\u0000"', '"\\u0000"'), ('"\\uD800"', '"\\uD800"'), ("{}", "{}"),
        ('{"a":1}', '{"a":1}'), ("[]", "[]"), ('["m"]', '["m"]'), ("NaN", "NaN"), ("-Infinity", "-Infinity"),
        ("null", None), ('""', None),
        ("true", None), ("5", None), ("1.10", None), ("1E5", None), ('"m"', None), ('"\u00a0"', None),
    ],
)  # fmt: skip
def test_a_retry_is_the_same_message_even_with_an_unusable_id(sent: str, discarded: str | None) -> None:
    body = parse_body(f'{{"userId":"1","event":"E","messageId":{sent}}}'.encode())
    read = [
        read_message(lines_of(body, Arrival(AT + timedelta(seconds=late), "track")).data, frozenset())
        for late in (0, 9)
    ]
    assert read[0].cells["received_at"] != read[1].cells["received_at"]
    assert read[0].cells["id"] == read[1].cells["id"]
    assert read[0].discards == ([Discard("id", discarded, "same_column")] if discarded else [])


def test_messages_with_different_keys_are_different_ones_even_if_no_text_can_have_the_keys() -> None:
    texts = [b'{"%b":1}' % key for key in (b"\\ud800", b"\\ud801", b"\xff", b"\xfe", b"?")]
    assert len({line[line.index(b'"messageId"') :] for text in texts for line in lines(text)}) == 5


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


def test_an_envelope_may_have_several_batches() -> None:
    body = '{"batch":[{"messageId":"1"}],"sentAt":"2026-11-01T05:06:08.412Z","batch":[],"batch":[{"messageId":"2"},7]}'
    first, second, third = map(json.loads, lines(body, "/v1/batch"))
    assert (first["messageId"], second["messageId"], third) == ("1", "2", 7)
    assert first["sentAt"] == second["sentAt"] == "2026-11-01T05:06:08.412Z"
    # If one is not a batch, the messages of the other are still read.
    for body in ('{"batch":[{"messageId":"1"}],"batch":5}', '{"batch":5,"batch":[{"messageId":"1"}]}'):
        found = list(map(json.loads, lines(body, "/v1/batch")))
        assert [line for line in found if line == 5] == [5]
        assert [line["messageId"] for line in found if line != 5] == ["1"]


def test_a_key_batch_is_an_envelopes_where_batches_are_sent_alone() -> None:
    message_ = {"type": "track", "messageId": "m", **TIMES, "batch": [{"messageId": "1"}]}
    assert lines(json.dumps(message_)) == lines(json.dumps([message_]), "/v1/batch") != lines(message_, "/v1/batch")
    del message_["batch"]
    assert message(message_, "/v1/batch") == message_


@pytest.mark.parametrize(
    ("of_envelope", "own", "merged"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": 3}, {"a": 1, "b": 3}), ({"a": 1}, "x", "x"), ("x", {"b": 3}, {"b": 3}),
        ("x", None, "x"),
    ],
)  # fmt: skip
def test_the_context_of_an_envelope_is_below_the_messages_own(of_envelope: Any, own: Any, merged: Any) -> None:
    assert message({"context": of_envelope, "batch": [{"context": own}]}, "/v1/batch")["context"] == merged


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import", "/v1/b"])
def test_an_envelope_without_messages_is_kept(path: str) -> None:
    [line] = lines('{"batch": 5, "writeKey": "secret"}', path)
    assert b"secret" not in line
    assert json.loads(line)["batch"] == 5
    assert lines('{"batch": []}', path) == []


@pytest.mark.parametrize(
    ("path", "body", "kept"),
    [
        (
            "/v1/batch",
            '{"batch":[[{"writeKey":"secret","n":1.10},[{"write\\u004bey":"secret"}]]]}',
            b'[{"n":1.10},[{}]]',
        ),
        ("/v1/track", '{"batch":[{"writeKey":"secret","n":1.10}],"writeKey":"secret"}', b'{"batch":[{"n":1.10}],'),
        ("/v1/batch", '{"batch":{"writeKey":"secret","n":1.10}}', b'{"batch":{"n":1.10},'),
        ("/v1/track", '{"batch":[{"n": 1.10}]}', b'{"batch":[{"n": 1.10}],'),
        ("/v1/track", f'{{"batch":{"[" * 900}{"]" * 900}}}', b'{"batch":[[['),
        (
            "/v1/track",
            '{"context":{"writeKey":"secret","n":1.10,"ip":{"writeKey":1}}}',
            b'{"context":{"n":1.10,"ip":{"writeKey":1}},',
        ),
        ("/v1/track", '{"context":{"n": 1.10}}', b'{"context":{"n": 1.10},'),
        ("/v1/track", '{"context":5,"messageId":"m","context":{"write\\u004bey":"secret"}}', b'{"context":5,'),
        ("/v1/batch", '{"batch":[[{"context":{"writeKey":"secret"}}]]}', b'[{"context":{}}]'),
        (
            "/v1/batch",
            '{"context":{"writeKey":"secret","a":1,"writeKey":"secret"},"batch":[{"context":{"writeKey":"secret"}}]}',
            b'{"context":{"a":1},',
        ),
        (
            "/v1/batch",
            '{"context":{"a":1},"batch":[{}],"context":{"writeKey":"secret","a":2}}',
            b'{"messageId":"sha256-',
        ),
        (
            "/hook/ortto/shop",
            '{"writeKey":"secret","run_id":"r","write\\u004bey":"secret"}',
            b'{"type":"track","event":"ortto_journey_action",',
        ),
    ],
)
def test_no_write_key_is_kept_of_messages_that_are_not_where_they_belong(path: str, body: str, kept: bytes) -> None:
    [line] = lines(body, path)
    assert line.startswith(kept)
    assert b"secret" not in line


@pytest.mark.parametrize(
    ("path", "body", "added"),
    [
        ("/v1/batch", '{"context":{"a":"' + "x" * 100 + '"},"batch":[{},5]}', 2 * (300 + 108 + 4 + 4)),
        ("/v1/batch", '{"integrations":"' + "x" * 100 + '","sentAt":7,"batch":[{},{}]}', 2 * (300 + 102 + 1 + 4)),
        (
            "/v1/batch",
            '{"context":1,"batch":[{},{}],"context":{"a":2}}',
            2 * (300 + 1 + 4 + 4 + len(',"context":{"a":2}')),
        ),
        ("/v1/track", "[{},{},5]", 3 * (300 + 12)),
    ],
)
def test_lines_are_no_larger_than_their_body_by_more_than_may_be_added(
    path: str, body: str, added: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MOST_ADDED", added)
    assert len(lines(body, path)) == body.count("{}") + body.count("5")
    monkeypatch.setattr(messages, "MOST_ADDED", added - 1)
    with pytest.raises(TooLarge, match=f"lines in the archive have at most {added - 1:,} bytes more than the body"):
        lines(body, path)


def test_the_lines_of_several_hooks_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = '{"event":"contact_added","contact_id":"a"}'
    added = 2 * (len(lines(hook, "/hook/autopilot/x")[0]) + 1 - len(hook))
    monkeypatch.setattr(messages, "MOST_ADDED", added)
    assert len(lines(f"[{hook},{hook}]", "/hook/autopilot/x")) == 2
    monkeypatch.setattr(messages, "MOST_ADDED", added - 1)
    with pytest.raises(TooLarge):
        lines(f"[{hook},{hook}]", "/hook/autopilot/x")


def test_an_array_of_messages() -> None:
    found = list(map(json.loads, lines('[{"messageId":"1"},\n {"messageId":"2"}, null, "x"]')))
    assert found == [{"messageId": "1", **TIMES}, {"messageId": "2", **TIMES}, None, "x"]


FIRST = (
    b'{"a":1}',
    b'{ "a" : 1.50, "b":"\\/\xc3\xa9" }',
    b'{"a":"\\ud800"}',
    b'{"a":1,"a":2}',
    b'{"a":"\xff,]"}',
    b'"\\udfff"',
    b"[ NaN ]",
)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("after", [b"", b', "\\ud800"', b'\r\n,\t{"b":"]\\udc00"} , 5 '])
def test_the_first_element_of_an_array_is_what_was_signed(first: bytes, after: bytes) -> None:
    assert parse_body(b" [\n" + first + after + b"] ").first == first


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"5", b"5"),
        (b' "text" ', b'"text"'),
        (b"\xef\xbb\xbf[1.10]", b"1.10"),
        (b'{"messageId":"m",\r\n"a":{\n"b":1.10}}', b'{"messageId":"m","a":{ "b":1.10},'),
        (b'{"messageId":"m","a":1,"a":2}', b'{"messageId":"m","a":1,'),
        (b'{"messageId":"m","a":1,"b":3,"b":4,"a":2}', b'{"messageId":"m","a":1,"b":3,'),
        (b'{"messageId":"m","a":1,"b":3,"c":4,"d":5,"e":6,"a":2}', b'{"messageId":"m","a":1,"b":3,"c":4,"d":5,"e":6,'),
        (b'{"messageId":"m","a":"\\ud800"}', b'{"messageId":"m","a":"\\uD800",'),
        (b'{"messageId":"m","\\ud800":1.10}', b'{"messageId":"m","\\uD800":1.10,'),
        (b'{"messageId":"m","a":NaN}', b'{"messageId":"m","a":NaN,'),
        (b'{"messageId":"m","a":"\xff"}', b'{"messageId":"m","a":"\xff",'),
        (b'{"messageId":"m", "a":"\xff"}', b'{"messageId":"m","a":"\xff",'),
        (b'{"messageId":"m","a":1234567890123.12345678}', b'{"messageId":"m","a":1234567890123.12345678,'),
    ],
)  # fmt: skip
def test_what_is_json_is_kept_to_the_digit(text: bytes, kept: bytes) -> None:
    [line] = lines(text)
    assert line.startswith(kept)
    assert line.endswith(b',"a":2}') == (b'"a":2' in text)  # a repeated key stays, after the first one
    json.loads(line.decode(errors="replace"))


def test_repeated_keys_stay_beside_a_write_key() -> None:
    [line] = lines('{"writeKey":"secret","a":1,"writeKey":"secret","messageId":"m","a":1.10,"a":{"writeKey":2}}')
    assert line.startswith(b'{"a":1,"messageId":"m",')
    assert line.endswith(b',"a":1.10,"a":{"writeKey":2}}')
    assert b"secret" not in line
    assert lines('{"writeKey":"secret","writeKey":"secret","messageId":"m"}') == lines('{"messageId":"m"}')


TWICE = (
    '{"context":{"a":1,"b":2,"a":3,"b":4,"a":null},"sentAt":"2026-11-01T05:06:09Z","sentAt":"x","context":5,"other":6,'
    '"integrations":{"All":true},"other":7,"batch":[%s],"integrations":{"All":false}}'
)


@pytest.mark.parametrize(
    ("own", "context", "rest"),
    [
        ("", '{"a":1,"b":2,"a":3,"b":4,"a":null}', ',"sentAt":"x","context":5,"integrations":{"All":false}}'),
        (
            ',"context":{"b":8,"c":9,"b":0},"sentAt":"y"',
            '{"a":1,"b":8,"c":9,"a":3,"a":null,"b":0}',
            ',"context":5,"integrations":{"All":false}}',
        ),
        (
            ',"context":null,"context":[]',
            '{"a":1,"b":2,"a":3,"b":4,"a":null}',
            ',"context":[],"sentAt":"x","context":5,"integrations":{"All":false}}',
        ),
    ],
)
def test_repeated_keys_of_an_envelope_stay_where_it_counts(own: str, context: str, rest: str) -> None:
    """So that the load can count each value of a repeated key that it does not store."""
    [line] = lines(TWICE % f'{{"messageId":"m"{own}}}', "/v1/batch")
    assert f'"context":{context},'.encode() in line
    assert line.endswith(rest.encode())


def test_the_first_of_repeated_keys_counts_even_if_another_is_too_long_for_python() -> None:
    number = b"3" * 5_000
    [line] = lines(b'{"messageId":1,"messageId":%b}' % number)
    added = ",".join(f'"{name}":"{RECEIVED}"' for name in ("receivedAt", "originalTimestamp", "timestamp")).encode()
    assert line == b'{"messageId":1,%b,"messageId":%b}' % (added, number)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *((text, "Expecting value: line 1 column 1 (char 0)") for text in (b"", b"hello", b"\xff\xfe", b"tru")),
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b'{"a":1', "Expecting ',' delimiter: line 1 column 7 (char 6)"),
        (b"[1,", "Expecting value: line 1 column 4 (char 3)"),
        (b'{"a":1}{"b":2}', "Extra data: line 1 column 8 (char 7)"),
        (b"[1]]", "Extra data: line 1 column 4 (char 3)"),
        *((text, "It is nested too deeply.") for text in (DEEP, b'{"a":%b}' % DEEP, b'{"a": %b}' % DEEP)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_json_is_refused(text: bytes, problem: str) -> None:
    with pytest.raises(InvalidJson) as error:
        parse_body(text)
    assert str(error.value) == problem


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (b'[{"a":1}, "b"]', Body([Raw(b'{"a":1}'), Raw(b'"b"')], {}, b'{"a":1}')),
        (b"[]", Body([], {}, b"")),
        (b'[NaN, {"a":1.10}]', Body([Raw(b"NaN"), Raw(b'{"a":1.10}')], {}, b"NaN")),
        (b"{}", Body([Raw(b"{}")], {}, b"")),
        (b' {"a": 1} ', Body([Raw(b'{"a": 1}')], {"a": Raw(b"1")}, b"")),
        (b"5", Body([Raw(b"5")], {}, b"")),
    ],
)
def test_the_parts_of_a_body(text: bytes, read: Body) -> None:
    assert parse_body(text) == read


@pytest.mark.parametrize(
    ("body", "line"), [(b' {"a":\r\n1 ', b'{"a":  1\n'), (b"\xff\n", b"base64:/wo=\n"), (b" \n", b'""\n')]
)
def test_a_body_that_cannot_be_read_is_one_line(body: bytes, line: bytes) -> None:
    assert kept_line(body) == ArchiveLines(line, 1, 0)


def test_deletions_are_counted() -> None:
    found = find_route("/hook/segment/shop")
    assert found
    assert found[0].adapter
    body = b'[{"type":"delete","userId":"1"},{"type":"track"},5,{"type":"delete"}]'
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
