"""Converts times that an API sends as numbers to the notation of messages.

In a message, the unit of a number depends on how many digits it has (docs/contract/warehouse.md#timestamps).
"""

from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ..utc import EPOCH, format_time
from .json_text import JsonNumber

_FAR = 10**15  # milliseconds since 1970, which are beyond the calendar
_FAR_DIGITS = 15
_MILLISECONDS = 10**11  # a smaller number of Ortto's is in seconds: as milliseconds, it would be before 1974


def time_of_milliseconds(number: JsonNumber) -> datetime | None:
    """Returns the time of a number of milliseconds since 1970, None if it is beyond the calendar."""
    try:
        if number.isdigit() and len(number) < _FAR_DIGITS:
            return EPOCH + timedelta(milliseconds=int(number))
        milliseconds = Decimal(number)
        return EPOCH + timedelta(microseconds=round(milliseconds * 1000)) if abs(milliseconds) < _FAR else None
    except ArithmeticError:
        return None


def time_of_number(number: JsonNumber) -> datetime | None:
    """Returns the time of a number, None if it is beyond the calendar. Ortto sends both seconds and milliseconds."""
    with suppress(ArithmeticError):  # an exponent that is far out of range
        exact = Decimal(number)
        return time_of_milliseconds(JsonNumber(exact * 1000) if abs(exact) < _MILLISECONDS else number)
    return None


def message_time(value: Any, time: datetime | None) -> Any:
    """Returns a number's time in the notation of messages; any other value, which needs no conversion, unchanged.

    A number without a `time` becomes a text that is not a time: by its digits, a load would take milliseconds beyond
    the calendar for microseconds. Example: `message_time(JsonNumber("253402300800000"), None) == "253402300800000 ms"`.
    """
    if not isinstance(value, JsonNumber):
        return value
    return format_time(time, exact=True) if time else f"{value} ms"
