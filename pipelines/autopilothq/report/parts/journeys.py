"""The parts about journeys, emails and links: funnels, rates, and clicked links."""

from collections.abc import Sequence

from ...display import plural
from ..charts import bar, named_bar
from ..elements import Markup, data_cell, display_name, division, element, join, row, span, table
from ..numbers import Absent, EmailFunnel, JourneyFunnel, Report
from ..wording import number, rate
from . import absent, card

_MOST_JOURNEYS, _MOST_EMAILS = 12, 15  # shown at once
_MOST_MORE = 100  # shown after a click
NO_JOURNEY = "Without a journey"
NO_EMAIL = "Without a name"


def journeys(report: Report) -> Markup:
    """Returns a funnel of bars for each journey that delivered mail."""
    title = "How far people get, by journey"
    if isinstance(report.journeys, Absent):
        return absent("journeys", title, report.journeys)
    found = report.journeys
    note = (
        "One count for each person and email. Percent of the "
        "people × emails that got the mail early enough to open it. Journeys that delivered nothing are not shown."
    )
    most = max(journey.funnel.rated for journey in found)
    funnels = [_funnel(journey, most) for journey in found[: _MOST_JOURNEYS + _MOST_MORE]]
    shown, rest = division("funnels", *funnels[:_MOST_JOURNEYS]), division("funnels", *funnels[_MOST_JOURNEYS:])
    return card("journeys", title, note, shown, _more(len(found) - _MOST_JOURNEYS, "journey", rest))


def _more(count: int, word: str, content: Markup) -> Markup | None:
    if count <= 0:
        return None
    title = plural(count, f"more {word}")
    rest = f"{title}, the largest {_MOST_MORE} of them; all are in --json" if count > _MOST_MORE else title
    return element("details", element("summary", rest), content)


def _funnel(journey: JourneyFunnel, most: int) -> Markup:
    funnel = journey.funnel
    steps = [("Delivered", "delivered", funnel.rated), ("Opened", "opened", funnel.opened)]
    steps.append(("Clicked", "clicked", funnel.clicked))
    young = funnel.delivered - funnel.rated
    return division(
        "funnel",
        element("h3", display_name(journey.name or NO_JOURNEY)),
        *(
            named_bar(name, count, most, color, "" if color == "delivered" else rate(count, funnel.rated))
            for name, color, count in steps
        ),
        element("p", f"and {number(young)} too young for rates", class_="young") if young else None,
    )


def emails(report: Report) -> Markup | None:
    """Returns a table of all emails with their rates; None if the journeys have none."""
    if isinstance(report.journeys, Absent):
        return None
    found = [(journey, email) for journey in report.journeys for email in journey.emails]
    found.sort(key=lambda pair: -pair[1].funnel.rated)
    note = (
        "The same, for each email. Click-through is clicked in percent of opened, and may be above 100%, because not "
        "every click comes with an open that is known; the other rates are of the people who got it early enough to "
        "open it."
    )
    shown, rest = _emails(found[:_MOST_EMAILS]), _emails(found[_MOST_EMAILS:][:_MOST_MORE])
    return card("emails", "Which emails work", note, shown, _more(len(found) - _MOST_EMAILS, "email", rest))


def _emails(found: Sequence[tuple[JourneyFunnel, EmailFunnel]]) -> Markup:
    columns = [("Email", ""), ("People", "n"), ("Opened", "n bars"), ("Clicked", "n bars"), ("Click-through", "n wide")]
    columns += [("Replied", "n wide"), ("Unsubscribed", "n wide")]
    return table("emails", columns, (_email(journey, email) for journey, email in found))


def _email(journey: JourneyFunnel, email: EmailFunnel) -> Markup:
    funnel = email.funnel
    bars = (
        (title, join(bar(count, funnel.rated, title.lower()), span("n", rate(count, funnel.rated))))
        for title, count in (("Opened", funnel.opened), ("Clicked", funnel.clicked))
    )
    return row(
        _name_of(email.name or email.id or NO_EMAIL, email.subject, journey.name),
        data_cell(number(funnel.rated), "n", data_label="People"),
        *(data_cell(content, "n bars", data_label=title) for title, content in bars),
        data_cell(rate(funnel.clicked, funnel.opened), "n wide"),
        data_cell(rate(funnel.replied, funnel.rated), "n wide"),
        data_cell(rate(funnel.unsubscribed, funnel.rated), "n wide"),
    )


def _name_of(name: str, *below: str | None) -> Markup:
    """Returns the name of a row, and below it the other names that are known."""
    return join(
        span("main", display_name(name)), span("sub", " · ".join(display_name(other) for other in below if other))
    )


def links(report: Report) -> Markup:
    """Returns a table of the links that the most people clicked."""
    title = "Which links are clicked"
    if isinstance(report.links, Absent):
        return absent("links", title, report.links)
    note = "The rate is the people who clicked the link, of all who got its email early enough to open it."
    columns = [("Link, email", ""), ("", "bars"), ("People", "n"), ("Clicks", "n narrow"), ("Rate", "n")]
    most = max(link.people for link in report.links)
    rows = (
        row(
            _name_of(link.url or "Without an address", link.email, link.journey),
            data_cell(bar(link.people, most, "clicked"), "bars"),
            data_cell(number(link.people), "n"),
            data_cell(number(link.clicks), "n narrow"),
            data_cell(rate(link.people, link.rated), "n"),
        )
        for link in report.links
    )
    return card("links", title, note, table("links", columns, rows))
