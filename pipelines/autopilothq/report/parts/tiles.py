"""The tiles: one for each key number."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ...display import plural
from ..assemble import drawn
from ..charts import flag, sparkline, verdict
from ..elements import Markup, division, element, join
from ..numbers import Absent, Day, RateLimit, Report, Totals
from ..wording import PAIRS, bounds, moment_of, number, percents, rate, rounded, share
from . import absent
from .days import grouped

Value = Callable[[Day], float | None]


class _Courses(NamedTuple):
    """Draws values over days, weeks or months, for tiles."""

    unit: str
    days: Sequence[Day]

    def draw(self, title: str, value: Value, write: Callable[[float], str] = percents) -> Markup:
        """Returns a sparkline of a value, with its range below."""
        values = [value(day) for day in self.days]
        known = [point for point in values if point is not None]
        if len(known) < 2:
            return division("spark")
        low, high = write(min(known)), write(max(known))
        between = f"{low} – {high}" if low != high else low
        caption = division("range", f"{between} a {self.unit}")
        return join(sparkline(values, f"{title} by {self.unit}, from {low} to {high}"), caption)


def tiles(report: Report) -> Markup:
    """Returns a tile for each rate, with its denominator and its course over time."""
    totals = report.totals
    if isinstance(totals, Absent):
        return absent("numbers", "The numbers in short", totals)
    return join(division("tiles", *_tiles(report, totals), id="numbers"), _rated_note(report, totals))


def _tiles(report: Report, totals: Totals) -> Iterator[Markup]:
    courses = _Courses("day", ()) if isinstance(report.days, Absent) else _Courses(*grouped(drawn(report.days)))
    to = f"{plural(totals.deliveries, 'delivery', 'deliveries')} to {plural(totals.people, 'person', 'people')}"
    course = courses.draw("Deliveries", lambda day: float(day.delivered), rounded)
    yield _tile("Delivered", rounded(totals.deliveries), to, None, course)
    of_rated = f"of {number(totals.rated)} {PAIRS}"
    through = f"; {rate(totals.clicked, totals.opened)} of opened" if totals.opened else ""
    for title, part, more in (("Opened", totals.opened, ""), ("Clicked", totals.clicked, through)):
        course = courses.draw(title, _of_rated(title.lower()))
        yield _tile(title, rate(part, totals.rated), f"{number(part)} {of_rated}{more}", None, course)
    sent = f"{number(totals.bounced)} of {number(totals.sent)} {PAIRS} sent"
    course = courses.draw("Bounces of all sent", lambda day: share(day.bounces, day.bounces + day.delivered))
    yield _limited("Bounced", share(totals.bounced, totals.sent), sent, report.limits["bounces"], course)
    for title, name, part in (
        ("Complaints", "complaints", totals.complained),
        ("Unsubscribed", "unsubscribes", totals.unsubscribed),
    ):
        course = courses.draw(title, _of_rated("complained" if name == "complaints" else "unsubscribed"))
        more = f"{number(part)} {of_rated}"
        yield _limited(title, share(part, totals.rated), more, report.limits[name], course)


def _limited(title: str, value: float | None, more: str, limit: RateLimit, course: Markup) -> Markup:
    sign = flag(verdict(value, limit), " the limit")
    return _tile(title, percents(value), f"{more}; keep {bounds(limit)}", sign, course)


def _tile(title: str, value: str, more: str, sign: Markup | None, course: Markup) -> Markup:
    return division(
        "tile", element("h3", title), division("value", value), element("p", more, class_="more"), sign, course
    )


def _of_rated(name: str) -> Value:
    return lambda day: share(getattr(day.rated, name), day.rated.rated)


def _rated_note(report: Report, totals: Totals) -> Markup:
    left = totals.delivered - totals.rated
    last, until = report.period.last, moment_of(report.period.rated_until)
    youngest = f" (the last event is of {moment_of(last)})" if last else ""
    why = (
        f"Rates are of {PAIRS}: a person counts once for each email, however often it came or was opened. "
        f"Mail delivered after {until} is left out of them, because it may still be opened"
        f"{youngest}: {number(left)} of {number(totals.delivered)}."
    )
    return element("p", why if left else why.partition(" Mail")[0], class_="rated-note")
