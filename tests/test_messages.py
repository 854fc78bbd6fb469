"""A line on the slow path: its cells, its discards, and why it is rejected."""

import bz2
import gzip
import hashlib
import json
import lzma
import tarfile
from typing import Any

import pytest

from autopilothq.catalog import MAX_DEPTH, MAX_KEYS, REJECT_REASONS
from autopilothq.segment.json_text import DECODER, JsonNumber, JsonObject, depth, is_storable, to_json
from autopilothq.segment.message import (
    Discard,
    Rejected,
    cells_of_leaves,
    digest,
    flatten,
    parse_json,
    prefixed_if_taken,
    read_message,
    spelling_rank,
    without_bom,
)

DECLARED = frozenset({"context_ip"})


def cells(text: str) -> dict[str, str]:
    return read_message(text.encode(), DECLARED).cells


def discards(text: str) -> list[Discard]:
    return read_message(text.encode(), DECLARED).discards


def track(**more: Any) -> str:
    return json.dumps({"type": "track", "event": "Email Opened", "messageId": "m", "userId": "u", **more})


def test_cells_are_text_or_json_text() -> None:
    line = track(context={"ip": "::1", "more": [1]}, properties={"campaign_id": 5, "transactional": True, "n": "é"})
    assert cells(line) == {
        "kind": "track",
        "event": '"Email Opened"',
        "id": "m",
        "user_id": "u",
        "context_ip": "::1",
        "x:context_more": "[1]",
        "campaign_id": "5",
        "transactional": "true",
        "x:n": '"é"',
    }


def test_a_message_without_an_id_has_its_lines_digest() -> None:
    line = b'{"type":"identify","userId":"u"}'
    assert read_message(line + b"\r\n", DECLARED).cells["id"] == digest(line) == digest(line + b"\n")
    assert digest(line + b" ") != digest(line)
    assert digest(b"X\n") == hashlib.sha256(b"X").hexdigest()
    for blank in ("", " ", " \\t\\r\\n\\f"):
        line = f'{{"type":"identify","userId":"u","messageId":"{blank}"}}'.encode()
        assert read_message(line, DECLARED).cells["id"] == digest(line)


def test_marks_at_the_start_are_no_part_of_the_line() -> None:
    line = b'{"type":"identify","userId":"u"}'
    assert without_bom(b"\xef\xbb\xbf\xef\xbb\xbf" + line) == line
    assert read_message(b"\xef\xbb\xbf" + line, DECLARED).cells["id"] == digest(line)


