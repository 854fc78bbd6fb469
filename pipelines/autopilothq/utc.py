"""Converts times to and from UTC, where some times at the ends of the calendar do not exist."""

from datetime import UTC, date, datetime, timedelta

DAY_SECONDS = 86_400
DAY_MS = 1000 * DAY_SECONDS
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_utc(time: datetime) -> datetime:
    """Returns a time converted to UTC; a time without a zone is taken as UTC.

    Raises ValueError if the calendar has no such time in UTC: `0001-01-01T00:00:00+02:00`.
    """
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def parse_time(time: str | datetime) -> datetime:
    """Returns the time of a text in ISO 8601, in the zone that it names, or in UTC if it names none.

    Raises ValueError if it is not a time, or does not exist in UTC.
    """
    found = datetime.fromisoformat(time) if isinstance(time, str) else time
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    to_utc(found)
    return found


def format_time(time: datetime, exact: bool = False) -> str:
    """Returns a time as Segment writes it, in UTC with milliseconds; if `exact`, with any microseconds that it has.

    Raises ValueError as `to_utc` does. Example: `2019-03-01T00:00:00.000Z`.
    """
    digits = "microseconds" if exact and time.microsecond % 1000 else "milliseconds"
    return f"{to_utc(time).replace(tzinfo=None).isoformat(timespec=digits)}Z"


def epoch_ms(time: datetime) -> int:
    """Returns a time in whole milliseconds since 1970, the finest unit that all destinations keep."""
    return (to_utc(time) - EPOCH) // timedelta(milliseconds=1)


def is_empty(since: date | None, until: date | None) -> bool:
    """Returns whether a period is empty. It includes `until` if that is a day, but not a time; None means no limit."""
    if since is None or until is None:
        return False
    return until < since or (until == since and isinstance(until, datetime))
