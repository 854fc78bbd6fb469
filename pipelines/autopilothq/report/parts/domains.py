"""The part about mailbox domains: bounces, complaints and unsubscribes, with the providers' limits."""

from ...display import plural
from ..charts import rated
from ..elements import Markup, display_name, element, span, table
from ..numbers import Absent, MailboxDomain, Report
from ..wording import number
from . import absent, card
from .overview import of_domain

_TITLE = "Is the mail welcome, by mailbox domain"
RATES = (("Bounced", "bounces"), ("Complaints", "complaints"), ("Unsubscribed", "unsubscribes"))


def domains(report: Report) -> Markup:
    """Returns a table of domains, with a bar and the limit for each rate."""
    if isinstance(report.domains, Absent):
        return absent("domains", _TITLE, report.domains)
    head = [element("th", "Domain"), element("th", "People × emails", class_="n")]
    head += [element("th", title) for title, _ in RATES]
    rows = (_row(domain, report) for domain in report.domains)
    return card("domains", _TITLE, _note(report), table("domains", head, rows))


def _note(report: Report) -> str:
    bounces, complaints, unsubscribes = (report.limits[name] for _, name in RATES)
    between = f"below {complaints.goal:g}%" + (f", never {complaints.most:g}%" * (complaints.most > complaints.goal))
    return (
        f"Limits of the large mailbox providers: complaints {between}; bounces below {bounces.most:g}%. The marks are "
        f"these limits. Unsubscribes have none: {unsubscribes.most:g}% is a usual alarm. Bounces are of the people × "
        "emails sent, the other two of those delivered early enough to be opened."
    )


def _row(domain: MailboxDomain, report: Report) -> Markup:
    name = display_name(domain.name) if domain.name is not None else plural(domain.domains, "other domain")
    return element(
        "tr",
        element("th", span("main", name), scope="row"),
        element("td", number(domain.sent), class_="n", data_label="People × emails"),
        *(element("td", rated(of_domain(domain, of), report.limits[of]), data_label=title) for title, of in RATES),
    )
