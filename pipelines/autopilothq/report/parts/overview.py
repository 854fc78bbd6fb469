"""The head of the page: what it is about, what stands out, and a tile for each rate."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from ..charts import flag, sparkline, verdict
from ..elements import Content, Markup, division, element, join, name_of, span
from ..numbers import Absent, Day, Funnel, Limit, MailboxDomain, Report, ReportPeriod, Totals
from ..wording import length, long_day, moment_of, number, percents, plural, rate, rounded, share
from . import absent, card

_ENOUGH = 200  # people x emails: fewer give rates that say little
PAIRS = "people × emails"
_NO_JOURNEY = "Mail without a journey"
_OLD = timedelta(days=2)

Signed = tuple[str, str, str]
"""A sentence that stands out: its class, its sign, and its text."""


def head(report: Report) -> Markup:
    """Returns the title, the period, and how fresh the events are."""
    period = report.period
    last = period.last
    age = f"last event {length((report.made_at - last).total_seconds())} ago" if last else "no event"
    facts = [_span(period), plural(period.events, "event"), age, f"made {moment_of(report.made_at)}"]
    chosen = [f"Only {name}" for name in (", ".join(report.chosen),) if name]
    return element(
        "header",
        element("h1", element("b", "autopilothq"), " email report"),
        element("p", *_with_dots(facts), class_="facts"),
        element("p", *_with_dots([report.target, *chosen]), class_="facts"),
    )


def _with_dots(facts: Sequence[str]) -> Iterator[Content]:
    for n, fact in enumerate(facts):
        yield from ([" · "] if n else [])
        yield span("fact", fact)


def _span(period: ReportPeriod) -> str:
    if period.first is None or period.last is None:
        return "no events"
    return f"{long_day(period.first.date())} – {long_day(period.last.date())}"


# ---- what stands out -----------------------------------------------------------------------------------------------


def findings(report: Report) -> Markup | None:
    """Returns what a reader should look at first, in sentences; None where there is nothing to say."""
    found = [*_limits(report), *_journeys(report), *_trust(report)]
    rows = (
        element("li", span(f"sign {color}", sign), span(None, sentence), class_="finding")
        for color, sign, sentence in found
    )
    return card("findings", "What stands out", None, element("ul", *rows, class_="findings")) if found else None


def _limits(report: Report) -> Iterator[Signed]:
    totals = report.totals
    if isinstance(totals, Absent):
        return
    for name, part, whole in (
        ("bounces", totals.bounced, totals.sent),
        ("complaints", totals.complained, totals.rated),
        ("unsubscribes", totals.unsubscribed, totals.rated),
    ):
        value, limit = share(part, whole), report.limits[name]
        over = _domains_over(report, name)
        if (found := verdict(value, limit)) or over:
            # A domain of its own can be over a limit that all mail together keeps.
            sign = ("over", "▲") if found == "over" or over else ("near", "●")
            yield *sign, f"{name.capitalize()} are {percents(value)}: {_stands(found, limit)}{over}."


def _stands(found: str, limit: Limit) -> str:
    return {
        "over": f"over the limit of {limit.most:g}%",
        "near": f"above {limit.goal:g}%, which providers want, and below {limit.most:g}%, from which on they block",
        "": f"below {limit.goal:g}%",
    }[found]


def _domains_over(report: Report, name: str) -> str:
    if isinstance(report.domains, Absent):
        return ""
    limit = report.limits[name]
    names = [
        name_of(domain.name)
        for domain in report.domains
        if domain.name and domain.rated >= _ENOUGH and verdict(of_domain(domain, name), limit) == "over"
    ]
    return f"; over the limit at {', '.join(names[:3])}{' and others' * (len(names) > 3)}" if names else ""


def of_domain(domain: MailboxDomain, name: str) -> float | None:
    """Returns a domain's rate in percent: `bounces` of what was sent, the others of what is rated."""
    part, whole = {
        "bounces": (domain.bounced, domain.sent),
        "complaints": (domain.complained, domain.rated),
        "unsubscribes": (domain.unsubscribed, domain.rated),
    }[name]
    return share(part, whole)


def _journeys(report: Report) -> Iterator[Signed]:
    if isinstance(report.journeys, Absent):
        return
    known = [
        (share(one.funnel.opened, one.funnel.rated), one) for one in report.journeys if one.funnel.rated >= _ENOUGH
    ]
    ranked = sorted(((value, one) for value, one in known if value is not None), key=lambda pair: pair[0])
    if len(ranked) > 1:
        (low, worst), (high, best) = ranked[0], ranked[-1]
        most, least = name_of(best.name or _NO_JOURNEY), name_of(worst.name or _NO_JOURNEY.lower())
        sentence = (
            f"{most} is opened most ({percents(high)}), {least} least ({percents(low)}), among journeys of "
            f"{_ENOUGH:,} and more {PAIRS}."
        )
        yield "opened-text", "→", sentence


