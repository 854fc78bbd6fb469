"""The parts about journeys, emails and links: funnels, rates, and clicked links."""

from collections.abc import Sequence

from ...display import plural
from ..charts import bar, named_bar
from ..elements import Markup, display_name, division, element, join, span, table
from ..numbers import Absent, ClickedLink, EmailFunnel, Funnel, JourneyFunnel, Report
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
    most = max(one.funnel.rated for one in found)
    shown = division("funnels", *(_funnel(one, most) for one in found[:_MOST_JOURNEYS]))
    rest = division("funnels", *(_funnel(one, most) for one in found[_MOST_JOURNEYS:][:_MOST_MORE]))
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
    found = [(one, email) for one in report.journeys for email in one.emails]
    found.sort(key=lambda pair: -pair[1].funnel.rated)
    note = (
        "The same, for each email. Click-through is the share of those who opened that clicked; the other rates are of "
        "the people who got it early enough to open it."
    )
    shown, rest = _emails(found[:_MOST_EMAILS]), _emails(found[_MOST_EMAILS:][:_MOST_MORE])
    return card("emails", "Which emails work", note, shown, _more(len(found) - _MOST_EMAILS, "email", rest))


def _emails(found: Sequence[tuple[JourneyFunnel, EmailFunnel]]) -> Markup:
    heads = ("People", "Opened", "Clicked", "Click-through", "Replied", "Unsubscribed")
    classes = ("n", "n bars", "n bars", "n wide", "n wide", "n wide")
    head = [element("th", "Email"), *(element("th", a, class_=b) for a, b in zip(heads, classes, strict=True))]
    rows = (_email(journey, email) for journey, email in found)
    return table("emails", head, rows)


def _email(journey: JourneyFunnel, email: EmailFunnel) -> Markup:
    funnel: Funnel = email.funnel
    below = " · ".join(display_name(name) for name in (email.subject, journey.name) if name)
    return element(
        "tr",
        element("th", span("main", display_name(email.name or email.id or NO_EMAIL)), span("sub", below), scope="row"),
        element("td", number(funnel.rated), class_="n", data_label="People"),
        *(
            element(
                "td",
                bar(count, funnel.rated, title.lower()),
                span("n", rate(count, funnel.rated)),
                class_="n bars",
                data_label=title,
            )
            for count, title in ((funnel.opened, "Opened"), (funnel.clicked, "Clicked"))
        ),
        element("td", rate(funnel.clicked, funnel.opened), class_="n wide"),
        element("td", rate(funnel.replied, funnel.rated), class_="n wide"),
        element("td", rate(funnel.unsubscribed, funnel.rated), class_="n wide"),
    )


def links(report: Report) -> Markup:
    """Returns a table of the links that the most people clicked."""
    title = "Which links are clicked"
    if isinstance(report.links, Absent):
        return absent("links", title, report.links)
    note = "The rate is the people who clicked the link, of all who got its email early enough to open it."
    head = [element("th", "Link, email"), element("th", class_="bars")]
    head += [element("th", name, class_=f"n{' narrow' * (name == 'Clicks')}") for name in ("People", "Clicks", "Rate")]
    most = max(link.people for link in report.links)
    rows = (_link(link, most) for link in report.links)
    return card("links", title, note, table("links", head, rows))


def _link(link: ClickedLink, most: int) -> Markup:
    below = " · ".join(display_name(name) for name in (link.email, link.journey) if name)
    return element(
        "tr",
        element("th", span("main", display_name(link.url or "Without an address")), span("sub", below), scope="row"),
        element("td", bar(link.people, most, "clicked"), class_="bars"),
        element("td", number(link.people), class_="n"),
        element("td", number(link.clicks), class_="n narrow"),
        element("td", rate(link.people, link.rated), class_="n"),
    )


def all_of(report: Report) -> Markup:
    """Returns the parts about journeys, emails and links."""
    return join(journeys(report), emails(report), links(report))
