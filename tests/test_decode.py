"""The JSON of answers is read with numbers as they are spelt; other texts are errors."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autopilothq.clients import decode
from autopilothq.clients.decode import NotJson, TooManyValues, Truncated, as_text, decode_json, describe, plain
from autopilothq.segment.json_text import JsonNumber, JsonObject


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"n":1.10,"n":2}', JsonObject([("n", JsonNumber("1.10")), ("n", JsonNumber("2"))])),
        (b"12345678901234.123456", JsonNumber("12345678901234.123456")),
        (b' [null, true, "a"]\n', [None, True, "a"]),
        ('"ä"'.encode("utf-8-sig"), "ä"),
        ('"ä"'.encode("utf-16"), "ä"),
        (b'"\\ud800"', "\ud800"),
        (b'"\xed\xa0\xbd\xed\xb8\x80"', "\U0001f600"),  # a surrogate pair, each half in UTF-8
    ],
)
def test_values_are_as_they_are_spelt(content: bytes, value: Any) -> None:
    found = decode_json(content)
    assert (found, type(found)) == (value, type(value))


def test_halves_of_a_pair_are_joined_where_the_working_folder_is_gone(tmp_path: Path) -> None:
    work = tmp_path / "gone"
    work.mkdir()
    code = """
import os
from autopilothq.clients.decode import decode_json
os.rmdir(os.getcwd())
print(ascii(decode_json(bytes.fromhex("22eda0bdedb88020edb880eda0bd22"))))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("'\\U0001f600 \\ude00\\ud83d'\n", "")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", Truncated),
        (b'{"a":"b', Truncated),
        (b"[1,", Truncated),
        (b"[fal", Truncated),
        (b"<html>", NotJson),
        (b"[1] [2, 3, 4]", NotJson),
        (b"[\xff]", NotJson),
        (b"[" * 200_000, NotJson),
    ],
)
def test_a_text_that_is_no_json(content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        decode_json(content)
    assert caught.value.__cause__ is caught.value.__context__ is None  # the decoder's own error has the text


def test_texts_in_json_are_not_counted_as_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_VALUES", 3)
    assert decode_json(b'["a,[,{\\",{[",1]') == ['a,[,{",{[', JsonNumber("1")]
    with pytest.raises(TooManyValues):
        decode_json(b"[1,2,3,4]")


@pytest.mark.parametrize(
    ("content", "value", "text", "described"),
    [
        (b'{"b":1.10,"a":[{}]}', {"b": 1.1, "a": [{}]}, None, "an object with a, b"),
        (b"{}", {}, None, "an empty object"),
        (b"[1,2]", [1, 2], None, "an array of 2"),
        (b"[]", [], None, "an array of 0"),
        (b"7", 7, None, "7"),
        (b'"7"', "7", "7", '"7"'),
        (b"null", None, None, "nothing"),
        (b"true", True, None, "true"),
    ],
)
def test_a_value_in_other_forms(content: bytes, value: Any, text: str | None, described: str) -> None:
    found = decode_json(content)
    assert (plain(found), as_text(found), describe(found)) == (value, text, described)
