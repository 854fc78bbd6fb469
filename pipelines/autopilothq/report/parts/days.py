"""The part about days: a plot of deliveries, opens and clicks, and a table of all numbers."""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import groupby

from ...display import plural
from ..assemble import drawn, events_of
from ..charts import Line, plot
from ..elements import Markup, data_cell, division, element, row, table
from ..numbers import DAY_COUNTS, Absent, Day, Report, sum_of
from ..wording import MONTHS, long_day, moment_of, number, short_day
from . import absent, card

_TITLE = "What happened, day by day"
MOST_DAYS, MOST_WEEKS = 200, 1_400  # days of the longest period that is shown by day, and by week


def days(report: Report) -> Markup:
    """Returns the plot and the table."""
    if isinstance(report.days, Absent):
        return absent("days", _TITLE, report.days)
    found = drawn(report.days)
    unit, shown = grouped(found)
    last = report.period.last
    note = (
        "Events by the UTC day of their own timestamp. Opens and clicks count every time. "
        f"Point at a {unit} for its numbers."
    )
    if last and not report.period.until and found[-1] is report.days[-1]:
        note += f" The last {unit} goes until the last event, {moment_of(last)}."
    note += _not_drawn(report.days, found)
    # The year is shown if there are several.
    names = [_name(unit, day.day, shown[0].day.year != shown[-1].day.year) for day in shown]
    lines = [
        Line(name.capitalize(), color, [getattr(day, name) for day in shown])
        for name, color in (("delivered", "delivered"), ("opens", "opened"), ("clicks", "clicked"))
    ]
    title = _TITLE if unit == "day" else f"What happened, {unit} by {unit}"
    label = f"{lines[0].name}, {lines[1].name} and {lines[2].name} by {unit}, {names[0]} to {names[-1]}"
    return card("days", title, note, plot(names, lines, label), _table(unit, names, shown))


def _not_drawn(every: Sequence[Day], found: Sequence[Day]) -> str:
    """Returns a sentence about the events before and after the days that are drawn, or nothing without any."""
    first, last = found[0].day, found[-1].day
    before = sum(events_of(day) for day in every if day.day < first)
    after = sum(events_of(day) for day in every if day.day > last)
    counts = ((before, f"before {long_day(first)}"), (after, f"after {long_day(last)}"))
    named = [f"{plural(count, 'event')} {where}" for count, where in counts if count]
    are = "is" if before + after == 1 else "are"
    return f" {' and '.join(named)} {are} not drawn, but counted in all other numbers." if named else ""


def _table(unit: str, names: Sequence[str], shown: Sequence[Day]) -> Markup:
    columns = [(unit.capitalize(), ""), *((name.capitalize(), "n") for name in DAY_COUNTS)]
    rows = (
        row(name, *(data_cell(number(getattr(day, count)), "n") for count in DAY_COUNTS))
        for name, day in zip(names, shown, strict=True)
    )
    scroll = division("scroll", table("numbers", columns, rows))
    return element("details", element("summary", f"All numbers by {unit}"), scroll)


def grouped(found: Sequence[Day]) -> tuple[str, list[Day]]:
    """Returns the unit that suits the length of the period, and all its days, or the weeks or months with events."""
    length = (found[-1].day - found[0].day).days + 1
    if length <= MOST_DAYS:
        known = {day.day: day for day in found}
        every = (found[0].day + timedelta(days=n) for n in range(length))
        return "day", [known.get(day, Day(day)) for day in every]
    unit = "week" if length <= MOST_WEEKS else "month"
    groups = groupby(found, key=lambda day: _begin_of(unit, day.day))
    return unit, [_sum(begin, list(group)) for begin, group in groups]


def _begin_of(unit: str, day: date) -> date:
    """Returns the first day of a day's week (its Monday) or month."""
    return day.replace(day=1) if unit == "month" else day - timedelta(days=day.weekday())


def _sum(begin: date, group: Sequence[Day]) -> Day:
    sums = {name: sum(getattr(day, name) for day in group) for name in DAY_COUNTS}
    return Day(begin, rated=sum_of(day.rated for day in group), **sums)


def _name(unit: str, day: date, with_year: bool) -> str:
    if unit == "month":
        return f"{MONTHS[day.month - 1]} {day.year}"
    return long_day(day) if with_year else short_day(day)
