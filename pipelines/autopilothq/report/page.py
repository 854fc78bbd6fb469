"""Builds the page: one HTML file, without scripts or external resources."""

from .elements import Markup, element, join
from .numbers import Report
from .parts.days import days
from .parts.domains import domains
from .parts.journeys import emails, journeys, links
from .parts.overview import findings, head
from .parts.tiles import tiles
from .parts.timing import cohorts, machines, opening, sending
from .parts.trust import trust
from .theme import style_sheet

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_PARTS = (
    ("days", "Days"),
    ("journeys", "Journeys"),
    ("links", "Links"),
    ("domains", "Domains"),
    ("opening", "Timing"),
    ("cohorts", "Cohorts"),
    ("trust", "Trust"),
)


def report_page(report: Report) -> str:
    """Returns the page as HTML."""
    body = element(
        "main",
        head(report),
        _contents(),
        tiles(report),
        findings(report),
        days(report),
        journeys(report),
        emails(report),
        links(report),
        domains(report),
        opening(report),
        machines(report),
        sending(report),
        cohorts(report),
        trust(report),
        _foot(),
    )
    document = element("html", _head(), element("body", body), lang="en")
    return f"<!doctype html>\n{document}\n"


def _head() -> Markup:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", "autopilothq email report"),
        element("style", Markup(style_sheet())),
    )


def _contents() -> Markup:
    return element("nav", *(element("a", name, href=f"#{anchor}") for anchor, name in _PARTS), aria_label="Parts")


def _foot() -> Markup:
    made = join(
        "Made by ", element("code", "autopilothq report"), ". No scripts, no network: all of it is in this file."
    )
    return element("footer", made)
