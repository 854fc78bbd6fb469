r"""Reads and writes JSON without loss: numbers keep their digits, objects the order of their keys and repeated keys.

All JSON that ends up in the warehouse is read with `DECODER`, a `json.JSONDecoder`, and not with `json.loads`, which
turns `1.10` into `1.1` and `12345678901234.123456` into `12345678901234.123`. Example:

    value = DECODER.decode('{"a": 1.10, "b": {"c": "x"}}')
    assert isinstance(value, JsonObject)
    assert value.value("a") == "1.10" and value.value("b", "c") == "x"
    assert to_json(value) == '{"a":1.10,"b":{"c":"x"}}'
"""

import json
import re
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

BLANK = " \t\n\r\f"
"""What a blank text consists of."""

_ESCAPE = re.compile(r"\\u.{4}|\\.")
# A JSON string, closed or not. Brackets inside it do not nest.
_QUOTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


class JsonNumber(str):
    """A JSON number as text. `NaN`, `Infinity` and `-Infinity`, which Python's decoder accepts, count as numbers."""


class JsonObject(list[tuple[str, Any]]):
    """A JSON object: pairs of a key and a value, in the order in which they came."""

    def value(self, *path: str) -> Any:
        """Returns the first value at `path`, or None if there is none."""
        value: Any = self
        for part in path:
            if not isinstance(value, JsonObject):
                return None
            value = next((found for key, found in value if key == part), None)
        return value

    def repeated(self, *keys: str) -> "JsonObject":
        """Returns the pairs of these keys that `value` passes over, because an earlier pair has the key.

        Pairs whose value is null or equals the first value are left out. Example: for `{"a":1,"a":1,"a":2,"b":3}` it
        returns `{"a":2}`.
        """
        first: dict[str, Any] = {}
        differ = [(key, value) for key, value in self if key in keys and first.setdefault(key, value) != value]
        return JsonObject(pair for pair in differ if pair[1] is not None)


DECODER = json.JSONDecoder(
    object_pairs_hook=JsonObject,
    parse_float=JsonNumber,
    parse_int=JsonNumber,
    parse_constant=JsonNumber,
)
"""Reads JSON without loss: objects are `JsonObject`, numbers are `JsonNumber`."""


def depth(line: bytes) -> int:
    """Returns how deeply the objects and arrays of a line of JSON are nested.

    Example: `depth(b'{"a":[1,"[["]}') == 2`.
    """
    import numpy as np  # imported late: the receiver needs it only here, for the few texts with many brackets

    brackets = np.frombuffer(_QUOTED.sub(b"", line), np.uint8) | 0x20  # `[` and `{` differ only in 0x20
    steps = (brackets == ord("{")).astype(np.int32) - (brackets == ord("}"))
    return int(np.cumsum(steps).max(initial=0))


def is_deeper(text: bytes, most: int) -> bool:
    """Returns whether the objects and arrays of a JSON text are nested more than `most` levels deep."""
    return text.count(b"[") + text.count(b"{") > most and depth(text) > most


def is_storable(value: Any) -> bool:
    """Returns whether a value can be stored: it is not NaN, an infinity, or text with NUL or lone surrogates.

    An array or an object must have neither NaN nor infinities: its text would not be JSON.
    """
    if isinstance(value, JsonNumber):
        return value[-1].isdigit()  # not NaN, Infinity, -Infinity
    if isinstance(value, list):
        return _is_json(value)
    return not isinstance(value, str) or is_encodable(value)


def is_id(value: Any) -> bool:
    """Returns whether a value in the field of an id counts: a text that is not blank, a number or a boolean.

    Values that cannot be stored (`is_storable`) do not count.

    Example: `is_id(JsonNumber("5")) and not is_id(" ")`.
    """
    blank = isinstance(value, str) and not value.strip(BLANK)
    return not (value is None or blank or isinstance(value, list)) and is_storable(value)


def _is_json(value: Any) -> bool:
    if isinstance(value, JsonNumber):
        return is_storable(value)
    if isinstance(value, list):
        for inner in value:  # a loop, as in `to_json`
            if not _is_json(inner[1] if isinstance(value, JsonObject) else inner):
                return False
    return True


def is_blank(value: Any) -> bool:
    """Returns whether a value is null or blank text."""
    return value is None or (isinstance(value, str) and not value.strip())


def storable_text(value: Any) -> str | None:
    """Returns a text or a number as text; None for blank text, text that cannot be stored, and any other value."""
    return str(value) if isinstance(value, str) and not is_blank(value) and is_storable(value) else None


def id_as_sent(value: Any) -> Any:
    """Returns an id as text, None if it is blank; any other value unchanged, so that the load reports it."""
    return None if is_blank(value) else storable_text(value) or value


def is_encodable(text: str) -> bool:
    """Returns whether UTF-8 and every warehouse can hold a text: it has neither lone surrogates nor NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def to_json(value: Any) -> str:
    """Returns compact JSON text; numbers keep their digits, objects their order.

    Lone surrogates and NUL stay escaped. Example: `to_json([JsonNumber("1.10"), "é"]) == '[1.10,"é"]'`.
    """
    if isinstance(value, JsonNumber):
        return str(value)
    if isinstance(value, list):
        parts = []  # filled by loops: a comprehension or `map` takes two or three stack frames per level
        if isinstance(value, JsonObject):
            for key, inner in value:
                parts.append(f"{to_json(key)}:{to_json(inner)}")
            return "{" + ",".join(parts) + "}"
        for inner in value:
            parts.append(to_json(inner))  # noqa: PERF401 - see above
        return "[" + ",".join(parts) + "]"
    if isinstance(value, str):
        text = encode_basestring(value) if is_encodable(value) else encode_basestring_ascii(value)
    else:
        text = json.dumps(value)
    return _ESCAPE.sub(_upper_escape, text) if "\\u" in text else text


def _upper_escape(escape: re.Match[str]) -> str:
    r"""Returns `\u001F` for `\u001f`, as the engine spells it."""
    return escape[0][:2] + escape[0][2:].upper()
