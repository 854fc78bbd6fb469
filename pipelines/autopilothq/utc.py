"""Times in UTC, in which some at the ends of the calendar do not exist."""

from datetime import UTC, date, datetime, timedelta

DAY_SECONDS = 86_400
DAY_MS = 1000 * DAY_SECONDS
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_utc(time: datetime) -> datetime:
    """Returns the time in UTC. Raises ValueError if it has none there: `0001-01-01T00:00:00+02:00`."""
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def parse_time(time: str | datetime) -> datetime:
    """Returns a time in ISO 8601, UTC if it names no zone. Raises ValueError if it is no time, or has none in UTC."""
    found = datetime.fromisoformat(time) if isinstance(time, str) else time
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    to_utc(found)
    return found


def epoch_ms(time: datetime) -> int:
    """Returns a time in whole milliseconds since 1970, the finest unit that all destinations keep."""
    return (time.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def is_empty(since: date | None, until: date | None) -> bool:
    """Returns whether a period has nothing in it. A day to end with is part of it, a time is not; None is no limit."""
    if since is None or until is None:
        return False
    return until < since or (until == since and isinstance(until, datetime))
