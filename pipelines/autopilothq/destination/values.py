"""Casts values to the types of an account's fields (docs/contract/destination.md#fields). No digit is lost."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from ..catalog import EPOCHS
from ..utc import EPOCH, format_time

_INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")
_LONG_INTEGER = re.compile(r"([+-]?[0-9]{16,})(\.0*)?")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_DAY = re.compile(r"[0-9]{8}")
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LONGEST = 40  # characters; numbers have fewer


class CastError(Exception):
    """A value cannot be cast to the type of its field. The message says why."""


def own_type(value: Any) -> str:
    """Returns the type of custom field that fits a value."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, Decimal):
        return "integer" if value.as_tuple().exponent == 0 else "float"
    if isinstance(value, float):
        return "float"
    return "date" if isinstance(value, date) else "string"


def cast(value: Any, kind: str) -> Any:
    """Casts a value to a type of field. Null stays null, which clears the field.

    Raises CastError instead of losing a digit.

    Example: `cast("5.0", "integer") == 5`, `cast(1454284800, "date") == "2016-02-01T00:00:00.000Z"`.
    """
    return None if value is None else _CASTS[kind](value)


def is_text(value: str) -> bool:
    """Returns whether a text is not empty and can be encoded as UTF-8."""
    try:
        return bool(value.encode())
    except UnicodeEncodeError:
        return False


def _string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value)) if abs(value) < 1e16 else repr(value)
    if isinstance(value, date):
        return _date(value)
    if isinstance(value, Mapping):
        raise CastError("expected a text, got an object")
    if isinstance(value, bytes | bytearray | memoryview):
        raise CastError("bytes are not text")
    text = _json(value) if isinstance(value, list | tuple) else str(value)
    if text and not is_text(text):
        raise CastError("it holds half a surrogate pair, which is not text")
    return text


def _json(value: Any) -> str:
    """Returns the JSON text of a value in an array. Decimals are numbers with all their digits."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_json, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_json(str(key))}: {_json(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=_string)


def _integer(value: Any) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()) and len(value) < _LONGEST:
        return int(value.strip().partition(".")[0])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return int(value)
    raise CastError(f"expected an integer, got {shown(value)}")


def _float(value: Any) -> float | int:
    number = math.nan
    # Python would read "1_000" as a number.
    if isinstance(value, int | float | Decimal | str) and not isinstance(value, bool) and "_" not in str(value):
        with suppress(ValueError, OverflowError):  # the latter for integers of 400 digits
            number = float(value)
    if not math.isfinite(number) or (number == 0 and re.search("[1-9]", str(value).lower().partition("e")[0])):
        raise CastError(f"expected a number, got {shown(value)}")
    if isinstance(value, int | float):
        return value
    long = _LONG_INTEGER.fullmatch(str(value).strip())  # a float may not hold all its digits
    return int(long[1]) if long else number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal) and value in (0, 1):
        return value == 1
    text = value.strip().lower() if isinstance(value, str) else ""
    if text not in _BOOLEANS:
        raise CastError(f"expected true or false, got {shown(value)}")
    return _BOOLEANS[text]


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def _date(value: Any) -> str:
    """Returns a date as ISO 8601. Reads what the API sends (ISO 8601, RFC 1123, epoch milliseconds) and epoch seconds.

    Text in the notation 2016-02-01T… stays as it is.
    """
    try:
        if isinstance(value, datetime):
            return format_time(value)
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, str):
            return _date_of_text(value.strip())
        if isinstance(value, int | float | Decimal):
            return _date(_epoch_time(value))
    except (ValueError, OverflowError, TypeError, ArithmeticError):
        pass
    raise CastError(f"expected a date, got {shown(value)}")


def _date_of_text(text: str) -> str:
    if _DAY.fullmatch(text):  # 20160201 is a day; as epoch seconds it would be in 1970
        return date.fromisoformat(text).isoformat()
    if _NUMBER.fullmatch(text) and len(text) < _LONGEST:
        return _date(_epoch_time(Decimal(text)))
    if not text[:1].isdigit():
        return _date(parsedate_to_datetime(text))
    at = datetime.fromisoformat(text)
    if _ISO_DATE.match(text):
        return text
    return at.date().isoformat() if len(text) <= len("2016-W05-1") else _date(at)


def _epoch_time(value: float | Decimal) -> datetime:
    """Returns the time of epoch seconds or milliseconds, told apart by their size. Raises ValueError for others."""
    number = Decimal(value)
    for epoch in EPOCHS:
        if epoch.least <= abs(number) < epoch.below:
            return EPOCH + timedelta(microseconds=int(number * (1_000_000 // epoch.per_second)))
    raise ValueError


_CASTS = {"string": _string, "integer": _integer, "float": _float, "boolean": _boolean, "date": _date}


def shown(value: Any) -> str:
    """Returns a value as text for a remark, of at most 60 characters."""
    text = "an array" if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
