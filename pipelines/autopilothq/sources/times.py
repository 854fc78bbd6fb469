"""Reads times in the notations of settings and APIs."""

from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import InvalidSetting
from ..segment.json_text import JsonNumber
from ..segment.times import time_of_milliseconds
from ..utc import is_empty, parse_time, to_utc


def read_setting_time(time: str | date | None, name: str = "since") -> datetime | None:
    """Returns the time that a setting or a caller gives: ISO 8601, UTC if it has no zone; a date means its midnight.

    Returns None for None and for a blank text, because environment variables may be set but empty. Raises
    InvalidSetting, with the `name` of the setting, for a text that is not a time or a time that UTC cannot express.
    """
    if time is None or not str(time).strip():
        return None
    if isinstance(time, date) and not isinstance(time, datetime):
        return datetime(time.year, time.month, time.day, tzinfo=UTC)
    try:
        return parse_time(time)
    except ValueError:
        raise InvalidSetting(
            f"Expected a time such as 2019-03-01 or 2019-03-01T12:00:00Z for {name}, but got {str(time)!r}."
        ) from None


def read_period(since: str | date | None, until: str | date | None) -> tuple[datetime | None, datetime | None]:
    """Returns the times between which a caller requests events; None for an open end.

    Raises InvalidSetting if a text is not a time, or if the period is empty.
    """
    first, end = read_setting_time(since), read_setting_time(until, "until")
    if is_empty(first, end):
        raise InvalidSetting(f"Expected a later time for until than since, {since}, but got {until}.")
    return first, end


def read_time(value: Any) -> datetime | None:
    """Returns the time of a value from Autopilot's API, or None if it cannot be read.

    The API uses epoch milliseconds (`JsonNumber`), ISO 8601 and RFC 1123.
    """
    try:
        if isinstance(value, JsonNumber):
            return time_of_milliseconds(value)
        if not isinstance(value, str):
            return None
        time = datetime.fromisoformat(value) if value[:1].isdigit() else parsedate_to_datetime(value)
        return to_utc(time)
    except (ValueError, ArithmeticError):  # the latter for a time beyond the calendar, perhaps only in UTC
        return None