def _trust(report: Report) -> Iterator[Signed]:
    last = report.period.last
    if last and report.made_at - last > _OLD and report.period.until is None:
        age = length((report.made_at - last).total_seconds())
        yield "near", "●", f"The last event is {age} old. If mail was sent since, look whether loads still run."
    if isinstance(report.books, Absent):
        return
    total = report.books.total
    missing = total.lines - total.stored - total.duplicates - total.rejected
    if missing:
        yield "over", "▲", f"{plural(abs(missing), 'line')} of the files are not accounted for."
    elif total.rejected:
        yield "near", "●", f"{plural(total.rejected, 'line')} of {number(total.lines)} could not be read; see Rejected."
    elif total.lines:
        yield "good", "✓", f"All {number(total.lines)} lines of {plural(total.files, 'file')} are accounted for."


# ---- tiles ---------------------------------------------------------------------------------------------------------


def tiles(report: Report) -> Markup:
    """Returns a tile for each number that people ask for first, with what it is a share of, and its course."""
    totals = report.totals
    if isinstance(totals, Absent):
        return absent("numbers", "The numbers in short", totals)
    return join(division("tiles", *_tiles(report, totals), id="numbers"), _rated_note(report, totals))


def _tiles(report: Report, totals: Totals) -> Iterator[Markup]:
    days: Sequence[Day] = () if isinstance(report.days, Absent) else report.days
    of_rated = f"of {number(totals.rated)} {PAIRS}"
    opened = f"{rate(totals.clicked, totals.opened)} of those who opened"
    yield _tile(
        "Delivered",
        rounded(totals.deliveries),
        f"{plural(totals.deliveries, 'delivery', 'deliveries')} to {plural(totals.people, 'person', 'people')}",
        None,
        _course(days, lambda day: float(day.delivered), "Deliveries a day"),
    )
    for title, part, more, name in (
        ("Opened", totals.opened, f"{number(totals.opened)} {of_rated}", "opened"),
        ("Clicked", totals.clicked, f"{number(totals.clicked)} {of_rated}; {opened}", "clicked"),
    ):
        yield _tile(title, rate(part, totals.rated), more, None, _course(days, _of_rated(name), f"{title}, by day"))
    sent = f"{number(totals.bounced)} of {number(totals.sent)} {PAIRS} sent"
    yield _limited(
        "Bounced",
        totals.bounced,
        totals.sent,
        sent,
        report.limits["bounces"],
        _course(days, lambda day: share(day.bounces, day.bounces + day.delivered), "Bounces of all sent, by day"),
    )
    for title, name, attribute in (
        ("Complaints", "complaints", "complained"),
        ("Unsubscribed", "unsubscribes", "unsubscribed"),
    ):
        part = getattr(totals, attribute)
        more = f"{number(part)} {of_rated}"
        course = _course(days, _of_rated(attribute), f"{title}, by day")
        yield _limited(title, part, totals.rated, more, report.limits[name], course)


def _limited(title: str, part: int, whole: int, more: str, limit: Limit, course: Markup) -> Markup:
    value = share(part, whole)
    keep = f"keep below {limit.goal:g}%" + (f", never {limit.most:g}%" if limit.most > limit.goal else "")
    return _tile(title, percents(value), f"{more}; {keep}", flag(verdict(value, limit)), course)


def _tile(title: str, value: str, more: str, sign: Markup | None, course: Markup) -> Markup:
    return division(
        "tile", element("h3", title), division("value", value), element("p", more, class_="more"), sign, course
    )


def _of_rated(name: str) -> Callable[[Day], float | None]:
    def value(day: Day) -> float | None:
        funnel: Funnel = day.rated
        return share(getattr(funnel, name), funnel.rated)

    return value


def _course(days: Sequence[Day], value: Callable[[Day], float | None], label: str) -> Markup:
    values = [value(day) for day in days]
    known = [one for one in values if one is not None]
    if len(known) < 2:
        return division("spark")
    write = rounded if label.startswith("Deliveries") else percents
    low, high = write(min(known)), write(max(known))
    caption = division("range", f"{low} – {high} a day" if low != high else f"{low} a day")
    return join(sparkline(values, f"{label}: from {low} to {high}"), caption)


def _rated_note(report: Report, totals: Totals) -> Markup:
    until = report.period.rated_until
    left = totals.delivered - totals.rated
    if not until:
        return element("p", class_="rated-note")
    last = report.period.last
    youngest = f" (the last event is of {moment_of(last)})" if last else ""
    why = (
        f"Rates are of {PAIRS}: a person counts once for each email, however often it came or was opened. "
        f"Mail delivered after {moment_of(until)} is left out of them, because it may still be opened"
        f"{youngest}: {number(left)} of {number(totals.delivered)}."
    )
    return element("p", why if left else why.partition(" Mail")[0], class_="rated-note")
