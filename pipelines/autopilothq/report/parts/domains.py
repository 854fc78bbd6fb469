"""The part about mailbox domains: bounces, complaints and unsubscribes, with the providers' limits."""

from ...display import plural
from ..charts import rated
from ..elements import Markup, data_cell, display_name, row, span, table
from ..numbers import Absent, MailboxDomain, Report
from ..wording import bounds, number
from . import absent, card
from .overview import of_domain

_TITLE = "Is the mail welcome, by mailbox domain"
RATES = (("Bounced", "bounces"), ("Complaints", "complaints"), ("Unsubscribed", "unsubscribes"))


def domains(report: Report) -> Markup:
    """Returns a table of domains, with a bar and the limit for each rate."""
    if isinstance(report.domains, Absent):
        return absent("domains", _TITLE, report.domains)
    columns = [("Domain", ""), ("People × emails", "n"), *((title, "") for title, _ in RATES)]
    rows = (_row(domain, report) for domain in report.domains)
    return card("domains", _TITLE, _note(report), table("domains", columns, rows))


def _note(report: Report) -> str:
    bounces, complaints, unsubscribes = (report.limits[name] for _, name in RATES)
    return (
        f"Limits of the large mailbox providers: complaints {bounds(complaints)}; bounces below {bounces.most:g}%. "
        f"The marks are these limits. Unsubscribes have none: {unsubscribes.most:g}% is a usual alarm. Bounces are of "
        "the people × emails sent, the other two of those delivered early enough to be opened."
    )


def _row(domain: MailboxDomain, report: Report) -> Markup:
    name = display_name(domain.name) if domain.name is not None else plural(domain.domains, "other domain")
    return row(
        span("main", name),
        data_cell(number(domain.sent), "n", data_label="People × emails"),
        *(data_cell(rated(of_domain(domain, rate), report.limits[rate]), data_label=title) for title, rate in RATES),
    )