KEPT: list[tuple[str, dict[str, str]]] = [
    # Times are JSON text, whatever they are; null is none.
    (
        '{"type":"alias","userId":"u","receivedAt":"2024","sentAt":5,"originalTimestamp":null,"timestamp":[1],"previousId":1.10}',
        {"kind": "alias", "user_id": "u", "received_at": '"2024"', "sent_at": "5", "timestamp": "[1]",
         "previous_id": "1.10"},
    ),
    ('{"type":"alias","userId":"u","traits":{"a":1},"properties":{"a":1}}', {"kind": "alias", "user_id": "u"}),
    ('{"type":"alias","userId":true,"previousId":" "}', {"kind": "alias", "user_id": "true", "previous_id": " "}),
    # A page's own name wins. Missing fields come from the properties; other properties with common names get a prefix.
    (
        '{"type":"page","userId":"u","name":5,"properties":{"category":"c","name":"5","title":"t","id":1}}',
        {"kind": "page", "user_id": "u", "name": "5", "category": "c", "x:title": '"t"', "x:_id": "1"},
    ),
    (
        '{"type":"screen","userId":"u","name":"a","category":null,"properties":{"name":"b","category":true}}',
        {"kind": "screen", "user_id": "u", "name": "a", "category": "true", "x:_name": '"b"'},
    ),
    (
        '{"type":"page","userId":"u","traits":{"a":1},"properties":{"name":1.10,"event":"e","transactional":true}}',
        {"kind": "page", "user_id": "u", "name": "1.10", "x:_event": '"e"', "x:transactional": "true"},
    ),
    # A property that only repeats an id, also as a number, is left out; otherwise it gets a prefix.
    (
        '{"type":"identify","userId":7,"traits":{"id":"7","timestamp":"soon","context_ip":"x","campaign_id":1}}',
        {"kind": "identify", "user_id": "7", "x:_timestamp": '"soon"', "x:_context_ip": '"x"', "x:campaign_id": "1"},
    ),
    ('{"type":"identify","userId":"7","traits":{"id":7}}', {"kind": "identify", "user_id": "7"}),
    ('{"type":"identify","userId":"true","traits":{"id":true}}', {"kind": "identify", "user_id": "true"}),
    (
        '{"type":"identify","anonymousId":"a","traits":{"id":"a","name":"n"}}',
        {"kind": "identify", "anonymous_id": "a", "x:_id": '"a"', "x:name": '"n"'},
    ),
    (
        '{"type":"group","userId":"u","groupId":"g","traits":{"id":"g","groupId":"g","group_id":"h","name":"n"}}',
        {"kind": "group", "user_id": "u", "group_id": "g", "x:_group_id": '"h"', "x:name": '"n"'},
    ),
    ('{"type":"group","userId":"u","traits":{"groupId":"g","id":"u"}}',
     {"kind": "group", "user_id": "u", "x:_group_id": '"g"', "x:_id": '"u"'}),
    # A property may repeat its event's name, as text.
    ('{"type":"track","event":"A b","userId":"u","properties":{"event":"A b","user_id":"u"}}',
     {"kind": "track", "event": '"A b"', "user_id": "u", "x:_user_id": '"u"'}),
    ('{"type":"track","event":"A b","userId":"u","properties":{"event":"a_b"}}',
     {"kind": "track", "event": '"A b"', "user_id": "u"}),
    ('{"type":"track","event":"A b","userId":"u","properties":{"event":"_a_b"}}',
     {"kind": "track", "event": '"A b"', "user_id": "u"}),
    ('{"type":"track","event":"A b","userId":"u","properties":{"event":"b"}}',
     {"kind": "track", "event": '"A b"', "user_id": "u", "x:_event": '"b"'}),
    ('{"type":"track","event":"5","userId":"u","properties":{"event":5}}',
     {"kind": "track", "event": '"5"', "user_id": "u", "x:_event": "5"}),
    # Declared text of other types is text, a declared boolean JSON text.
    (
        '{"type":"track","event":"e","userId":"u","properties":{"campaign_id":true,"transactional":"y","email_id":[1]}}',
        {"kind": "track", "event": '"e"', "user_id": "u", "campaign_id": "true", "transactional": '"y"',
         "email_id": "[1]"},
    ),
    (
        '{"type":"identify","userId":"u","context":{"ip":false,"zoo":false}}',
        {"kind": "identify", "user_id": "u", "context_ip": "false", "x:context_zoo": "false"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "kept"), KEPT)
def test_a_message_has_its_cells_and_nothing_is_lost(line: str, kept: dict[str, str]) -> None:
    found = read_message(line.encode(), DECLARED)
    assert found.cells == {"id": digest(line.encode()), **kept}
    assert found.discards == []


IDS: list[tuple[str, dict[str, str]]] = [
    ('"userId":"u","anonymousId":"a"', {"user_id": "u", "anonymous_id": "a"}),
    ('"anonymousId":"a","traits":{"email":"t@x"}', {"anonymous_id": "a", "x:email": '"t@x"'}),
    ('"userId":"u","traits":{"email":"t@x"}', {"user_id": "u", "x:email": '"t@x"'}),
    ('"userId":"\\u00a0","properties":{"email":"p@x"}', {"user_id": "\u00a0"}),  # only ASCII blanks count
    (
        '"userId":" \\t","context":{"traits":{"email":"c@x"}},"properties":{"email":"p@x"},"traits":{"email":"t@x"}',
        {"anonymous_id": "c@x", "x:context_traits_email": '"c@x"', "x:email": '"t@x"'},
    ),
    ('"properties":{"email":"p@x"},"traits":{"email":"t@x"}', {"anonymous_id": "p@x", "x:email": '"t@x"'}),
    ('"traits":{"email":"t@x"}', {"anonymous_id": "t@x", "x:email": '"t@x"'}),
    ('"properties":{"email":"\\u00a0"}', {"anonymous_id": "\u00a0"}),
    ('"properties":{"email":5},"traits":{"email":"t@x"}', {"anonymous_id": "t@x", "x:email": '"t@x"'}),
    ('"properties":{"email":" "},"traits":{"email":"t@x"}', {"anonymous_id": "t@x", "x:email": '"t@x"'}),
    ('"properties":{"email":"\\u0000"},"traits":{"email":"t@x"}', {"anonymous_id": "t@x", "x:email": '"t@x"'}),
    ('"properties":{"email":["p@x"]},"traits":{"email":"t@x"}', {"anonymous_id": "t@x", "x:email": '"t@x"'}),
]


@pytest.mark.parametrize(("fields", "kept"), IDS)
def test_the_email_becomes_the_id_if_there_is_none(fields: str, kept: dict[str, str]) -> None:
    assert cells(f'{{"type":"identify","messageId":"m",{fields}}}') == {"kind": "identify", "id": "m", **kept}


REJECTS = [
    ("{", "not_json"),
    ("nope", "not_json"),
    ('{"a":1,}', "not_json"),
    ('{"a":"\t"}', "not_json"),
    ("\ufeff{}", "unknown_type"),
    ("5", "not_an_object"),
    ("[]", "not_an_object"),
    ('"{}"', "not_an_object"),
    ("null", "not_an_object"),
    ("{}", "unknown_type"),
    ('{"type":null}', "unknown_type"),
    ('{"type":5}', "unknown_type"),
    ('{"type":["track"]}', "unknown_type"),
    ('{"type":"Track","event":"a","userId":"u"}', "unknown_type"),
    ('{"type":"delete","userId":"u"}', "unknown_type"),
    ('{"type":"track","userId":"u"}', "event_not_defined"),
    ('{"type":"track","event":null,"userId":"u"}', "event_not_defined"),
    ('{"type":"track","event":5,"userId":"u"}', "event_not_string"),
    ('{"type":"track","event":true,"userId":"u"}', "event_not_string"),
    ('{"type":"track","event":{"a":1},"userId":"u"}', "event_not_string"),
    ('{"type":"track","event":"a","userId":"u","properties":[]}', "properties_not_object"),
    ('{"type":"page","userId":"u","properties":"a"}', "properties_not_object"),
    ('{"type":"identify","userId":"u","traits":5}', "traits_not_object"),
    ('{"type":"group","userId":"u","traits":[]}', "traits_not_object"),
    ('{"type":"alias","userId":"u","context":"a"}', "context_not_object"),
    ('{"type":"track","event":"a"}', "no_user_anon_id"),
    ('{"type":"track","event":"a","userId":" ","anonymousId":""}', "no_user_anon_id"),
    ('{"type":"track","event":"a","context":{"traits":{"email":5}}}', "no_user_anon_id"),
]


@pytest.mark.parametrize(("line", "reason"), REJECTS)
def test_a_line_that_is_no_message_is_rejected_with_its_reason(line: str, reason: str) -> None:
    with pytest.raises(Rejected) as rejected:
        read_message(line.encode(), DECLARED)
    assert rejected.value.args[0] == reason
    assert rejected.value.args[1].startswith(REJECT_REASONS[reason])


def why(line: bytes) -> tuple[str, ...]:
    with pytest.raises(Rejected) as rejected:
        read_message(line, DECLARED)
    return rejected.value.args


MESSAGES = [
    (b'"\xff"', "not_json", r'not UTF-8 at byte 1: invalid start byte: \xff"'),
    (b'{1:2}', "not_json",
     "not JSON: Expecting property name enclosed in double quotes at character 1: 1:2}"),
    (b'{"a":"\0"}', "not_json", r'not JSON: Invalid control character at character 6: \x00"}'),
    (b'{"a":"x', "not_json", 'not JSON: Unterminated string starting at character 5: "x'),
    (b'{"a":1', "not_json", "not JSON: Expecting ',' delimiter at character 6: the line ends there"),
    (b'{"a":' + b"x" * 99, "not_json", f"not JSON: Expecting value at character 5: {'x' * 40}"),
    (b"[1.10]", "not_an_object", "JSON, but not an object: [1.10]"),
    (b"true", "not_an_object", "JSON, but not an object: true"),
    (b"{}", "unknown_type", "`type` is none of track, identify, alias, page, screen, group but nothing"),
    (b'{"type":"delete"}', "unknown_type",
     '`type` is none of track, identify, alias, page, screen, group but "delete"'),
    (b'{"type":"track"}', "event_not_defined", "a track without `event`"),
    (b'{"type":"track","event":5}', "event_not_string", "`event` is not text but 5"),
    (b'{"type":"track","context":[1]}', "context_not_object", "`context` is not an object but [1]"),
    (b'{"type":"page","properties":"a"}', "properties_not_object", '`properties` is not an object but "a"'),
    (b'{"type":"page"}', "no_user_anon_id", "no `userId`, no `anonymousId` and no email"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason", "message"), MESSAGES)
def test_a_reject_says_what_is_wrong_and_what_came(line: bytes, reason: str, message: str) -> None:
    assert why(line) == (reason, message)


ON_ONE_LINE = "several objects on one line: each needs a line of its own"
JSON_ARRAY = "a JSON array: each object needs a line of its own, without brackets and commas"
SPREAD = "JSON over several lines: each object needs one line"
UTF_16 = "UTF-16: convert the file to UTF-8"
MARKUP = "HTML or XML, as in the answer of a server that failed: fetch the file again"
LFS = "a pointer of Git LFS in place of the file: fetch the file with `git lfs pull`"
CSV = "CSV, a table and not messages: see `adopt`"
CAUSES = [
    (b'{"a":1}{"a":2}', ON_ONE_LINE),
    (b'{"a":1} {"a":2}\r\n', ON_ONE_LINE),
    (b'{"a":1}\r{"a":2}\r', "a file without line ends: each object needs a line of its own"),
    (b'[{"a":1},{"a":2}]', JSON_ARRAY),
    (b'[{"a":1},', JSON_ARRAY),
    (b'{"a":1},\r\n', JSON_ARRAY),
    (b" {", SPREAD),
    (b"  },\n", SPREAD),
    (b'  "type": "track",\n', SPREAD),
    ('{"type":"track"}'.encode("utf-16"), UTF_16),
    ('{"type":"track"}\n'.encode("utf-16-le")[:-1], UTF_16),
    (b"\0" + '{"type":"track"}'.encode("utf-16-le"), UTF_16),
    ('{"type":"track"}'.encode("utf-32"), "UTF-32: convert the file to UTF-8"),
    (b"\0\0\xfe\xff" + '{"type":"track"}'.encode("utf-32-be"), "UTF-32: convert the file to UTF-8"),
    (b"[\n", JSON_ARRAY),
    (b"]", JSON_ARRAY),
    (gzip.compress(b"{}", mtime=0), "gzip within gzip: decompress the file once"),
    (b"PK\x03\x04\x14\0", "not gzip but zip: unpack it, and store its lines plain or as gzip"),
    (b"7z\xbc\xaf\x27\x1c\0\x04", "not gzip but 7z: unpack it, and store its lines plain or as gzip"),
    (bz2.compress(b"{}"), "not gzip but bzip2: unpack it, and store its lines plain or as gzip"),
    (lzma.compress(b"{}"), "not gzip but xz: unpack it, and store its lines plain or as gzip"),
    (tarfile.TarInfo("x.json").tobuf() + b"{}", "a tar archive: unpack it, and store its files one by one"),
    (b"PAR1\x15\x04", "Parquet, a table and not messages: see `adopt`"),
    (b"Obj\x01\x04", "Avro, a table and not messages: see `adopt`"),
    (b"version https://git-lfs.github.com/spec/v1\n", LFS),
    (b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n", None),
    (b"id,received_at,email\r\n", CSV),
    (b'"id","First Name","e-mail"\n', CSV),
    (b"id\tuser_id\n", CSV),
    (b"ID;USER_ID;\xc3\x9cber\n", CSV),
    (b"id|context.ip\n", CSV),
    (b"id,received_at;email\n", None),
    (b"id\n", None),
    (b"No, not today\n", None),
    (b"7,2019-03-09,a@b.c\n", None),
    (b"<!DOCTYPE html>\n", MARKUP),
    (b'\t<?xml version="1.0"?><Error>', MARKUP),
    (b"[1,2]", None),
    (b"\0\0\0", None),
    ("購入".encode("utf-16"), UTF_16),
    (b'{"a":1}x', None),
    (b'{"a":1,{"b":2}}', None),
    (b'{"a":,"b":1}', None),
    (b'{"a"::1}', None),
]


@pytest.mark.parametrize(("line", "cause"), CAUSES)
def test_a_reject_names_the_likely_cause(line: bytes, cause: str | None) -> None:
    _, message = why(line)
    assert message.endswith(f" ({cause})") if cause else "(" not in message


@pytest.mark.parametrize(("length", "shown"), [(60, f'"{"a" * 58}"'), (61, f'"{"a" * 56}...')])
def test_a_reject_quotes_at_most_sixty_characters(length: int, shown: str) -> None:
    assert why(f'"{"a" * (length - 2)}"'.encode()) == ("not_an_object", f"JSON, but not an object: {shown}")


def nested(levels: int, more: str = "", begin: str = '{"a":', end: str = "}") -> bytes:
    """Returns an identify that nests to this depth because of its traits."""
    deep = begin * (levels - 2) + "1" + end * (levels - 2)
    return f'{{"type":"identify","messageId":"m","userId":"u","traits":{{"deep":{deep}{more}}}}}'.encode()


@pytest.mark.parametrize("brackets", [('{"a":', "}"), ("[", "]")])
def test_what_nests_too_deeply_is_rejected_and_does_not_end_the_run(brackets: tuple[str, str]) -> None:
    deep = ("not_json", f"nested too deeply to be read: more than {MAX_DEPTH} objects or arrays in another")
    assert why(nested(MAX_DEPTH + 1, "", *brackets)) == why(nested(200_000, "", *brackets)) == deep
    assert read_message(nested(MAX_DEPTH, ',"b":[],"c":"[[[["', *brackets), DECLARED).cells["x:b"] == "[]"


def test_many_objects_side_by_side_are_not_deep() -> None:
    array = f"[{','.join(['{}'] * (MAX_DEPTH + 1))}]"
    assert cells(track(properties={"a": "$"}).replace('"$"', array))["x:a"] == array


@pytest.mark.parametrize(
    ("line", "levels"),
    [(b"", 0), (b"1", 0), (b"]]", 0), (b"z|", 0), (b"[{}]", 2), (b"{}[]{}", 1), (b'{"a":[1,"[["],"[":{}}', 2)],
)
def test_depth_counts_brackets_outside_of_texts(line: bytes, levels: int) -> None:
    assert depth(line) == levels


def test_objects_that_the_message_does_not_need_may_be_anything() -> None:
    assert cells(track(traits=5, integrations=[], _metadata=None))["user_id"] == "u"
    assert cells('{"type":"identify","userId":"u","properties":5}')["user_id"] == "u"


@pytest.mark.parametrize(
    ("path", "column", "better"),
    [
        (("properties", "a_b"), "a_b", ("properties", "a", "b")),
        (("properties", "a", "b"), "a_b", ("properties", "A", "b")),
        (("context", "a_b"), "context_a_b", ("context", "aB")),
        (("properties", "_id"), "_id", ("properties", "id")),
    ],
)
def test_the_key_that_is_spelt_like_the_column_is_the_better_one(
    path: tuple[str, ...], column: str, better: tuple[str, ...]
) -> None:
    assert spelling_rank(path, column) < spelling_rank(better, column)


def test_other_keys_are_equally_good() -> None:
    assert spelling_rank(("properties", "aB"), "a_b") == spelling_rank(("properties", "A", "b"), "a_b")


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("1.10", "1.10"),
        ("1e5", "1e5"),
        ("-0", "-0"),
        ("12345678901234567890", "12345678901234567890"),
        ('"a\\/b\\u001f\\u00e9"', '"a/b\\u001Fé"'),
        ('"\\\\u001f"', '"\\\\u001f"'),
        ('"\\ud800\\u0000"', '"\\uD800\\u0000"'),
        ('[ 1.0 , {"b" : null} ]', '[1.0,{"b":null}]'),
        ("[]", "[]"),
    ],
)
def test_values_keep_their_spelling_as_json_text(text: str, spelt: str) -> None:
    assert cells(track(properties={"a": "$"}).replace('"$"', f"[{text}]"))["x:a"] == f"[{spelt}]"


def test_an_object_has_its_leaves_in_order() -> None:
    objects: list[tuple[str, ...]] = []
    value = JsonObject([("b", "1"), ("a", JsonObject([("c", True), ("d", None), ("e", JsonObject())])), ("f", [])])
    assert list(flatten(value, ("properties",), objects)) == [
        (("properties", "b"), "b", "1"),
        (("properties", "a", "c"), "a_c", True),
        (("properties", "f"), "f", []),
    ]
    assert objects == [("properties",), ("properties", "a"), ("properties", "a", "e")]


def test_a_key_that_comes_again_in_the_message_itself_is_discarded() -> None:
    line = '{"type":"track","event":"a","event":"b","userId":"1","userId":"2","userId":"1","userId":null,'
    line += '"context":{},"context":{"ip":"::1"}}'
    assert cells(line)["user_id"] == "1"
    assert discards(line) == [
        Discard("event_text", '"b"', "same_column"),
        Discard("user_id", '"2"', "same_column"),
        Discard("context", '{"ip":"::1"}', "same_column"),
    ]


def test_a_body_that_comes_again_is_discarded() -> None:
    line = '{"type":"page","userId":"1","event":"a","event":"b","name":"c","name":"d","traits":{},"traits":{"a":1},'
    line += '"properties":{"a":1},"properties":{"a":2},"previousId":"e","previousId":"f"}'
    assert cells(line)["x:a"] == "1"
    assert discards(line) == [
        Discard("name", '"d"', "same_column"),
        Discard("properties", '{"a":2}', "same_column"),
    ]


@pytest.mark.parametrize(
    ("fields", "discarded"),
    [
        ('"messageId":[1.10]', Discard("id", "[1.10]", "does_not_fit")),
        ('"anonymousId":{"a":1}', Discard("anonymous_id", '{"a":1}', "does_not_fit")),
        ('"anonymousId":"\\u0000"', Discard("anonymous_id", r'"\u0000"', "not_text")),
        ('"anonymousId":NaN', Discard("anonymous_id", "NaN", "not_a_number")),
        ('"properties":{"a":-Infinity}', Discard("a", "-Infinity", "not_a_number")),
        ('"properties":{"A b":"\\ud800"}', Discard("a_b", r'"\uD800"', "not_text")),
        ('"properties":{"a":{"名":1.10}}', Discard("properties.a.名", "1.10", "no_column")),
        ('"properties":{"\\u0000":{"b":2}}', Discard(r"properties.\u0000.b", "2", "no_column")),
        ('"context":{"名":[1]}', Discard("context.名", "[1]", "no_column")),
        (r'"context":{"\"\\":0}', Discard('context."\\', "0", "no_column")),
        ('"properties":{"a_b":1,"aB":2}', Discard("a_b", "2", "same_column")),
        ('"properties":{"aB":1,"a_b":2}', Discard("a_b", "1", "same_column")),
        ('"properties":{"aB":1,"a b":2}', Discard("a_b", "2", "same_column")),
        ('"properties":{"a":{"b":1},"a_b":2}', Discard("a_b", "1", "same_column")),
        ('"properties":{"a_b":1,"a":{"b":2}}', Discard("a_b", "2", "same_column")),
        ('"context":{"aB":1,"a_b":2}', Discard("context_a_b", "1", "same_column")),
    ],
)
def test_what_has_no_cell_is_discarded_whole(fields: str, discarded: Discard) -> None:
    line = f'{{{fields},"type":"track","event":"e","userId":"u"}}'
    assert discards(line) == [discarded]
    if discarded.reason == "same_column":
        left = "2" if discarded.value == "1" else "1"
        assert cells(line)[f"x:{discarded.column}"] == left


def test_an_events_name_that_cannot_be_stored_is_discarded_and_still_names_its_table() -> None:
    line = r'{"type":"track","event":"a\ud800","userId":"u"}'
    assert cells(line)["event"] == r'"a\uD800"'
    assert discards(line) == [Discard("event_text", r'"a\uD800"', "not_text")]


def test_a_message_tells_its_objects() -> None:
    line = track(context={"a": {"b": 1}}, properties={"c": {}, "\ud800": {"d": 1}}, traits={"e": {}})
    assert read_message(line.encode(), DECLARED).objects == [
        ("context",), ("context", "a"), ("properties",), ("properties", "c"),
    ]  # fmt: skip


def numbered(count: int) -> dict[str, int]:
    return {f"k{number:05}": number for number in range(count)}


def test_a_message_has_as_many_cells_as_any_needs() -> None:
    """Fields of the message and its discards count as well; declared properties always have their cells."""
    line = track(properties={**numbered(MAX_KEYS), "名": 1, "campaign_id": "c"})
    found = read_message(line.encode(), DECLARED)
    assert len(found.cells) == MAX_KEYS + 1
    assert found.cells["campaign_id"] == "c"
    assert found.discards == [
        *(Discard(f"k{number:05}", str(number), "too_many_keys") for number in range(MAX_KEYS - 4, MAX_KEYS)),
        Discard("properties.名", "1", "too_many_keys"),
    ]
    line = track(anonymousId=[], properties=numbered(MAX_KEYS))
    assert len(cells(line)) + 1 == MAX_KEYS
    assert len(discards(line)) - 1 == 5


def test_a_context_has_as_many_cells_as_any_message_needs() -> None:
    found = read_message(track(context={**numbered(MAX_KEYS + 1), "ip": "::1"}, properties={"a": 1}).encode(), DECLARED)
    assert len(found.cells) == 4 + MAX_KEYS + 1
    assert found.cells["context_ip"] == "::1"
    assert found.discards == [
        Discard(f"context_k{MAX_KEYS}", str(MAX_KEYS), "too_many_keys"), Discard("a", "1", "too_many_keys"),
    ]  # fmt: skip


def test_a_message_keeps_only_as_many_leaves_as_there_is_room() -> None:
    found: list[Discard] = []
    leaves = [(("properties", key), key, key) for key in "abcd"]
    assert cells_of_leaves(leaves, frozenset("d"), found, room=2) == {"x:a": '"a"', "x:b": '"b"', "d": "d"}
    assert found == [Discard("c", '"c"', "too_many_keys")]


@pytest.mark.parametrize(
    ("column", "named"), [("a", "a"), ("id", "_id"), ("context", "context"), ("context_a", "_context_a")]
)
def test_a_common_column_is_never_taken(column: str, named: str) -> None:
    assert prefixed_if_taken(column, {"id"}) == named


@pytest.mark.parametrize(
    ("value", "storable"),
    [("a", True), ("\0", False), ("a\0b", False), ("\udc00", False), (True, True), (["\0"], True),
     (JsonNumber("1"), True), (JsonNumber("NaN"), False), (JsonNumber("-Infinity"), False)],
)  # fmt: skip
def test_what_warehouses_can_store(value: Any, storable: bool) -> None:
    assert is_storable(value) is storable


def test_json_text_of_an_object_keeps_order_and_repetition() -> None:
    assert to_json(JsonObject([("b", None), ("a", False), ("b", "")])) == '{"b":null,"a":false,"b":""}'


# ---- JSON as it is spelt -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["12345678901234.123456", "1.10", "1e400", "-0", "0.10e-7", "18446744073709551616"])
def test_numbers_keep_their_digits(number: str) -> None:
    text = f'{{"a":{number},"b":[{number}],"a":{{"c":{number}}}}}'
    for value in (parse_json(text.encode()), DECODER.decode(text)):
        assert isinstance(value, JsonObject)
        assert value.value("a") == number
        assert isinstance(value.value("a"), JsonNumber)
        assert to_json(value) == text
