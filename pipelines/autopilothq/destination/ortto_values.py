"""Casts values to the types of Ortto's fields and attributes, which prefix their ids (docs/contract/ortto-api.md)."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..catalog import ORTTO_DECIMAL_DIGITS
from ..utc import to_utc
from .values import CastError, cast, shown

_NOT_DIGITS = re.compile(r"[^0-9]")


def ortto_type(field_id: str, display_type: str) -> str:
    """Returns the type of a field or an attribute. Example: `ortto_type("int:cm:score", "decimal") == "decimal"`."""
    prefix = field_id.partition(":")[0]
    return "decimal" if prefix == "int" and display_type == "decimal" else prefix


def cast_ortto(value: Any, kind: str) -> Any:
    """Casts a value to one of Ortto's types. Null stays null, which clears the field.

    Raises CastError instead of losing a digit.

    Examples: `cast_ortto("1.5", "decimal") == 1500`, `cast_ortto("2026-03-01", "dtz") == {"year": 2026, "month": 3,
    "day": 1, "timezone": "UTC"}`.
    """
    if kind not in _CASTS:
        raise CastError("this kind of field cannot be written")
    return None if value is None else _CASTS[kind](value)


def readable(value: Any, kind: str) -> Any:
    """Returns a value of `cast_ortto` in readable form. Example: `readable(1500, "decimal") == 1.5`."""
    if kind == "decimal" and isinstance(value, int):
        return value / 10**ORTTO_DECIMAL_DIGITS
    if not isinstance(value, Mapping):
        return value
    if "year" in value:
        return f"{value['year']:04d}-{value['month']:02d}-{value['day']:02d}"
    return value.get("name") or f"{'+' * value['parse_with_country_code']}{value['phone']}"


def _decimal(value: Any) -> int:
    """Returns a decimal in Ortto's form: an integer, multiplied by 1,000."""
    try:
        number = Decimal(str(value).strip()).scaleb(ORTTO_DECIMAL_DIGITS)
    except ArithmeticError:  # not a number, or one of a million digits
        raise CastError(f"expected a number, got {shown(value)}") from None
    if number != number.to_integral_value() or abs(number) >= 2**63:
        digits = f"at most {ORTTO_DECIMAL_DIGITS} digits after the point"
        raise CastError(f"expected a number with {digits}, got {shown(value)}")
    return int(number)


def _integer(value: Any) -> int:
    number: int = cast(value, "integer")
    if abs(number) >= 2**63:
        raise CastError(f"expected an integer of 64 bits, got {shown(value)}")
    return number


def time_of(value: Any) -> datetime:
    """Returns the time, in UTC, of a date in any notation; one without a zone is taken as UTC. Raises CastError."""
    at = datetime.fromisoformat(cast(value, "date"))
    try:
        return to_utc(at)
    except ValueError:
        raise CastError(f"expected a date of the years 1 to 9999 in UTC, got {shown(value)}") from None


def _day(value: Any) -> dict[str, Any]:
    at = time_of(value)
    return {"year": at.year, "month": at.month, "day": at.day, "timezone": "UTC"}


def _time(value: Any) -> str:
    return f"{time_of(value).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def _phone(value: Any) -> dict[str, Any]:
    """Returns a phone number in Ortto's form. If it begins with + or 00, it includes the country code."""
    text = cast(value, "string").strip()
    digits = _NOT_DIGITS.sub("", text)
    if not digits:
        raise CastError(f"expected a phone number, got {shown(value)}")
    has_country = text.startswith(("+", "00"))
    return {"phone": digits.removeprefix("00") if has_country else digits, "parse_with_country_code": has_country}


_CASTS: Mapping[str, Callable[[Any], Any]] = {
    "str": lambda value: cast(value, "string"),
    "txt": lambda value: cast(value, "string"),
    "int": _integer,
    "decimal": _decimal,
    "bol": lambda value: cast(value, "boolean"),
    "dtz": _day,
    "tme": _time,
    "phn": _phone,
    "geo": lambda value: {"name": cast(value, "string")},
}
