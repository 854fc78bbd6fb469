"""The JSON of an answer, read with its numbers as they are spelt: `1.10` stays `1.10`.

Both clients give such values: objects are `JsonObject`s, numbers are `JsonNumber`s (`segment.message`).
"""

import json
import re
from typing import Any, TypeAlias

from ..segment.json_text import DECODER, JsonNumber, JsonObject, to_json

MAX_VALUES = 1_000_000  # of one answer; each takes some hundred bytes of memory

JsonValue: TypeAlias = list[Any] | str | bool | None
"""A value as `decode_json` gives it; `JsonObject` is a list, `JsonNumber` a str."""

_QUOTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # a JSON string, closed or not


class TooManyValues(Exception):
    """The JSON has more than `MAX_VALUES` values."""


class Truncated(Exception):
    """The JSON stops before its end."""


class NotJson(Exception):
    """The text is no JSON."""


def decode_json(content: bytes) -> JsonValue:
    """Returns the value of a JSON text in UTF-8, UTF-16 or UTF-32. Raises TooManyValues, Truncated and NotJson.

    Example: `decode_json(b'{"n":1.10}') == JsonObject([("n", JsonNumber("1.10"))])`.
    """
    if _has_too_many_values(content):
        raise TooManyValues
    try:
        value: JsonValue = DECODER.decode(_decode_text(content))
    except (ValueError, RecursionError) as error:
        cut = _is_cut_off(error)
    else:
        return value
    raise Truncated if cut else NotJson


def _decode_text(content: bytes) -> str:
    """The text of an answer. Raises UnicodeDecodeError."""
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, "surrogatepass")
        # Two halves of a pair that were encoded one by one are one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _has_too_many_values(content: bytes) -> bool:
    """Whether JSON would fill the memory once it is read: `[[],[],...]` takes twenty times its size."""
    if sum(map(content.count, (b",", b"[", b"{"))) <= MAX_VALUES:
        return False
    return sum(map(_QUOTED.sub(b"", content).count, (b",", b"[", b"{"))) > MAX_VALUES


def _is_cut_off(error: Exception) -> bool:
    """Whether JSON ends before its end: the answer broke off, and the connection did not report it."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or len(error.doc) - error.pos < len("false")


def as_text(value: Any) -> str | None:
    """Returns a JSON string, None for every other value; a number is none, although `JsonNumber` is a str."""
    return str(value) if isinstance(value, str) and not isinstance(value, JsonNumber) else None


def plain(value: JsonValue) -> Any:
    """Returns a value as `json.loads` would give it, with dicts, ints and floats. A number may lose digits.

    Example: `plain(decode_json(b'{"n":1.10}')) == {"n": 1.1}`.
    """
    return json.loads(to_json(value))


def describe(value: JsonValue) -> str:
    """Returns what a value is, for errors. Keys and short texts at most, because contacts are personal data."""
    if isinstance(value, JsonObject):
        return f"an object with {', '.join(sorted(key for key, _ in value)[:5])}" if value else "an empty object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return "nothing" if value is None else to_json(value)[:60]
