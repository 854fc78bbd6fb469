"""The head of the page: its target and period, and the findings."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ...display import plural
from ..assemble import drawn
from ..charts import OVER, SIGNS, verdict
from ..elements import Content, Markup, display_name, element, span
from ..numbers import Absent, Day, MailboxDomain, RateLimit, Report
from ..wording import PAIRS, length, long_day, moment_of, number, percents, share
from . import card

_ENOUGH = 200  # people x emails; rates of fewer are not meaningful
_NO_JOURNEY = "Mail without a journey"
_OLD = timedelta(days=2)

Signed = tuple[str, str, str]
"""A finding: the class of its colour, its sign, and its sentence."""


def head(report: Report) -> Markup:
    """Returns the title, the period, and how fresh the events are."""
    period = report.period
    last = period.last
    age = f"last event {length((report.made_at - last).total_seconds())} ago" if last else ""
    found = [_span(report.days), plural(period.events, "email event"), age] if last else ["no email events"]
    facts = [*found, f"made {moment_of(report.made_at)}"]
    chosen = [f"Only {name}" for name in (", ".join(map(display_name, report.chosen)),) if name]
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


def _span(days: Sequence[Day] | Absent) -> str:
    if isinstance(days, Absent):
        return "no days"
    found = drawn(days)
    return f"{long_day(found[0].day)} – {long_day(found[-1].day)}"


# ---- findings ------------------------------------------------------------------------------------------------------


def findings(report: Report) -> Markup | None:
    """Returns sentences about what a reader should look at first, or None if there are none."""
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
            # A single domain can be over a limit although all mail together is below it.
            stronger = OVER if over else found
            yield (
                stronger,
                SIGNS[stronger],
                f"{name.capitalize()} are {percents(value)}, {_stands(found, limit, over)}.",
            )


def _stands(found: str, limit: RateLimit, over: str) -> str:
    at = f"over the limit of {limit.most:g}% at {over}" if over else ""
    return {
        "over": f"over the limit of {limit.most:g}%{f' ({over})' if over else ''}",
        "near": f"above the {limit.goal:g}% that providers want and {at or f'below {limit.most:g}%'}",
        "": f"below {limit.goal:g}%{f', but {at}' if over else ''}",
    }[found]


def _domains_over(report: Report, name: str) -> str:
    if isinstance(report.domains, Absent):
        return ""
    limit = report.limits[name]
    names = [
        display_name(domain.name)
        for domain in report.domains
        if domain.name and _counts(domain, name)[1] >= _ENOUGH and verdict(of_domain(domain, name), limit) == OVER
    ]
    return ", ".join(names[:3]) + (" and others" * (len(names) > 3))


def of_domain(domain: MailboxDomain, name: str) -> float | None:
    """Returns a domain's rate in percent."""
    return share(*_counts(domain, name))


def _counts(domain: MailboxDomain, name: str) -> tuple[int, int]:
    """Returns the numerator and the denominator of a rate: `bounces` of sent mail, the others of rated mail."""
    return {
        "bounces": (domain.bounced, domain.sent),
        "complaints": (domain.complained, domain.rated),
        "unsubscribes": (domain.unsubscribed, domain.rated),
    }[name]


def _journeys(report: Report) -> Iterator[Signed]:
    if isinstance(report.journeys, Absent):
        return
    known = [
        (100 * journey.funnel.opened / journey.funnel.rated, journey)
        for journey in report.journeys
        if journey.funnel.rated >= _ENOUGH
    ]
    ranked = sorted(known, key=lambda pair: pair[0])
    if len(ranked) > 1 and ranked[0][0] < ranked[-1][0]:
        (low, worst), (high, best) = ranked[0], ranked[-1]
        most, least = display_name(best.name or _NO_JOURNEY), display_name(worst.name or _NO_JOURNEY.lower())
        sentence = (
            f"{most} is opened most ({percents(high)}), {least} least ({percents(low)}), among journeys of "
            f"{_ENOUGH:,} and more {PAIRS}."
        )
        yield "opened-text", "→", sentence


def _trust(report: Report) -> Iterator[Signed]:
    last = report.period.last
    if last and report.made_at - last > _OLD and report.period.until is None:
        age = length((report.made_at - last).total_seconds())
        yield "near", "●", f"The last event is {age} old. If mail was sent since, check whether loads still run."
    if not isinstance(report.arrival, Absent) and (ahead := report.arrival.ahead):
        dated = f"{plural(ahead, 'event')} {_are(ahead)} dated a day or more after the receipt"
        yield "near", "●", f"{dated}, and left out of all numbers but those of arrival."
    if isinstance(report.books, Absent):
        return
    total = report.books.total
    if missing := abs(total.missing):
        yield "over", "▲", f"{plural(missing, 'line')} of the files {_are(missing)} not accounted for."
    elif total.rejected:
        yield "near", "●", f"{plural(total.rejected, 'line')} of {number(total.lines)} could not be read; see Rejected."
    elif total.lines:
        lines = f"{'All' if total.lines > 1 else 'The'} {plural(total.lines, 'line')}"
        yield "good", "✓", f"{lines} of {plural(total.files, 'file')} {_are(total.lines)} accounted for."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
