"""Decodes the JSON of an answer, and keeps the spelling of numbers: `1.10` stays `1.10`.

All clients return values in this form: objects are `JsonObject`s, numbers are `JsonNumber`s (`segment.json_text`).
"""

import json
import re
from typing import Any, TypeAlias

from ..catalog import MAX_ANSWER_DEPTH
from ..masking import masked
from ..segment.json_text import DECODER, JsonNumber, JsonObject, is_deeper, to_json

MAX_VALUES = 1_000_000  # values of an answer; each takes up to a few hundred bytes of memory
MAX_DIGITS = 18  # digits of a count; Python raises for numbers of several thousand digits

JsonValue: TypeAlias = list[Any] | str | bool | None
"""A value as `decode_json` returns it; `JsonObject` is a list, `JsonNumber` a str."""

_QUOTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # a JSON string, closed or not
# A pattern instead of the codec of UTF-16: Python imports codecs on first use, which fails in 3.13.0 to 3.13.2 if the
# current folder was deleted.
_PAIR = re.compile("([\ud800-\udbff])([\udc00-\udfff])")


class TooManyValues(Exception):
    """The JSON has more than `MAX_VALUES` values."""


class Truncated(Exception):
    """The JSON stops before its end."""


class NotJson(Exception):
    """The text is not JSON."""


class TooDeep(NotJson):
    """The JSON nests more than `MAX_ANSWER_DEPTH` objects and arrays."""


def decode_json(content: bytes) -> JsonValue:
    """Returns the value of a JSON text in UTF-8, UTF-16 or UTF-32.

    Raises TooManyValues, TooDeep, Truncated and NotJson.

    Example: `decode_json(b'{"n":1.10}') == JsonObject([("n", JsonNumber("1.10"))])`.
    """
    if _has_too_many_values(content):
        raise TooManyValues
    try:
        text = _decode_text(content)
        _check_depth(text)
        value: JsonValue = DECODER.decode(text)
    except ValueError as error:
        cut = _is_cut_off(error)
    else:
        return value
    raise Truncated if cut else NotJson


def _decode_text(content: bytes) -> str:
    """Returns the text of an answer. Raises UnicodeDecodeError."""
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, "surrogatepass")
        # The two halves of a surrogate pair, encoded one by one, are one character.
        return _PAIR.sub(_joined, text)


def _joined(halves: re.Match[str]) -> str:
    """Returns the character of a high and a low surrogate."""
    return chr(0x10000 + ((ord(halves[1]) - 0xD800) << 10) + ord(halves[2]) - 0xDC00)


def _check_depth(text: str) -> None:
    """Raises TooDeep if a text nests too deeply, or NotJson if such a text does not end with a closing bracket."""
    if is_deeper(text.encode(errors="surrogatepass"), MAX_ANSWER_DEPTH):
        raise TooDeep if text.rstrip().endswith(("]", "}")) else NotJson


def _has_too_many_values(content: bytes) -> bool:
    """Returns whether decoding would fill the memory: `[[],[],...]` takes twenty times its size."""
    if sum(map(content.count, (b",", b"[", b"{"))) <= MAX_VALUES:
        return False
    return sum(map(_QUOTED.sub(b"", content).count, (b",", b"[", b"{"))) > MAX_VALUES


def _is_cut_off(error: Exception) -> bool:
    """Returns whether JSON is truncated: the answer broke off, and the connection did not report it."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or len(error.doc) - error.pos < len("false")


def as_text(value: Any) -> str | None:
    """Returns a JSON string, or None for any other value. A `JsonNumber` is a str, but not a JSON string."""
    return str(value) if isinstance(value, str) and not isinstance(value, JsonNumber) else None


def as_array(value: Any) -> list[Any] | None:
    """Returns a JSON array, or None for any other value. A `JsonObject` is a list, but not a JSON array."""
    return value if isinstance(value, list) and not isinstance(value, JsonObject) else None


def as_count(value: Any) -> int | None:
    """Returns a JSON number that is whole, not negative and of sensible size, or None for any other value."""
    is_whole = isinstance(value, JsonNumber) and value.isdigit() and len(value) <= MAX_DIGITS
    return int(value) if is_whole else None


def value_at(answer: JsonValue, *path: str) -> Any:
    """Returns the first value at `path` in an answer, None if there is none or the answer is not an object."""
    return answer.value(*path) if isinstance(answer, JsonObject) else None


def plain(value: JsonValue) -> Any:
    """Returns a value as `json.loads` would return it, with dicts, ints and floats. A number may lose digits.

    Example: `plain(decode_json(b'{"n":1.10}')) == {"n": 1.1}`.
    """
    return json.loads(to_json(value))


def describe(value: JsonValue) -> str:
    """Returns a description of a value for errors: at most keys and short texts, because contacts are personal data.

    Secrets are masked, because the warehouse stores such errors, and they are masked before the text is shortened,
    because a part of a secret would not be recognised.
    """
    if isinstance(value, JsonObject):
        keys = masked(", ".join(sorted(key for key, _ in value)[:5]))
        return f"an object with {keys}" if value else "an empty object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return "nothing" if value is None else masked(to_json(value))[:60]
