"""One line read with care: its cells, what is discarded, and why it is rejected."""

import json
from typing import Any

import pytest

from autopilothq.catalog import REJECT_REASONS
from autopilothq.segment.json_text import DECODER, JsonNumber, JsonObject, to_json
from autopilothq.segment.message import Discard, Rejected, digest, flatten, parse_json, read_message, spelling

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


def test_bytes_that_are_not_utf8_are_not_json() -> None:
    with pytest.raises(Rejected, match="not UTF-8 at byte 1"):
        read_message(b'"\xff"', DECLARED)


def test_what_nests_too_deeply_is_rejected_and_does_not_end_the_run() -> None:
    with pytest.raises(Rejected, match="nested too deeply"):
        read_message(b'{"a":' * 200_000 + b"1" + b"}" * 200_000, DECLARED)


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
    assert spelling(path, column) < spelling(better, column)


def test_other_keys_are_equally_good() -> None:
    assert spelling(("properties", "aB"), "a_b") == spelling(("properties", "A", "b"), "a_b")


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
    line = '{"type":"track","event":"a","event":"b","userId":"1","userId":"2","userId":"1",'
    line += '"context":{},"context":{"ip":"::1"}}'
    assert cells(line)["user_id"] == "1"
    assert discards(line) == [
        Discard("event_text", '"b"', "same_column"),
        Discard("user_id", '"2"', "same_column"),
        Discard("context", '{"ip":"::1"}', "same_column"),
    ]


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
