"""Formats numbers, shares, days and spans of time for the page, in English and in UTC."""

from datetime import UTC, date, datetime

from ..utc import DAY_SECONDS
from .numbers import RateLimit

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
PAIRS = "people\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}emails"
NO_SHARE = "–"


def number(value: int) -> str:
    """Formats a whole number. Example: `number(115158) == "115,158"`."""
    return f"{value:,}"


def rounded(value: float) -> str:
    """Formats a number with three digits at most. Example: `rounded(115_158) == "115k"`, `rounded(1_500) == "1.5k"`."""
    for size, sign in ((1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{sign}"
    return f"{value:g}"


def share(part: float, whole: float) -> float | None:
    """Returns a share in percent, or None if the whole is 0."""
    return 100 * part / whole if whole else None


def percents(value: float | None) -> str:
    """Formats a percentage with two decimals if it is below ten, otherwise with one.

    Example: `percents(1.994) == "1.99%"`, `percents(46.44) == "46.4%"`, `percents(0.001) == "<0.01%"`.
    """
    if value is None:
        return NO_SHARE
    if 0 < value < 0.005:
        return "<0.01%"
    digits = 2 if 0 < value < 9.995 else 1
    shown = f"{value:.{digits}f}"
    return f"{shown.removesuffix('.0')}%" if value in (0, 100) else f"{shown}%"


def bounds(limit: RateLimit) -> str:
    """Formats a limit. Example: `bounds(RateLimit(0.1, 0.3)) == "below 0.1%, never 0.3%"`."""
    never = f", never {limit.most:g}%" if limit.most > limit.goal else ""
    return f"below {limit.goal:g}%{never}"


def rate(part: float, whole: float) -> str:
    """Formats a share as a percentage. Example: `rate(1, 3) == "33.3%"`."""
    return percents(share(part, whole))


def short_day(day: date) -> str:
    """Formats a day without the year. Example: `short_day(date(2019, 3, 1)) == "1 Mar"`."""
    return f"{day.day} {MONTHS[day.month - 1]}"


def long_day(day: date) -> str:
    """Formats a day. Example: `long_day(date(2019, 3, 1)) == "1 Mar 2019"`."""
    return f"{short_day(day)} {day.year}"


def moment_of(at: datetime | None) -> str:
    """Formats a time. Example: `moment_of(datetime(2019, 3, 1, 9, 5, tzinfo=UTC)) == "1 Mar 2019 09:05 UTC"`."""
    if at is None:
        return NO_SHARE
    at = at.astimezone(UTC)
    return f"{long_day(at.date())} {at:%H:%M} UTC"


def length(seconds: float) -> str:
    """Formats a span of time in its largest unit. Example: `length(28_700) == "8 h"`, `length(90) == "2 min"`."""
    for size, unit, units in ((DAY_SECONDS, "day", "days"), (3_600, "h", "h"), (60, "min", "min")):
        if seconds >= size * 0.995:
            rounded = round(seconds / size)
            return f"{rounded:,} {unit if rounded == 1 else units}"
    return f"{max(0, round(seconds))} s"
